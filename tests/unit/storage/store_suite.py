"""What every store promises: one suite, which each implementation passes."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import (
    Change,
    DeadClient,
    Fact,
    GoneClient,
    Life,
    Lockout,
    Reason,
    Snapshot,
    StoredState,
)
from heartbeat_service.core.dead import KEPT_FOR, DeadClients
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.states import ClientState
from heartbeat_service.storage.store import NO_REFUSALS, Store
from tests.unit.fakes import stored_state

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState


def life(incarnation: int, reason: Reason = Reason.TIMEBOMB, **more: Any) -> Life:
    """A life that has ended."""
    return Life(
        **{
            "incarnation": incarnation,
            "registered_at": 1000.0 + incarnation % 1000,
            "ended_at": 2000.5 + incarnation % 1000,
            "reason": reason,
            "last_state": RUNNING,
            "beats": 17,
            "longest_gap_seconds": 2.25,
            "left_uncalibrated": True,
            **more,
        }
    )


def snapshot(client_id: str, incarnation: int, **more: Any) -> Snapshot:
    """A client, freshly registered unless ``more`` says otherwise."""
    return Snapshot(
        **{
            "client_id": client_id,
            "incarnation": incarnation,
            "sequence": 1,
            "state": UNCALIBRATED,
            "instances": Instances(),
            "fuse": 10.0,
            "registered_at": 1000.0 + incarnation % 1000,
            "reported_state": DISCONNECTED,
            "has_reported": False,
            "beats": 1,
            "longest_gap_seconds": 0.0,
            **more,
        }
    )


def registration(client_id: str, incarnation: int, **more: Any) -> Change:
    """A client's life begins."""
    client = snapshot(client_id, incarnation, **more)
    return Change(client, DISCONNECTED, Reason.HEARTBEAT)


def entry(client_id: str, incarnation: int, sequence: int, **more: Any) -> Change:
    """A client enters another state."""
    news = {"sequence": sequence, "state": CALIBRATED, **more}
    client = snapshot(client_id, incarnation, **news)
    return Change(client, UNCALIBRATED, Reason.CLIENT)


def death(client_id: str, ended: Life, sequence: int = 2, **more: Any) -> Change:
    """A client's life ends."""
    news = {"sequence": sequence, "state": DISCONNECTED, **more}
    client = snapshot(client_id, ended.incarnation, **news)
    return Change(client, ended.last_state, ended.reason or Reason.TIMEBOMB, ended)


def reconnect(client_id: str, ended: Life, incarnation: int, **more: Any) -> Change:
    """A client's next life begins, and with it its former one ends."""
    client = snapshot(client_id, incarnation, **more)
    return Change(client, ended.last_state, Reason.RECONNECT, ended)


SOME_ID = st.sampled_from(["1", "10", "a.b_c:d@e-f"])
SOME_STATE = st.sampled_from(ClientState)
SOME_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64)
SOME_SECONDS = st.floats(0, 253_402_300_798)  # as far as a date can show them
SOME_WORD = st.sampled_from(["room", "a", "Z9._:@-", "x" * 64])
SOME_LABELS = st.dictionaries(SOME_WORD, SOME_WORD)
SOME_INSTANCES = st.builds(
    Instances,
    present=st.none() | SOME_TEXT,
    former=st.lists(SOME_TEXT, max_size=8).map(tuple),
)
SOME_SNAPSHOT = st.builds(
    Snapshot,
    client_id=SOME_ID,
    incarnation=st.just(0),
    sequence=st.integers(1, 2**62),
    state=SOME_STATE,
    instances=SOME_INSTANCES,
    fuse=st.floats(0.1, 3600),
    registered_at=SOME_SECONDS,
    reported_state=SOME_STATE,
    has_reported=st.booleans(),
    beats=st.integers(1, 2**62),
    longest_gap_seconds=SOME_SECONDS,
    labels=SOME_LABELS,
    state_since=SOME_SECONDS,
    silent_until=SOME_SECONDS,
    ordered=st.booleans(),
)


