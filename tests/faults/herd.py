"""A herd of beating clients that remember what they were told.

It runs in the test's process and watches a service in another one from outside, by
the contract alone. For each client it keeps the newest (incarnation, sequence,
state) that was acknowledged, and every pair (incarnation, sequence) that it ever
saw; from these it knows what was lost, and who died though it was beating. A beat that
left late, since this process had no processor for long, is nobody else's fault.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, ClassVar

import msgspec
import zmq
from attrs import frozen
from msgspec import Struct
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from heartbeat_service.zeromq.connection import HardenedConnection, make_factory
from tests.messages import heartbeat, message

reactor: Any = _reactor
chance = secrets.SystemRandom()

#: How long a client waits after its connection was lost or refused, in seconds.
PAUSE = 0.1

#: How often the herd looks whether it is late itself, in seconds.
TICK = 0.05

#: Where a client may go by itself (contract, section 2).
MOVES = {
    "UNCALIBRATED": ("CALIBRATED",),
    "CALIBRATED": ("RUNNING", "UNCALIBRATED"),
    "RUNNING": ("CALIBRATED", "UNCALIBRATED"),
}
GONE = "DISCONNECTED"

Pair = tuple[int, int]


class Body(Struct, rename="camel"):
    """What a message says, as far as the herd reads it."""

    client_id: str = msgspec.field(name="clientID", default="")
    client_state: str = ""
    sequence: int = 0
    incarnation: int = 0
    reason: str = ""
    code: str = ""


class Message(Struct, rename="camel"):
    """A message of the contract, or the problem that came in its place."""

    message_type: str = ""
    body: Body = msgspec.field(default_factory=Body)
    code: str = ""


_decoder = msgspec.json.Decoder(Message)


@frozen
class Word:
    """What a client was last told of itself."""

    incarnation: int
    sequence: int
    state: str

    @property
    def pair(self) -> Pair:
        """Its place in the order of all that happens to this client."""
        return self.incarnation, self.sequence


class Line(Protocol):
    """A keep-alive connection with one request under way at the most."""

    transport: Any

    def __init__(self, member: Member) -> None:
        self._member = member
        self._received = b""

    @override
    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._member.connected(self)

    def request(self, method: str, path: str, body: bytes) -> None:
        """Send a request: when this returns, it has left."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Length: {len(body)}"
        request = head.encode() + b"\r\n\r\n" + body
        with suppress(OSError):  # now, not in the reactor's next turn
            request = request[self.transport.getHandle().send(request) :]
        self.transport.write(request)

    @override
    def dataReceived(self, data: bytes) -> None:
        self._received += data
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        lower = head.lower()
        _, _, length = lower.partition(b"\r\ncontent-length: ")
        if len(rest) < int(length.partition(b"\r\n")[0]):
            return
        self._received = b""
        if b"\r\nconnection: close" in lower:
            self.transport.loseConnection()
        self._member.answered(int(head[9:12]), rest)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._member.disconnected(self, None)


class _Dial(ClientFactory):
    noisy = False

    def __init__(self, member: Member) -> None:
        self._member = member

    @override
    def buildProtocol(self, addr: object) -> Line:
        return Line(self._member)

    @override
    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self._member.disconnected(None, connector)


