"""The units under systemd itself, in a Debian of its own with the package installed.

systemd runs in a container, with its own processes, network and users.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.service import LONG, Row
from tests.integration.processes import BIN, ROOT
from tests.messages import heartbeat

#: Here the machine's own list of authorities is trusted, also where a proxy needs it.
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
DEBIAN = (
    "systemd,systemd-sysv,dbus,python3-venv,ca-certificates,curl,"
    "etcd-server,haproxy,iproute2"
)

#: As docs/operations.md has it, with the network of the machine.
INSTALL = """
python3 -m venv /opt/heartbeat-service
/opt/heartbeat-service/bin/pip install -c /srv/requirements.txt \\
    -c /srv/requirements-cluster.txt "$(echo /srv/*.whl)[cluster]"
/opt/heartbeat-service/bin/heartbeat-service --help
useradd --system --home-dir /nonexistent --shell /usr/sbin/nologin heartbeat
cp /opt/heartbeat-service/share/heartbeat-service/heartbeat.service /etc/systemd/system/
install -d -g heartbeat -m 2750 /etc/heartbeat-service
cat > /etc/heartbeat-service.toml <<END
operator-token-file = "/etc/heartbeat-service/operator-tokens"
curve-keys = "/etc/heartbeat-service/keys"
timebomb = 600
END
umask 027
echo first-token-of-tests > /etc/heartbeat-service/operator-tokens
/opt/heartbeat-service/bin/heartbeat-curve-keys /etc/heartbeat-service/keys
"""

#: What is tried once systemd runs; each line of its answer is a word and what it tells.
TRY = """
umask 027
ask() {
    curl -s --retry 30 --retry-connrefused --retry-delay 1 "$@"
}
chmod -R g+rX /etc/heartbeat-service
systemctl enable --now heartbeat
echo user $(stat -c %U /proc/$(systemctl show -P MainPID heartbeat))
echo beat $(ask http://127.0.0.1:6969/heartbeat -d @/srv/beat.json)
echo second-token-of-tests >> /etc/heartbeat-service/operator-tokens
/opt/heartbeat-service/bin/heartbeat-curve-keys /etc/heartbeat-service/keys \\
    --client headset-1 --out /srv/headset-1
chmod -R g+rX /etc/heartbeat-service
systemctl reload heartbeat
until journalctl -u heartbeat -o cat | grep '2 tokens are good now'; do sleep 0.2; done
systemctl kill -s KILL heartbeat
until [ "$(systemctl show -P NRestarts -P ActiveState heartbeat)" = "1
active" ]; do sleep 0.2; done
echo kept $(ask -H 'Authorization: Bearer second-token-of-tests' http://127.0.0.1:6969/clients)
systemctl stop heartbeat
echo ended $(systemctl show -P Result heartbeat)
echo store $(stat -c '%U %a' /var/lib/heartbeat-service)
systemd-analyze security heartbeat | grep -a Overall
journalctl -u heartbeat -o cat
"""

#: As docs/many-machines.md has it, with the addresses of all machines at this one, and
#: one member of etcd.
TRY_CLUSTER = """
umask 027
for last in 10 11 12 13; do ip addr add 192.0.2.$last/32 dev lo; done
systemctl disable --now etcd haproxy
cd /opt/heartbeat-service/share/heartbeat-service/cluster
cp *.service /etc/systemd/system/
sed 's/^\\(ETCD_INITIAL_CLUSTER=[^,]*\\),.*/\\1/' etcd.env >/etc/heartbeat-etcd.env
systemctl enable --now heartbeat-etcd
echo third-token-of-tests > /etc/heartbeat-service/client-tokens
last=11
for name in one two three; do
    sed "/^store/!s/192.0.2.11/192.0.2.$last/; s/timebomb = 10/timebomb = 600/" \\
        node.toml >/etc/heartbeat-service/$name.toml
    chmod -R g+rX /etc/heartbeat-service
    systemctl enable --now heartbeat-node@$name
    last=$((last + 1))
done
sed 's/"192.0.2.10:443 ssl.*"/192.0.2.10:443/; s|10.0.0.0/8|192.0.2.0/24|' \\
    haproxy.cfg >/etc/heartbeat-haproxy.cfg
chmod 644 /etc/heartbeat-haproxy.cfg
systemctl enable --now heartbeat-haproxy
ask() {
    token=$1 path=$2
    shift 2
    curl -s --retry 30 --retry-connrefused --retry-delay 1 -w ' %{http_code}\\n' \\
        -H "Authorization: Bearer $token-token-of-tests" \\
        "http://192.0.2.10:443$path" "$@"
}
echo beat $(ask third /heartbeat -d @/srv/beat.json)
echo drained $(ask first /nodes/two/drain -X POST)
systemctl kill -s KILL heartbeat-etcd
systemctl kill -s KILL heartbeat-node@three
systemctl reload heartbeat-haproxy heartbeat-node@one
sleep 40 # longer than the watchdog's time
echo restarts $(systemctl show -P NRestarts heartbeat-etcd \\
    heartbeat-node@one heartbeat-node@two heartbeat-node@three heartbeat-haproxy)
echo nodes $(ask first /nodes)
echo kept $(ask third /heartbeat -d @/srv/beat.json)
systemctl stop heartbeat-haproxy 'heartbeat-node@*' heartbeat-etcd
echo ended $(systemctl show -P Result heartbeat-etcd heartbeat-haproxy \\
    heartbeat-node@one heartbeat-node@two heartbeat-node@three)
systemd-analyze security heartbeat-etcd heartbeat-haproxy heartbeat-node@one | \\
    grep -a Overall
journalctl -u 'heartbeat*' -o cat
"""

TRIED = """
[Service]
Type=oneshot
ExecStart=sh -c 'timeout 120 sh /srv/try.sh >/srv/said 2>&1'
ExecStopPost=systemctl --no-block poweroff
[Install]
WantedBy=multi-user.target
"""


def contain(root: Path, *words: str) -> str:
    """What a command prints that runs in there, in a container."""
    contained = (
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "-D",
        root,
    )
    done = subprocess.run(
        [*contained, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    return done.stdout.decode(errors="replace")


@pytest.fixture(scope="module")
def debian() -> Iterator[Path]:
    """Debian's root directory, with systemd and the package."""
    if not LONG:
        pytest.skip("it takes minutes: only in the long form")
    for program in ("systemd-nspawn", "mmdebstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can make a Debian")
    folder = Path(tempfile.mkdtemp())  # others may enter it; not so pytest's own
    root = folder / "debian"
    make = ("mmdebstrap", "--quiet", "--variant=minbase", f"--include={DEBIAN}")
    subprocess.run([*make, "bookworm", root], check=True, timeout=600)
    home = root / "srv"
    build = (str(BIN / "hatchling"), "build", "-t", "wheel", "-d", str(home))
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    for pins in ("requirements.txt", "requirements-cluster.txt"):
        shutil.copy(ROOT / pins, home)
    (home / "install.sh").write_text(f"set -ex\n{INSTALL}")
    (home / "beat.json").write_bytes(heartbeat("1"))
    said = contain(
        root,
        *("--bind-ro", AUTHORITIES, "--setenv", f"PIP_CERT={AUTHORITIES}"),
        *("sh", "/srv/install.sh"),
    )
    assert (root / "etc/heartbeat-service/keys/server.key").exists(), said
    units = root / "etc/systemd/system"
    (units / "tried.service").write_text(TRIED)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/tried.service").symlink_to("../tried.service")
    yield root
    shutil.rmtree(folder)


def tried(debian: Path, script: str) -> str:
    """What a script tells that runs there under systemd."""
    (debian / "srv/try.sh").write_text(script)
    answer = debian / "srv/said"
    answer.unlink(missing_ok=True)
    booted = contain(debian, "--private-network", "--boot")
    assert answer.exists(), booted
    told = answer.read_text("utf-8")
    for trouble in (
        "others may read",
        "plugin cache",
        "Permission denied",
        "Traceback",
    ):
        assert trouble not in told, told
    return told


@pytest.mark.fault("started, reloaded and killed under systemd")
def test_under_systemd_its_unit_serves_with_what_root_has_put_there(
    debian: Path, row: Row
) -> None:
    told = tried(debian, TRY)
    assert "user heartbeat\n" in told, told
    assert '"UNCALIBRATED"' in told
    assert '"clientID":"1"' in told.partition("\nkept ")[2].partition("\n")[0], told
    assert "ended success\n" in told
    assert "store heartbeat 700\n" in told
    assert "level for heartbeat.service: 1.2 OK" in told, told
    row.tried = "a reload, a kill"
    row.note = "systemd finds it exposed by 1.2 of 10"


@pytest.mark.fault("a cluster under systemd")
def test_under_systemd_the_units_of_a_cluster_outlive_kills_and_a_drain(
    debian: Path, row: Row
) -> None:
    told = tried(debian, TRY_CLUSTER)

    def after(word: str) -> str:
        return told.partition(f"\n{word} ")[2].partition("\n")[0]

    assert '"UNCALIBRATED"' in after("beat"), told
    assert after("drained") == "204", told
    # Those that were killed; a drained node is left alone by the watchdog.
    assert after("restarts") == "1 0 0 1 0", told
    assert set(re.findall(r'"node":"(\w+)"', after("nodes"))) == {"one", "two", "three"}
    same = re.compile(r'"incarnation":\d+')
    assert same.findall(after("kept")) == same.findall(after("beat")), told
    assert after("ended") == " ".join(["success"] * 5), told
    for unit, exposed in (("etcd", 1.2), ("haproxy", 1.5), ("node@one", 1.2)):
        assert f"level for heartbeat-{unit}.service: {exposed} OK" in told, told
    row.tried = "etcd and a node killed, a node drained"
