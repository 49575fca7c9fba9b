"""Who was here and is not: a listener that keeps how the last of them went.

Each life that ends has a number, one more than the one before; so they are in the order
in which they went, whatever a wall clock says meanwhile, and a page of them is found
again by a number though others come and go. Being a listener, it shows nothing that the
store doesn't have. Knows no transport.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from itertools import islice

from attrs import define, field

from heartbeat_service.core.changes import Change, GoneClient, Reason, StoredState
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.which import AnyOf, has_labels
from heartbeat_service.protocol.codec import moment
from heartbeat_service.storage.store import MOST_GONE

_HOW: Mapping[Reason | None, str] = {
    Reason.TIMEBOMB: "no heartbeat came in its time, lost at",
    Reason.GOODBYE: "it said goodbye at",
    Reason.KICK: "it was kicked at",
}


@define(eq=False)
class GoneClients:
    """The last :data:`MOST_GONE` that went, at the most, and didn't come back."""

    _last: int = field(default=0, init=False)
    # A dict whose oldest go looks for the next oldest from its very beginning.
    _gone: OrderedDict[str, GoneClient] = field(factory=OrderedDict, init=False)

    def restore(self, stored: StoredState) -> None:
        """Go on after a restart."""
        self._last = stored.lives_ended
        self._gone.clear()
        self._gone.update((one.client_id, one) for one in stored.gone)

    def hear(self, change: Change) -> None:
        """A client has changed, and the store knows it."""
        self.forget(change.client_id)
        if change.ended is None:
            return
        self._last += 1
        if change.state is ClientState.DISCONNECTED:
            gone = GoneClient(self._last, change.client_id, change.ended)
            self._gone[change.client_id] = gone
        if len(self._gone) > MOST_GONE:
            self._gone.popitem(last=False)

    def forget(self, client_id: str) -> None:
        """It lives, if it was gone at all."""
        self._gone.pop(client_id, None)

    def page(
        self,
        since: float,
        prefix: str = "",
        label: Collection[AnyOf] = (),
        after: int | None = None,
        limit: int | None = None,
    ) -> tuple[list[GoneClient], int | None]:
        """Some of them, the last to go first, and the ``after`` of the next page.

        :param since: only who went then or later, in seconds since the epoch.
        :param prefix: only whose ID begins so.
        :param label: only who had each of these.
        :param after: only who went before the one of this number.
        :param limit: how many, at the most.
        """
        those = (
            one
            for one in reversed(self._gone.values())
            if (after is None or one.number < after)
            and one.ended_at >= since
            and one.client_id.startswith(prefix)
            and has_labels(one.life.labels, label)
        )
        page = list(islice(those, limit))
        is_last = next(those, None) is None
        return page, None if is_last else page[-1].number

    def how(self, client_id: str) -> str | None:
        """When and how one went, for people; None if it isn't among these."""
        gone = self._gone.get(client_id)
        if gone is None:
            return None
        life, how = gone.life, _HOW.get(gone.life.reason, "it went at")
        by = "" if life.by is None else f" by {life.by}"
        return f"{how} {moment(gone.ended_at)}{by}, {life.last_state.value} until then"
