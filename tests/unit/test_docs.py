"""What the documents say is what the code does, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core import errors
from heartbeat_service.core.changes import Reason
from heartbeat_service.core.states import TRANSITIONS, ClientState, Party
from heartbeat_service.protocol.messages import (
    OnStateChange,
    Reply,
    Request,
    StateNumber,
)
from heartbeat_service.web.app import HeartbeatApp

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT.joinpath("docs", "protocol.md").read_text("utf-8")
ARCHITECTURE = ROOT.joinpath("docs", "architecture.md").read_text("utf-8")
RELIABILITY = ROOT.joinpath("docs", "reliability.md").read_text("utf-8")
CONTRIBUTING = ROOT.joinpath("CONTRIBUTING.md").read_text("utf-8")


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
        self.assertEqual(len(codes), 11)
        for word in (*codes, *(reason.value for reason in Reason)):
            self.assertIn(f"| `{word}` |", PROTOCOL)

    def test_each_field_of_a_message_is_told(self) -> None:
        for message in (*get_args(Request), *get_args(Reply), OnStateChange):
            row = rf"^\| `{message.message_type}`[^|]* \|.*"
            told = re.search(row, PROTOCOL, re.MULTILINE)
            assert told is not None, message
            for name in message.__struct_encode_fields__:
                self.assertIn(f"`{name}`", told[0], message.message_type)
        self.assertIn("| `requestID` |", PROTOCOL)

    def test_each_route_is_told(self) -> None:
        rules = list(HeartbeatApp.app.url_map.iter_rules())
        self.assertTrue(rules)
        for rule in rules:
            [method] = (rule.methods or set()) - {"HEAD"}
            path = re.sub("<(?:client_)?(.*?)>", r"{\1}", rule.rule)
            with self.subTest(rule=path):
                self.assertIn(f"`{method} {path}`", PROTOCOL)


class TestNames(SynchronousTestCase):
    """What the documents name."""

    def test_each_file_is_there(self) -> None:
        files = [
            path.relative_to(ROOT).as_posix()
            for folder in ("heartbeat_service", "tests", "examples", "bench")
            for path in ROOT.joinpath(folder).rglob("*.*")
        ]
        for document in (ARCHITECTURE, RELIABILITY, CONTRIBUTING):
            named = set(re.findall(r"`([\w/]+\.(?:py|sql))`", document))
            self.assertTrue(named)
            for name in named:
                with self.subTest(name=name):
                    self.assertTrue(
                        any(f"/{file}".endswith(f"/{name}") for file in files)
                    )

    def test_each_class_has_what_is_named_of_it(self) -> None:
        code = "".join(
            path.read_text("utf-8")
            for path in sorted(ROOT.joinpath("heartbeat_service").rglob("*.py"))
        )
        named = set(re.findall(r"`([A-Z]\w+)\.(\w+)`", ARCHITECTURE))
        self.assertGreater(len(named), 20)
        for class_, member in named:
            with self.subTest(class_=class_, member=member):
                [body] = re.findall(
                    rf"^class {class_}\b.*?(?=^\S|\Z)", code, re.MULTILINE | re.DOTALL
                )
                self.assertRegex(
                    body, rf"(?m)def {member}\b|self\.{member}[ :]|^    {member}:"
                )

    def test_each_test_and_each_fault_is_there(self) -> None:
        tests = "".join(
            path.read_text("utf-8")
            for path in sorted(ROOT.joinpath("tests").rglob("*.py"))
        )
        for name in re.findall(r"`(test_\w+|Test\w+)`", RELIABILITY):
            with self.subTest(name=name):
                self.assertRegex(tests, rf"(?:def|class) {name}\b")
        rows = re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", RELIABILITY)
        self.assertGreater(len(rows), 10)
        for row in rows:
            with self.subTest(row=row):
                self.assertIn(
                    f'fault("{row}'.removesuffix(" …"), tests.replace('f"', '"')
                )


class TestLinks(SynchronousTestCase):
    """Where the pages lead to."""

    def test_each_link_leads_to_a_file_and_a_heading(self) -> None:
        pages = [*ROOT.glob("*.md"), *ROOT.joinpath("docs").glob("*.md")]
        links = [
            (page, *link)
            for page in pages
            for link in re.findall(
                r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text("utf-8")
            )
        ]
        self.assertGreater(len(links), 20)
        for page, file, heading in links:
            with self.subTest(page=page.name, file=file, heading=heading):
                target = page.parent / file if file else page
                self.assertTrue(target.is_file())
                if heading:
                    self.assertIn(heading, _anchors(target.read_text("utf-8")))


def _anchors(page: str) -> set[str]:
    """The names by which its headings are linked to."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
