#!/bin/sh
# Installs the Debian package that python3 -m venv needs.
set -eu

if ! command -v apt-get >/dev/null; then
    echo "python3 -m venv does not work here: please install what it needs" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "Please install the package python3-venv, as root: apt-get install python3-venv" >&2
    exit 1
fi
$as_root apt-get update -qq
$as_root apt-get install -y -qq --no-install-recommends python3-venv
