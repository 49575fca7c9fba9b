"""What the documents say of the protocol is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core import errors
from heartbeat_service.core.changes import Reason
from heartbeat_service.core.states import TRANSITIONS, ClientState, Party
from heartbeat_service.protocol.messages import (
    StateNumber,
)
from heartbeat_service.web.app import HeartbeatApp

PROTOCOL = Path(__file__).parents[2].joinpath("docs", "protocol.md").read_text("utf-8")


class TestProtocolDocument(SynchronousTestCase):
    """docs/protocol.md against the code."""

    def test_the_diagram_is_the_table_of_transitions(self) -> None:
        table = {
            (current.value, wanted.value)
            for current, targets in TRANSITIONS[Party.CLIENT].items()
            for wanted in targets
            if wanted is not current
        }
        drawn = re.findall(r"^    ([A-Z]+) --> ([A-Z]+)$", PROTOCOL, re.MULTILINE)
        self.assertEqual(len(drawn), len(table))
        self.assertEqual(set(drawn), table)

    def test_each_state_is_told_with_its_number(self) -> None:
        self.assertEqual([s.name for s in StateNumber], [s.value for s in ClientState])
        for number in StateNumber:
            self.assertIn(f"| {number.value} | `{number.name}` |", PROTOCOL)

    def test_each_error_and_each_reason_is_told(self) -> None:
        codes = [
            error.code
            for error in vars(errors).values()
            if isinstance(error, type)
            and issubclass(error, errors.HeartbeatError)
            and error is not errors.HeartbeatError
        ]
        self.assertEqual(len(codes), 8)
        for word in (*codes, *(reason.value for reason in Reason)):
            self.assertIn(f"| `{word}` |", PROTOCOL)

    def test_each_route_is_told(self) -> None:
        rules = list(HeartbeatApp.app.url_map.iter_rules())
        self.assertTrue(rules)
        for rule in rules:
            [method] = (rule.methods or set()) - {"HEAD"}
            path = rule.rule.replace("<client_id>", "{id}")
            with self.subTest(rule=path):
                self.assertIn(f"`{method} {path}`", PROTOCOL)
