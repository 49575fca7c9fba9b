"""Operators' orders (contract, section 3): the bodies in which they come, as structs.

A slip in an order steers the wrong ones, so a field that nobody knows is an error here,
and so is whatever can't be meant. An order is to one client, or to many: then it says
whom it means. Knows no route, and nothing of how an order is carried out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import force_setattr

from heartbeat_service.core.states import ClientState
from heartbeat_service.protocol.messages import (
    CLIENT_ID,
    CLIENT_ID_OR_NUMBER,
    Body,
    ClientID,
    Count,
    WireState,
    Word,
    are_client_ids,
    as_state,
)

#: The longest lock-out, in seconds: a hundred years.
LONGEST_LOCKOUT = 100 * 365.25 * 24 * 3600

#: An incarnation and a sequence.
Point = tuple[Count, Count]

#: Each as :meth:`ClientID.parse` reads it; there may be a million.
ClientIDs = Annotated[list[Any], Meta(extra_json_schema={"items": CLIENT_ID_OR_NUMBER})]

_EachExpected = Annotated[
    dict[str, Point], Meta(extra_json_schema={"propertyNames": CLIENT_ID})
]

_True = Annotated[bool, Meta(extra_json_schema={"const": True})]

Seconds = Annotated[float, Meta(ge=0, le=LONGEST_LOCKOUT)]

#: Labels by which clients are chosen; none at all would choose everybody.
Chosen = Annotated[dict[Word, Word], Meta(min_length=1, max_length=8)]

_States = Annotated[list[WireState], Meta(min_length=1)]


class Order(Body, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all orders have: on which terms, and whether only to tell what would be.

    :cvar fields: those that an order of this kind may have, for people.
    :cvar expects: what its `expected` looks like, for people.
    """

    fields: ClassVar[str]
    expects: ClassVar[str]

    from_states: _States | UnsetType = UNSET
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.from_states, UnsetType):
            # Each once: they are gone through, and told, for each client.
            each = dict.fromkeys(map(as_state, dict.fromkeys(self.from_states)))
            force_setattr(self, "from_states", list(each))

    def states(self) -> Collection[ClientState] | None:
        """Those that whom it is for must be in; None for any."""
        if isinstance(self.from_states, UnsetType):
            return None
        return list(map(as_state, self.from_states))


class OrderToOne(Order, frozen=True, kw_only=True):
    """An order to the client that the path names."""

    fields = "if you like `from`, `expected`, `dryRun`"
    expects = "`[incarnation, sequence]`"

    expected: Point | UnsetType = UNSET

    def expected_of(self, client_id: str) -> Point | None:  # noqa: ARG002 - there is one
        """Where the client must be still, if the order says so."""
        return None if isinstance(self.expected, UnsetType) else self.expected


class OrderToMany(Order, frozen=True, kw_only=True):
    """An order to those whom it names, or who live when it is carried out.

    :cvar whom: in which ways it may say for whom it is, for people.
    """

    whom: ClassVar[str] = "exactly one of `clientIDs`, `labels` and `all`"
    fields = f"{whom}, and {OrderToOne.fields}"
    expects = "`{clientID: [incarnation, sequence]}`"
    json_schema = {  # noqa: RUF012 - a ClassVar, says Body
        "oneOf": [{"required": [way]} for way in ("clientIDs", "labels", "all")]
    }

    client_ids: ClientIDs | UnsetType = UNSET
    labels: Chosen | UnsetType = UNSET
    all_: _True | UnsetType = UNSET
    expected: _EachExpected | UnsetType = UNSET

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = (self.client_ids, self.labels, self.all_)
        if sum(not isinstance(way, UnsetType) for way in ways) != 1:
            raise ValueError(f"Expected {self.whom}")
        if self.all_ is False:
            raise ValueError("Expected `true` - at `$.all`")
        if not isinstance(self.client_ids, UnsetType):
            ids = _read_ids(self.client_ids, "clientIDs")
            force_setattr(self, "client_ids", ids)
        if not isinstance(self.expected, UnsetType):
            self._check_expected(self.expected)

    def _check_expected(self, expected: dict[str, Point]) -> None:
        _read_ids(expected.keys(), "expected")
        named = self.named()
        others = set() if named is None else expected.keys() - named
        if others:
            raise ValueError(
                f"Expected nobody but those of `clientIDs`, got {min(others)!r} "
                "- at `$.expected`"
            )

    def named(self) -> list[str] | None:
        """Those whom it names, in the order asked for; None if it names nobody."""
        return None if isinstance(self.client_ids, UnsetType) else self.client_ids

    def is_for(self, labels: Mapping[str, str]) -> bool:
        """Whether it is for a client with these labels, if it names nobody."""
        if isinstance(self.labels, UnsetType):
            return True
        return self.labels.items() <= labels.items()

    def expected_of(self, client_id: str) -> Point | None:
        """Where a client must be still, if the order says so."""
        if isinstance(self.expected, UnsetType):
            return None
        return self.expected.get(client_id)