@st.composite
def some_facts(draw: st.DrawFn) -> list[Fact]:
    """Facts in an order that a registry could have told them in."""
    facts: list[Fact] = []
    living: dict[str, int] = {}
    for number, client in enumerate(draw(st.lists(SOME_SNAPSHOT, max_size=12)), 100):
        name, present = client.client_id, living.get(client.client_id)
        ended = None if present is None else life(present)
        if present is None or client.state is UNCALIBRATED:
            living[name] = number
            born = replace(client, incarnation=number, state=UNCALIBRATED)
            facts.append(Change(born, DISCONNECTED, Reason.RECONNECT, ended))
        elif client.state is DISCONNECTED:
            dead = replace(client, incarnation=living.pop(name))
            facts.append(Change(dead, RUNNING, Reason.TIMEBOMB, ended))
        else:
            same = replace(client, incarnation=present)
            facts.append(
                Change(same, UNCALIBRATED, Reason.OPERATOR)
                if client.has_reported
                else same
            )
        if draw(st.booleans()):
            until, by = draw(st.just(0.0) | SOME_SECONDS), draw(st.none() | SOME_TEXT)
            facts.append(Lockout(name, until, by, number, 60.0))
    return facts


if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:  # so that no runner takes the suite itself for a test
    _Mixin = object


