"""Bytes to messages and back: the only place where JSON is read or written.

A message is decoded in two steps, its envelope and then the body that the envelope's
type names, so that each error can say where it is. A request is first decoded at once,
which most pass; whatever fails there is decided in steps. Knows no rule of a client's
life.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, reduce
from operator import or_
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, defstruct

from heartbeat_service.core.errors import BadMessage, TooLarge
from heartbeat_service.protocol.messages import (
    CAMEL,
    ClientID,
    ClientStateMessage,
    ErrorMessage,
    Message,
    OnStateChange,
    Reply,
    Request,
    RequestID,
)
from heartbeat_service.protocol.nodes import BeatsAnswer, BeatsQuestion, OwnNodeRecord
from heartbeat_service.protocol.orders import (
    KickOrder,
    KickOrders,
    LockoutOrder,
    LockoutOrders,
    Order,
    SilenceOrder,
    SilenceOrders,
    StateOrder,
    StateOrders,
)
from heartbeat_service.protocol.wording import say

#: What each message says of its sender; no rule depends on it.
SDK_VERSION = 0.1

#: The longest message that is read, in bytes.
MAX_MESSAGE = 64 * 1024

#: The longest order of an operator, in bytes: to more than 100,000 clients.
MAX_ORDER = 2 * 1024 * 1024

#: The longest sentence in which a decoder says what is wrong, in characters.
LONGEST_DETAIL = 300

T = TypeVar("T")


class _Envelope(Struct, frozen=True, gc=False, rename=CAMEL):
    # The service never reads the first two, so any number and any string stay
    # as they were sent.
    sdk_version: Raw
    timestamp: Raw
    message_type: str
    body: Raw
    request_id: RequestID | UnsetType = UNSET

    def __post_init__(self) -> None:
        if bytes(self.sdk_version)[:1] not in b"-0123456789":
            raise ValueError("Expected `number` - at `$.sdkVersion`")
        if bytes(self.timestamp)[:1] != b'"':
            raise ValueError("Expected `str` - at `$.timestamp`")


class _Whole(Struct, frozen=True, gc=False, kw_only=True, rename=CAMEL):
    # An envelope with its body; what that is, each subclass says.
    sdk_version: float
    timestamp: str
    request_id: RequestID | UnsetType = UNSET
    body: Any


class _AnyBody(Struct, rename=CAMEL):
    client_id: ClientID


class _Anyone(Struct):
    body: _AnyBody


class _AnyRequest(Struct, rename=CAMEL):
    request_id: RequestID | None = None


class _Sent(Struct, frozen=True, gc=False, rename=CAMEL, omit_defaults=True):
    sdk_version: float
    timestamp: str
    message_type: str
    body: Message
    request_id: str | None = None


def _dec_hook(type_: type, value: object) -> object:
    if type_ is ClientID:
        return ClientID.parse(value)
    raise NotImplementedError(type_)  # msgspec's word for a type that nobody knows


@cache
def whole(message: type[Message]) -> type[Any]:
    """What is sent of such a message: its envelope, with its body in it."""
    return defstruct(
        f"{message.message_type}Envelope",
        [("body", message)],
        bases=(_Whole,),
        namespace={"__doc__": f"A {message.message_type} message."},
        tag_field="messageType",
        tag=message.message_type,
    )


def _decoder(type_: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(type_, dec_hook=_dec_hook)


_Decoders = Mapping[str, msgspec.json.Decoder[Any]]
_ENVELOPE = _decoder(_Envelope)
_ANYONE = _decoder(_Anyone)
_ANY_REQUEST = _decoder(_AnyRequest)
_REQUESTS: _Decoders = {
    message.message_type: _decoder(message) for message in get_args(Request)
}
_WHOLE_REQUEST: msgspec.json.Decoder[_Whole] = _decoder(
    reduce(or_, map(whole, get_args(Request)))
)
_FROM_SERVER: _Decoders = {
    message.message_type: _decoder(message)
    for message in (ClientStateMessage, ErrorMessage, OnStateChange)
}
_PROBLEM = _decoder(ErrorMessage)
_ORDERS: Mapping[type[Any], msgspec.json.Decoder[Any]] = {
    order: _decoder(order)
    for order in (
        *(StateOrder, StateOrders, SilenceOrder, SilenceOrders),
        *(LockoutOrder, LockoutOrders, KickOrder, KickOrders),
        BeatsQuestion,
    )
}
_ENCODER = msgspec.json.Encoder(enc_hook=str)

_O = TypeVar("_O", bound=Order | BeatsQuestion)
_OF_NODES: Mapping[type[Any], msgspec.json.Decoder[Any]] = {
    answer: _decoder(answer) for answer in (OwnNodeRecord, BeatsAnswer)
}


def decode_request(data: bytes) -> tuple[Request, str | None]:
    """Read a message from a client.

    :return: the message, and the ``requestID`` of its envelope, which its reply has to
        bring back; None if it has none.
    :raises BadMessage: for anything else; names the client where it can.
    :raises TooLarge: if it is longer than :data:`MAX_MESSAGE` bytes.
    """
    try:
        whole = _WHOLE_REQUEST.decode(_text(data))
    except (msgspec.MsgspecError, RecursionError):
        return decode_in_steps(data)
    return whole.body, _given(whole.request_id)


def decode_in_steps(data: bytes) -> tuple[Request, str | None]:
    """Read a message from a client as :func:`decode_request` does, at twice the price.

    It says what is wrong, and it takes some messages that can't be decoded at once,
    such as one whose ``sdkVersion`` no double can hold.
    """
    request, request_id = _decode_message(data, _REQUESTS)
    return request, _given(request_id)


def request_id_of(data: bytes) -> str | None:
    """The ``requestID`` of a request that gets an ``Error``, as far as it can be read.

    :return: None if there is none, or what was sent is too long or no JSON object.
    """
    try:
        return _parse(_ANY_REQUEST, _text(data)).request_id
    except (BadMessage, TooLarge):
        return None


def decode_from_server(data: bytes) -> Reply | OnStateChange:
    """Read a reply or a publication; raises what :func:`decode_request` raises."""
    message: Reply | OnStateChange
    message, _ = _decode_message(data, _FROM_SERVER)
    return message


def decode_problem(data: bytes) -> ErrorMessage:
    """Read a problem of HTTP: an error without an envelope.

    Raises what :func:`decode_request` raises.
    """
    return _parse(_PROBLEM, _text(data))


def decode_order(data: bytes, type_: type[_O]) -> _O:
    """Read an operator's order; nothing may be in it twice.

    :raises BadMessage: for anything else; names what is allowed.
    :raises TooLarge: if it is longer than :data:`MAX_ORDER` bytes.
    """
    if not data:
        raise BadMessage(f"The message is empty; expected {type_.fields}")
    text = _text(data, MAX_ORDER)
    order: _O = _parse(_ORDERS[type_], text)
    # Of a field that is there twice, msgspec takes the last.
    json.loads(text, object_pairs_hook=_check_names)
    return order


def decode_from_node(data: bytes, type_: type[T]) -> T:
    """Read what another node answers.

    :raises BadMessage: if it is something else.
    """
    answer: T = _parse(_OF_NODES[type_], _text(data, len(data)))
    return answer


def encode(
    message: Message, request_id: str | None = None, now: datetime | None = None
) -> bytes:
    """Wrap a message into an envelope, as bytes.

    :param request_id: names a request, and in the reply the request that is answered.
    :param now: its timestamp, local time, for people; the present by default.
    """
    timestamp = (now or datetime.now()).isoformat(" ", "microseconds")
    return _ENCODER.encode(
        _Sent(SDK_VERSION, timestamp, message.message_type, message, request_id)
    )


def encode_json(value: object) -> bytes:
    """JSON without an envelope, for what operators are shown."""
    return _ENCODER.encode(value)


def topic_of(client_id: str) -> bytes:
    """The topic of one client; its closing slash keeps client 1 from hearing 10."""
    return b"OnStateChange/%s/" % client_id.encode()


def moment(seconds: float) -> str:
    """Seconds since the epoch as people read them: RFC 3339, in UTC."""
    utc = datetime.fromtimestamp(seconds, UTC)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _decode_message(
    data: bytes, decoders: _Decoders
) -> tuple[Any, RequestID | UnsetType]:
    text = _text(data)
    try:
        envelope = _parse(_ENVELOPE, text)
        decoder = decoders.get(envelope.message_type)
        if decoder is None:
            known = ", ".join(decoders)
            raise BadMessage(  # noqa: TRY301 - one place names the client
                f"Expected one of {known} - at `$.messageType`"
            )
        return _parse(decoder, envelope.body, "$.body"), envelope.request_id
    except BadMessage as error:
        error.client_id = _client_id_of(text)
        raise


def _given(request_id: RequestID | UnsetType) -> str | None:
    return None if isinstance(request_id, UnsetType) else request_id


def _text(data: bytes, longest: int = MAX_MESSAGE) -> str:
    if not data:
        raise BadMessage("The message is empty")
    if len(data) > longest:
        raise TooLarge(f"a message has at most {longest} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadMessage("The message is not UTF-8") from None


def _parse(decoder: msgspec.json.Decoder[T], text: str | Raw, place: str = "$") -> T:
    try:
        return decoder.decode(text)
    except msgspec.MsgspecError as error:
        detail = _cut(say(str(error), decoder.type))
        raise BadMessage(detail.replace("`$", f"`{place}")) from None
    except RecursionError:
        raise BadMessage("The JSON is nested too deeply") from None


def _check_names(pairs: list[tuple[str, object]]) -> None:
    """Pass if no name is there twice."""
    if len(dict(pairs)) < len(pairs):
        [(name, times)] = Counter(name for name, _ in pairs).most_common(1)
        raise BadMessage(f"`{name}` is given {times} times")


def _cut(detail: str) -> str:
    """The sentence without the middle of a value that it quotes."""
    half = LONGEST_DETAIL // 2
    if len(detail) <= LONGEST_DETAIL:
        return detail
    return f"{detail[:half]} … {detail[-half:]}"


def _client_id_of(text: str) -> ClientID | None:
    try:
        return _parse(_ANYONE, text).body.client_id
    except BadMessage:
        return None
