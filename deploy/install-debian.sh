#!/bin/sh
# Installs packages of Debian that make needs, unless all are there. A server among them
# is not left running.
# usage: deploy/install-debian.sh PACKAGE...
set -eu
# Where root's programs are: neither cron's path nor that of a plain su names it.
PATH=$PATH:/usr/sbin:/sbin

new=
for package; do
    # One that was removed is still known, by its configuration.
    dpkg-query -Wf '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
        new="$new $package"
done
[ -n "$new" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "Please install what Debian calls: $*" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "Please install, as root: apt-get install $*" >&2
    exit 1
fi
$as_root apt-get update -qq
$as_root apt-get install -y -qq --no-install-recommends "$@"

# Debian starts a server that it installs, now and at each boot: only its program is wanted.
for package in $new; do
    for server in $(dpkg-query -L "$package" | sed -n 's|^/etc/init.d/||p'); do
        $as_root update-rc.d "$server" disable
        $as_root invoke-rc.d "$server" stop
    done
done
