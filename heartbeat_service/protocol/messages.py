"""The messages of the contract (section 1) as typed structs.

A struct names its fields, their types and their limits once; ``codec.py`` reads and
writes it by them. Knows what a message looks like, not what it does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from enum import IntEnum
from typing import Annotated, Any, ClassVar, cast

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field
from msgspec.structs import force_setattr

from heartbeat_service.core.changes import Change, Reason
from heartbeat_service.core.errors import HeartbeatError
from heartbeat_service.core.heartbeat import NO_VALUES
from heartbeat_service.core.states import ClientState

#: The longest ``values`` of a heartbeat, in bytes of JSON without white space.
MAX_VALUES = 4 * 1024

#: How deep they may be nested, the object itself included.
MAX_LEVELS = 32

_ANY = msgspec.json.Decoder()

# What telemetry mostly looks like: one decoding proves that it is an object, far from
# MAX_LEVELS, whose numbers doubles can hold.
_Value = str | float | bool | None
_Inner = _Value | list[_Value] | dict[str, _Value]
_USUAL = msgspec.json.Decoder(dict[str, _Value | list[_Inner] | dict[str, _Inner]])

#: A label's name or value as a regular expression has it.
WORD_PATTERN = "[A-Za-z0-9._:@-]{1,64}"
_WORD = re.compile(WORD_PATTERN, re.ASCII)
#: A client ID as a regular expression has it, also one of JavaScript's.
CLIENT_ID_PATTERN = r"(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,64}"
_CLIENT_ID = re.compile(CLIENT_ID_PATTERN, re.ASCII)


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


#: A client ID in JSON Schema; whoever sends one may send a number.
CLIENT_ID = {"$ref": "#/components/schemas/ClientID"}
CLIENT_ID_OR_NUMBER = {
    "anyOf": [
        CLIENT_ID,
        {"type": "integer", "exclusiveMinimum": -1e63, "exclusiveMaximum": 1e64},
    ]
}


def are_client_ids(values: Collection[object]) -> bool:
    """Whether all are well-formed client IDs, as strings: quickly, for many."""
    strings = set(map(type, values)) <= {str}
    return strings and all(map(_CLIENT_ID.fullmatch, cast(Collection[str], values)))


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
    """A heartbeat's telemetry without white space, fit to be shown to everybody.

    :raises ValueError: if it is no JSON object, longer than :data:`MAX_VALUES`, deeper
        than :data:`MAX_LEVELS`, or has a number that no double can hold.
    """
    if values == b"{}":
        return NO_VALUES
    compact = msgspec.json.format(values, indent=-1)
    if not compact.startswith(b"{"):
        raise ValueError("Expected `object` - at `$.values`")
    if len(compact) > MAX_VALUES:
        raise ValueError(f"Expected at most {MAX_VALUES} bytes - at `$.values`")
    try:
        _USUAL.decode(compact)
    except msgspec.MsgspecError:
        _check_shape(compact)
    return Raw(compact)


def _check_shape(values: bytes) -> None:
    try:
        level: list[Any] = [_ANY.decode(values)]
        for _ in range(MAX_LEVELS):
            level = [inner for outer in level for inner in _nested_in(outer)]
            if not level:
                return
    except (msgspec.ValidationError, OverflowError):
        raise ValueError("Expected finite numbers - at `$.values`") from None
    raise ValueError(f"Expected at most {MAX_LEVELS} levels - at `$.values`")


def _nested_in(outer: dict[str, Any] | list[Any]) -> Iterator[Any]:
    """The objects and arrays right inside one.

    :raises OverflowError: if an integer is there that no double can hold.
    """
    for value in outer.values() if isinstance(outer, dict) else outer:
        if isinstance(value, dict | list):
            yield value
        elif isinstance(value, int):
            float(value)


def is_word(value: str) -> bool:
    """Whether a label can be named so, or say so."""
    return bool(_WORD.fullmatch(value))


InstanceID = Annotated[str, Meta(min_length=1, max_length=64)]
#: What a label is named, and what it says. A `$` alone lets a line's end pass.
Word = Annotated[str, Meta(pattern=rf"^{WORD_PATTERN}$(?!\n)")]
Labels = Annotated[dict[Word, Word], Meta(max_length=8)]
#: The same for people.
WORD = "1 to 64 characters of A-Z a-z 0-9 . _ : @ -"
RequestID = Annotated[str, Meta(min_length=1, max_length=64)]
Fuse = Annotated[float, Meta(gt=0)]

#: Any telemetry: bytes that are checked and handed on.
Values = Annotated[
    Raw,
    Meta(
        description=f"Any telemetry: at most {MAX_VALUES} bytes of JSON without white "
        f"space, {MAX_LEVELS} levels deep, its numbers finite.",
        extra_json_schema={"type": "object"},
    ),
]

#: A moment as people read it: RFC 3339, in UTC.
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]

#: What an error is called; whoever reads one takes others, too.
Code = Annotated[
    str,
    Meta(
        extra_json_schema={
            "enum": [error.code for error in HeartbeatError.__subclasses__()]
        }
    ),
]

#: A server's sequence or incarnation: other integers, a broken server's, would stay
#: ahead of all that come after them.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]

#: Python's names and the wire's.
CAMEL = {
    "all_": "all",
    "as_of": "asOf",
    "client_id": "clientID",
    "client_ids": "clientIDs",
    "client_state": "clientState",
    "deaths_in_ten_minutes": "deathsInTenMinutes",
    "dry_run": "dryRun",
    "ended_at": "endedAt",
    "from_states": "from",
    "gone_last_hour": "goneLastHour",
    "heartbeat_interval_seconds": "heartbeatIntervalSeconds",
    "instance_id": "instanceID",
    "last_state": "lastState",
    "longest_gap_seconds": "longestGapSeconds",
    "lost_last_hour": "lostLastHour",
    "mass_loss": "massLoss",
    "message_type": "messageType",
    "previous_state": "previousState",
    "quiet_seconds": "quietSeconds",
    "registered_at": "registeredAt",
    "reported_after": "reportedAfter",
    "reported_state": "reportedState",
    "request_endpoint": "requestEndpoint",
    "request_id": "requestID",
    "retry_after_seconds": "retryAfterSeconds",
    "sdk_version": "sdkVersion",
    "seconds_left": "secondsLeft",
    "seconds_since_heartbeat": "secondsSinceHeartbeat",
    "seconds_to_timebomb": "secondsToTimebomb",
    "self_": "self",
    "server_time": "serverTime",
    "silent_seconds": "silentSeconds",
    "started_at": "startedAt",
    "state_change_endpoint": "stateChangeEndpoint",
    "state_since": "stateSince",
    "timebomb_seconds": "timebombSeconds",
}


class Body(Struct, frozen=True, gc=False, rename=CAMEL):
    """A JSON object whose known fields are checked and whose others are ignored.

    :cvar json_schema: what JSON Schema says of it beyond its fields.
    """

    json_schema: ClassVar[Mapping[str, object]] = {}


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
    values: Values = field(default_factory=NO_VALUES.copy)
    labels: Labels | UnsetType = UNSET

    def __post_init__(self) -> None:
        force_setattr(self, "values", compact_values(bytes(self.values)))


class GetClientState(Message, frozen=True):
    """Asks which state a client is in."""

    message_type = "GetClientState"

    client_id: ClientID
    instance_id: InstanceID | UnsetType = UNSET


class SetClientState(Message, frozen=True):
    """A client has entered another state."""

    message_type = "SetClientState"

    client_id: ClientID
    client_state: WireState
    incarnation: int | UnsetType = UNSET
    instance_id: InstanceID | UnsetType = UNSET
    sequence: int | UnsetType = UNSET


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
    sequence: Count
    incarnation: Count
    timebomb_seconds: Fuse
    heartbeat_interval_seconds: Fuse
    request_endpoint: str
    state_change_endpoint: str
    instance_id: InstanceID | UnsetType = UNSET


class ErrorMessage(Message, frozen=True):
    """The server's reply to a request that breaks a rule."""

    message_type = "Error"

    code: Code
    detail: str
    client_id: ClientID | UnsetType = UNSET
    retry_after_seconds: float | UnsetType = UNSET


