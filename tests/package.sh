#!/bin/sh
# What `make dist` has built: is all in the source that git has, does the wheel, in an
# environment of its own, give a program that starts, answers a beat and stops, and is
# what is built from the source, as pip does it, that very wheel?
# usage: tests/package.sh BIN, the folder that pip is in
set -eu

folder=$(mktemp -d)
service=
trap '[ -z "$service" ] || kill "$service"; rm -rf "$folder"' EXIT

fail() {
    echo "$1" >&2
    exit 1
}

tar -tzf dist/*.tar.gz | cut -d/ -f2- | sort >"$folder/packed"
if git ls-files >"$folder/listed" 2>/dev/null; then
    sort "$folder/listed" | comm -23 - "$folder/packed" >"$folder/missing"
    [ ! -s "$folder/missing" ] || fail "the sdist lacks: $(cat "$folder/missing")"
fi

pip="$1/pip --quiet --disable-pip-version-check"
$pip wheel --no-deps -w "$folder/again" dist/*.tar.gz
cmp dist/*.whl "$folder"/again/*.whl || fail "the sdist gives another wheel"

package=$(echo dist/*.whl)
version=$(basename dist/*.tar.gz .tar.gz | cut -d- -f2)
venv="$folder/venv"
# Without a pip of its own, and uncompiled, it takes half of the time.
"$1/python" -m venv --without-pip "$venv"
pip="$pip --python $venv"
$pip install --no-compile -c requirements.txt "$package"
$pip check >/dev/null
check_pins() { # usage: check_pins FILES OF PINS
    cat "$@" >"$folder/pins"
    loose=$($pip freeze | grep -v '^heartbeat-service ' | grep -vxFf "$folder/pins") || :
    [ -z "$loose" ] || fail "$* doesn't pin $loose"
}
check_pins requirements.txt

"$venv/bin/twistd" --help >"$venv/help"
grep -q '^ *heartbeat  ' "$venv/help" ||
    fail "$package: twistd --help does not list heartbeat"
"$venv/bin/twistd" -n --pidfile= -r asyncio heartbeat --help >/dev/null
for program in heartbeat-service heartbeat-client heartbeat-curve-keys heartbeat-fleet heartbeatctl; do
    said=$("$venv/bin/$program" --version)
    [ "$said" = "heartbeat-service $version" ] ||
        fail "$package: $program --version says $said, not $version"
done
for file in heartbeat.service heartbeat.json heartbeat.rules.yml \
    cluster/heartbeat-node@.service cluster/haproxy.cfg; do
    [ -f "$venv/share/heartbeat-service/$file" ] ||
        fail "$package: $file isn't installed"
done

: >"$venv/log"
(cd "$venv" && exec bin/heartbeat-service --store memory: \
    --http tcp:0:interface=127.0.0.1 --router 'tcp://127.0.0.1:*' \
    --pub 'tcp://127.0.0.1:*') >>"$venv/log" 2>&1 &
service=$!
tries=300
until http=$(grep -o 'ready http=[0-9.:]*' "$venv/log"); do
    tries=$((tries - 1))
    [ $tries != 0 ] || fail "$package: not ready in 30 s: $(cat "$venv/log")"
    sleep 0.1 # until it says that it is ready
done
"$venv/bin/python" - "${http#*=}" <<'END' || fail "$package: $(cat "$venv/log")"
import json
import sys
from urllib.request import urlopen

beat = {
    "sdkVersion": 0.1,
    "timestamp": "2022-03-29 12:21:25.153292",
    "messageType": "HEARTBEAT",
    "body": {"clientID": "1", "clientState": "DISCONNECTED"},
}
url = f"http://{sys.argv[1]}/heartbeat"
answer = json.load(urlopen(url, json.dumps(beat).encode(), timeout=30))
assert answer["body"]["clientState"] == "UNCALIBRATED", answer
page = urlopen(f"http://{sys.argv[1]}/page/main.js", timeout=30)
assert page.status == 200, page.status
END
kill "$service"
wait "$service" 2>/dev/null || : # twistd ends by the signal that it was sent
service=
grep -q 'Server Shut Down' "$venv/log" ||
    fail "$package: ended otherwise: $(cat "$venv/log")"

# What a node on etcd needs besides: above it is seen that nobody else needs it.
$pip install --no-compile -c requirements.txt -c requirements-cluster.txt "$package[cluster]"
check_pins requirements.txt requirements-cluster.txt
"$venv/bin/python" -c "import heartbeat_service.storage.etcd.client"
echo "$package: installed, started, answered, stopped"
