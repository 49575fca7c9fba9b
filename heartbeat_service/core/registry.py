"""The registry: which clients live, and the only one that changes them.

Each method is one rule of the contract's section 2, and runs to its end before
the next begins, so no two changes interleave. Knows nothing of transports,
stores or replies; what happened goes to ``listener`` as a fact, and what is told
besides, to ``tell`` as a notice.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator

from attrs import define, field
from msgspec import Raw

from heartbeat_service.core.changes import (
    DeadClient,
    Fact,
    Lockout,
    Reason,
    SilenceEnd,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.clock import Clock
from heartbeat_service.core.dead import DeadClients
from heartbeat_service.core.errors import (
    IllegalTransition,
    InstanceSuperseded,
    Overloaded,
    StaleIncarnation,
    StaleSequence,
    UnknownClient,
)
from heartbeat_service.core.heartbeat import (
    LONGEST_FUSE,
    NO_VALUES,
    Heartbeat,
    Stage,
    clamp_fuse,
    late_after,
)
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.labels import NO_LABELS, Labels
from heartbeat_service.core.listening_clock import ROUNDING
from heartbeat_service.core.local_client import LocalClient
from heartbeat_service.core.lockouts import Lockouts
from heartbeat_service.core.mass_loss import MassLoss
from heartbeat_service.core.notices import (
    HoldEnd,
    LabelsChanged,
    Notice,
    Reported,
)
from heartbeat_service.core.quiet import QuietClients, stage_of
from heartbeat_service.core.rate_limit import RateLimit, RateLimitEach
from heartbeat_service.core.states import ClientState, Party, check_transition
from heartbeat_service.core.terms import ANY, Terms

#: How many lives one client may begin a second (contract, section 6).
MOST_LIVES_A_SECOND = 10

#: Of the gaps between beats of punctual clients, one in so many is told of, a power of
#: two: each costs more than all else that is counted of a beat.
GAPS_SAMPLED = 64

#: The longest planned silence, in seconds (contract, section 2).
LONGEST_SILENCE = 86_400.0

#: For so many seconds after a client of another node has come here, the former node may
#: still answer it: it hasn't heard of it yet (contract, section 7).
ARRIVAL = 3.0

_SAMPLED = GAPS_SAMPLED - 1


@define(eq=False)
class Registry:
    """``{client id: LocalClient}``.

    :ivar clock: tells how time passes; liveness depends on it alone.
    :ivar wall_clock: seconds since the epoch; only ever shown to people.
    :ivar listener: hears each change right after it was made.
    :ivar default_fuse: seconds to the timebomb of a client that asks for none.
    :ivar longest_fuse: the most seconds that a client gets if it asks.
    :ivar last_incarnation: the highest incarnation ever handed out.
    :ivar admit: raises :class:`Overloaded` while no change that somebody asks for
        may be made.
    :ivar max_clients: how many may live at once; of as many dead ones the instances
        are kept, and as many may be kept out.
    :ivar registrations: how many lives may begin a second; None for any number.
    :ivar tell: hears what operators are told besides, right after it happened.
    :ivar interval: seconds between two beats, as clients are told.
    :ivar mass_loss_share: see :class:`MassLoss`; None for no hold ever.
    :ivar mass_loss_hold: how long a hold may last, in seconds.
    :ivar on_gap: hears how long a client was silent before a beat, in seconds, and for
        how many gaps that stands: each of who was late, of the others one in
        :data:`GAPS_SAMPLED`.
    :ivar is_sure: whether a client whose fuse has run out here may die: not while other
        nodes may hear it (contract, section 7).
    :ivar on_arrival: hears of each client of another node that beats here now.
    :ivar on_timebomb: hears of a life that a timebomb ends, before anybody else does:
        which, and when the timebomb was due, on the clock's scale.
    :ivar lockouts: who is kept out.
    :ivar mass_loss: who is late, and who is held.
    """

    clock: Clock
    wall_clock: Callable[[], float]
    listener: Callable[[Fact], None]
    default_fuse: float
    last_incarnation: int = 0
    admit: Callable[[], None] = lambda: None
    max_clients: int = 250_000
    registrations: RateLimit | None = None
    longest_fuse: float = LONGEST_FUSE
    tell: Callable[[Notice], None] = lambda _: None
    interval: float = 2.0
    mass_loss_share: float | None = None
    mass_loss_hold: float = 60.0
    on_gap: Callable[[float, int], None] = lambda _seconds, _times: None
    on_timebomb: Callable[[int, float], None] = lambda _incarnation, _due: None
    is_sure: Callable[[], bool] = lambda: True
    on_arrival: Callable[[], None] = lambda: None
    lockouts: Lockouts = field(init=False)
    mass_loss: MassLoss = field(init=False)
    _quiet: QuietClients = field(init=False)
    _lives_of_one: RateLimitEach = field(init=False)
    _clients: dict[str, LocalClient] = field(factory=dict, init=False)
    _elsewhere: set[str] = field(factory=set, init=False)
    _arrived: dict[str, float] = field(factory=dict, init=False)
    _is_sorted: bool = field(default=True, init=False)
    _dead: DeadClients = field(init=False)
    _delegate: Callable[[str], None] = field(init=False)
    _warn: Callable[[str], None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        # The delegates of every timebomb: two objects for all of them.
        self._delegate = self._explode
        self._warn = self._fall_late
        self._dead = DeadClients(self.max_clients)
        self.lockouts = Lockouts(
            self.clock, self.wall_clock, self.listener, self.max_clients
        )
        self._lives_of_one = RateLimitEach(self.clock, MOST_LIVES_A_SECOND)
        self.mass_loss = MassLoss(
            self.clock,
            self.wall_clock,
            self.tell,
            self.mass_loss_share,
            self.mass_loss_hold,
        )
        self._quiet = QuietClients(
            self.clock, self.wall_clock, self.tell, self.mass_loss
        )

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[LocalClient]:
        return iter(list(self._clients.values()))

    def client_ids(self, after: int = 0) -> list[str]:
        """Who lives now, in the order of their registration.

        :param after: only those of a later incarnation.
        """
        if not self._is_sorted:
            by_birth = sorted(self._clients, key=self._birth)
            self._clients = {name: self._clients[name] for name in by_birth}
            self._is_sorted = True
        names = list(self._clients)
        if not after:
            return names
        return names[bisect_right(names, after, key=self._birth) :]

    def get(self, client_id: str, instance_id: str | None = None) -> LocalClient:
        """The living client of that ID.

        :param instance_id: which process of it asks, if it is one and says so.
        :raises InstanceSuperseded: if another process has taken the client over.
        :raises UnknownClient: if there is none.
        """
        client = self.find(client_id)
        self._refuse_former_instance(client_id, client, instance_id)
        if client is None:
            raise UnknownClient("send a heartbeat first", client_id)
        return client

    def find(self, client_id: str) -> LocalClient | None:
        """The living client of that ID, if there is one."""
        return self._clients.get(client_id)

    def beat(
        self,
        client_id: str,
        reported: ClientState,
        instance_id: str | None = None,
        fuse: float | None = None,
        values: Raw = NO_VALUES,
        labels: Labels | None = None,
    ) -> LocalClient:
        """A HEARTBEAT: registers a client, begins a new life, or resets the timebomb.

        :param reported: what the client says of itself.
        :param fuse: seconds to the timebomb, if the client asks for its own.
        :param labels: where it is and what it is, if it says so.
        :raises LockedOut: if an operator keeps the client out.
        :raises InstanceSuperseded: if another process has taken the client over.
        :raises Overloaded: if it would register, and can't now.
        """
        self.lockouts.check(client_id)
        client = self._clients.get(client_id)
        if instance_id is not None:
            self._refuse_former_instance(client_id, client, instance_id)
        if client is None or client.begins_anew(reported, instance_id):
            return self._register(
                client_id, client, reported, instance_id, fuse, values, labels
            )
        heartbeat = client.heartbeat
        if client.is_as_before(reported, fuse, labels):
            if not heartbeat.beats & _SAMPLED:
                self.on_gap(heartbeat.seconds_since(), GAPS_SAMPLED)
            heartbeat.update(values)
        else:
            self._beat(client, reported, fuse, values, labels)
        return client

    def set_state(
        self,
        client_id: str,
        state: ClientState,
        incarnation: int | None = None,
        instance_id: str | None = None,
        sequence: int | None = None,
    ) -> LocalClient:
        """A client's own SetClientState.

        :param sequence: of the state that it was decided on, if it says so.
        :raises UnknownClient: if it has no life, or none of that instance.
        :raises InstanceSuperseded: if it speaks for a former instance.
        :raises StaleIncarnation: if it speaks for another life than this one.
        :raises StaleSequence: if the client has changed since, also to that state.
        :raises IllegalTransition: if a client may not go there from here.
        :raises Overloaded: if no change can be made now.
        """
        client = self._fenced(client_id, incarnation, instance_id)
        if sequence not in (None, client.sequence):
            raise StaleSequence(
                f"this sequence is not the present one, {client.sequence}", client_id
            )
        self._change_state(Party.CLIENT, client, state, Reason.CLIENT)
        return client

    def steer(
        self,
        client_id: str,
        state: ClientState,
        terms: Terms = ANY,
        by: str | None = None,
    ) -> LocalClient:
        """An operator sets a client's state.

        :param by: which operator, if that is known.
        :return: the client, or what would be of it if that is all that is asked.
        :raises UnknownClient: if no such client lives.
        :raises StaleSequence: if it has gone on since the order was decided on.
        :raises IllegalTransition: for DISCONNECTED: that is what a kick is for; or if
            the order isn't for clients in this one's state.
        :raises Overloaded: if no change can be made now.
        """
        client = self.get(client_id)
        terms.check(client_id, client)
        if terms.dry_run:
            client = client.picture()
        self._change_state(Party.OPERATOR, client, state, Reason.OPERATOR, by)
        return client

    def silence(
        self,
        client_id: str,
        seconds: float,
        terms: Terms = ANY,
        by: str | None = None,
    ) -> LocalClient:
        """An operator grants a client a planned silence, until its next beat.

        :param seconds: for how long, from now; 0 takes it back.
        :param by: which operator, if that is known.
        :return: the client, or what would be of it if that is all that is asked.
        :raises UnknownClient: if no such client lives.
        :raises StaleSequence: if it has gone on since the order was decided on.
        :raises IllegalTransition: if the order isn't for clients in this one's state.
        :raises Overloaded: if no change can be made now.
        """
        client = self.get(client_id)
        terms.check(client_id, client)
        self.admit()
        if terms.dry_run:
            return client
        if seconds:
            self._quiet.silence(client, min(seconds, LONGEST_SILENCE), by)
        else:
            self._quiet.take_silence_back(client, by)
        return client

    def end_mass_loss(
        self, hold: str | None = None, by: str | None = None
    ) -> Iterator[None]:
        """An operator ends the present hold: who is still held dies.

        :param hold: only if it is that one.
        :param by: which operator, if that is known.
        :return: lights a held client's timebomb with each step.
        """
        present = self.mass_loss.hold
        if present is None or hold not in (None, present.name):
            return
        held = list(self.mass_loss.held)
        self.mass_loss.end(HoldEnd.OPERATOR, by)
        for client_id in held:
            client = self.find(client_id)
            if client is not None and client.heartbeat.stage is Stage.HELD:
                client.heartbeat.hold(0.0)
            yield

    def goodbye(
        self,
        client_id: str,
        incarnation: int | None = None,
        instance_id: str | None = None,
    ) -> LocalClient:
        """A client leaves.

        Raises what :meth:`set_state` does, but for sequences and transitions.
        """
        client = self._fenced(client_id, incarnation, instance_id)
        self.admit()
        return self._remove(client, Reason.GOODBYE)

    def kick(
        self, client_id: str, terms: Terms = ANY, by: str | None = None
    ) -> LocalClient:
        """An operator removes a client; answers and raises what :meth:`steer` does."""
        client = self.get(client_id)
        terms.check(client_id, client)
        self.admit()
        if not terms.dry_run:
            return self._remove(client, Reason.KICK, by)
        client = client.picture()
        client.die(Reason.KICK, self.wall_clock())
        return client

    def lock_out(
        self,
        client_id: str,
        seconds: float,
        terms: Terms = ANY,
        by: str | None = None,
    ) -> None:
        """An operator keeps a client out, and kicks it if it lives.

        :param by: which operator, if that is known.
        :param seconds: for how long, from now; 0 lets it come back.
        :raises StaleSequence: if it has gone on since the order was decided on.
        :raises IllegalTransition: if the order isn't for clients in this one's state.
        :raises Overloaded: if no change can be made now, or too many are kept out.
        """
        client = self.find(client_id)
        terms.check(client_id, client)
        self.admit()
        if seconds:
            self.lockouts.admit(client_id)
        if terms.dry_run:
            return
        incarnation = None if client is None else client.incarnation
        # Before the kick: each may be kept by itself, and a beat that came to another
        # node in between would begin a life.
        self.lockouts.set(client_id, seconds, by, incarnation)
        if seconds and client is not None:
            self._remove(client, Reason.KICK, by)

    def take_lockout(self, lockout: Lockout) -> None:
        """Another node keeps a client out, or lets it in.

        That node kicks the life that it knows. One that has begun here meanwhile ends
        here.
        """
        self.lockouts.take(lockout)
        client = self._clients.get(lockout.client_id)
        if client is None or self.lockouts.seconds_left(client.client_id) is None:
            return
        is_here = client.client_id not in self._elsewhere
        if is_here and client.incarnation != lockout.incarnation:
            self._remove(client, Reason.KICK, lockout.by)

    def restore(self, stored: StoredState) -> Iterator[None]:
        """Go on after a restart: whoever lived, lives, with a full fuse.

        :return: takes a client in with each step.
        """
        self.last_incarnation = stored.last_incarnation
        for client_id, dead in stored.instances_of_dead.items():
            self._dead.add(client_id, dead, self.wall_clock())
        self.lockouts.restore(stored.lockouts)
        for snapshot in stored.clients:
            self._take_in(snapshot, snapshot.client_id not in stored.elsewhere)
            yield

    def replace(
        self, client_id: str, snapshot: Snapshot | None, here: bool = True
    ) -> None:
        """Take a client as the store has it; without a snapshot, forget it.

        For a store that others write to as well. Nobody is told: who has written it,
        has told of it.

        :param here: whether it beats at this node.
        """
        client = self._clients.get(client_id)
        if snapshot is None or snapshot.state is ClientState.DISCONNECTED:
            self._forget(client_id, snapshot)
        elif client is None or client.incarnation != snapshot.incarnation:
            self._forget(client_id, None)
            newest = next(reversed(self._clients), None)
            self._take_in(snapshot, here)
            if newest is not None and self._birth(newest) > snapshot.incarnation:
                self._is_sorted = False
        else:
            client.take(snapshot)
            client.heartbeat.fuse = self._restored_fuse(snapshot)
            client.heartbeat.late_after = late_after(
                client.heartbeat.fuse, self.interval
            )
            self.place(client_id, here)
            self._quiet.replace_silence(client, snapshot.silent_until)

    def place(self, client_id: str, here: bool) -> None:
        """Burn a client's fuse here, from its beginning, or let another node burn it.

        :param here: nothing happens to one that beats here already.
        """
        client = self._clients.get(client_id)
        if here and client_id in self._arrived:
            self._arrived[client_id] = self.clock.seconds()
        if client is None or here is (client_id not in self._elsewhere):
            return
        if here:
            self._elsewhere.discard(client_id)
            client.heartbeat.arrive()
            self._quiet.resume_silence(client, client.silent_until)
        else:
            self._elsewhere.add(client_id)
            self._arrived.pop(client_id, None)
            client.heartbeat.leave()
            self.mass_loss.forget(client_id)

    def renew_fuses(self) -> Iterator[None]:
        """Give each client that beats here a whole fuse: nobody could hear it.

        Another node may still answer it, as if it had come only now: it counts on the
        word that this one was out of touch.

        :return: does so for a client with each step.
        """
        for client in self:
            client_id = client.client_id
            if client_id not in self._elsewhere:
                client.heartbeat.renew()
                arrived = self._arrived.get(client_id, -math.inf)
                self._arrived[client_id] = max(arrived, self.clock.seconds())
            yield

    @property
    def here(self) -> int:
        """How many clients beat at this node."""
        return len(self._clients) - len(self._elsewhere)

    def defuse_all(self, keep: bool = True) -> Iterator[None]:
        """Put every timebomb out: the service stops, nobody dies of it.

        Ordinary beats made no news, so what they have counted is told now, and how long
        a silence has lasted so far.

        :param keep: whether that is told at all.
        :return: lets a client go with each step.
        """
        self._elsewhere.clear()
        while self._clients:
            _, client = self._clients.popitem()
            if client.heartbeat.stage is Stage.ELSEWHERE:
                continue
            client.heartbeat.defuse()
            client.heartbeat.longest_gap = client.heartbeat.longest_silence()
            if keep:
                client.record(client.snapshot())
            yield
        self.mass_loss.stop()

    def _birth(self, client_id: str) -> int:
        return self._clients[client_id].incarnation

    def _granted(self, fuse: float) -> float:
        return clamp_fuse(fuse, self.longest_fuse)

    def _beat(
        self,
        client: LocalClient,
        reported: ClientState,
        fuse: float | None,
        values: Raw,
        labels: Labels | None,
    ) -> None:
        """Take a beat that may bring something new, and tell of that."""
        stage = stage_of(client)
        if client.heartbeat.stage is Stage.ELSEWHERE:
            self._elsewhere.discard(client.client_id)
            self._arrived[client.client_id] = math.inf  # until it is written
            self.on_arrival()
        if client.client_id in self.mass_loss.late:
            self.on_gap(client.heartbeat.seconds_since(), 1)
        reported_before, labels_before = client.reported_state, client.labels
        fuse = client.heartbeat.fuse if fuse is None else self._granted(fuse)
        labels = labels_before if labels is None else labels
        warning = late_after(fuse, self.interval)
        client.beat(reported, fuse, warning, values, labels)
        self._quiet.end(client, stage, SilenceEnd.BEAT)
        if reported is not reported_before:
            self.tell(client.notice(Reported, reported_state=reported))
        if labels != labels_before:
            self.tell(client.notice(LabelsChanged, labels=labels))

    def _fall_late(self, client_id: str) -> None:
        self._quiet.fall_late(self._clients[client_id])

    def _explode(self, client_id: str) -> None:
        client = self._clients[client_id]
        if not self.is_sure():
            client.heartbeat.renew()
            return
        arrived, most = (
            self._arrived.get(client_id, -math.inf),
            ARRIVAL + client.heartbeat.fuse,
        )
        left = min(arrived + most - self.clock.seconds(), most)
        if left > ROUNDING:  # else it is due at once, again and again
            client.heartbeat.burn_on(left)
            return
        due = client.heartbeat.due()
        if not self._quiet.spares(client, self.here):
            self.on_timebomb(client.incarnation, due)
            self._bury(client, Reason.TIMEBOMB)

    def _restored_fuse(self, snapshot: Snapshot) -> float:
        # What a former run has granted may be more than this one grants.
        return min(snapshot.fuse, max(self.longest_fuse, self.default_fuse))

    def _forget(self, client_id: str, dead: Snapshot | None) -> None:
        """Let go of a client that lives no longer, or not as it did.

        :param dead: as the store has it now; None if it has nothing of it.
        """
        former = self._clients.pop(client_id, None)
        self._elsewhere.discard(client_id)
        self._arrived.pop(client_id, None)
        if former is not None:
            if former.heartbeat.stage is not Stage.ELSEWHERE:
                former.heartbeat.leave()
            self.mass_loss.forget(client_id)
        if dead is not None:
            self.last_incarnation = max(self.last_incarnation, dead.incarnation)
            kept = DeadClient(dead.instances, dead.state_since)
            self._dead.add(client_id, kept, self.wall_clock())

    def _take_in(self, snapshot: Snapshot, here: bool = True) -> None:
        heartbeat = self._light(
            snapshot.client_id, self._restored_fuse(snapshot), here=here
        )
        if not here:
            self._elsewhere.add(snapshot.client_id)
        self._dead.remove(snapshot.client_id)
        heartbeat.beats = snapshot.beats
        heartbeat.longest_gap = snapshot.longest_gap_seconds
        self.last_incarnation = max(self.last_incarnation, snapshot.incarnation)
        client = self._clients[snapshot.client_id] = LocalClient(
            client_id=snapshot.client_id,
            incarnation=snapshot.incarnation,
            heartbeat=heartbeat,
            record=self.listener,
            registered_at=snapshot.registered_at,
            reported_state=snapshot.reported_state,
            instances=snapshot.instances,
            labels=snapshot.labels,
            state_since=snapshot.state_since,
            state=snapshot.state,
            sequence=snapshot.sequence,
            has_reported=snapshot.has_reported,
        )
        until = snapshot.silent_until
        if here:  # wall clocks are set back, too
            until = min(until, self.wall_clock() + LONGEST_SILENCE)
        self._quiet.resume_silence(client, until)

    def _light(
        self,
        client_id: str,
        fuse: float,
        values: Raw = NO_VALUES,
        here: bool = True,
    ) -> Heartbeat:
        return Heartbeat(
            client_id,
            self._delegate,
            self._warn,
            self.clock,
            fuse,
            late_after(fuse, self.interval),
            values,
            here,
        )

    def _remove(
        self, client: LocalClient, reason: Reason, by: str | None = None
    ) -> LocalClient:
        client.heartbeat.defuse()
        self._bury(client, reason, by)
        return client

    def _bury(self, client: LocalClient, reason: Reason, by: str | None = None) -> None:
        del self._clients[client.client_id]
        self._elsewhere.discard(client.client_id)
        self._arrived.pop(client.client_id, None)
        now = self.wall_clock()
        self._dead.add(client.client_id, DeadClient(client.instances, now), now)
        client.die(reason, now, by)
        is_kicked = reason is Reason.KICK
        end = SilenceEnd.OPERATOR if is_kicked else SilenceEnd.ENDED
        self._quiet.end(client, stage_of(client), end, by)

    def _register(
        self,
        client_id: str,
        former: LocalClient | None,
        reported: ClientState,
        instance_id: str | None,
        fuse: float | None,
        values: Raw,
        labels: Labels | None,
    ) -> LocalClient:
        self._admit_registration(client_id, former)
        now = self.wall_clock()
        instances = self._instances(client_id, former).succeeded_by(instance_id)
        if former is not None:
            former.heartbeat.defuse()
            labels = former.labels if labels is None else labels
        asked = self.default_fuse if fuse is None else self._granted(fuse)
        client_id = str(client_id)  # a message's own kind of string is twice as long
        self.last_incarnation += 1
        client = LocalClient(
            client_id=client_id,
            incarnation=self.last_incarnation,
            heartbeat=self._light(client_id, asked, values),
            record=self.listener,
            registered_at=now,
            reported_state=reported,
            instances=instances,
            labels=labels or NO_LABELS,
            state_since=now,
            has_reported=reported is not ClientState.DISCONNECTED,
        )
        self._clients.pop(client_id, None)  # they are listed as they registered
        self._clients[client_id] = client
        self._elsewhere.discard(client_id)
        self._dead.remove(client_id)
        reason = Reason.HEARTBEAT if former is None else Reason.RECONNECT
        client.register(reason, now, former)
        if former is not None:
            self._quiet.end(former, stage_of(former), SilenceEnd.BEAT)
        return client

    def _admit_registration(self, client_id: str, former: LocalClient | None) -> None:
        try:
            self._admit_life(client_id, former)
        except Overloaded:
            if former is not None:  # it lives, whatever it is refused
                values = former.heartbeat.values
                self._beat(former, former.reported_state, None, values, None)
            raise

    def _admit_life(self, client_id: str, former: LocalClient | None) -> None:
        self.admit()
        if former is None and len(self) >= self.max_clients:
            raise Overloaded(f"{self.max_clients} clients live already", client_id)
        if not self._lives_of_one.take(client_id):
            raise Overloaded("this client begins too many lives a second", client_id)
        if self.registrations is not None and not self.registrations.take():
            raise Overloaded("too many registrations a second", client_id)

    def _fenced(
        self, client_id: str, incarnation: int | None, instance_id: str | None
    ) -> LocalClient:
        """The living client that a message means, or an error if it means another."""
        client = self.get(client_id, instance_id)
        present = client.instances.present
        if present is not None and instance_id not in (None, present):
            raise UnknownClient(
                "this instance is not registered: send a heartbeat first", client_id
            )
        if incarnation is not None and incarnation != client.incarnation:
            raise StaleIncarnation(
                f"this incarnation is not the present one, {client.incarnation}",
                client_id,
            )
        return client

    def _instances(self, client_id: str, client: LocalClient | None) -> Instances:
        return self._dead.instances(client_id) if client is None else client.instances

    def _refuse_former_instance(
        self, client_id: str, client: LocalClient | None, instance_id: str | None
    ) -> None:
        if instance_id in self._instances(client_id, client).former:
            raise InstanceSuperseded(
                "another process has taken this client over", client_id
            )

    def _change_state(
        self,
        party: Party,
        client: LocalClient,
        state: ClientState,
        reason: Reason,
        by: str | None = None,
    ) -> None:
        try:
            check_transition(party, client.state, state)
        except IllegalTransition as error:
            error.client_id = client.client_id
            raise
        if state is not client.state:
            self.admit()
            client.set_state(state, reason, self.wall_clock(), by)