class OnStateChange(Message, frozen=True):
    """Published: a client has changed its state."""

    message_type = "OnStateChange"

    client_id: ClientID
    client_state: WireState
    previous_state: WireState
    reason: Reason
    sequence: Count
    incarnation: Count
    instance_id: InstanceID | UnsetType = UNSET

    @classmethod
    def of(cls, change: Change) -> OnStateChange:
        """What is published of a change."""
        return cls(
            client_id=ClientID(change.client_id),
            client_state=change.state,
            previous_state=change.previous_state,
            reason=change.reason,
            sequence=change.sequence,
            incarnation=change.incarnation,
            instance_id=change.client.instances.present or UNSET,
        )


Request = HeartbeatMessage | GetClientState | SetClientState | Goodbye
Reply = ClientStateMessage | ErrorMessage


class ClientRecord(Body, frozen=True):
    """All that an operator is shown of a living client.

    :ivar values: None where they can't be found out: it beats at a node that doesn't
        answer.
    :ivar seconds_since_heartbeat: None in the same case.
    :ivar seconds_to_timebomb: None in the same case.
    :ivar late: whether it has missed two of its intervals; who is held is late, too.
    :ivar held: whether it lives on though its fuse has run out.
    :ivar silent_seconds: what is left of a planned silence; None without one.
    :ivar deaths_in_ten_minutes: how often it died by its timebomb.
    """

    client_id: str
    client_state: ClientState
    reported_state: ClientState
    sequence: int
    incarnation: int
    instance_id: str | None
    values: Values | None
    timebomb_seconds: float
    seconds_since_heartbeat: float | None
    seconds_to_timebomb: float | None
    registered_at: Moment
    labels: dict[str, str]
    late: bool
    held: bool
    silent_seconds: float | None
    state_since: Moment
    deaths_in_ten_minutes: int


