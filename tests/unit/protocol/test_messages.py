"""The messages of the contract's section 1: what is read, what is refused, and why.

Whatever comes in, it is a message or one of two errors: no input has another way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Reason
from heartbeat_service.core.errors import BadMessage, TooLarge
from heartbeat_service.core.heartbeat import NO_VALUES
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.codec import (
    MAX_MESSAGE,
    decode_body,
    decode_from_server,
    decode_request,
    encode,
    moment,
    topic_of,
)
from heartbeat_service.protocol.messages import (
    MAX_VALUES,
    ClientID,
    ClientStateMessage,
    ErrorMessage,
    GetClientState,
    Goodbye,
    HeartbeatMessage,
    Message,
    OnStateChange,
    Request,
    SetClientState,
    StateNumber,
    StateOrder,
    StateOrders,
    as_state,
)

NOON = datetime(2022, 3, 29, 12, 21, 25, 153292)  # noqa: DTZ001 - local, as on the wire

GOOD_BODY = '{"clientID":1,"clientState":0}'


def envelope(
    body: str,
    message_type: str = '"HEARTBEAT"',
    sdk_version: str = "0.1",
    timestamp: str = '"2022-03-29 12:21:25.153292"',
) -> bytes:
    """A message of which each part is given as JSON, good or bad."""
    return (
        f'{{"sdkVersion":{sdk_version},"timestamp":{timestamp},'
        f'"messageType":{message_type},"body":{body}}}'
    ).encode()


def heartbeat(client_id: str = '"1"', state: str = "0", more: str = "") -> bytes:
    """A HEARTBEAT of which each part is given as JSON; ``more`` begins with a comma."""
    return envelope(f'{{"clientID":{client_id},"clientState":{state}{more}}}')


def values(of: str) -> bytes:
    """A HEARTBEAT with these ``values``, given as JSON."""
    return heartbeat(more=f',"values":{of}')


def request(message_type: str, **body: Any) -> bytes:
    """A well-formed request."""
    return envelope(json.dumps(body), json.dumps(message_type))


def without(part: str) -> bytes:
    """A message that lacks one part of its envelope."""
    whole = json.loads(heartbeat())
    del whole[part]
    return json.dumps(whole).encode()


def of_length(length: int) -> str:
    """A JSON object of so many bytes."""
    return '{"a":"%s"}' % ("x" * (length - 8))


NESTED = "[" * 30_000 + "]" * 30_000

NOT_JSON = {
    "nothing": b"",
    "white space": b"  \n",
    "a word": b"heartbeat",
    "half a message": heartbeat()[:-2],
    "more after the message": heartbeat() + b"x",
    "two messages": heartbeat() * 2,
    "a byte order mark": b"\xef\xbb\xbf" + heartbeat(),
    "a NUL": b"\x00",
    "single quotes": heartbeat().replace(b'"', b"'"),
    "a trailing comma": heartbeat(more=","),
    "NaN": heartbeat(more=',"timebombSeconds":NaN'),
    "Infinity": heartbeat(more=',"timebombSeconds":Infinity'),
    "a number that begins with 0": values('{"a":01}'),
    "a number without an end": values('{"a":1.}'),
    "an unknown escape": values(r'{"a":"\x"}'),
    "a bare control character": values('{"a":"\x01"}'),
    "a name that is no string": values("{1:2}"),
    "a lone surrogate in values": values(r'{"a":"\ud800"}'),
    "a lone surrogate in instanceID": heartbeat(more=r',"instanceID":"\udfff"'),
    "a lone surrogate in timestamp": envelope(GOOD_BODY, timestamp=r'"\ud800"'),
}
NOT_UTF8 = {
    "a lone byte": b"\xff",
    "a surrogate as bytes": heartbeat().replace(b"2022", b"\xed\xa0\x80"),
    "Latin 1": heartbeat().replace(b"2022", b"\xe9"),
    "UTF-16": heartbeat().decode().encode("utf-16"),
    "an overlong slash": heartbeat().replace(b"2022", b"\xc0\xaf"),
}
NOT_A_MESSAGE = {
    "null": b"null",
    "a number": b"1",
    "a string": b'"HEARTBEAT"',
    "an array": b"[" + heartbeat() + b"]",
    "an empty object": b"{}",
    "no sdkVersion": without("sdkVersion"),
    "no timestamp": without("timestamp"),
    "no messageType": without("messageType"),
    "no body": without("body"),
    "fields in snake case": heartbeat().replace(b"sdkVersion", b"sdk_version"),
    "sdkVersion a string": envelope(GOOD_BODY, sdk_version='"0.1"'),
    "sdkVersion null": envelope(GOOD_BODY, sdk_version="null"),
    "sdkVersion a truth": envelope(GOOD_BODY, sdk_version="true"),
    "sdkVersion an array": envelope(GOOD_BODY, sdk_version="[0.1]"),
    "timestamp a number": envelope(GOOD_BODY, timestamp="1648549285"),
    "timestamp null": envelope(GOOD_BODY, timestamp="null"),
    "messageType unknown": envelope(GOOD_BODY, '"Heartbeat"'),
    "messageType empty": envelope(GOOD_BODY, '""'),
    "messageType a number": envelope(GOOD_BODY, "1"),
    "messageType null": envelope(GOOD_BODY, "null"),
    "what only the server says": envelope(GOOD_BODY, '"OnStateChange"'),
    "body null": envelope("null"),
    "body an array": envelope('["1","RUNNING"]'),
    "body a string": envelope('"1"'),
    "body without a client": envelope('{"clientState":0}'),
    "HEARTBEAT without a state": envelope('{"clientID":"1"}'),
    "SetClientState without a state": request("SetClientState", clientID="1"),
    "GetClientState without a client": request("GetClientState"),
    "Goodbye without a client": request("Goodbye", incarnation=1),
}
BAD_CLIENT_ID = {
    "empty": '""',
    "a dot": '"."',
    "two dots": '".."',
    "65 characters": json.dumps("a" * 65),
    "65 digits": "1" * 65,
    "5000 digits": "9" * 5000,
    "a newline at its end": r'"1\n"',
    "a space": '"1 "',
    "a slash": '"a/b"',
    "a plus": '"+1"',
    "a NUL": r'"1\u0000"',
    "an Arabic digit": '"\u0661"',
    "a letter beyond ASCII": '"\u00e9"',
    "a long s, which folds to s": '"\u017f"',
    "an escaped emoji": r'"\ud83d\ude00"',
    "a lone surrogate": r'"\ud800"',
    "a truth": "true",
    "a float": "1.0",
    "a number with an exponent": "1e2",
    "null": "null",
    "an array": '["1"]',
    "an object": "{}",
}
BAD_STATE = {
    "below the range": "-1",
    "above the range": "4",
    "far above the range": "9" * 400,
    "a float": "1.5",
    "a truth": "true",
    "null": "null",
    "the number as a string": '"1"',
    "in small letters": '"running"',
    "unknown": '"SLEEPING"',
    "empty": '""',
    "an array": "[1]",
}
BAD_INSTANCE = {
    "empty": '""',
    "65 characters": json.dumps("a" * 65),
    "a number": "1",
    "a truth": "true",
    "null": "null",
    "an object": "{}",
}
BAD_FUSE = {
    "zero": "0",
    "zero as a float": "0.0",
    "minus zero": "-0.0",
    "negative": "-1",
    "beyond any float": "1e999",
    "beyond any float, as an integer": "9" * 400,
    "too small to be told from zero": "1e-400",
    "a truth": "true",
    "null": "null",
    "a string": '"10"',
    "an array": "[10]",
}
BAD_VALUES = {
    "null": "null",
    "an array": "[1]",
    "a string": '"{}"',
    "a number": "1",
    "a truth": "false",
    "a byte over 4 KiB": of_length(MAX_VALUES + 1),
    "far over 4 KiB": of_length(40_000),
    "over 4 KiB of UTF-8 in fewer characters": json.dumps(
        {"a": "é" * (MAX_VALUES // 2)}, ensure_ascii=False
    ),
}
BAD_INCARNATION = {
    "a string": '"1"',
    "a float": "1.5",
    "a truth": "true",
    "null": "null",
    "5000 digits": "9" * 5000,
}

BAD_MESSAGES: dict[str, bytes] = {
    **{f"not JSON: {why}": data for why, data in NOT_JSON.items()},
    **{f"not UTF-8: {why}": data for why, data in NOT_UTF8.items()},
    **{f"not a message: {why}": data for why, data in NOT_A_MESSAGE.items()},
    "deep nesting: the message": NESTED.encode(),
    "deep nesting: objects": b'{"a":' * 10_000,
    "deep nesting: the body": envelope(NESTED),
    "deep nesting: the client": heartbeat(NESTED),
    "deep nesting: values": values(f'{{"a":{NESTED}}}'),
    "deep nesting: an unknown field": heartbeat(more=f',"x":{NESTED}'),
}

#: Messages that nobody can be told to have sent.
BAD_MESSAGES_OF_NOBODY: dict[str, bytes] = {
    **{
        f"bad clientID in {kind}: {why}": envelope(
            f'{{"clientID":{bad},"clientState":0}}', f'"{kind}"'
        )
        for kind in ("HEARTBEAT", "GetClientState", "SetClientState", "Goodbye")
        for why, bad in BAD_CLIENT_ID.items()
    },
    "body null": envelope("null"),
    "body without a client": envelope('{"clientState":0}'),
    "not JSON": heartbeat()[:-2],
    "not UTF-8": b"\xff" + heartbeat(),
}

#: Messages that are bad in another way, but of client 1 for sure.
BAD_MESSAGES_OF_CLIENT_1: dict[str, bytes] = {
    **{f"bad clientState: {why}": heartbeat('"1"', s) for why, s in BAD_STATE.items()},
    **{
        f"bad clientState in SetClientState: {why}": envelope(
            f'{{"clientID":1,"clientState":{bad}}}', '"SetClientState"'
        )
        for why, bad in BAD_STATE.items()
    },
    **{
        f"bad instanceID: {why}": heartbeat(more=f',"instanceID":{bad}')
        for why, bad in BAD_INSTANCE.items()
    },
    **{
        f"bad timebombSeconds: {why}": heartbeat(more=f',"timebombSeconds":{bad}')
        for why, bad in BAD_FUSE.items()
    },
    **{f"bad values: {why}": values(bad) for why, bad in BAD_VALUES.items()},
    **{
        f"bad incarnation in {kind}: {why}": envelope(
            f'{{"clientID":1,"clientState":1,"incarnation":{bad}}}', f'"{kind}"'
        )
        for kind in ("SetClientState", "Goodbye")
        for why, bad in BAD_INCARNATION.items()
    },
    "unknown messageType": envelope(GOOD_BODY, '"Nonsense"'),
    "no timestamp": without("timestamp"),
    "sdkVersion a string": envelope(GOOD_BODY, sdk_version='"0.1"'),
}

ALL_BAD = BAD_MESSAGES | BAD_MESSAGES_OF_NOBODY | BAD_MESSAGES_OF_CLIENT_1


def outcome(
    decode: Callable[[bytes], object], data: bytes
) -> BadMessage | TooLarge | None:
    """The error that decoding ends in; any but these two goes through."""
    try:
        decode(data)
    except (BadMessage, TooLarge) as error:
        return error
    return None


class TestBadMessages(SynchronousTestCase):
    def test_each_bad_message_is_a_bad_message_and_nothing_else(self) -> None:
        for why, data in ALL_BAD.items():
            self.assertIsInstance(outcome(decode_request, data), BadMessage, why)

    def test_error_says_what_is_wrong(self) -> None:
        for why, data in ALL_BAD.items():
            error = outcome(decode_request, data)
            assert error is not None
            self.assertGreater(len(error.detail), 10, why)
            self.assertNotIn("\n", error.detail, why)
            self.assertLess(len(error.detail), 300, why)
            error.detail.encode()

    def test_error_names_the_client_where_it_is_known(self) -> None:
        for why, data in BAD_MESSAGES_OF_CLIENT_1.items():
            error = outcome(decode_request, data)
            assert error is not None
            self.assertEqual(error.client_id, "1", why)

    def test_error_names_nobody_where_no_client_can_be_read(self) -> None:
        for why, data in BAD_MESSAGES_OF_NOBODY.items():
            error = outcome(decode_request, data)
            assert error is not None
            self.assertIsNone(error.client_id, why)

    def test_message_over_the_limit_is_too_large_whatever_is_in_it(self) -> None:
        good = heartbeat()
        fits = good + b" " * (MAX_MESSAGE - len(good))
        self.assertIsInstance(decode_request(fits), HeartbeatMessage)
        for data in (fits + b" ", b"\xff" * (MAX_MESSAGE + 1), b"[" * 10_000_000):
            self.assertIsInstance(outcome(decode_request, data), TooLarge)
            self.assertIsInstance(outcome(decode_from_server, data), TooLarge)

    def test_server_takes_only_requests_and_a_client_only_what_servers_say(self):
        reply = encode(ErrorMessage(code="OVERLOADED", detail="later"))
        self.assertIsInstance(outcome(decode_request, reply), BadMessage)
        self.assertIsInstance(outcome(decode_from_server, heartbeat()), BadMessage)

    def test_orders_are_checked_like_messages(self) -> None:
        for bad in BAD_STATE.values():
            order = f'{{"clientState":{bad}}}'.encode()
            self.assertIsInstance(
                outcome(lambda data: decode_body(data, StateOrder), order), BadMessage
            )
        for bad in [*BAD_CLIENT_ID.values(), '"1", ".."']:
            orders = f'{{"clientState":3,"clientIDs":[{bad}]}}'.encode()
            self.assertIsInstance(
                outcome(lambda data: decode_body(data, StateOrders), orders), BadMessage
            )
        for ids in ("null", '"1"', "{}", "1"):
            orders = f'{{"clientState":3,"clientIDs":{ids}}}'.encode()
            self.assertIsInstance(
                outcome(lambda data: decode_body(data, StateOrders), orders), BadMessage
            )


class TestGoodMessages(SynchronousTestCase):
    def beat(self, data: bytes) -> HeartbeatMessage:
        """A HEARTBEAT that must be accepted."""
        message = decode_request(data)
        assert isinstance(message, HeartbeatMessage)
        return message

    def test_each_request_is_read_with_all_its_fields(self) -> None:
        self.assertEqual(
            decode_request(
                heartbeat(
                    '"a.B_9:@-"',
                    '"RUNNING"',
                    ',"instanceID":"i","timebombSeconds":1.5,"values":{"fps":60}',
                )
            ),
            HeartbeatMessage(
                client_id=ClientID("a.B_9:@-"),
                client_state=ClientState.RUNNING,
                instance_id="i",
                timebomb_seconds=1.5,
                values=self.beat(values('{"fps":60}')).values,
            ),
        )
        self.assertEqual(
            decode_request(request("GetClientState", clientID="1")),
            GetClientState(client_id=ClientID("1")),
        )
        self.assertEqual(
            decode_request(
                request(
                    "SetClientState",
                    clientID="1",
                    clientState="CALIBRATED",
                    incarnation=5,
                    instanceID="i",
                )
            ),
            SetClientState(
                client_id=ClientID("1"),
                client_state=ClientState.CALIBRATED,
                incarnation=5,
                instance_id="i",
            ),
        )
        self.assertEqual(
            decode_request(
                request("Goodbye", clientID="1", incarnation=5, instanceID="i")
            ),
            Goodbye(client_id=ClientID("1"), incarnation=5, instance_id="i"),
        )

    def test_optional_fields_may_be_left_out(self) -> None:
        self.assertEqual(
            decode_request(heartbeat()),
            HeartbeatMessage(
                client_id=ClientID("1"), client_state=StateNumber.DISCONNECTED
            ),
        )
        self.assertEqual(self.beat(heartbeat()).values, NO_VALUES)

    def test_integer_client_id_is_its_decimal_string(self) -> None:
        for number in ("1", "0", "-5", "42", "9" * 64):
            self.assertEqual(
                decode_request(heartbeat(number)),
                decode_request(heartbeat(f'"{number}"')),
            )

    def test_every_allowed_character_and_length_of_a_client_id(self) -> None:
        for client_id in ("a", "...", ".a", "a" * 64, "AZaz09._:@-", "..-"):
            self.assertEqual(
                self.beat(heartbeat(json.dumps(client_id))).client_id, client_id
            )

    def test_state_by_name_and_by_number_is_the_same_state(self) -> None:
        for number, state in enumerate(ClientState):
            for written in (str(number), f'"{state.value}"'):
                beat = self.beat(heartbeat(state=written))
                self.assertEqual(as_state(beat.client_state), state)

    def test_unknown_fields_are_ignored_everywhere(self) -> None:
        extra = '"x":[1e400,{"y":null}],"clientid":7'
        for kind in ("HEARTBEAT", "GetClientState", "SetClientState", "Goodbye"):
            plain = envelope('{"clientID":"1","clientState":1}', f'"{kind}"')
            more = envelope(f'{{{extra},"clientID":"1","clientState":1}}', f'"{kind}"')
            self.assertEqual(decode_request(more), decode_request(plain))
            more = b'{"x":{"y":[]},' + plain[1:]
            self.assertEqual(decode_request(more), decode_request(plain))
        self.assertEqual(
            decode_body(b'{"clientState":3,"x":1}', StateOrder),
            StateOrder(client_state=StateNumber.RUNNING),
        )

    def test_any_number_is_a_version(self) -> None:
        for number in ("0.1", "1", "-3", "0", "1e400", "-1E-400", "9" * 400):
            data = envelope(GOOD_BODY, sdk_version=number)
            self.assertIsInstance(decode_request(data), HeartbeatMessage, number)

    def test_any_string_is_a_timestamp(self) -> None:
        for text in ("", "yesterday", "0", "\u00e9\U0001f600", '"', "a\nb", "x" * 9999):
            for ascii_only in (True, False):
                data = envelope(
                    GOOD_BODY,
                    timestamp=json.dumps(text, ensure_ascii=ascii_only),
                )
                self.assertIsInstance(decode_request(data), HeartbeatMessage)

    def test_white_space_between_the_parts_is_nothing(self) -> None:
        spaced = json.dumps(json.loads(heartbeat()), indent=4).encode()
        self.assertEqual(
            decode_request(b" \r\n\t" + spaced), decode_request(heartbeat())
        )

    def test_values_of_exactly_4_kib_fit(self) -> None:
        longest = of_length(MAX_VALUES)
        self.assertEqual(bytes(self.beat(values(longest)).values), longest.encode())

    def test_white_space_in_values_is_not_counted_nor_kept(self) -> None:
        longest = of_length(MAX_VALUES)
        spaced = "  " + longest.replace(":", " :" + "\n" * 5000) + " "
        self.assertEqual(bytes(self.beat(values(spaced)).values), longest.encode())

    def test_white_space_inside_of_a_string_is_kept(self) -> None:
        text = '{"a b":" \\n  c "}'
        self.assertEqual(bytes(self.beat(values(text)).values), text.encode())

    def test_any_telemetry_is_kept_as_it_is(self) -> None:
        text = '{"f":1e400,"n":null,"b":[true,{}],"é":"\\ud83d\\ude00"}'
        self.assertEqual(bytes(self.beat(values(text)).values), text.encode())

    def test_fuse_may_be_any_positive_number(self) -> None:
        for written, seconds in (("5", 5.0), ("0.001", 0.001), ("1e300", 1e300)):
            beat = self.beat(heartbeat(more=f',"timebombSeconds":{written}'))
            self.assertEqual(beat.timebomb_seconds, seconds)

    def test_orders_name_clients_as_messages_do(self) -> None:
        self.assertEqual(
            decode_body(b'{"clientState":"RUNNING","clientIDs":[1,"a"]}', StateOrders),
            StateOrders(
                client_state=ClientState.RUNNING,
                client_ids=[ClientID("1"), ClientID("a")],
            ),
        )


REPLY = ClientStateMessage(
    client_id=ClientID("1"),
    client_state=ClientState.RUNNING,
    sequence=3,
    incarnation=7,
    timebomb_seconds=10.0,
    heartbeat_interval_seconds=2.0,
    request_endpoint="tcp://h:1",
    state_change_endpoint="tcp://h:2",
)
REFUSAL = ErrorMessage(code="BAD_MESSAGE", detail="no", client_id=ClientID("1"))
PUBLICATION = OnStateChange(
    client_id=ClientID("1"),
    client_state=ClientState.DISCONNECTED,
    previous_state=ClientState.RUNNING,
    reason=Reason.TIMEBOMB,
    sequence=4,
    incarnation=7,
)


class TestEncoding(SynchronousTestCase):
    def assert_encoded(self, message: Message, body: dict[str, Any]) -> None:
        """The bytes of ``message`` are the contract's envelope around ``body``."""
        self.assertEqual(
            json.loads(encode(message, NOON)),
            {
                "sdkVersion": 0.1,
                "timestamp": "2022-03-29 12:21:25.153292",
                "messageType": message.message_type,
                "body": body,
            },
        )

    def test_reply_has_the_contracts_fields_and_the_states_name(self) -> None:
        self.assertEqual(REPLY.message_type, "ClientState")
        self.assert_encoded(
            REPLY,
            {
                "clientID": "1",
                "clientState": "RUNNING",
                "sequence": 3,
                "incarnation": 7,
                "timebombSeconds": 10.0,
                "heartbeatIntervalSeconds": 2.0,
                "requestEndpoint": "tcp://h:1",
                "stateChangeEndpoint": "tcp://h:2",
            },
        )

    def test_publication_has_the_contracts_fields_and_names(self) -> None:
        self.assertEqual(PUBLICATION.message_type, "OnStateChange")
        self.assert_encoded(
            PUBLICATION,
            {
                "clientID": "1",
                "clientState": "DISCONNECTED",
                "previousState": "RUNNING",
                "reason": "timebomb",
                "sequence": 4,
                "incarnation": 7,
            },
        )

    def test_error_names_its_client_only_where_it_is_known(self) -> None:
        self.assert_encoded(
            REFUSAL, {"code": "BAD_MESSAGE", "detail": "no", "clientID": "1"}
        )
        self.assert_encoded(
            ErrorMessage(code="OVERLOADED", detail="later"),
            {"code": "OVERLOADED", "detail": "later"},
        )

    def test_timestamp_has_microseconds_even_when_there_are_none(self) -> None:
        stamp = json.loads(encode(REPLY, NOON.replace(microsecond=0)))["timestamp"]
        self.assertEqual(stamp, "2022-03-29 12:21:25.000000")

    def test_optional_fields_that_are_not_given_are_not_sent(self) -> None:
        for message in (
            HeartbeatMessage(ClientID("1"), ClientState.RUNNING),
            SetClientState(ClientID("1"), ClientState.RUNNING),
            Goodbye(ClientID("1")),
        ):
            sent = set(json.loads(encode(message))["body"])
            self.assertLessEqual(sent, {"clientID", "clientState", "values"})

    def test_both_sides_read_what_the_other_writes(self) -> None:
        for message in (REPLY, REFUSAL, PUBLICATION):
            self.assertEqual(decode_from_server(encode(message)), message)
        requests: list[Request] = [
            HeartbeatMessage(
                ClientID("1"), ClientState.RUNNING, "i", 1.5, Raw(b'{"a":1}')
            ),
            GetClientState(ClientID("1")),
            SetClientState(ClientID("1"), ClientState.CALIBRATED, 7, "i"),
            Goodbye(ClientID("1"), 7, "i"),
        ]
        for request_ in requests:
            self.assertEqual(decode_request(encode(request_)), request_)

    def test_topic_ends_with_a_slash(self) -> None:
        self.assertEqual(topic_of("1"), b"OnStateChange/1/")

    def test_moments_are_told_in_utc(self) -> None:
        self.assertEqual(moment(1648549285.153), "2022-03-29T10:21:25.153Z")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["1", "RUNNING", "HEARTBEAT", 10**400, -(10**18), "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=5,
)
FIELDS = (
    "sdkVersion",
    "timestamp",
    "messageType",
    "body",
    "clientID",
    "clientState",
    "instanceID",
    "incarnation",
    "timebombSeconds",
    "values",
)
KINDS = ("HEARTBEAT", "GetClientState", "SetClientState", "Goodbye")


