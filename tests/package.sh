#!/bin/sh
# A plain install into a new environment: does twistd know the plugin there?
# usage: tests/package.sh PYTHON
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$1" -m venv "$folder/venv"
pip="$folder/venv/bin/pip --quiet --disable-pip-version-check"
$pip install -r requirements.txt
$pip install --no-deps .
$pip check
cd "$folder"
venv/bin/twistd --help | grep -q '^ *heartbeat  ' || {
    echo "twistd --help does not list heartbeat"
    exit 1
}
venv/bin/twistd heartbeat --help >/dev/null
venv/bin/twistd -n --pidfile= -r asyncio heartbeat --help >/dev/null
echo "installed as a package: twistd lists heartbeat"
