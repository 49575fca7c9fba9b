#!/bin/sh
# Lets systemd read the unit, with an executable that exists on this machine.
# usage: deploy/verify.sh BIN, the folder that heartbeat-service is in
set -eu

if ! command -v systemd-analyze >/dev/null; then
    echo "deploy/heartbeat.service: not verified, systemd-analyze is not here"
    exit 0
fi
bin=$(cd "$1" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sed "s|/opt/heartbeat-service/bin|$bin|" "$(dirname "$0")/heartbeat.service" \
    >"$folder/heartbeat.service"
said=$(systemd-analyze verify --man=no "$folder/heartbeat.service" 2>&1) || status=$?
if [ -n "$said" ] || [ "${status:-0}" != 0 ]; then
    echo "$said"
    exit 1
fi
echo "deploy/heartbeat.service: verified"