class StateOrder(OrderToOne, frozen=True, kw_only=True):
    """The body of ``PUT /clients/{id}/state``."""

    fields = f"`clientState`, and {OrderToOne.fields}"

    client_state: WireState


class StateOrders(OrderToMany, frozen=True, kw_only=True):
    """The body of ``PUT /clients/state``."""

    fields = f"`clientState`, {OrderToMany.fields}"

    client_state: WireState


class SilenceOrder(OrderToOne, frozen=True, kw_only=True):
    """The body of ``PUT /clients/{id}/silence``."""

    fields = f"`seconds`, and {OrderToOne.fields}"

    seconds: Seconds


class SilenceOrders(OrderToMany, frozen=True, kw_only=True):
    """The body of ``PUT /clients/silence``."""

    fields = f"`seconds`, {OrderToMany.fields}"

    seconds: Seconds


class LockoutOrder(OrderToOne, frozen=True, kw_only=True):
    """The body of ``PUT /clients/{id}/lockout``."""

    fields = f"`seconds`, and {OrderToOne.fields}"

    seconds: Seconds


class LockoutOrders(OrderToMany, frozen=True, kw_only=True):
    """The body of ``PUT /clients/lockout``."""

    fields = f"`seconds`, {OrderToMany.fields}"

    seconds: Seconds


class KickOrder(OrderToOne, frozen=True, kw_only=True):
    """The body of ``DELETE /clients/{id}``, which needs none."""

    fields = "nothing, or `from`, `expected`, `dryRun`"


class KickOrders(OrderToMany, frozen=True, kw_only=True):
    """The body of ``POST /clients/kick``."""


class SilenceRecord(Body, frozen=True):
    """What is told of one of many that were granted a planned silence.

    :ivar seconds: for how long, from now on; 0 if it has none.
    """

    client_id: str
    seconds: float


class LockoutRecord(Body, frozen=True):
    """A client that is kept out, as an operator is shown it.

    :ivar seconds: for how long, from now on.
    :ivar by: who did it; null where that isn't known.
    """

    client_id: str
    seconds: float
    by: str | UnsetType | None = UNSET


def _read_ids(values: Collection[Any], field: str) -> list[str]:
    """Client IDs as they come in JSON, each as :meth:`ClientID.parse` reads it.

    :param field: where they are.
    :raises ValueError: for the first that is none.
    """
    # All at once: there may be a million.
    decimals = [str(value) if type(value) is int else value for value in values]
    if not are_client_ids(decimals):
        place = _first_bad(decimals)
        try:
            ClientID.parse(decimals[place])
        except ValueError as error:
            raise ValueError(f"{error} - at `$.{field}[{place}]`") from None
    return decimals


def _first_bad(values: Sequence[Any]) -> int:
    """Where the first is that is no client ID, by halves; one is."""
    begin, end = 0, len(values)
    while end - begin > 1:
        middle = (begin + end) // 2
        if are_client_ids(values[begin:middle]):
            begin = middle
        else:
            end = middle
    return begin
