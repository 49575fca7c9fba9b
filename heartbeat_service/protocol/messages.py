"""The messages of the contract (section 1) as typed structs, and their bytes.

``decode`` and ``encode`` are the only places where JSON is read or written.
Knows what a message looks like, not what it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.structs import force_setattr

from heartbeat_service.core.changes import Reason
from heartbeat_service.core.errors import BadMessage, TooLarge
from heartbeat_service.core.heartbeat import NO_VALUES
from heartbeat_service.core.states import ClientState

#: The version of the contract that this service speaks.
SDK_VERSION = 0.1

#: The longest message that is read, in bytes.
MAX_MESSAGE = 64 * 1024

#: The longest ``values`` of a heartbeat, in bytes of JSON without white space.
MAX_VALUES = 4 * 1024

#: The longest sentence in which a decoder says what is wrong, in characters.
LONGEST_DETAIL = 300

_CLIENT_ID = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._:@-]{1,64}", re.ASCII)

T = TypeVar("T")


class ClientID(str):
    """A well-formed client ID."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> ClientID:
        """Read an ID as it comes in JSON or in a path; an integer is its decimal.

        :raises ValueError: if the contract allows no such ID.
        """
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not _CLIENT_ID.fullmatch(value):
            raise ValueError(
                "Expected a client ID: 1 to 64 characters of A-Z a-z 0-9 . _ : @ -, "
                "but not . or .."
            )
        return cls(value)


class StateNumber(IntEnum):
    """The states as numbers, as a C# enum has them."""

    DISCONNECTED = 0
    UNCALIBRATED = 1
    CALIBRATED = 2
    RUNNING = 3


#: The name or the number is accepted; the name is always sent.
WireState = ClientState | StateNumber


def as_state(value: WireState) -> ClientState:
    """The state that a name or a number on the wire stands for."""
    return value if isinstance(value, ClientState) else ClientState[value.name]


def compact_values(values: bytes) -> Raw:
    """A heartbeat's telemetry without white space; the service hands it on unread.

    :raises ValueError: if it is no JSON object, or longer than :data:`MAX_VALUES`.
    """
    compact = msgspec.json.format(values, indent=-1)
    if not compact.startswith(b"{"):
        raise ValueError("Expected `object` - at `$.values`")
    if len(compact) > MAX_VALUES:
        raise ValueError(f"Expected at most {MAX_VALUES} bytes - at `$.values`")
    return Raw(compact)


InstanceID = Annotated[str, Meta(min_length=1, max_length=64)]
Fuse = Annotated[float, Meta(gt=0)]

_CAMEL = {
    "client_id": "clientID",
    "client_ids": "clientIDs",
    "client_state": "clientState",
    "ended_at": "endedAt",
    "heartbeat_interval_seconds": "heartbeatIntervalSeconds",
    "instance_id": "instanceID",
    "last_state": "lastState",
    "longest_gap_seconds": "longestGapSeconds",
    "previous_state": "previousState",
    "registered_at": "registeredAt",
    "reported_state": "reportedState",
    "request_endpoint": "requestEndpoint",
    "sdk_version": "sdkVersion",
    "seconds_since_heartbeat": "secondsSinceHeartbeat",
    "seconds_to_timebomb": "secondsToTimebomb",
    "state_change_endpoint": "stateChangeEndpoint",
    "timebomb_seconds": "timebombSeconds",
}


class Body(Struct, frozen=True, gc=False, rename=_CAMEL):
    """A JSON object whose known fields are checked and whose others are ignored."""


class Message(Body, frozen=True):
    """The body of a message; its class says what the envelope's type is."""

    message_type: ClassVar[str]


class HeartbeatMessage(Message, frozen=True):
    """A client lives, and says how it is."""

    message_type = "HEARTBEAT"

    client_id: ClientID
    client_state: WireState
    instance_id: InstanceID | UnsetType = UNSET
    timebomb_seconds: Fuse | UnsetType = UNSET
    values: Raw = NO_VALUES

    def __post_init__(self) -> None:
        force_setattr(self, "values", compact_values(bytes(self.values)))


class GetClientState(Message, frozen=True):
    """Asks which state a client is in."""

    message_type = "GetClientState"

    client_id: ClientID


class SetClientState(Message, frozen=True):
    """A client has entered another state."""

    message_type = "SetClientState"

    client_id: ClientID
    client_state: WireState
    incarnation: int | UnsetType = UNSET
    instance_id: InstanceID | UnsetType = UNSET


class Goodbye(Message, frozen=True):
    """A client leaves of its own will."""

    message_type = "Goodbye"

    client_id: ClientID
    incarnation: int | UnsetType = UNSET
    instance_id: InstanceID | UnsetType = UNSET


class ClientStateMessage(Message, frozen=True):
    """The server's reply to all four: what it holds of the client."""

    message_type = "ClientState"

    client_id: ClientID
    client_state: WireState
    sequence: int
    incarnation: int
    timebomb_seconds: float
    heartbeat_interval_seconds: float
    request_endpoint: str
    state_change_endpoint: str


class ErrorMessage(Message, frozen=True):
    """The server's reply to a request that breaks a rule."""

    message_type = "Error"

    code: str
    detail: str
    client_id: ClientID | UnsetType = UNSET