class LifeRecord(Body, frozen=True):
    """One life of a client, as an operator is shown it.

    :ivar beats: null, as the longest gap, of the present life, where only another node
        has counted them, which doesn't answer.
    :ivar by: which operator ended it; null where that isn't known, or nobody did.
    """

    incarnation: int
    registered_at: Moment
    ended_at: Moment | None
    reason: Reason | None
    last_state: ClientState
    beats: int | None
    longest_gap_seconds: float | None
    by: str | None = None


class HistoryRecord(Body, frozen=True):
    """The lives of a client, newest first; how the present one ended is null."""

    lives: list[LifeRecord]


class GoneRecord(Body, frozen=True):
    """A client that is gone, as an operator is shown it.

    :ivar labels: those that it had when it went.
    """

    client_id: str
    last_state: ClientState
    reason: Reason | None
    ended_at: Moment
    registered_at: Moment
    beats: int
    longest_gap_seconds: float
    labels: dict[str, str] = {}


class HoldRecord(Body, frozen=True):
    """The present hold of a mass loss, as an operator is shown it; without one, nulls.

    :ivar hold: its ID.
    :ivar since: when it began.
    :ivar seconds_left: for how much longer it can last.
    """

    hold: str | None = None
    since: Moment | None = None
    seconds_left: float | None = None


class SummaryRecord(Body, frozen=True):
    """How the service and its clients are, in one look.

    :ivar states: how many are in each living state.
    :ivar flapping: how many have died three times in ten minutes.
    :ivar gone_last_hour: of how many a life ended for good, also if they came back.
    :ivar lost_last_hour: how many of them were lost by their timebombs.
    :ivar mass_loss: the present hold.
    :ivar store: why nothing can be kept; None if it can.
    """

    alive: int
    states: dict[ClientState, int]
    late: int
    held: int
    silent: int
    flapping: int
    gone_last_hour: int
    lost_last_hour: int
    mass_loss: HoldRecord | None
    store: str | None
    started_at: Moment
    as_of: str
    server_time: Moment


class HealthRecord(Body, frozen=True):
    """That the service is alive, or ready."""

    status: str


class ListTail(Body, frozen=True, kw_only=True):
    """What stands behind a list.

    :ivar as_of: the id of the last event that was told when it was begun.
    """

    as_of: str
    server_time: Moment


class PageTail(ListTail, frozen=True, kw_only=True):
    """What stands behind a list, or a page of one.

    :ivar next: the `after` of the next page; None with the last one. Left out where no
        `limit` was asked for.
    """

    next: int | UnsetType | None = UNSET


class HoldTail(ListTail, frozen=True, kw_only=True):
    """What stands behind the list of who is held: of the present hold, or nulls.

    :ivar hold: its ID.
    :ivar since: when it began.
    :ivar seconds_left: for how much longer it can last.
    """

    hold: str | None
    since: Moment | None
    seconds_left: float | None
