"""What is in ``deploy/cluster/`` fits together, and is what its page says."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.options import Options

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CLUSTER = DEPLOY / "cluster"
PAGE = ROOT.joinpath("docs", "many-machines.md").read_text("utf-8")

#: What the unit of a single service forbids, and these must not.
ALLOWED = {
    "heartbeat-node@.service": set(),
    # Go looks there for how many connections may wait.
    "heartbeat-etcd.service": {"ProcSubset=pid"},
    # It binds port 443, which no user of a namespace may.
    "heartbeat-haproxy.service": {"CapabilityBoundingSet=", "PrivateUsers=yes"},
}
FENCE = re.compile(
    r"^(?:Capability|LockPersonality|NoNew|Private|Proc|Protect|Remove|Restrict(?!Address)"
    r"|SystemCall|UMask)\w*=.*$",
    re.MULTILINE,
)


def fences(unit: Path) -> set[str]:
    """The lines that keep a unit's process from what it doesn't need."""
    return set(FENCE.findall(unit.read_text("utf-8")))


class TestUnits(SynchronousTestCase):
    """The units for systemd."""

    def test_each_is_as_hardened_as_that_of_a_single_service(self) -> None:
        single = fences(DEPLOY / "heartbeat.service")
        self.assertGreater(len(single), 20)
        for name, allowed in ALLOWED.items():
            with self.subTest(unit=name):
                self.assertEqual(single - fences(CLUSTER / name), allowed)

    def test_the_file_of_a_nodes_options_is_one(self) -> None:
        options = Options()
        options.parseOptions(["--config", str(CLUSTER / "node.toml"), "--node", "one"])
        self.assertEqual(options.settings.node, "one")
        self.assertEqual(options.settings.http, ("tcp:6969:interface=192.0.2.11",))

    def test_etcd_forgets_former_values_before_it_is_full(self) -> None:
        told = CLUSTER.joinpath("etcd.env").read_text("utf-8")
        self.assertIn("ETCD_AUTO_COMPACTION_MODE=revision\n", told)
        self.assertRegex(told, r"ETCD_AUTO_COMPACTION_RETENTION=[1-9]")


class TestDemo(SynchronousTestCase):
    """``make cluster-demo``: its ports are in three places."""

    def test_page_program_and_configuration_name_the_same_ports(self) -> None:
        [section] = re.findall(r"## See it on one machine\n(.*?)\n## ", PAGE, re.DOTALL)
        told = set(re.findall(r"\b\d{4}\b", section))
        self.assertEqual(len(told), 16)
        program = ROOT.joinpath("examples", "cluster_demo.py").read_text("utf-8")
        bases = re.search(r"for first in \(([\d, ]+)\)", program)
        assert bases is not None
        fixed = re.search(r"^BALANCER = (\d+)$", program, re.MULTILINE)
        assert fixed is not None
        ports = {str(int(base) + n) for base in bases[1].split(",") for n in (1, 2, 3)}
        self.assertEqual(ports | {fixed[1]}, told)

        text = CLUSTER.joinpath("demo.supervisord.conf").read_text("utf-8")
        text = re.sub(r"^;.*\n", "", text, flags=re.MULTILINE)
        each = {text.replace("%(process_num)d", str(number)) for number in (1, 2, 3)}
        used = {port for one in each for port in re.findall(r":([2-8]\d{3})\b", one)}
        self.assertEqual(used, told)
