"""The numbers as Prometheus reads them, and what documents and rules say of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import GetClientState, Goodbye, SetClientState
from heartbeat_service.web.events import EventStreams
from heartbeat_service.web.metrics import Metrics
from heartbeat_service.web.site import HeartbeatSite
from tests.unit.engine.test_dispatch import FUSE, House

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT.joinpath("docs", "metrics.md").read_text("utf-8")
RULES = ROOT.joinpath("deploy", "prometheus", "heartbeat.rules.yml").read_text("utf-8")
DASHBOARD = ROOT.joinpath("deploy", "grafana", "heartbeat.json").read_text("utf-8")

#: What is told of each bucket besides the metric's own labels.
OF_BUCKETS = {"le"}

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState


class MetricsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """A service without sockets that has answered two requests by HTTP."""
        self.house = House()
        clock: Any = self.house.clock
        resource: Any = SimpleNamespace()
        self.site = HeartbeatSite(resource, clock, 100, clock, lambda _: None)
        self.site.answers["clients", 200] += 1
        self.site.answers["", 404] += 1
        others = dict.fromkeys((GetClientState, SetClientState, Goodbye), 0)
        self.router = SimpleNamespace(beats=0, others=others, errors=0, dropped=0)
        peers: Any = _Peers()
        self.metrics = Metrics(
            self.house.engine,
            self.router,
            SimpleNamespace(published=0),
            peers,
            self.site,
            EventStreams(self.house.engine.events, clock, 10),
            {"heartbeat": ("POST", "/heartbeat"), "clients": ("GET", "/clients")},
        )

    def families(self) -> dict[str, Metric]:
        """All that is told, by name, as it is read by whoever scrapes."""
        text = self.metrics.text().decode()
        return {
            f"{one.name}_total" if one.type == "counter" else one.name: one
            for one in text_string_to_metric_families(text)
        }

    def value(self, sample: str, **labels: str) -> float:
        """One number."""
        [found] = [
            one.value
            for family in self.families().values()
            for one in family.samples
            if one.name == sample and one.labels == labels
        ]
        return found


class _Peers:
    most, turned_away = 10, 0

    def __len__(self) -> int:
        return 3


class TestNumbers(MetricsTestCase):
    def test_who_lives_is_told_once_the_store_has_it(self) -> None:
        self.house.beat("1")
        self.assertEqual(self.value("heartbeat_clients", state="UNCALIBRATED"), 0)
        self.house.store.finish()
        self.assertEqual(self.value("heartbeat_clients", state="UNCALIBRATED"), 1)
        self.assertEqual(self.value("heartbeat_changes_total", reason="heartbeat"), 1)

    def test_who_is_late_lost_silent_and_kept_out(self) -> None:
        self.house.register("1", "2", "3")
        self.house.registry.silence("2", 60.0)
        self.house.registry.lock_out("3", 60.0)
        self.house.store.finish_all()
        self.house.listen(FUSE / 2)
        for name, number in (("late", 1), ("silent", 1), ("locked_out", 1)):
            self.assertEqual(self.value(f"heartbeat_{name}_clients"), number, name)
        self.house.listen(FUSE)
        self.house.store.finish_all()
        self.assertEqual(self.value("heartbeat_changes_total", reason="timebomb"), 1)
        self.assertEqual(self.value("heartbeat_timebomb_lateness_seconds_count"), 1)
        self.assertEqual(self.value("heartbeat_late_total"), 1)
        self.assertEqual(self.value("heartbeat_late_clients"), 0)

    def test_which_node_has_how_many(self) -> None:
        self.house.register("1", "2")
        counters, standing = self.house.engine.counters, self.house.engine.standing
        counters.moved, counters.taken_over, counters.refused = 3, 4, 5
        standing.in_touch = False
        for name, number in (
            ("nodes", 1),
            ("clients_here", 2),
            ("in_touch", 0),
            ("moves_total", 3),
            ("takeovers_total", 4),
            ("commits_refused_total", 5),
        ):
            self.assertEqual(self.value(f"heartbeat_{name}"), number, name)

    def test_a_store_in_trouble(self) -> None:
        self.assertEqual(self.value("heartbeat_store_trouble"), 0)
        self.house.beat("1").addErrback(lambda _: None)
        self.house.store.break_down()
        self.assertEqual(self.value("heartbeat_store_trouble"), 1)
        self.assertEqual(self.value("heartbeat_store_troubles_total"), 1)
        self.assertEqual(self.value("heartbeat_store_pending_facts"), 1)
        self.house.calm_down()
        self.assertEqual(self.value("heartbeat_store_trouble"), 0)

    def test_beats_that_are_answered_at_once_count_with_the_others(self) -> None:
        self.site.answers["heartbeat", 200] += 2
        self.site.answers["heartbeat", 409] += 1
        self.site.answered_at_once += 3
        self.router.beats += 7
        self.assertEqual(self.value("heartbeat_beats_total", transport="http"), 5)
        self.assertEqual(self.value("heartbeat_beats_total", transport="zeromq"), 7)
        beats = {"method": "POST", "route": "/heartbeat"}
        requests = "heartbeat_http_requests_total"
        self.assertEqual(self.value(requests, **beats, status="200"), 5)
        self.assertEqual(self.value(requests, **beats, status="409"), 1)
        nowhere = {"method": "other", "route": "other", "status": "404"}
        self.assertEqual(self.value(requests, **nowhere), 1)

    def test_each_kind_is_there_before_there_was_any(self) -> None:
        """Else Prometheus would take the first death for none."""
        families = self.families()
        for name, number in (
            ("heartbeat_changes_total", 7),
            ("heartbeat_refusals_total", 11),
            ("heartbeat_clients", 3),
            ("heartbeat_zeromq_requests_total", 4),
        ):
            self.assertEqual([s.value for s in families[name].samples], [0] * number)

    def test_nothing_is_global(self) -> None:
        twice = MetricsTestCase()
        twice.setUp()
        twice.house.register("1")
        self.assertEqual(self.value("heartbeat_clients", state="UNCALIBRATED"), 0)
        self.assertEqual(twice.value("heartbeat_clients", state="UNCALIBRATED"), 1)


class TestDocuments(MetricsTestCase):
    def test_each_metric_is_told_as_it_is_and_no_other(self) -> None:
        told = {
            name: (type_, set(re.findall(r"`(\w+)`", labels)))
            for name, type_, labels in re.findall(
                r"^\| `(\w+)` \| (gauge|counter|histogram) \| ([^|]*)\|",
                DOCUMENT,
                re.MULTILINE,
            )
        }
        there = {
            name: (
                family.type,
                {label for one in family.samples for label in one.labels} - OF_BUCKETS,
            )
            for name, family in self.families().items()
        }
        self.assertGreater(len(there), 40)
        self.assertEqual(told, there)

    def test_no_name_is_used_that_is_not_there(self) -> None:
        samples = {
            sample.name
            for family in self.families().values()
            for sample in family.samples
        }
        for what, text in (("rules", RULES), ("dashboard", DASHBOARD)):
            used = set(re.findall(r"\b(?:heartbeat|process)_[a-z_]+\b", text))
            self.assertGreater(len(used), 10)
            self.assertEqual(used - samples, set(), what)

    def test_the_dashboard_shows_whatever_there_is(self) -> None:
        shown = " ".join(
            target["expr"]
            for panel in json.loads(DASHBOARD)["panels"]
            for target in panel.get("targets", ())
        )
        left_out = {
            "heartbeat_build_info",
            "process_virtual_memory_bytes",
            "process_start_time_seconds",
        }
        missing = {name for name in self.families() if name not in shown}
        self.assertEqual(missing - left_out, set())

    def test_the_panels_of_the_dashboard_lie_side_by_side(self) -> None:
        taken: set[tuple[int, int]] = set()
        panels = json.loads(DASHBOARD)["panels"]
        for panel in panels:
            at = panel["gridPos"]
            fields = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            self.assertLessEqual(at["x"] + at["w"], 24)
            self.assertFalse(fields & taken, panel["title"])
            taken |= fields
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))

    def test_each_alert_is_told_with_its_severity_and_no_other(self) -> None:
        told = re.findall(
            r"^\| `(\w+)` \| (critical|warning) \|", DOCUMENT, re.MULTILINE
        )
        rules = re.findall(r"- alert: (\w+)\n.*?severity: (\w+) \}", RULES, re.DOTALL)
        self.assertGreater(len(rules), 8)
        self.assertEqual(told, rules)
