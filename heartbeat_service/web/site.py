"""twisted.web's Site with two caps: of connections, and of what is kept for them.

It knows every connection, and who makes room: strangers before those who were answered,
and of memory whoever takes most. Knows nothing of what is asked and answered.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Site
from typing_extensions import override

from heartbeat_service.core.clock import Clock
from heartbeat_service.web import channel as channels
from heartbeat_service.web.channel import BoundedRequest, HardenedChannel, cancel
from heartbeat_service.web.heads import KnownHeads
from heartbeat_service.web.problem import Problem

#: What may be kept of requests that aren't answered and answers that aren't read, for
#: all connections together, in bytes. Beyond it, those that take most are ended; so
#: nobody is who takes no more than its equal share.
BUDGET = 256 * 1024 * 1024

#: What a connection costs besides, in bytes: inside TLS, where it is most.
CONNECTION_COST = 48 * 1024


class HeartbeatSite(Site):
    """Serves the app, and keeps no access log: a beat is no news.

    :param max_connections: how many there may be at once. One more takes the place
        of the oldest that was never answered; if there is none, of the one whose
        last answer is the longest ago; if every one of them is being answered, it
        is turned away.
    :param deadlines: what the peers' deadlines run on. The reactor's own timers
        would fall due after a stall before it reads what came in time.
    :param gate: why a request isn't taken, of which only the head is there; None if
        it may come in.
    :ivar refused: is told of what was answered before it became a request.
    :ivar at_once: answers a request, if it can without any waiting; else ``resource``
        goes on with it.
    :ivar max_connections: how many there may be at once.
    :ivar route_of: the name of the route that a request is for.
    :ivar answers: how many requests that came in whole were answered, by route and
        status, but for those of ``answered_at_once``.
    :ivar answered_at_once: how many heartbeats were, with 200.
    :ivar displaced: how many connections were ended to make room for another.
    :ivar turned_away: how many there was no room for.
    :ivar shed: how many were ended as too much was kept for them.
    """

    protocol = HardenedChannel  # type: ignore[assignment]  # Twisted types its own wrapper
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        max_connections: int,
        deadlines: Clock,
        gate: Callable[[BoundedRequest], Problem | None],
        refused: Callable[[Problem], object] = lambda _: None,
        at_once: Callable[[BoundedRequest], bytes | None] = lambda _: None,
    ) -> None:
        super().__init__(
            resource, BoundedRequest, timeout=channels.REQUEST_DEADLINE, reactor=reactor
        )
        self._only = resource
        self.channels: set[HardenedChannel] = set()
        self.heads = KnownHeads()
        self.max_connections = max_connections
        self.answers: Counter[tuple[str, int]] = Counter()
        self.answered_at_once = 0
        self.route_of: Callable[[BoundedRequest], str] = lambda _: ""
        self.displaced = self.turned_away = self.shed = 0
        self.deadlines = deadlines
        self.gate = gate
        self.refused = refused
        self.at_once = at_once
        # Those that are not being answered. A stranger who connects again and again
        # must not push out a client that beats, so they are kept apart.
        self._never_answered: OrderedDict[HardenedChannel, None] = OrderedDict()
        self._answered: OrderedDict[HardenedChannel, None] = OrderedDict()
        self._kept: dict[HardenedChannel, int] = {}
        self._kept_in_all = 0
        self._empty: Deferred[None] | None = None

    @override
    def getResourceFor(self, request: object) -> IResource:
        # The only one, whatever is asked for.
        return self._only

    def admit(self, channel: HardenedChannel) -> bool:
        """Whether a new connection may stay."""
        if len(self.channels) >= self.max_connections and not self.displace():
            self.turned_away += 1
            return False
        self.channels.add(channel)
        self._never_answered[channel] = None
        return True

    def displace(self) -> bool:
        """End one connection; False if all of them are being answered."""
        idle = self._never_answered or self._answered
        if not idle:
            return False
        self.displaced += 1
        # At once: its descriptor is what the newcomer needs.
        self._end(next(iter(idle)))
        return True

    def keeps(self, channel: HardenedChannel, size: int) -> None:
        """So many bytes are kept for a peer now."""
        if channel not in self.channels:
            return
        self._kept_in_all += size - self._kept.pop(channel, 0)
        if size:
            self._kept[channel] = size
        if self._kept_in_all > BUDGET:
            self._shed()

    def _shed(self) -> None:
        # Some more than must be, as it costs much to find out who takes most.
        most_first = sorted(self._kept, key=self._kept.__getitem__, reverse=True)
        for channel in most_first:
            if self._kept_in_all <= BUDGET * 31 // 32:
                break
            self.shed += 1
            self._end(channel)

    def _end(self, channel: HardenedChannel) -> None:
        self.forget(channel)
        channel.cut()

    def answering(self, channel: HardenedChannel) -> None:
        """A request came in whole."""
        self._never_answered.pop(channel, None)
        self._answered.pop(channel, None)

    def answered(self, channel: HardenedChannel) -> None:
        """The answer is written."""
        self._answered[channel] = None

    def count(self, request: BoundedRequest) -> None:
        """A request was answered that came in whole, but not at once."""
        self.answers[self.route_of(request), request.code] += 1

    def forget(self, channel: HardenedChannel) -> None:
        """A connection is at its end."""
        self.channels.discard(channel)
        self.answering(channel)
        self._kept_in_all -= self._kept.pop(channel, 0)
        if self._empty is not None and not self.channels:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def disconnect_all(self) -> Deferred[None]:
        """Close every connection once its answer is out; fires when they are gone.

        Who doesn't read its answer within the channel's ``LINGER`` seconds loses it.
        """
        if not self.channels:
            return succeed(None)
        abort = self.reactor.callLater(channels.LINGER, self._abort_all)
        empty: Deferred[None] = Deferred()
        empty.addCallback(lambda _: cancel(abort))
        self._empty = empty
        for channel in list(self.channels):
            channel.finish()
        return empty

    def _abort_all(self) -> None:
        for channel in list(self.channels):
            channel.transport.abortConnection()

    @override
    def log(self, request: object) -> None:
        """An ordinary beat leaves no line."""
