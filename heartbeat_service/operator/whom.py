"""Whom an order means: IDs, labels or all, said exactly once; and who they are now.

Each client that is found comes with its incarnation and sequence, by which an order
reaches those who were shown and nobody else. Knows no order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from heartbeat_service.operator.server import Record, Refused, Server

#: Up to so many are asked for one by one, more by a list.
ONE_BY_ONE = 16


@frozen
class Whom:
    """Whom somebody means; exactly one of the three is given."""

    client_ids: Sequence[str] = ()
    labels: Sequence[str] = ()
    everybody: bool = False

    def __attrs_post_init__(self) -> None:
        if [bool(self.client_ids), bool(self.labels), self.everybody].count(True) != 1:
            raise ValueError(
                "Say whom you mean, by exactly one of: client IDs, "
                "--label NAME:VALUE (for those that have all of them), --all"
            )


@frozen
class Found:
    """Who was found.

    :ivar clients: the records of the living, by ID, in the order asked for.
    :ivar missing: why others, that were named, aren't here.
    """

    clients: Mapping[str, Record]
    missing: Mapping[str, str] = field(factory=dict)


def find(server: Server, whom: Whom) -> Found:
    """Who they are now.

    :raises Refused: if the service says no.
    :raises NoServer: if there is no answer.
    """
    if not whom.client_ids:
        # A repeated parameter is a list for httpx.
        return Found(by_id(living(server, label=list(whom.labels) or None)))
    wanted = list(dict.fromkeys(whom.client_ids))
    if len(wanted) > ONE_BY_ONE:
        everybody = by_id(living(server))
        here = {one: everybody[one] for one in wanted if one in everybody}
        missing = [one for one in wanted if one not in everybody]
    else:
        here, missing = {}, wanted
    details = {one: f"{one} is not here" for one in missing[ONE_BY_ONE:]}
    for client_id in missing[:ONE_BY_ONE]:
        try:
            here[client_id] = server.get(f"/clients/{client_id}")
        except Refused as error:
            if error.code != "UNKNOWN_CLIENT":
                raise
            details[client_id] = str(error)
    return Found({one: here[one] for one in wanted if one in here}, details)


def living(server: Server, **which: Any) -> Iterator[Record]:
    """The records of those who live, page by page."""
    for page in server.pages(**which):
        yield from page["clients"]


def by_id(records: Iterator[Record]) -> dict[str, Record]:
    """Records by their clients' IDs."""
    return {record["clientID"]: record for record in records}