class Member:
    """One client: what it was told, and what it does next.

    :ivar told: what it was last told of itself.
    :ivar newest: the newest pair that it ever saw, also in publications.
    """

    __slots__ = (
        "_asked",
        "_beat_at",
        "_call",
        "_connector",
        "_farewells",
        "_floor",
        "_herd",
        "_late",
        "_line",
        "_sent_at",
        "_states",
        "client_id",
        "newest",
        "told",
    )

    def __init__(self, herd: Herd, client_id: str) -> None:
        self.client_id = client_id
        self.told: Word | None = None
        self.newest: Pair = (0, 0)
        self._herd = herd
        self._line: Line | None = None
        self._connector: IConnector | None = None
        self._call: IDelayedCall | None = None
        self._asked = ""  # what is under way, if anything is
        self._sent_at = 0.0
        self._beat_at = math.inf  # when its last beat left
        self._late = False  # whether that was too late, by this process's own fault
        self._floor: Pair = (0, 0)  # what had been seen when it was sent
        self._states: dict[Pair, str] = {}
        self._farewells: set[int] = set()

    @property
    def lives(self) -> bool:
        """Whether it has last been told so."""
        return self.told is not None and self.told.state != GONE

    def is_in(self, state: str) -> bool:
        """Whether it has last been told that it is."""
        return self.told is not None and self.told.state == state

    def act_in(self, seconds: float) -> None:
        """Do something then, and nothing before."""
        if self._call is not None:
            self._call.cancel()
        self._call = reactor.callLater(seconds, self._act)

    def rest(self) -> None:
        """Do nothing any more, and hang up."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._asked = ""
        self._hang_up()

    def connected(self, line: Line) -> None:
        """The connection is there: use it."""
        self._line = line
        self.act_in(0)

    def disconnected(self, line: Line | None, connector: IConnector | None) -> None:
        """The connection is gone, or couldn't be made."""
        if line is not self._line or connector not in (None, self._connector):
            return  # it was hung up
        self._line = self._connector = None
        if self._asked != "say":
            self._asked = ""
            self.act_in(PAUSE * (1 + chance.random()))

    def answered(self, status: int, content: bytes) -> None:
        """HTTP has answered."""
        if self._asked not in ("beat", "steer"):
            self._herd.surprises.append(f"{self.client_id}: an answer to nothing")
            return
        asked, self._asked = self._asked, ""
        message = _decoder.decode(content)
        self._herd.count(asked, status, time.monotonic() - self._sent_at)
        if status == 200:
            self._hear(message.body, self._floor)
            self._herd.has_answered(self, self._sent_at)
        elif message.code == "UNKNOWN_CLIENT":
            self._unknown()
        elif message.code != "OVERLOADED":
            self._herd.surprises.append(f"{self.client_id}: {status} {content!r}")
        self._go_on()

    def replied(self, message: Message) -> None:
        """ZeroMQ has answered, perhaps too late."""
        waited, floor = self._asked == "say", self._floor
        if message.message_type == "ClientState":
            self._hear(message.body, floor if waited else (0, 0))
        elif message.body.code == "UNKNOWN_CLIENT" and waited:
            self._unknown()
        if waited:
            self._asked = ""
            self._herd.count("say", 200, time.monotonic() - self._sent_at)
            self._go_on()

    def see(self, body: Body) -> None:
        """A publication about it."""
        self._note((body.incarnation, body.sequence), body.client_state)

    def died(self, incarnation: int) -> None:
        """A life of it has ended that it didn't end itself."""
        late = self._late or self._is_late()
        dead = self._herd.late if late else self._herd.wrongly_dead
        dead.add((self.client_id, incarnation))

    def agrees(self, record: dict[str, Any] | None) -> bool:
        """Whether what the server shows is not older than what is known here."""
        if record is None:
            known = self.told
            return (
                known is None
                or known.state == GONE
                or known.incarnation in self._farewells
            )
        pair = record["incarnation"], record["sequence"]
        self._note(pair, record["clientState"])
        return pair >= (self.told.pair if self.told else (0, 0))

    def _act(self) -> None:
        self._call = None
        if self._asked:  # it has waited long enough
            self._asked = ""
            self._hang_up()
        if self._line is None:
            self._dial()
            return
        self._sent_at = time.monotonic()
        self._floor = self.newest
        beats = self._sent_at < self._beat_at + self._herd.timebomb / 2
        what = self._herd.choose() if self.lives and beats else "beat"
        if what == "steer":
            self._ask("steer", "PUT", f"/clients/{self.client_id}/state", _order())
        elif what in ("move", "leave") and self._say(what):
            pass
        else:
            self._late = self._is_late()
            self._ask("beat", "POST", "/heartbeat", self._beat())
            self._beat_at = time.monotonic()
        self.act_in(self._herd.patience)

    def _ask(self, what: str, method: str, path: str, body: bytes) -> None:
        assert self._line is not None
        self._asked = what
        self._line.request(method, path, body)

    def _say(self, what: str) -> bool:
        assert self.told is not None
        incarnation = self.told.incarnation
        if what == "leave":
            request = message(
                "Goodbye", clientID=self.client_id, incarnation=incarnation
            )
            # Whether or not it arrives, this life may be over from now on.
            self._farewells.add(incarnation)
        else:
            request = message(
                "SetClientState",
                clientID=self.client_id,
                clientState=chance.choice(MOVES[self.told.state]),
                incarnation=incarnation,
            )
        if not self._herd.say(request):
            return False
        self._asked = "say"
        return True

    def _beat(self) -> bytes:
        state = self.told.state if self.told is not None else GONE
        if self.told is not None and self.told.incarnation in self._farewells:
            state = GONE
        return heartbeat(self.client_id, state)

    def _is_late(self) -> bool:
        """Whether no beat has left for a timebomb, since this process was stalled."""
        silent = time.monotonic() - self._beat_at
        return silent >= self._herd.timebomb and (
            self._herd.stalled_since(self._beat_at)
            >= self._herd.timebomb - 1.1 * self._herd.interval
        )

    def _dial(self) -> None:
        host, port = self._herd.http
        self._connector = reactor.connectTCP(
            host, port, _Dial(self), timeout=self._herd.patience
        )

    def _hang_up(self) -> None:
        line, connector = self._line, self._connector
        self._line = self._connector = None
        if line is not None:
            line.transport.abortConnection()
        elif connector is not None:
            connector.disconnect()

    def _go_on(self) -> None:
        interval = self._herd.interval * (0.9 + 0.2 * chance.random())
        self.act_in(max(0.0, self._sent_at + interval - time.monotonic()))

    def _hear(self, body: Body, floor: Pair) -> None:
        word = Word(body.incarnation, body.sequence, body.client_state)
        self._note(word.pair, word.state)
        if word.pair < floor:
            self._herd.lost.add(f"{self.client_id}: {floor} was known, {word} is told")
        told = self.told
        if (
            told is not None
            and told.state != GONE
            and word.incarnation > told.incarnation
            and told.incarnation not in self._farewells
        ):
            self.died(told.incarnation)
        if told is None or word.pair >= told.pair:
            self.told = word

    def _unknown(self) -> None:
        assert self.told is not None
        if self.told.incarnation not in self._farewells:
            self._herd.lost.add(f"{self.client_id}: {self.told} was told, now unknown")

    def _note(self, pair: Pair, state: str) -> None:
        known = self._states.setdefault(pair, state)
        if known != state:
            self._herd.lost.add(
                f"{self.client_id}: {pair} stood for {known}, now for {state}"
            )
        self.newest = max(self.newest, pair)