class StoreSuite(_Mixin):
    """Mix this into a ``SynchronousTestCase``, and say how the store is made.

    Whatever a store does in another thread, :meth:`wait_for` brings back.
    """

    #: The module in which the store's bounds can be patched.
    bounds: Any

    def make_store(self) -> Store:
        """A store that is not open: the same place each time within a test.

        Only a store that keeps something across restarts has a place at all.
        """
        raise NotImplementedError  # each store has its own

    def wait_for(self, waiting: Deferred[Any]) -> Any:
        """The result of ``waiting``; overridden where that takes time."""
        return self.successResultOf(waiting)

    def pass_time(self) -> None:
        """Time passes between two openings; overridden where a store needs it."""

    def open_store(self) -> Store:
        """An open store, closed at the end of the test."""
        store = self.make_store()
        self.wait_for(store.open())
        self.addCleanup(lambda: self.wait_for(store.close()))
        return store

    def commit(self, store: Store, *facts: Fact) -> None:
        """Hand facts over, each by itself, and wait until they are durable."""
        for fact in facts:
            self.wait_for(store.commit([fact]))

    def lives(self, store: Store, client_id: str) -> list[Life]:
        """The former lives of a client."""
        lives: list[Life] = self.wait_for(store.former_lives(client_id))
        return lives

    def bound(self, lives: int, most: int) -> None:
        """Let the store keep no more than so many of a client, and of all."""
        self.patch(self.bounds, "KEPT_LIVES", lives)
        self.patch(self.bounds, "MOST_LIVES", most)

    def test_commit_of_whatever_is_kept_refuses_nothing(self) -> None:
        store = self.open_store()
        for fact in (
            registration("1", 101),
            entry("1", 101, 2),
            snapshot("1", 101, sequence=2, state=CALIBRATED, has_reported=True),
            reconnect("1", life(101, Reason.RECONNECT), 102),
            death("1", life(102)),
        ):
            self.assertEqual(self.wait_for(store.commit([fact])), NO_REFUSALS)

    def test_commit_of_nothing_refuses_nothing(self) -> None:
        store = self.open_store()
        self.assertEqual(self.wait_for(store.commit([])), NO_REFUSALS)

    def test_many_facts_fit_into_one_commit(self) -> None:
        store = self.open_store()
        self.wait_for(
            store.commit(
                [
                    registration("1", 101),
                    registration("2", 102),
                    entry("1", 101, 2),
                    reconnect("1", life(101, Reason.RECONNECT), 103),
                    death("1", life(103)),
                    registration("1", 104),
                ]
            )
        )
        self.assertEqual(
            self.lives(store, "1"), [life(103), life(101, Reason.RECONNECT)]
        )
        self.assertEqual(self.lives(store, "2"), [])

    def test_incarnations_grow_from_one_opening_to_the_next(self) -> None:
        handed_out = 0
        for _ in range(3):
            store = self.make_store()
            last = self.wait_for(store.open()).last_incarnation
            self.assertIsInstance(last, int)
            self.assertGreaterEqual(last, handed_out)
            for handed_out in range(last + 1, last + 4):
                self.commit(store, registration(f"client-{handed_out}", handed_out))
            self.wait_for(store.close())
            self.pass_time()

    def test_opening_tells_of_the_incarnation_of_a_dead_client_too(self) -> None:
        store = self.make_store()
        last = self.wait_for(store.open()).last_incarnation + 1
        ended = life(last)
        self.commit(store, registration("1", last), death("1", ended))
        self.wait_for(store.close())
        self.pass_time()
        again = self.make_store()
        self.addCleanup(lambda: self.wait_for(again.close()))
        self.assertGreaterEqual(self.wait_for(again.open()).last_incarnation, last)

    def test_former_life_is_kept_with_all_that_it_says(self) -> None:
        store = self.open_store()
        for number, reason in enumerate(
            (Reason.TIMEBOMB, Reason.GOODBYE, Reason.KICK), start=1
        ):
            for state in ClientState:
                ended = life(
                    number,
                    reason,
                    registered_at=1648549285.153292,
                    ended_at=1648549290.5,
                    last_state=state,
                    beats=2**40,
                    longest_gap_seconds=0.1,
                    left_uncalibrated=state is not DISCONNECTED,
                    labels={"room": state.value, "seat": "4"},
                    by="Anna Ł." if reason is Reason.KICK else None,
                )
                client_id = f"{reason.value}-{state.value}"
                self.commit(
                    store, registration(client_id, number), death(client_id, ended)
                )
                self.assertEqual(self.lives(store, client_id), [ended])

    def test_life_that_lasts_is_no_former_life(self) -> None:
        store = self.open_store()
        self.commit(
            store, registration("1", 101), entry("1", 101, 2), snapshot("1", 101)
        )
        self.assertEqual(self.lives(store, "1"), [])

    def test_former_lives_are_told_newest_first(self) -> None:
        store = self.open_store()
        self.commit(
            store,
            registration("1", 101),
            reconnect("1", life(101, Reason.RECONNECT), 102),
            death("1", life(102, Reason.KICK)),
            registration("1", 103),
            death("1", life(103, Reason.GOODBYE)),
        )
        self.assertEqual(
            self.lives(store, "1"),
            [
                life(103, Reason.GOODBYE),
                life(102, Reason.KICK),
                life(101, Reason.RECONNECT),
            ],
        )

    def test_same_facts_handed_over_twice_leave_one_truth(self) -> None:
        store = self.open_store()
        facts = [
            registration("1", 101),
            reconnect("1", life(101, Reason.RECONNECT), 102),
            death("1", life(102)),
        ]
        for _ in range(2):
            self.wait_for(store.commit(facts))
        self.assertEqual(
            self.lives(store, "1"), [life(102), life(101, Reason.RECONNECT)]
        )

    def test_former_lives_of_a_client_are_bounded(self) -> None:
        self.bound(lives=3, most=10)
        store = self.open_store()
        for number in range(1, 9):
            self.commit(store, registration("1", number), death("1", life(number)))
        self.assertEqual(self.lives(store, "1"), [life(8), life(7), life(6)])

    def test_who_flaps_does_not_push_out_the_lives_that_got_further(self) -> None:
        self.bound(lives=2, most=10)
        store = self.open_store()
        for number in range(1, 9):
            ended = life(number, left_uncalibrated=number in {1, 2, 3, 5})
            self.commit(store, registration("1", number), death("1", ended))
        self.assertEqual(
            [one.incarnation for one in self.lives(store, "1")], [8, 7, 5, 3]
        )

    def test_one_of_the_last_that_got_further_is_told_once(self) -> None:
        self.bound(lives=2, most=10)
        store = self.open_store()
        for number in range(1, 9):
            ended = life(number, left_uncalibrated=number in {1, 4, 7, 8})
            self.commit(store, registration("1", number), death("1", ended))
        self.assertEqual([one.incarnation for one in self.lives(store, "1")], [8, 7])

    def test_the_last_lives_are_kept_and_the_last_that_got_further(self) -> None:
        """Whichever did, and in however few commits."""
        self.bound(lives=2, most=1000)
        store = self.open_store()
        for together in (1, 3, 7):
            for which in product((True, False), repeat=7):
                name = f"{together}.{''.join('-x'[further] for further in which)}"
                lives = [life(n, left_uncalibrated=which[n]) for n in range(7)]
                for start in range(0, 7, together):
                    some = lives[start : start + together]
                    self.wait_for(store.commit([death(name, one) for one in some]))
                lives.reverse()
                further = [one for one in lives if one.left_uncalibrated]
                kept = [one for one in lives if one in lives[:2] + further[:2]]
                self.assertEqual(self.lives(store, name), kept, name)

    def test_former_lives_of_all_clients_are_bounded(self) -> None:
        self.bound(lives=2, most=3)
        store = self.open_store()
        for number in range(1, 21):
            self.commit(store, death(str(number), life(number)))
        kept = [n for n in range(1, 21) if self.lives(store, str(n))]
        self.assertEqual(kept, [18, 19, 20])

    def test_lives_that_ended_last_are_kept(self) -> None:
        self.bound(lives=2, most=2)
        store = self.open_store()
        self.commit(store, death("2", life(2)), death("1", life(1)))
        self.commit(store, death("3", life(3)))
        self.assertEqual(self.lives(store, "2"), [])
        self.assertEqual(self.lives(store, "1"), [life(1)])

    def test_who_dies_often_takes_nobody_elses_place(self) -> None:
        self.bound(lives=2, most=4)
        store = self.open_store()
        self.commit(store, death("1", life(1)), death("2", life(2)))
        for number in range(3, 21):
            self.commit(store, death("3", life(number)))
        self.assertEqual(self.lives(store, "1"), [life(1)])
        self.assertEqual(self.lives(store, "2"), [life(2)])

    def test_lives_of_one_client_are_not_those_of_another(self) -> None:
        store = self.open_store()
        self.commit(
            store,
            registration("1", 101),
            registration("10", 102),
            death("10", life(102)),
            death("1", life(101)),
        )
        self.assertEqual(self.lives(store, "1"), [life(101)])
        self.assertEqual(self.lives(store, "10"), [life(102)])

    def test_unknown_client_has_no_former_life(self) -> None:
        store = self.open_store()
        self.commit(store, registration("1", 101), death("1", life(101)))
        self.assertEqual(self.lives(store, "2"), [])

    def test_what_was_told_stays_as_it_was(self) -> None:
        store = self.open_store()
        self.commit(store, registration("1", 101), death("1", life(101)))
        told = self.lives(store, "1")
        told.clear()
        self.assertEqual(self.lives(store, "1"), [life(101)])

    def test_store_that_is_closed_may_be_opened_again(self) -> None:
        store = self.make_store()
        for number in range(1, 4):
            self.wait_for(store.open())
            self.commit(store, registration("1", number))
            self.wait_for(store.close())

    def test_to_close_again_does_nothing(self) -> None:
        store = self.make_store()
        self.wait_for(store.close())
        self.wait_for(store.open())
        self.wait_for(store.close())
        self.wait_for(store.close())