class OnStateChange(Message, frozen=True):
    """Published: a client has changed its state."""

    message_type = "OnStateChange"

    client_id: ClientID
    client_state: WireState
    previous_state: WireState
    reason: Reason
    sequence: int
    incarnation: int


Request = HeartbeatMessage | GetClientState | SetClientState | Goodbye
Reply = ClientStateMessage | ErrorMessage


class StateOrder(Body, frozen=True):
    """An operator's body of ``PUT /clients/{id}/state``."""

    client_state: WireState


class StateOrders(Body, frozen=True):
    """An operator's body of ``PUT /clients/state``; without IDs it means all."""

    client_state: WireState
    client_ids: list[ClientID] | UnsetType = UNSET


class ClientRecord(Body, frozen=True):
    """All that an operator is shown of a living client."""

    client_id: str
    client_state: ClientState
    reported_state: ClientState
    sequence: int
    incarnation: int
    instance_id: str | None
    values: Raw
    timebomb_seconds: float
    seconds_since_heartbeat: float
    seconds_to_timebomb: float
    registered_at: str


class LifeRecord(Body, frozen=True):
    """One life of a client, as an operator is shown it."""

    incarnation: int
    registered_at: str
    ended_at: str | None
    reason: Reason | None
    last_state: ClientState
    beats: int
    longest_gap_seconds: float


class _Envelope(Struct, frozen=True, gc=False, rename="camel"):
    # The service never reads the first two, so any number and any string stay
    # as they were sent.
    sdk_version: Raw
    timestamp: Raw
    message_type: str
    body: Raw

    def __post_init__(self) -> None:
        if bytes(self.sdk_version)[:1] not in b"-0123456789":
            raise ValueError("Expected `number` - at `$.sdkVersion`")
        if bytes(self.timestamp)[:1] != b'"':
            raise ValueError("Expected `str` - at `$.timestamp`")


class _AnyBody(Struct, rename=_CAMEL):
    client_id: ClientID


class _Anyone(Struct):
    body: _AnyBody


def _dec_hook(type_: type, value: object) -> object:
    if type_ is ClientID:
        return ClientID.parse(value)
    raise NotImplementedError(type_)  # msgspec's word for a type that nobody knows


def _decoder(type_: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(type_, dec_hook=_dec_hook)


_Decoders = Mapping[str, msgspec.json.Decoder[Any]]
_ENVELOPE = _decoder(_Envelope)
_ANYONE = _decoder(_Anyone)
_REQUESTS: _Decoders = {
    message.message_type: _decoder(message)
    for message in (HeartbeatMessage, GetClientState, SetClientState, Goodbye)
}
_FROM_SERVER: _Decoders = {
    message.message_type: _decoder(message)
    for message in (ClientStateMessage, ErrorMessage, OnStateChange)
}
_BODIES: Mapping[type[Body], msgspec.json.Decoder[Any]] = {
    body: _decoder(body) for body in (StateOrder, StateOrders, ErrorMessage)
}
_ENCODER = msgspec.json.Encoder(enc_hook=str)

_B = TypeVar("_B", bound=Body)


def decode_request(data: bytes) -> Request:
    """Read a message from a client.

    :raises BadMessage: for anything else; names the client where it can.
    :raises TooLarge: if it is longer than :data:`MAX_MESSAGE` bytes.
    """
    request: Request = _decode_message(data, _REQUESTS)
    return request


def decode_from_server(data: bytes) -> Reply | OnStateChange:
    """Read a reply or a publication; raises what :func:`decode_request` raises."""
    message: Reply | OnStateChange = _decode_message(data, _FROM_SERVER)
    return message


def decode_body(data: bytes, type_: type[_B]) -> _B:
    """Read JSON without an envelope: an operator's order, or a problem as an error.

    Raises what :func:`decode_request` raises.
    """
    body: _B = _parse(_BODIES[type_], _text(data))
    return body


def encode(message: Message, now: datetime | None = None) -> bytes:
    """Wrap a message into an envelope, as bytes.

    :param now: its timestamp, local time, for people; the present by default.
    """
    return _ENCODER.encode(
        {
            "sdkVersion": SDK_VERSION,
            "timestamp": (now or datetime.now()).isoformat(" ", "microseconds"),
            "messageType": message.message_type,
            "body": message,
        }
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


def _decode_message(data: bytes, decoders: _Decoders) -> Any:
    text = _text(data)
    try:
        envelope = _parse(_ENVELOPE, text)
        decoder = decoders.get(envelope.message_type)
        if decoder is None:
            known = ", ".join(decoders)
            raise BadMessage(  # noqa: TRY301 - one place names the client
                f"Expected one of {known} - at `$.messageType`"
            )
        return _parse(decoder, envelope.body, "$.body")
    except BadMessage as error:
        error.client_id = _client_id_of(text)
        raise


def _text(data: bytes) -> str:
    if not data:
        raise BadMessage("The message is empty")
    if len(data) > MAX_MESSAGE:
        raise TooLarge(f"a message has at most {MAX_MESSAGE} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadMessage("The message is not UTF-8") from None


def _parse(decoder: msgspec.json.Decoder[T], text: str | Raw, place: str = "$") -> T:
    try:
        return decoder.decode(text)
    except msgspec.MsgspecError as error:
        raise BadMessage(_cut(str(error)).replace("`$", f"`{place}")) from None
    except RecursionError:
        raise BadMessage("The JSON is nested too deeply") from None


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
