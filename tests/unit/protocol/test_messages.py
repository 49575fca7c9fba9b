"""The messages of the contract's section 1: what is read, what is refused, and why.

``contract/`` holds the examples, good and bad; here all of them are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Reason
from heartbeat_service.core.errors import BadMessage, TooLarge
from heartbeat_service.core.heartbeat import NO_VALUES
from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.codec import (
    MAX_MESSAGE,
    decode_from_server,
    decode_order,
    decode_request,
    encode,
    moment,
    request_id_of,
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
    as_state,
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
from tests.messages import BAD, BAD_MESSAGES, GOOD, envelope, heartbeat, message, padded

NOON = datetime(2022, 3, 29, 12, 21, 25, 153292)  # noqa: DTZ001 - local, as on the wire

READERS: dict[str, Callable[[bytes], object]] = {
    "any transport": decode_request,
    "order": partial(decode_order, type_=StateOrder),
    "orders": partial(decode_order, type_=StateOrders),
    "silence": partial(decode_order, type_=SilenceOrder),
    "silences": partial(decode_order, type_=SilenceOrders),
    "lockout": partial(decode_order, type_=LockoutOrder),
    "lockouts": partial(decode_order, type_=LockoutOrders),
    "kick": partial(decode_order, type_=KickOrder),
    "kicks": partial(decode_order, type_=KickOrders),
}


def request_in(data: bytes) -> Request:
    """A request without the ID of its envelope."""
    request, _ = decode_request(data)
    return request


def values_of(length: int) -> str:
    """A JSON object of so many bytes."""
    return '{"a":"%s"}' % ("x" * (length - 8))


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
    def test_each_is_refused_with_its_code_and_a_sentence_about_it(self) -> None:
        for bad in BAD:
            error = outcome(READERS[bad.to], bad.data)
            assert error is not None, bad.name
            self.assertEqual(error.code, bad.code, bad.name)
            self.assertIn(bad.detail, error.detail, bad.name)
            self.assertGreater(len(error.detail), 10, bad.name)
            self.assertNotIn("\n", error.detail, bad.name)
            self.assertLess(len(error.detail), 300, bad.name)
            error.detail.encode()

    def test_error_names_the_client_where_it_is_known_and_nobody_else(self) -> None:
        for bad in BAD_MESSAGES:
            error = outcome(decode_request, bad.data)
            assert error is not None
            self.assertEqual(error.client_id, bad.client_id, bad.name)

    def test_request_id_of_a_bad_message_is_what_can_be_read_of_it(self) -> None:
        for bad in BAD_MESSAGES:
            self.assertEqual(request_id_of(bad.data), bad.request_id, bad.name)

    def test_message_over_the_limit_is_not_searched_for_a_request_id(self) -> None:
        data = envelope(messageType="HEARTBEAT", requestID="r", body={})
        self.assertEqual(request_id_of(data.ljust(MAX_MESSAGE)), "r")
        self.assertIsNone(request_id_of(data.ljust(MAX_MESSAGE + 1)))

    def test_message_over_the_limit_is_too_large_whatever_is_in_it(self) -> None:
        fits = padded(MAX_MESSAGE)
        self.assertIsInstance(request_in(fits), HeartbeatMessage)
        for data in (fits + b" ", b"\xff" * (MAX_MESSAGE + 1), b"[" * 10_000_000):
            self.assertIsInstance(outcome(decode_request, data), TooLarge)
            self.assertIsInstance(outcome(decode_from_server, data), TooLarge)

    def test_server_takes_only_requests_and_a_client_only_what_servers_say(self):
        reply = encode(ErrorMessage(code="OVERLOADED", detail="later"))
        self.assertIsInstance(outcome(decode_request, reply), BadMessage)
        self.assertIsInstance(outcome(decode_from_server, heartbeat()), BadMessage)


class TestGoodMessages(SynchronousTestCase):
    def beat(self, **body: Any) -> HeartbeatMessage:
        """A HEARTBEAT that must be accepted."""
        read = request_in(heartbeat(**body))
        assert isinstance(read, HeartbeatMessage)
        return read

    def test_each_is_read_as_what_it_is(self) -> None:
        for good in GOOD:
            read, request_id = decode_request(good.data)
            self.assertEqual(read.message_type, good.message_type, good.name)
            self.assertEqual(read.client_id, good.client_id, good.name)
            self.assertEqual(request_id, good.request_id, good.name)

    def test_each_request_is_read_with_all_its_fields(self) -> None:
        for data, read in (
            (
                heartbeat(
                    *("a.B_9:@-", "RUNNING"),
                    instanceID="i",
                    timebombSeconds=1.5,
                    values={"fps": 6},
                ),
                HeartbeatMessage(
                    *(ClientID("a.B_9:@-"), ClientState.RUNNING, "i", 1.5),
                    Raw(b'{"fps":6}'),
                ),
            ),
            (
                message("GetClientState", clientID="1", instanceID="i"),
                GetClientState(ClientID("1"), "i"),
            ),
            (
                message(
                    "SetClientState",
                    clientID="1",
                    clientState="CALIBRATED",
                    incarnation=5,
                    instanceID="i",
                    sequence=3,
                ),
                SetClientState(ClientID("1"), ClientState.CALIBRATED, 5, "i", 3),
            ),
            (
                message("Goodbye", clientID="1", incarnation=5, instanceID="i"),
                Goodbye(ClientID("1"), 5, "i"),
            ),
        ):
            self.assertEqual(request_in(data), read)

    def test_optional_fields_may_be_left_out(self) -> None:
        self.assertEqual(
            request_in(heartbeat(state=0)),
            HeartbeatMessage(ClientID("1"), StateNumber.DISCONNECTED),
        )
        self.assertEqual(self.beat().values, NO_VALUES)

    def test_integer_client_id_is_its_decimal_string(self) -> None:
        for number in (1, 0, -5, 42, 10**64 - 1):
            self.assertEqual(
                request_in(heartbeat(Raw(str(number).encode()))),
                request_in(heartbeat(str(number))),
            )

    def test_state_by_name_and_by_number_is_the_same_state(self) -> None:
        for number, state in enumerate(ClientState):
            for written in (number, state.value):
                beat = self.beat(state=written)
                self.assertEqual(as_state(beat.client_state), state)

    def test_values_are_kept_as_they_are_but_for_white_space_between_them(self) -> None:
        longest = values_of(MAX_VALUES)
        for sent, kept in (
            (longest, longest),
            ("  " + longest.replace(":", " :" + "\n" * 5000) + " ", longest),
            ('{"a b":" \\n  c "}', '{"a b":" \\n  c "}'),
            *[('{"f":1e308,"n":null,"b":[true,{}],"é":"\\ud83d\\ude00"}',) * 2],
        ):
            read = self.beat(values=Raw(sent.encode())).values
            self.assertEqual(bytes(read), kept.encode())

    def test_values_may_be_nested_32_levels_deep(self) -> None:
        deepest = '{"a":' + "[" * 31 + "1" + "]" * 31 + "}"
        self.assertEqual(
            bytes(self.beat(values=Raw(deepest.encode())).values)[:5], b'{"a":'
        )

    def test_fuse_may_be_any_positive_number(self) -> None:
        for seconds in (5, 0.001, 1e300):
            beat = self.beat(timebombSeconds=seconds)
            self.assertEqual(beat.timebomb_seconds, seconds)

    def test_each_state_that_an_order_is_for_counts_once(self) -> None:
        states = b'"from":[%s3,"CALIBRATED","RUNNING"]' % (b"2,2," * 1000)
        for order in (
            decode_order(b"{%s}" % states, KickOrder),
            decode_order(b'{"all":true,%s}' % states, KickOrders),
        ):
            self.assertEqual(
                order.states(), [ClientState.CALIBRATED, ClientState.RUNNING]
            )

    def test_orders_name_clients_as_messages_do(self) -> None:
        self.assertEqual(
            decode_order(b'{"clientState":"RUNNING","clientIDs":[1,"a"]}', StateOrders),
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
            json.loads(encode(message, now=NOON)),
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
        self.assert_encoded(
            ErrorMessage(code="OVERLOADED", detail="later", retry_after_seconds=1),
            {"code": "OVERLOADED", "detail": "later", "retryAfterSeconds": 1},
        )

    def test_replies_and_publications_name_the_instance_where_there_is_one(self):
        for told in (REPLY, PUBLICATION):
            body = json.loads(encode(told))["body"]
            self.assertNotIn("instanceID", body)
            self.assert_encoded(
                replace(told, instance_id="i"), {**body, "instanceID": "i"}
            )

    def test_timestamp_has_microseconds_even_when_there_are_none(self) -> None:
        noon = NOON.replace(microsecond=0)
        stamp = json.loads(encode(REPLY, now=noon))["timestamp"]
        self.assertEqual(stamp, "2022-03-29 12:21:25.000000")

    def test_request_id_is_sent_in_the_envelope_as_it_came(self) -> None:
        for request_id in ("r", "\x00\n\x7f\u2028", '"\\', "\N{COLLISION SYMBOL}" * 64):
            for told in (REPLY, REFUSAL):
                sent = json.loads(encode(told, request_id))
                self.assertEqual(sent.pop("requestID"), request_id)
                self.assertEqual(
                    sent | {"timestamp": ""},
                    json.loads(encode(told)) | {"timestamp": ""},
                )
                self.assertEqual(decode_from_server(encode(told, request_id)), told)

    def test_optional_fields_that_are_not_given_are_not_sent(self) -> None:
        for told in (
            HeartbeatMessage(ClientID("1"), ClientState.RUNNING),
            SetClientState(ClientID("1"), ClientState.RUNNING),
            Goodbye(ClientID("1")),
        ):
            sent = set(json.loads(encode(told))["body"])
            self.assertLessEqual(sent, {"clientID", "clientState", "values"})

    def test_both_sides_read_what_the_other_writes(self) -> None:
        for told in (REPLY, REFUSAL, PUBLICATION):
            self.assertEqual(decode_from_server(encode(told)), told)
        requests: list[Request] = [
            HeartbeatMessage(
                ClientID("1"), ClientState.RUNNING, "i", 1.5, Raw(b'{"a":1}')
            ),
            GetClientState(ClientID("1")),
            SetClientState(ClientID("1"), ClientState.CALIBRATED, 7, "i", 3),
            Goodbye(ClientID("1"), 7, "i"),
        ]
        for request in requests:
            for request_id in (None, "r"):
                self.assertEqual(
                    decode_request(encode(request, request_id)), (request, request_id)
                )

    def test_topic_ends_with_a_slash(self) -> None:
        self.assertEqual(topic_of("1"), b"OnStateChange/1/")

    def test_moments_are_told_in_utc(self) -> None:
        self.assertEqual(moment(1648549285.153), "2022-03-29T10:21:25.153Z")