@st.composite
def misshapen(draw: st.DrawFn) -> bytes:
    """A message whose fields are there, left out, or filled with anything."""
    body = {
        "clientID": "1",
        "clientState": "RUNNING",
        "instanceID": "i",
        "incarnation": 1,
        "timebombSeconds": 1,
        "values": {},
    }
    whole = {
        "sdkVersion": 0.1,
        "timestamp": "",
        "messageType": draw(st.sampled_from(KINDS)),
        "body": body,
    }
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        of = whole if field in whole else body
        if draw(st.booleans()):
            of[field] = draw(JSON)
        else:
            of.pop(field, None)
    text = json.dumps(whole, ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good message of which some bytes are lost, doubled or replaced."""
    data = heartbeat(
        '"1"', "3", ',"instanceID":"i","timebombSeconds":1.5,"values":{"a":[1,"b"]}'
    )
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(begin + 4, len(data))))
        piece = draw(
            st.binary(max_size=3)
            | st.sampled_from([b"{", b"}", b"[", b'"', b",", b"\\", b"\\u", b"-", b"e"])
        )
        data = data[:begin] + piece + data[end:]
    return data


class TestAnything(SynchronousTestCase):
    def assert_understood_or_refused(self, data: bytes) -> None:
        """Decoding ends in one of the two errors, or in a message that makes sense."""
        for decode in (decode_request, decode_from_server):
            error = outcome(decode, data)
            if error is None:
                message = decode(data)
                self.assertEqual(decode(encode(message)), message)
                if isinstance(message, HeartbeatMessage):
                    self.assertIsInstance(json.loads(bytes(message.values)), dict)

    @settings(
        max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(st.binary(max_size=200))
    @example(b"")
    def test_any_bytes(self, data):
        self.assert_understood_or_refused(data)

    @settings(
        max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(damaged())
    def test_any_damage(self, data):
        self.assert_understood_or_refused(data)

    @settings(
        max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(misshapen())
    def test_any_shape(self, data):
        self.assert_understood_or_refused(data)

    @settings(
        max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()))
    def test_any_order(self, data):
        outcome(lambda order: decode_body(order, StateOrder), data)
        outcome(lambda orders: decode_body(orders, StateOrders), data)
