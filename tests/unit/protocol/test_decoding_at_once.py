"""A request that is decoded at once is answered as if it were decoded in steps.

The messages here are good ones to which odd fields are added, anywhere: so a field may
come before the one that says what it means, and twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import astuple
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.errors import BadMessage, TooLarge
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol import codec
from heartbeat_service.protocol.codec import decode_in_steps, decode_request, encode
from heartbeat_service.protocol.messages import (
    MAX_LEVELS,
    MAX_VALUES,
    ClientID,
    GetClientState,
    Goodbye,
    Request,
    SetClientState,
)
from tests.messages import BAD_MESSAGES, GOOD, heartbeat
from tests.unit.protocol.test_fuzz import HUGE, mutants, strangers

ONE = ClientID("1")

ODD_STRINGS = (
    *('""', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\x00"', '"\n"', '"é"'),
    *('"' + "é" * 64 + '"', '"' + "x" * 65 + '"', "5", "null", '"\\x"', '"'),
)
ODD_NUMBERS = (
    *("0", "-0", "-0.0", "5", "5.0", "5e-324", "1e999", "-1E-400", "01", "1.", ".5"),
    *("NaN", "Infinity", "9" * 400, "9" * 5000, str(10**30), '"5"', "true", "null"),
)


def nested(levels: int) -> str:
    """Values so many levels deep."""
    return '{"a":' + "[" * (levels - 1) + "1" + "]" * (levels - 1) + "}"


def long(length: int) -> str:
    """Values of so many bytes."""
    return '{"a":"%s"}' % ("x" * (length - 8))


ODD_VALUES = (
    *("{}", "{ }", "[]", "null", '"{}"', "5", '{"a" : [1 , "b c"]}', '{"a":1,"a":2}'),
    *('{"a":{"b":{"c":[{}]}}}', '{"\\ud800":1}', '{"a":"\\ud800"}', '{"a":[1e999]}'),
    *(nested(MAX_LEVELS), nested(MAX_LEVELS + 1), long(MAX_VALUES)),
    *(long(MAX_VALUES + 1), long(MAX_VALUES).replace(":", " : ")),
    *(f'{{"a":{number}}}' for number in ODD_NUMBERS),
)
ODD_IN_BODY: Mapping[str, Sequence[str]] = {
    "clientID": (*ODD_STRINGS, *ODD_NUMBERS, '"."', '"a b"', '"\\u0031"', "[]"),
    "clientState": (*ODD_NUMBERS, "3", '"RUNNING"', '"running"', '"\\ud800"', "{}"),
    "instanceID": ODD_STRINGS,
    "timebombSeconds": ODD_NUMBERS,
    "values": ODD_VALUES,
    "incarnation": ODD_NUMBERS,
    "sequence": ODD_NUMBERS,
    "x": (*ODD_STRINGS, *ODD_VALUES),
}
TYPES = (
    *('"HEARTBEAT"', '"GetClientState"', '"SetClientState"', '"Goodbye"'),
    *('"ClientState"', '"HEARTBEA\\u0054"', '"heartbeat"'),
)
ODD_IN_ENVELOPE: Mapping[str, Sequence[str]] = {
    "sdkVersion": ODD_NUMBERS,
    "timestamp": ODD_STRINGS,
    "messageType": (*TYPES, *ODD_STRINGS),
    "bod\\u0079": ('{"clientID":"2","clientState":0}', '{"clientID":[]}', "[]"),
    "requestID": ODD_STRINGS,
    "x": (*ODD_STRINGS, *ODD_VALUES),
}


def pairs(fields: Mapping[str, Sequence[str]]) -> list[str]:
    """Each field with each of its values."""
    return [f'"{name}":{one}' for name, values in fields.items() for one in values]


def objects(
    fields: Iterable[str], odd: Mapping[str, Sequence[str]]
) -> st.SearchStrategy[str]:
    """JSON objects of these fields, and some that are odd."""
    return (
        st.lists(st.sampled_from(pairs(odd)), max_size=2)
        .flatmap(lambda more: st.permutations([*fields, *more]))
        .map(lambda whole: f"{{{','.join(whole)}}}")
    )


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A good request with odd fields, and now and then a byte that is no UTF-8."""
    body = draw(objects(('"clientID":"1"', '"clientState":0'), ODD_IN_BODY))
    type_ = draw(st.sampled_from(TYPES[:4]))
    known = ('"sdkVersion":0.1', '"timestamp":"now"', f'"messageType":{type_}')
    text = draw(objects((*known, f'"body":{body}'), ODD_IN_ENVELOPE))
    return text.encode().replace(b"\xc3", draw(st.sampled_from([b"\xc3", b"\xff"])))


def answer(
    decode: Callable[[bytes], tuple[Request, str | None]], data: bytes
) -> tuple[object, ...]:
    """What a decoder says: the message, down to its fields' types, or what is wrong."""
    try:
        message, request_id = decode(data)
    except (BadMessage, TooLarge) as error:
        return type(error), error.code, error.detail, error.client_id
    return message, [*map(type, astuple(message))], request_id


class TestDecodingAtOnce(SynchronousTestCase):
    def expect_same(self, data: bytes) -> None:
        """Both ways to decode have the same answer."""
        self.assertEqual(answer(decode_request, data), answer(decode_in_steps, data))

    @settings(
        max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(requests())
    def test_answers_odd_requests_as_decoding_in_steps_does(self, data: bytes) -> None:
        self.expect_same(data)

    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(mutants() | strangers() | st.binary(max_size=100))
    def test_answers_anything_as_decoding_in_steps_does(self, data: bytes) -> None:
        self.expect_same(data)

    def test_answers_each_example_as_decoding_in_steps_does(self) -> None:
        for one in (*GOOD, *BAD_MESSAGES):
            self.expect_same(one.data)
        for data in HUGE.values():
            self.expect_same(data)

    def test_answers_each_odd_field_as_decoding_in_steps_does(self) -> None:
        for type_ in TYPES:
            body = '"clientID":"1","clientState":0'
            start = f'{{"sdkVersion":0.1,"timestamp":"","messageType":{type_},"body"'
            for field in pairs(ODD_IN_BODY):
                self.expect_same(f"{start}:{{{body},{field}}}}}".encode())
            for field in pairs(ODD_IN_ENVELOPE):
                self.expect_same(f"{start}:{{{body}}},{field}}}".encode())

    def test_is_what_good_requests_get(self) -> None:
        self.patch(codec, "decode_in_steps", None)
        for data, message in (
            (heartbeat(1), "HEARTBEAT"),
            (heartbeat(state=3, instanceID="i", timebombSeconds=5), "HEARTBEAT"),
            (heartbeat(values={"fps": 72, "at": {"xyz": [0.5, 1, 2]}}), "HEARTBEAT"),
            (heartbeat(values={"a": [[[[[]]]]]}), "HEARTBEAT"),
            (encode(GetClientState(ONE), "r"), "GetClientState"),
            (encode(SetClientState(ONE, ClientState.RUNNING, 7)), "SetClientState"),
            (encode(Goodbye(ONE, UNSET, "i")), "Goodbye"),
        ):
            request, _ = decode_request(data)
            self.assertEqual(request.message_type, message)
