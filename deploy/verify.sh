#!/bin/sh
# Lets systemd read the units, with executables that exist on this machine.
# usage: deploy/verify.sh BIN, the folder that heartbeat-service is in
set -eu

if ! command -v systemd-analyze >/dev/null; then
    echo "the units of deploy/: not verified, systemd-analyze is not here"
    exit 0
fi
bin=$(cd "$1" && pwd)
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for unit in *.service cluster/*.service; do
    # systemd has a template read by one that is made of it.
    copy="$folder/$(basename "$unit" | sed 's|@|@one|')"
    sed "s|/opt/heartbeat-service/bin|$bin|; s|/usr/bin/etcd|$bin/heartbeat-service|
        s|/usr/sbin/haproxy|$bin/heartbeat-service|" "$unit" >"$copy"
    said=$(systemd-analyze verify --man=no "$copy" 2>&1) || status=$?
    if [ -n "$said" ] || [ "${status:-0}" != 0 ]; then
        echo "$said"
        exit 1
    fi
    echo "deploy/$unit: verified"
done
