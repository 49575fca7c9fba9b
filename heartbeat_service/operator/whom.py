"""Whom an order means: IDs, labels or all, said exactly once; and who they are now.

Each client that is found comes with its incarnation and sequence, by which an order
reaches those who were shown and nobody else. Knows no order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        pages = server.pages(label=list(whom.labels) or None)
        return Found(by_id(together(pages)))
    wanted = list(dict.fromkeys(whom.client_ids))
    if len(wanted) > ONE_BY_ONE:
        everybody = by_id(together(server.pages()))
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


def find_locked_out(server: Server, whom: Whom) -> Found:
    """Who of them is kept out; raises what :func:`find` does."""
    locked_out = by_id(server.get("/lockouts")["lockouts"])
    wanted: Iterable[str] = locked_out
    if whom.client_ids:
        wanted = dict.fromkeys(whom.client_ids)
    elif whom.labels:  # they aren't here: what labels had they?
        gone = together(gone_pages(server))
        wanted = [one["clientID"] for one in gone if has_labels(one, whom.labels)]
        wanted = [one for one in wanted if one in locked_out]
    return Found(
        {one: locked_out[one] for one in wanted if one in locked_out},
        {one: f"{one} isn't kept out" for one in wanted if one not in locked_out},
    )


def gone_pages(server: Server, **which: Any) -> Iterator[Record]:
    """The answers to who was here and is not; raises what :func:`find` does."""
    return server.pages(gone="true", **which)


def together(pages: Iterable[Record]) -> list[Record]:
    """The clients of all pages."""
    return [client for page in pages for client in page["clients"]]


def by_id(records: Iterable[Record]) -> dict[str, Record]:
    """Records by their clients' IDs."""
    return {record["clientID"]: record for record in records}


def has_labels(client: Record, labelled: Sequence[str]) -> bool:
    """Whether a record has all of some labels, as ``NAME:VALUE``."""
    has = {f"{name}:{value}" for name, value in client.get("labels", {}).items()}
    return has.issuperset(labelled)
