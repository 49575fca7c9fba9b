"""JSON Schema of the structs: it takes what the decoders take, and refuses the rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, get_args

from jsonschema import Draft202012Validator
from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core import errors
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.codec import encode, encode_json, whole
from heartbeat_service.protocol.events import EVENTS
from heartbeat_service.protocol.messages import (
    ClientID,
    ClientRecord,
    ClientStateMessage,
    ErrorMessage,
    GoneRecord,
    LifeRecord,
    Message,
    OnStateChange,
    Request,
    SummaryRecord,
)
from heartbeat_service.protocol.orders import (
    KickOrder,
    KickOrders,
    LockoutOrder,
    LockoutOrders,
    SilenceOrder,
    SilenceOrders,
    StateOrder,
    StateOrders,
)
from heartbeat_service.protocol.schema import components, in_plain_words
from tests.messages import BAD, GOOD

REQUESTS = [whole(kind) for kind in get_args(Request)]
ORDERS: dict[str, type] = {
    "order": StateOrder,
    "silence": SilenceOrder,
    "lockout": LockoutOrder,
    "kick": KickOrder,
    "orders": StateOrders,
    "silences": SilenceOrders,
    "lockouts": LockoutOrders,
    "kicks": KickOrders,
}
SENT: list[type] = [
    *(whole(kind) for kind in (ClientStateMessage, ErrorMessage, OnStateChange)),
    *(ClientRecord, LifeRecord, GoneRecord, SummaryRecord),
    *EVENTS,
]
SCHEMAS = components([*REQUESTS, *ORDERS.values()], SENT)

#: What is wrong that JSON Schema has no word for: the bytes, whether a whole number is
#: written as one, what no double can hold, how long and how deep telemetry is, what is
#: there twice, and what one field says of another.
BEYOND_SCHEMAS = re.compile(
    "not JSON|not UTF-8|too large|a lone surrogate|: a float|with an exponent"
    "|beyond any float|no double|not finite|4 KiB|levels deep|twice|behind it"
    "|somebody not asked for"
)


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
    )


def is_one_of(value: Any, types: Iterable[type]) -> bool:
    return any(validator(type_.__name__).is_valid(value) for type_ in types)


class TestWhatIsRead(SynchronousTestCase):
    def test_each_good_message_of_the_contract_is_good(self) -> None:
        for example in GOOD:
            with self.subTest(example=example.name):
                self.assertTrue(is_one_of(json.loads(example.data), REQUESTS))

    def test_each_bad_one_is_bad_as_far_as_json_schema_can_tell(self) -> None:
        refused = 0
        for example in BAD:
            try:
                value = json.loads(example.data)
            except (ValueError, RecursionError):
                continue
            types = [ORDERS[example.to]] if example.to in ORDERS else REQUESTS
            with self.subTest(example=example.name):
                if BEYOND_SCHEMAS.search(example.name) is None:
                    self.assertFalse(is_one_of(value, types))
                    refused += 1
        self.assertGreater(refused, 250)

    def test_a_client_id_may_be_a_number_and_a_state_its_number(self) -> None:
        heartbeat = validator("HeartbeatMessage")
        good: list[Any] = ["1", 1, -5, 10**64 - 1, "..."]
        bad: list[Any] = ["", ".", "..", "a b", "1\n", 1.5, True, None, "x" * 65]
        for client_id in good:
            self.assertTrue(
                heartbeat.is_valid({"clientID": client_id, "clientState": 3})
            )
        for client_id in bad:
            refused = {"clientID": client_id, "clientState": 3}
            self.assertFalse(heartbeat.is_valid(refused), client_id)

    def test_an_order_to_many_says_whom_it_means_in_exactly_one_way(self) -> None:
        orders = validator("KickOrders")
        ways: dict[str, Any] = {"clientIDs": ["1"], "labels": {"a": "b"}, "all": True}
        for name, whom in ways.items():
            self.assertTrue(orders.is_valid({name: whom}))
        more: list[Any] = [
            {},
            ways,
            {"all": False},
            {"labels": {}},
            {"all": True, "x": 1},
        ]
        for bad in more:
            self.assertFalse(orders.is_valid(bad), bad)


class TestWhatIsSent(SynchronousTestCase):
    def test_it_is_written_in_one_way(self) -> None:
        state = SCHEMAS["ClientStateMessage"]["properties"]
        self.assertEqual(state["clientID"], {"$ref": "#/components/schemas/ClientID"})
        self.assertEqual(
            state["clientState"], {"$ref": "#/components/schemas/ClientState"}
        )

    def test_what_the_encoder_writes_is_good(self) -> None:
        reply = ClientStateMessage(
            ClientID("1"),
            ClientState.RUNNING,
            3,
            7,
            10.0,
            2.0,
            "tcp://a:1",
            "tcp://a:2",
        )
        error = ErrorMessage("OVERLOADED", "Try again", UNSET, 1)
        for kind, message in (("ClientState", reply), ("Error", error)):
            for request_id in (None, "r"):
                sent = json.loads(encode(message, request_id))
                validator(f"{kind}Envelope").validate(sent)

    def test_each_field_is_there_but_those_that_can_be_left_out(self) -> None:
        record = SCHEMAS["ClientRecord"]
        self.assertEqual(set(record["required"]), set(record["properties"]))
        gone = SCHEMAS["GoneRecord"]
        self.assertIn("labels", gone["required"])
        self.assertNotIn("instanceID", SCHEMAS["OnStateChange"]["required"])
        empty = json.loads(
            encode_json(
                GoneRecord(
                    "1",
                    ClientState.RUNNING,
                    None,
                    "2026-11-22T17:23:58.284Z",
                    "2026-11-22T17:23:58.284Z",
                    1,
                    0.0,
                )
            )
        )
        validator("GoneRecord").validate(empty)

    def test_each_code_of_the_contract_is_named(self) -> None:
        codes = {
            error.code
            for error in vars(errors).values()
            if isinstance(error, type)
            and issubclass(error, errors.HeartbeatError)
            and error is not errors.HeartbeatError
        }
        self.assertEqual(
            set(SCHEMAS["ErrorMessage"]["properties"]["code"]["enum"]), codes
        )


class TestWords(SynchronousTestCase):
    def test_each_struct_has_all_of_its_fields_and_no_others(self) -> None:
        kinds: list[type[Any]] = [*get_args(Request), *ORDERS.values(), *EVENTS]
        for kind in kinds:
            with self.subTest(kind=kind.__name__):
                self.assertEqual(
                    list(SCHEMAS[kind.__name__]["properties"]),
                    list(kind.__struct_encode_fields__),
                )
                self.assertTrue(SCHEMAS[kind.__name__]["description"])
        self.assertTrue(all(issubclass(kind, Message) for kind in get_args(Request)))

    def test_a_fields_meaning_stands_with_the_field(self) -> None:
        record = SCHEMAS["ClientRecord"]
        self.assertEqual(
            record["description"], "All that an operator is shown of a living client."
        )
        self.assertEqual(
            record["properties"]["silentSeconds"]["description"],
            "what is left of a planned silence; null without one.",
        )
        self.assertNotIn(":ivar", json.dumps(SCHEMAS))

    def test_marks_of_docstrings_are_taken_away(self) -> None:
        self.assertEqual(
            in_plain_words("As :meth:`ClientID.parse`\n   says, ``None`` is None."),
            "As `ClientID.parse` says, `null` is null.",
        )
