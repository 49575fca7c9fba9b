"""``contract/sessions.json``: what a client decides, in any language."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import asdict, define, field
from msgspec import Raw, convert
from msgspec.structs import fields
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.actions import Action, SendRequest
from heartbeat_service.game_client.session import Session
from heartbeat_service.protocol.codec import encode_json
from heartbeat_service.protocol.messages import (
    CAMEL,
    ClientID,
    ClientStateMessage,
    ErrorMessage,
    Message,
    OnStateChange,
    WireState,
)
from tests.messages import CONTRACT

Row = Mapping[str, Any]

SCENARIOS: list[Row] = json.loads((CONTRACT / "sessions.json").read_text("utf-8"))

EVENTS: dict[str, Callable[..., Sequence[Action]]] = {
    "beat": Session.beat,
    "beatAnswered": Session.beat_answered,
    "beatFailed": Session.beat_failed,
    "beatRefused": Session.beat_refused,
    "requestAnswered": Session.request_answered,
    "requestRefused": Session.request_refused,
    "statePublished": Session.state_published,
    "report": Session.report,
    "askAgain": Session.ask_again,
    "zmqConnected": Session.zmq_connected,
    "zmqFailed": Session.zmq_failed,
    "leave": Session.leave,
}
BODIES: dict[str, type[Message]] = {
    "beatAnswered": ClientStateMessage,
    "beatRefused": ErrorMessage,
    "requestAnswered": ClientStateMessage,
    "requestRefused": ErrorMessage,
    "statePublished": OnStateChange,
}
#: What an event comes with, in the order in which the session takes it.
ARGUMENTS = (
    "values",
    "body",
    "detail",
    "retryAfterSeconds",
    "clientState",
    "requestID",
)


@define
class Player:
    """Tells a session what happens in a scenario, and writes down what it does.

    The requests of a scenario have names; which IDs the session gives them is its own.
    """

    session: Session
    _ids: dict[str, str] = field(factory=dict, init=False)

    def play(self, step: Row) -> list[Row]:
        """What comes of one step, as the file writes it."""
        given = [self._read(step, name) for name in ARGUMENTS if name in step]
        actions = EVENTS[step["event"]](self.session, *given)
        self._learn_names(step["actions"], actions)
        return [self._write(action) for action in actions]

    def _learn_names(self, expected: Sequence[Row], actions: Sequence[Action]) -> None:
        names = [row["requestID"] for row in expected if "requestID" in row]
        ids = [one.request_id for one in actions if isinstance(one, SendRequest)]
        for name, request_id in zip(names, ids, strict=False):
            if request_id not in self._ids.values():
                self._ids.setdefault(name, request_id)

    def _read(self, step: Row, name: str) -> Any:
        value = step[name]
        match name:
            case "values":
                return Raw(encode_json(value))
            case "body":
                return read(BODIES[step["event"]], value)
            case "clientState":
                return ClientState(value)
            case "requestID":
                return self._ids.get(value, value)
        return value

    def _write(self, action: Action) -> Row:
        row: dict[str, Any] = {"action": type(action).__name__}
        if isinstance(action, SendRequest):
            row["messageType"] = action.message.message_type
        for name, value in asdict(action, recurse=False).items():
            match name:
                case "message":
                    row["body"] = write(value)
                case "state":
                    row["clientState"] = value.value
                case "request_id":
                    named = [one for one, its in self._ids.items() if its == value]
                    row["requestID"] = named[0] if named else value
                case _:
                    row[CAMEL.get(name, name)] = value
        return row


def read(type_: type[Message], body: Row) -> Message:
    """A message of the server, also one whose numbers no codec would let pass."""
    names = {one.encode_name: one.name for one in fields(type_)}
    values = {names[key]: value for key, value in body.items()}
    if "client_state" in values:
        values["client_state"] = convert(values["client_state"], WireState)
    return type_(**values)


def write(message: Message) -> Row:
    """The body of a message as the file writes it: without values if it has none."""
    body: Row = json.loads(encode_json(message))
    return {key: value for key, value in body.items() if value != {}}


class TestSessions(SynchronousTestCase):
    def test_every_scenario_is_followed_action_by_action(self) -> None:
        self.assertGreater(len(SCENARIOS), 100)
        for scenario in SCENARIOS:
            with self.subTest(scenario["name"]):
                self.follow(scenario)

    def follow(self, scenario: Row) -> None:
        """Each step leads to its actions, and no random number is left over."""
        client = scenario["client"]
        numbers = list(client["random"])
        session = Session(
            ClientID(client["clientID"]),
            client["instanceID"],
            lambda: numbers.pop(0),
            client["timebombSeconds"],
        )
        player = Player(session)
        for number, step in enumerate(scenario["steps"], 1):
            place = f"{scenario['name']}: step {number}, {step['event']}"
            self.assertEqual(player.play(step), step["actions"], place)
            if "patience" in step:
                self.assertEqual(session.patience, step["patience"], place)
        self.assertEqual(numbers, [], scenario["name"])