class SharedStoreSuite(StoreSuite):
    """What a store promises besides, if others write to it as well."""

    def refuse(self, store: Store, client_id: str, record: Snapshot | None) -> None:
        """Somebody else has written that record of a client; None: it has died."""
        raise NotImplementedError  # each store has its own

    def test_refused_client_is_told_with_its_record_in_the_store(self) -> None:
        store = self.open_store()
        self.commit(store, registration("1", 101), registration("2", 102))
        theirs = snapshot("1", 200, state=RUNNING, sequence=7)
        self.refuse(store, "1", theirs)
        self.refuse(store, "2", None)
        refusals = self.wait_for(store.commit([entry("1", 101, 2), entry("2", 102, 2)]))
        self.assertEqual(dict(refusals), {"1": theirs, "2": None})

    def test_all_facts_of_a_refused_client_are_refused_and_the_rest_is_kept(self):
        store = self.open_store()
        self.commit(store, registration("1", 101), registration("2", 102))
        self.refuse(store, "1", None)
        batch = [
            reconnect("1", life(101), 103),
            death("2", life(102)),
            death("1", life(103)),
        ]
        self.assertEqual(list(self.wait_for(store.commit(batch))), ["1"])
        self.assertEqual(self.lives(store, "1"), [])
        self.assertEqual(self.lives(store, "2"), [life(102)])

    def test_what_follows_from_the_record_in_the_store_is_kept(self) -> None:
        store = self.open_store()
        self.commit(store, registration("1", 101))
        theirs = snapshot("1", 200)
        self.refuse(store, "1", theirs)
        self.assertEqual(
            self.wait_for(store.commit([entry("1", 101, 2)])), {"1": theirs}
        )
        follows = death("1", life(200))
        self.assertEqual(self.wait_for(store.commit([follows])), NO_REFUSALS)
        self.assertEqual(self.lives(store, "1"), [life(200)])