def _order() -> bytes:
    return json.dumps({"clientState": chance.choice(list(MOVES))}).encode()


class _Ear(HardenedConnection):
    """Hears every publication."""

    socketType = zmq.SUB

    def __init__(self, factory: Any, herd: Herd) -> None:
        self._herd = herd
        super().__init__(factory)
        self.socket.set(zmq.SUBSCRIBE, b"OnStateChange/")

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        """A publication."""
        self._herd.published(_decoder.decode(message[1]).body)


class _Mouth(HardenedConnection):
    """Sends the herd's requests by ZeroMQ, and only while somebody listens."""

    socketType = zmq.DEALER
    options: ClassVar[dict[int, int]] = {zmq.IMMEDIATE: 1}

    def __init__(self, factory: Any, herd: Herd) -> None:
        self._herd = herd
        super().__init__(factory)

    @override
    def messageReceived(self, message: list[bytes]) -> None:
        """A reply."""
        self._herd.replied(_decoder.decode(message[-1]))


class Herd:
    """Clients that beat, and perhaps do more, until they are told to rest.

    :param http: ``HOST:PORT`` of the service.
    :param timebomb: seconds without a beat after which a client may be dead.
    :param interval: seconds between two requests of one client.
    :param patience: seconds after which an answer is no longer waited for.
    :param restless: the share of requests that aren't beats.
    :ivar lost: what was acknowledged or published, and is not there later.
    :ivar wrongly_dead: who died (and in which incarnation) while it was beating.
    :ivar late: who died since this very process was stalled, and sent its beats late.
    :ivar surprises: answers that no client should get.
    :ivar tally: how many answers there were of which kind and status.
    :ivar slowest: how long the slowest answer by HTTP took, in seconds.
    :ivar deaths: when a death by timebomb was heard of, by ``time.monotonic``.
    :ivar heard: how many publications there were about which client.
    """

    def __init__(
        self,
        count: int,
        *,
        http: str,
        router: str,
        pub: str,
        timebomb: float,
        interval: float,
        patience: float,
        name: str = "herd",
        restless: float = 0.0,
    ) -> None:
        host, _, port = http.rpartition(":")
        self.http = host, int(port)
        self.timebomb = timebomb
        self.interval = interval
        self.patience = patience
        self.restless = restless
        self.lost: set[str] = set()
        self.wrongly_dead: set[tuple[str, int]] = set()
        self.late: set[tuple[str, int]] = set()
        self.surprises: list[str] = []
        self.tally: Counter[tuple[str, int]] = Counter()
        self.slowest = 0.0
        self.deaths: dict[str, float] = {}
        self.heard: Counter[str] = Counter()
        self.members = {
            f"{name}-{number}": Member(self, f"{name}-{number}")
            for number in range(count)
        }
        self._stalls: list[tuple[float, float]] = []  # when one ended, how long it was
        self._ticked_at = time.monotonic()
        self._tick: IDelayedCall | None = reactor.callLater(TICK, self._look_for_stall)
        self._unanswered: set[str] = set()
        self._since = 0.0
        self._all_answered: Deferred[None] | None = None
        self._factory = make_factory(reactor)
        self._factory.lingerPeriod = 0
        self._mouth = _Mouth(self._factory, self)
        self._mouth.connect(router)
        self._ear = _Ear(self._factory, self)
        self._ear.connect(pub)

    def start(self, within: float, only: Iterable[str] | None = None) -> None:
        """Each begins at its own moment, all of them within so many seconds."""
        for client_id in self.members if only is None else only:
            self.members[client_id].act_in(within * chance.random())

    def rest(self) -> None:
        """All fall silent."""
        for member in self.members.values():
            member.rest()

    def stop(self) -> None:
        """It is over; to stop again does nothing."""
        self.rest()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if self._factory.context is not None:
            self._factory.shutdown()

    async def all_answered(self, bound: float) -> float:
        """Wait until everyone was answered what it asks from now on.

        :param bound: how long that may take, in seconds.
        :return: how long it took, in seconds.
        """
        self._unanswered = set(self.members)
        self._since = time.monotonic()
        self._all_answered = Deferred()
        self._all_answered.addTimeout(
            bound,
            reactor,
            lambda _result, _timeout: Failure(
                AssertionError(
                    f"{len(self._unanswered)} of {len(self.members)} clients got "
                    f"no answer in {bound} s: {self.tally}"
                )
            ),
        )
        await self._all_answered
        return time.monotonic() - self._since

    def compare(self, records: Collection[dict[str, Any]]) -> None:
        """Take what the server shows of everyone at a moment when nothing moves."""
        shown = {record["clientID"]: record for record in records}
        for client_id, member in self.members.items():
            record = shown.get(client_id)
            if not member.agrees(record):
                self.lost.add(f"{client_id}: {member.told} was told, {record} is shown")

    def stalled_since(self, moment: float) -> float:
        """Seconds that this process was kept from its own work since then."""
        return sum(long for ended, long in self._stalls if ended > moment)

    def _look_for_stall(self) -> None:
        now = time.monotonic()
        missed, self._ticked_at = now - self._ticked_at - TICK, now
        if missed > TICK:
            self._stalls.append((now, missed))
        self._tick = reactor.callLater(TICK, self._look_for_stall)

    # What the members and the sockets tell.

    def choose(self) -> str:
        """What a client does next."""
        if chance.random() >= self.restless:
            return "beat"
        return chance.choices(("steer", "move", "leave"), (4, 4, 2))[0]

    def say(self, request: bytes) -> bool:
        """Send a request by ZeroMQ; False if nobody listens."""
        return self._mouth.send_multipart([request])

    def count(self, what: str, status: int, seconds: float) -> None:
        """An answer has come."""
        self.tally[what, status] += 1
        if what != "say":
            self.slowest = max(self.slowest, seconds)

    def has_answered(self, member: Member, sent_at: float) -> None:
        """The service has told a client its state."""
        if self._all_answered is None or sent_at < self._since:
            return
        self._unanswered.discard(member.client_id)
        if not self._unanswered:
            done, self._all_answered = self._all_answered, None
            # Not in the midst of what a client does: who waits may stop the herd.
            reactor.callLater(0, done.callback, None)

    def replied(self, message: Message) -> None:
        """A reply has come by ZeroMQ."""
        member = self.members.get(message.body.client_id)
        if member is not None:
            member.replied(message)

    def published(self, body: Body) -> None:
        """A publication has come."""
        self.heard[body.client_id] += 1
        member = self.members.get(body.client_id)
        if member is not None:
            member.see(body)
        if body.reason == "timebomb":
            self.deaths[body.client_id] = time.monotonic()
            if member is not None:
                member.died(body.incarnation)
