"""Whatever bytes come in, they are a message or one of two errors, and that soon.

The errors' sentences can be sent back: they are text, and no longer than what came
in and a few words more.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Reason
from heartbeat_service.core.errors import BadMessage, TooLarge
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.codec import (
    MAX_MESSAGE,
    MAX_ORDER,
    decode_from_server,
    decode_order,
    decode_problem,
    decode_request,
    encode,
    encode_json,
    request_id_of,
)
from heartbeat_service.protocol.messages import (
    MAX_LEVELS,
    MAX_VALUES,
    Body,
    ClientID,
    ClientStateMessage,
    ErrorMessage,
    Goodbye,
    HeartbeatMessage,
    Message,
    OnStateChange,
    Reply,
    Request,
    SetClientState,
)
from heartbeat_service.protocol.orders import (
    KickOrder,
    LockoutOrders,
    StateOrder,
    StateOrders,
)
from tests.messages import envelope

#: The longest sentence of an error, in characters: it may quote what came in.
LONGEST_DETAIL = 400

#: How long 64 KiB may take, in seconds; a slow machine is no defect.
BOUND = 2.0

ONE = ClientID("1")


def request_in(data: bytes) -> Request:
    """A request without the ID of its envelope, which is known to be one."""
    request, request_id = decode_request(data)
    assert request_id == request_id_of(data)
    return request


DECODERS: dict[Callable[[bytes], object], tuple[type, ...]] = {
    request_in: get_args(Request),
    decode_from_server: (*get_args(Reply), OnStateChange),
    partial(decode_order, type_=StateOrder): (StateOrder,),
    partial(decode_order, type_=StateOrders): (StateOrders,),
    partial(decode_order, type_=LockoutOrders): (LockoutOrders,),
    partial(decode_order, type_=KickOrder): (KickOrder,),
    decode_problem: (ErrorMessage,),
}

MESSAGES: tuple[Message, ...] = (
    HeartbeatMessage(ONE, ClientState.RUNNING, "process", 5.0),
    SetClientState(ONE, ClientState.CALIBRATED, 7, "process", 3),
    Goodbye(ONE, 7, "process"),
    ClientStateMessage(ONE, ClientState.RUNNING, 1, 2, 10.0, 2.0, "tcp://h", "tcp://h"),
    ErrorMessage("BAD_MESSAGE", "no", ONE),
    OnStateChange(
        ONE, ClientState.RUNNING, ClientState.CALIBRATED, Reason.CLIENT, 2, 7
    ),
)
VALID = [
    *map(encode, MESSAGES),
    *(encode(message, "request-1") for message in MESSAGES),
    encode_json(StateOrder(client_state=ClientState.RUNNING)),
    encode_json(StateOrders(client_state=ClientState.RUNNING, client_ids=[1, "a.b"])),
]

#: What is put into a message, or in place of a part of it.
FRAGMENTS = [
    *(b"", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"null", b"-", b"1e999"),
    *(b"\x00", b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xef\xbb\xbf", b"\xf4\x90\x80"),
    *(rb"\ud800", rb"\udfff", rb"\u0000", rb'"\ud800"', rb'"\ud83d\ude00"', b"NaN"),
    *(b"[" * 2000, b'{"a":' * 2000, b"9" * 5000, b"0." + b"0" * 5000 + b"1"),
    *(b'"clientID":[],', b'"body":{},', b'"clientState":9,', b'"body":'),
    b'"' + b"x" * 5000 + b'"',
]
FRAGMENT = st.sampled_from(FRAGMENTS) | st.binary(max_size=8)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A valid message that something has happened to."""
    message = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(message)))
        end = draw(st.integers(start, min(start + 40, len(message))))
        message = message[:start] + draw(FRAGMENT) + message[end:]
    return message


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters() | st.characters(categories=["Cs"])),
    lambda values: (
        st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([type(message).message_type for message in MESSAGES])
FIELDS = st.sampled_from(
    (
        *("clientID", "clientState", "instanceID", "timebombSeconds", "values"),
        *("incarnation", "clientIDs", "code", "detail"),
    )
)


@st.composite
def strangers(draw: st.DrawFn) -> bytes:
    """A JSON object that has a message's fields, each of which may hold anything."""
    fields = {name: draw(JSON) for name in draw(st.lists(FIELDS))}
    usual = draw(st.fixed_dictionaries({}, optional={"clientID": st.just("1")}))
    whole = {
        "sdkVersion": draw(st.just(0.1) | JSON),
        "timestamp": draw(st.just("now") | JSON),
        "messageType": draw(NAMES | JSON),
        "body": {**fields, **usual},
    }
    part = draw(st.sampled_from([whole, whole["body"]]))
    text = json.dumps(part, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


def in_body(field: str, value: bytes) -> bytes:
    """A HEARTBEAT with one more field, which may be one too many."""
    body = b'{"clientID":"1","clientState":0,"%s":%s}' % (field.encode(), value)
    return envelope(messageType="HEARTBEAT", body=Raw(body))


ROOM = MAX_MESSAGE - len(in_body("timebombSeconds", b""))
HUGE = {
    "arrays": b"[" * MAX_MESSAGE,
    "objects": b'{"a":' * (MAX_MESSAGE // 5),
    "strings": b'"' * MAX_MESSAGE,
    "escapes": b'"' + rb"\u0041" * (MAX_MESSAGE // 6 - 1) + b'"',
    "backslashes": b"\\" * MAX_MESSAGE,
    "white space": b" " * MAX_MESSAGE,
    "digits": b"9" * MAX_MESSAGE,
    "an exponent": b"1e" + b"9" * (MAX_MESSAGE - 2),
    "NULs": b"\x00" * MAX_MESSAGE,
    "emoji": b'"' + "\N{COLLISION SYMBOL}".encode() * (MAX_MESSAGE // 4 - 1) + b'"',
    "IDs": b'{"clientState":1,"clientIDs":[' + b"1," * 32_000 + b"1]}",
    "keys": b"{" + b'"a":1,' * 10_000 + b'"clientState":1}',
    "a long state": in_body("clientState", b'"' + b"x" * (ROOM - 2) + b'"'),
    "a state of NULs": in_body("clientState", b'"' + rb"\u0000" * (ROOM // 6) + b'"'),
    "a state's number": in_body("clientState", b"9" * ROOM),
    "an ID's number": in_body("clientID", b"9" * ROOM),
    "a long ID": in_body("clientID", b'"' + b"x" * (ROOM - 2) + b'"'),
    "a long fuse": in_body("timebombSeconds", b"9" * ROOM),
    "a tiny fuse": in_body("timebombSeconds", b"0." + b"0" * (ROOM - 3) + b"1"),
    "nested values": in_body("values", b'{"a":' + b"[" * (ROOM // 2)),
    "an unknown field": in_body("x" * (ROOM // 2), b"[" * (ROOM // 3)),
    "more than there is room for": b"x" * (MAX_MESSAGE + 1),
}


ORDER = b'{"clientState":1,"clientIDs":[%s]}'
HUGE_ORDERS = {
    "arrays": ORDER % (b"[" * (MAX_ORDER - len(ORDER))),
    "IDs": ORDER % b",".join(b'"headset-%06d"' % n for n in range(123_000)),
    "IDs with colons": ORDER % b",".join(b'"a:%012d"' % n for n in range(123_000)),
    "numbers": ORDER % (b"12345," * 300_000 + b"1"),
    "a bad ID at the end": ORDER % (b"12345," * 300_000 + b'""'),
    "expected": b'{"clientState":1,"all":true,"expected":{%s}}'
    % b",".join(b'"headset-%06d":[1795368238249366,3]' % n for n in range(55_000)),
    "a field again and again": b"{%s}"
    % b",".join([b'"clientState":1', b'"all":true'] * 70_000),
    "an unknown field": b'{"%s":1}' % (b"x" * (MAX_ORDER - 10)),
    "a long state": b'{"clientState":"%s"}' % (b"- at `$.x" * (MAX_ORDER // 10)),
    "more than there is room for": b" " * (MAX_ORDER + 1),
}


#: The smallest integer that no double can hold: halfway to what the next one would be.
TOO_LARGE = 2**1024 - 2**970


def array_of(values: list[str]) -> str:
    return f"[{','.join(values)}]"


def object_of(values: list[str]) -> str:
    fields = (f'"{n}":{one}' for n, one in enumerate(values))
    return f"{{{','.join(fields)}}}"


def deep(levels: int, value: str) -> str:
    return "[" * levels + value + "]" * levels


TELEMETRY = st.recursive(
    st.sampled_from(
        (
            *("0", "-0", "0.5", "1e308", "1e309", "-1e999", "1e-999", "true", "null"),
            *('"x"', '"1e999"', '"[{"', '"\\ud83d\\ude00"', "9" * 308, "9" * 309),
            *(str(TOO_LARGE), str(TOO_LARGE - 1), str(1 - TOO_LARGE), str(-TOO_LARGE)),
        )
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(array_of)
        | st.lists(inner, max_size=3).map(object_of)
        | st.builds(deep, st.integers(0, MAX_LEVELS), inner)
    ),
    max_leaves=8,
)


def are_fit(values: Any, levels: int = MAX_LEVELS) -> bool:
    """Whether values have at most so many levels, and numbers that doubles can hold."""
    if isinstance(values, dict | list):
        inner = values.values() if isinstance(values, dict) else values
        return levels > 0 and all(are_fit(one, levels - 1) for one in inner)
    if isinstance(values, int):
        return abs(values) < TOO_LARGE
    return not isinstance(values, float) or math.isfinite(values)


class TestAnyBytes(SynchronousTestCase):
    def expect_message_or_error(self, data: bytes) -> None:
        """Each decoder reads a message of its own, or says what is wrong with it."""
        request_id = request_id_of(data)
        self.assertLessEqual(len(request_id or ""), 64)
        json.dumps(request_id).encode()
        for decode, types in DECODERS.items():
            began = time.perf_counter()
            try:
                message = decode(data)
            except (BadMessage, TooLarge) as error:
                self.expect_sentence(error)
            else:
                self.assertIn(type(message), types)
                self.expect_encodable(message, decode)
            self.assertLess(time.perf_counter() - began, BOUND)

    def expect_sentence(self, error: BadMessage | TooLarge) -> None:
        """It can be told to whoever has sent the bytes."""
        self.assertTrue(error.detail)
        self.assertLessEqual(len(error.detail), LONGEST_DETAIL)
        error.detail.encode("utf-8")
        if error.client_id is not None:
            self.assertEqual(ClientID.parse(error.client_id), error.client_id)

    def expect_encodable(
        self, message: object, decode: Callable[[bytes], object]
    ) -> None:
        """What was read can be written, and read again."""
        assert isinstance(message, Body)
        json.loads(encode_json(message))
        if isinstance(message, Message) and decode in (
            request_in,
            decode_from_server,
        ):
            self.assertEqual(decode(encode(message)), message)
        if isinstance(message, HeartbeatMessage):
            self.assertIsInstance(json.loads(bytes(message.values)), dict)

    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(st.binary(max_size=300) | st.text().map(str.encode))
    @example(b"")
    def test_arbitrary_bytes(self, data: bytes) -> None:
        self.expect_message_or_error(data)

    @settings(
        max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(mutants())
    def test_messages_that_something_has_happened_to(self, data: bytes) -> None:
        self.expect_message_or_error(data)

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(strangers())
    def test_fields_that_may_hold_anything(self, data: bytes) -> None:
        self.expect_message_or_error(data)

    @settings(
        max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(TELEMETRY.map(lambda value: object_of([value])) | TELEMETRY)
    def test_values_are_taken_if_they_keep_the_rules_and_else_refused(
        self, text: str
    ) -> None:
        values = json.loads(text)
        fit = isinstance(values, dict) and len(text) <= MAX_VALUES and are_fit(values)
        try:
            beat = request_in(in_body("values", text.encode()))
        except BadMessage:
            self.assertFalse(fit)
        else:
            assert isinstance(beat, HeartbeatMessage)
            self.assertTrue(fit)
            self.assertEqual(bytes(beat.values), text.encode())

    def test_as_much_of_anything_as_a_message_may_hold(self) -> None:
        for data in HUGE.values():
            self.expect_message_or_error(data)

    def test_as_much_of_anything_as_an_order_may_hold(self) -> None:
        for name, data in HUGE_ORDERS.items():
            with self.subTest(name=name):
                began = time.thread_time()
                try:
                    decode_order(data, StateOrders)
                except (BadMessage, TooLarge) as error:
                    self.expect_sentence(error)
                self.assertLess(time.thread_time() - began, BOUND)

    def test_numbers_of_any_length(self) -> None:
        for digits in (18, 19, 20, 21, 308, 309, 4299, 4300, 4301, 20_000):
            for number in (b"9" * digits, b"-" + b"9" * digits, b"1" + b"0" * digits):
                for field in ("clientID", "clientState", "timebombSeconds", "x"):
                    self.expect_message_or_error(in_body(field, number))
                set_state = in_body("incarnation", number)
                self.expect_message_or_error(
                    set_state.replace(b"HEARTBEAT", b"SetClientState")
                )

    def test_json_nested_to_any_depth(self) -> None:
        for depth in (1, 10, 100, *range(900, 1100, 7), 5000):
            for data in (
                in_body("values", b'{"a":' * depth + b"1" + b"}" * depth),
                in_body("x", b"[" * depth + b"]" * depth),
                b"[" * depth + b"]" * depth,
            ):
                self.expect_message_or_error(data)
