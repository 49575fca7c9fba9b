#!/bin/sh
# Installs what make needs of Debian, and stops what Debian starts with it.
# usage: deploy/install-debian.sh PACKAGE...
set -eu

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

# A server runs from now on, and from each boot: here only its program is wanted.
for package; do
    if [ -x "/etc/init.d/$package" ]; then
        $as_root update-rc.d "$package" disable
        $as_root invoke-rc.d "$package" stop
    fi
done
