"""The unit under systemd itself, in a Debian of its own with the package installed.

systemd runs in a container, with its own processes, network and users.
"""

from __future__ import annotations

import os
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
DEBIAN = "systemd,systemd-sysv,dbus,python3-venv,ca-certificates,curl"

#: As docs/operations.md has it, with the network of the machine.
INSTALL = """
python3 -m venv /opt/heartbeat-service
/opt/heartbeat-service/bin/pip install -c /srv/requirements.txt /srv/*.whl
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

TRIED = """
[Service]
Type=oneshot
ExecStart=sh -c 'timeout 120 sh /srv/try.sh >/srv/said 2>&1'
ExecStopPost=systemctl --no-block poweroff
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture
def debian() -> Iterator[Path]:
    """Debian's root directory, with systemd and Python."""
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
    yield root
    shutil.rmtree(folder)


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


@pytest.mark.fault("started, reloaded and killed under systemd")
def test_under_systemd_its_unit_serves_with_what_root_has_put_there(
    debian: Path, row: Row
) -> None:
    home = debian / "srv"
    build = (str(BIN / "hatchling"), "build", "-t", "wheel", "-d", str(home))
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    shutil.copy(ROOT / "requirements.txt", home)
    (home / "install.sh").write_text(f"set -ex\n{INSTALL}")
    (home / "try.sh").write_text(TRY)
    (home / "beat.json").write_bytes(heartbeat("1"))
    said = contain(
        debian,
        *("--bind-ro", AUTHORITIES, "--setenv", f"PIP_CERT={AUTHORITIES}"),
        *("sh", "/srv/install.sh"),
    )
    assert (debian / "etc/heartbeat-service.toml").exists(), said
    units = debian / "etc/systemd/system"
    (units / "tried.service").write_text(TRIED)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/tried.service").symlink_to("../tried.service")
    booted = contain(debian, "--private-network", "--boot")
    answer = home / "said"
    assert answer.exists(), booted
    told = answer.read_text("utf-8")
    assert "user heartbeat\n" in told, told
    assert '"UNCALIBRATED"' in told
    assert '"clientID":"1"' in told.partition("\nkept ")[2].partition("\n")[0], told
    assert "ended success\n" in told
    assert "store heartbeat 700\n" in told
    assert "level for heartbeat.service: 1.2 OK" in told, told
    for trouble in (
        "others may read",
        "plugin cache",
        "Permission denied",
        "Traceback",
    ):
        assert trouble not in told
    row.tried = "a reload, a kill"
    row.note = "systemd finds it exposed by 1.2 of 10"