class LastingStoreSuite(StoreSuite):
    """What a store promises besides, if it outlives the service."""

    def now(self) -> float:
        """The store's time, in seconds since the epoch."""
        raise NotImplementedError  # each store has its own

    def reopened(self, store: Store) -> StoredState:
        """What is told after the service was restarted."""
        self.wait_for(store.close())
        again = self.make_store()
        told: StoredState = self.wait_for(again.open())
        self.wait_for(again.close())
        return told

    def kept_of(self, *facts: Fact) -> StoredState:
        """What a restarted service is told after a commit of these facts."""
        store = self.make_store()
        self.wait_for(store.open())
        self.wait_for(store.commit(facts))
        return self.reopened(store)

    def assert_stored(self, told: StoredState, expected: StoredState) -> None:
        """It is told the same clients and the same dead, both in order."""
        by_incarnation = sorted(expected.clients, key=lambda client: client.incarnation)
        self.assertEqual(list(told.clients), by_incarnation)
        self.assertEqual(
            list(told.instances_of_dead.items()),
            list(expected.instances_of_dead.items()),
        )
        self.assertEqual(list(told.gone), list(expected.gone))
        self.assertEqual(told.lives_ended, expected.lives_ended)
        self.assertGreaterEqual(told.last_incarnation, expected.last_incarnation)

    def test_new_store_remembers_nobody(self) -> None:
        self.assert_stored(self.kept_of(), StoredState(0))

    def test_client_is_back_as_it_was_committed_last(self) -> None:
        last = snapshot(
            "1",
            101,
            sequence=3,
            state=RUNNING,
            instances=Instances("c", ("a", "b")),
            fuse=2.5,
            registered_at=1648549285.153292,
            reported_state=CALIBRATED,
            has_reported=True,
            beats=2**40,
            longest_gap_seconds=0.1,
            labels={"room": "a", "a:_.-@9": "x" * 64},
            state_since=1648549290.25,
            silent_until=1648549999.75,
        )
        told = self.kept_of(registration("1", 101), entry("1", 101, 2), last)
        self.assertEqual(list(told.clients), [last])

    def test_labels_are_back_as_the_last_beat_has_brought_them(self) -> None:
        most = {f"label-{n}": f"{n}" * 60 for n in range(8)}
        told = self.kept_of(
            registration("1", 101, labels={"room": "a"}),
            snapshot("1", 101, labels=most),
            registration("2", 102, labels=most),
            snapshot("2", 102, labels={}),
        )
        self.assertEqual([client.labels for client in told.clients], [most, {}])

    def test_silence_that_was_taken_back_is_not_back(self) -> None:
        told = self.kept_of(
            registration("1", 101),
            snapshot("1", 101, silent_until=3000.0, ordered=True),
            registration("2", 102),
            snapshot("2", 102, silent_until=3000.0, ordered=True),
            snapshot("2", 102, silent_until=0.0, ordered=True),
        )
        self.assertEqual(
            list(told.clients),
            [snapshot("1", 101, silent_until=3000.0), snapshot("2", 102)],
        )

    def test_dead_client_is_not_back(self) -> None:
        told = self.kept_of(
            registration("1", 101), registration("2", 102), death("1", life(101))
        )
        self.assertEqual([client.client_id for client in told.clients], ["2"])

    def test_clients_are_back_in_the_order_of_their_registration(self) -> None:
        told = self.kept_of(
            registration("b", 101), registration("a", 102), entry("b", 101, 2)
        )
        self.assertEqual([client.client_id for client in told.clients], ["b", "a"])

    def test_instances_of_the_dead_are_back_in_the_order_of_their_deaths(self) -> None:
        former, latest = Instances("b", ("a",)), Instances("c")
        told = self.kept_of(
            death("2", life(1), instances=latest),
            death("1", life(2), instances=former),
            death("3", life(3)),
        )
        self.assertEqual(
            list(told.instances_of_dead.items()),
            [("2", DeadClient(latest, 2001.5)), ("1", DeadClient(former, 2002.5))],
        )

    def test_who_lives_again_is_not_among_the_dead(self) -> None:
        told = self.kept_of(
            death("1", life(1), instances=Instances("a")),
            registration("1", 2, instances=Instances("b", ("a",))),
        )
        self.assertEqual(told.instances_of_dead, {})

    def test_who_went_is_told_with_its_last_life_latest_last(self) -> None:
        told = self.kept_of(
            death("1", life(101, Reason.KICK)),
            registration("2", 102),
            death("3", life(103)),
            reconnect("2", life(102, Reason.RECONNECT), 104),
            registration("1", 105),
            death("4", life(106, ended_at=0.5)),  # the clock was set back
            death("1", life(105, Reason.GOODBYE)),
        )
        self.assertEqual(
            list(told.gone),
            [
                GoneClient(2, "3", life(103)),
                GoneClient(4, "4", life(106, ended_at=0.5)),
                GoneClient(5, "1", life(105, Reason.GOODBYE)),
            ],
        )
        self.assertEqual(told.lives_ended, 5)

    def test_numbers_of_those_who_went_grow_from_one_opening_to_the_next(self) -> None:
        self.kept_of(death("1", life(101)), death("2", life(102)))
        self.kept_of(registration("2", 103), death("3", life(104)))
        told = self.kept_of(registration("3", 105), death("4", life(106)))
        self.assertEqual(
            [(one.number, one.client_id) for one in told.gone], [(1, "1"), (4, "4")]
        )

    def test_of_those_who_went_the_last_are_told(self) -> None:
        self.patch(self.bounds, "MOST_GONE", 3)
        told = self.kept_of(
            *(death(str(n), life(n)) for n in range(1, 8)), registration("6", 9)
        )
        self.assertEqual([one.client_id for one in told.gone], ["4", "5", "7"])
        self.assertEqual(told.lives_ended, 7)

    def test_who_is_locked_out_is_so_after_a_restart(self) -> None:
        store = self.open_store()
        self.commit(store, *[Lockout(name, 2000.5) for name in ("1", "2", "3")])
        self.commit(store, Lockout("2", 0.0), Lockout("3", 3000.0), Lockout("4", 0.0))
        kept = self.reopened(store).lockouts
        self.assertCountEqual(kept, [Lockout("1", 2000.5), Lockout("3", 3000.0)])

    def test_who_has_locked_out_a_client_is_known_after_a_restart(self) -> None:
        told = self.kept_of(
            Lockout("1", 2000.5, "Anna", incarnation=7, seconds=60.0),
            Lockout("2", 2000.5, "Anna"),
            Lockout("2", 3000.0, "Bo"),
            Lockout("3", 2000.5, "Anna"),
            Lockout("3", 2000.5),
        )
        self.assertCountEqual(
            told.lockouts,
            [
                Lockout("1", 2000.5, "Anna"),
                Lockout("2", 3000.0, "Bo"),
                Lockout("3", 2000.5),
            ],
        )

    def test_lives_that_ended_within_an_hour_are_told_latest_last(self) -> None:
        def ended(ago: float, incarnation: int, reason: Reason) -> Life:
            return life(
                incarnation,
                reason,
                ended_at=self.now() - ago,
                labels={"room": "a"},
                by="Anna" if reason is Reason.KICK else None,
            )

        too_old = ended(3601, 101, Reason.TIMEBOMB)
        first = ended(3600, 102, Reason.TIMEBOMB)
        second = ended(1800, 103, Reason.RECONNECT)
        third = ended(7, 104, Reason.KICK)
        fourth = ended(-5, 106, Reason.GOODBYE)  # the clock was ahead
        told = self.kept_of(
            death("1", too_old),
            death("2", first),
            reconnect("1", second, 104),
            death("1", third),
            registration("1", 105),
            death("3", fourth),
        )
        self.assertEqual(
            list(told.ended_lately),
            [("2", first), ("1", second), ("1", third), ("3", fourth)],
        )

    def test_life_that_is_to_end_in_more_than_an_hour_did_not_end_lately(self) -> None:
        told = self.kept_of(death("1", life(1, ended_at=self.now() + 3601)))
        self.assertEqual(list(told.ended_lately), [])

    def test_of_the_lives_that_ended_lately_the_last_are_told(self) -> None:
        self.patch(self.bounds, "MOST_LATELY", 3)
        told = self.kept_of(
            *(death(str(n), life(n, ended_at=self.now())) for n in range(1, 8))
        )
        self.assertEqual([name for name, _ in told.ended_lately], ["5", "6", "7"])

    def test_incarnation_is_never_lower_though_the_clock_goes_back(self) -> None:
        beyond = 2**60
        told = self.kept_of(registration("1", beyond), death("1", life(beyond)))
        self.assertEqual(told.last_incarnation, beyond)
        lower = self.kept_of(), self.kept_of(registration("2", 7))
        self.assertEqual([told.last_incarnation for told in lower], [beyond, beyond])

    def test_former_lives_outlive_the_service(self) -> None:
        self.kept_of(registration("1", 101), death("1", life(101)))
        self.assertEqual(self.lives(self.open_store(), "1"), [life(101)])

    @settings(
        max_examples=40,
        deadline=None,
        # Each store that lasts runs it, and each example makes a store of its own.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    )
    @given(some_facts(), st.integers(0, 12), st.booleans())
    def test_what_was_committed_is_what_is_remembered(self, facts, cut, twice):
        self.setUp()  # the same case runs all examples
        store = self.make_store()
        self.wait_for(store.open())
        for batch in (facts[:cut], facts[cut:]):
            for _ in range(1 + twice):
                self.wait_for(store.commit(batch))
        self.assert_stored(self.reopened(store), stored_state(facts))


class BoundedDeadSuite(LastingStoreSuite):
    """What a store promises besides, if it doesn't forget the dead by their time.

    :ivar most_dead: how many dead clients :meth:`make_store` has to let it keep.
    """

    most_dead = 250_000

    def test_the_dead_that_are_kept_are_bounded(self) -> None:
        self.most_dead = 3
        told = self.kept_of(
            *(death(str(n), life(n), instances=Instances("a")) for n in range(1, 8))
        )
        self.assertEqual(list(told.instances_of_dead), ["5", "6", "7"])

    def test_who_comes_and_goes_takes_nobody_elses_place_among_the_dead(self) -> None:
        self.most_dead = 3
        store = self.make_store()
        self.wait_for(store.open())
        self.commit(store, death("1", life(1), instances=Instances("a")))
        for number in range(2, 20):
            name = "23"[number % 2]
            self.commit(
                store,
                registration(name, number, instances=Instances("a")),
                death(name, life(number), instances=Instances("a")),
            )
        self.assertEqual(list(self.reopened(store).instances_of_dead), ["1", "2", "3"])

    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["1", "2", "3", "4", "5", "6"]),
                st.sampled_from([Instances("b", ("a",)), Instances("a")]),
                # Not in order: a clock may be set.
                st.sampled_from([0.0, KEPT_FOR - 1, KEPT_FOR + 1, KEPT_FOR * 2]),
            ),
            max_size=15,
        ),
        st.integers(1, 4),
    )
    def test_the_dead_that_are_kept_are_those_that_a_registry_keeps(self, deaths, most):
        self.setUp()  # the same case runs all examples
        self.most_dead = most
        kept = DeadClients(most)
        store = self.make_store()
        self.wait_for(store.open())
        for number, (name, instances, ago) in enumerate(deaths, 1):
            ended = life(number, ended_at=self.now() - ago)
            self.commit(
                store,
                registration(name, number, instances=instances),
                death(name, ended, instances=instances),
            )
            kept.remove(name)
            kept.add(name, DeadClient(instances, self.now() - ago), self.now())
        told = self.reopened(store).instances_of_dead
        self.assertEqual(
            {name: told[name].instances for name in told},
            {
                name: kept.instances(name)
                for name in {name for name, _, _ in deaths}
                if kept.instances(name) != Instances()
            },
        )

    def test_lower_bound_of_the_dead_is_kept_with_the_next_death(self) -> None:
        self.kept_of(
            *(
                death(str(n), life(n), instances=Instances("b", ("a",)))
                for n in range(1, 8)
            )
        )
        self.most_dead = 3
        told = self.kept_of(death("8", life(8), instances=Instances("b")))
        self.assertEqual(len(told.instances_of_dead), 3)
