"""What an operator sees in one look: counted as it is told, and never before."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import StoredState
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine.dispatch import Dispatcher
from heartbeat_service.protocol.messages import HoldRecord, SummaryRecord
from heartbeat_service.protocol.orders import SilenceOrder
from tests.unit.engine.test_dispatch import House
from tests.unit.fakes import stored_state
from tests.unit.storage.store_suite import snapshot

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState

#: What may happen to one of three clients, for some time.
HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(
            ["beat", "restart", "steer", "kick", "silence", "time", "refuse", "keep"]
        ),
        st.sampled_from("123"),
        st.integers(0, 4),
    ),
    max_size=40,
)


def counted(house: House) -> tuple[Any, ...]:
    """What the summary says."""
    told = house.dispatcher.summarized()
    return told.alive, told.states, told.late, told.held, told.silent


def listed(house: House) -> tuple[Any, ...]:
    """The same, counted by hand in the list of clients."""
    answer: list[Any] = []
    house.listing().addCallback(answer.extend)
    states = [record.client_state for record in answer]
    return (
        len(answer),
        {state: states.count(state) for state in list(ClientState)[1:]},
        sum(record.late for record in answer),
        sum(record.held for record in answer),
        sum(record.silent_seconds is not None for record in answer),
    )


def happen(house: House, what: str, client_id: str, number: int) -> None:
    """Let it happen."""
    answer: Deferred[Any] | None = None
    match what:
        case "beat":
            answer = house.beat(client_id, CALIBRATED)
        case "restart":
            answer = house.beat(client_id, DISCONNECTED)
        case "steer":
            answer = house.steer(
                client_id, [UNCALIBRATED, CALIBRATED, RUNNING][number % 3]
            )
        case "kick":
            answer = house.kick(client_id)
        case "silence":
            order = SilenceOrder(seconds=[0, 1, 20, 20, 0][number])
            answer = house.orders.to_one(client_id, order)
        case "time":
            house.listen(3 * number)
        case "refuse" if house.store.waiting:
            refused = house.store.waiting[0].client_id
            life = house.registry.last_incarnation
            kept = snapshot(refused, incarnation=life, sequence=9, state=RUNNING)
            house.store.finish({refused: kept if number % 2 else None})
        case "keep":
            house.store.finish_all()
    if answer is not None:
        answer.addErrback(lambda _: None)


class TestSummary(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with three clients in three states."""
        self.house = House()
        self.house.register("1", "2", "3")
        self.house.steer("2", CALIBRATED)
        self.house.steer("3", RUNNING)
        self.house.store.finish_all()

    def test_it_says_how_all_is(self) -> None:
        self.house.listen(1)
        self.assertEqual(
            self.house.dispatcher.summarized(),
            SummaryRecord(
                alive=3,
                states={UNCALIBRATED: 1, CALIBRATED: 1, RUNNING: 1},
                late=0,
                held=0,
                silent=0,
                flapping=0,
                gone_last_hour=0,
                lost_last_hour=0,
                mass_loss=None,
                store=None,
                started_at="2022-03-29T12:00:00.000Z",
                as_of=self.house.engine.events.last_id,
                server_time="2022-03-29T12:00:01.000Z",
            ),
        )

    def test_who_is_late_or_silent_counts_until_it_beats(self) -> None:
        self.house.orders.to_one("2", SilenceOrder(seconds=60))
        self.house.store.finish_all()
        self.house.listen(5)
        self.assertEqual(counted(self.house)[2:], (2, 0, 1))
        for name in "12":
            self.house.beat(name)
        self.house.store.finish_all()
        self.assertEqual(counted(self.house)[2:], (1, 0, 0))
        self.house.listen(6)
        self.house.store.finish_all()
        self.assertEqual(counted(self.house)[0], 2)
        self.assertEqual(counted(self.house)[2:], (2, 0, 0))

    def test_what_is_not_durable_does_not_count(self) -> None:
        before = counted(self.house)
        self.house.steer("1", RUNNING)
        self.house.kick("2")
        self.house.beat("4")
        self.house.orders.to_one("3", SilenceOrder(seconds=60))
        self.assertEqual(counted(self.house), before)
        self.house.store.finish_all()
        states = {UNCALIBRATED: 1, CALIBRATED: 0, RUNNING: 2}
        self.assertEqual(counted(self.house), (3, states, 0, 0, 1))

    def test_a_hold_is_told_and_so_is_a_store_in_trouble(self) -> None:
        house = House(mass_loss_share=1.0)
        house.register("1", "2", "3")
        house.listen(11)
        house.beat("4").addErrback(lambda _: None)
        house.store.break_down()
        told = house.dispatcher.summarized()
        self.assertEqual((told.late, told.held, told.store), (3, 3, "the disk is full"))
        self.assertEqual(
            told.mass_loss,
            HoldRecord("1648555210000000", "2022-03-29T12:00:10.000Z", 59.0),
        )

    def test_a_restart_brings_back_who_lives_and_who_is_silent(self) -> None:
        self.house.orders.to_one("3", SilenceOrder(seconds=60))
        self.house.store.finish_all()
        house = House(stored_state(self.house.store.kept))
        states = {UNCALIBRATED: 1, CALIBRATED: 1, RUNNING: 1}
        self.assertEqual(counted(house), (3, states, 0, 0, 1))
        late = House(StoredState(7, clients=[snapshot("1", 7, silent_until=1.0)]))
        self.assertEqual(counted(late)[4], 0)

    def test_it_says_who_went_lately_and_who_flaps(self) -> None:
        for _ in range(3):
            self.house.beat("1")
            self.house.store.finish_all()
            self.house.listen(11)
            self.house.store.finish_all()
        self.house.register("1", "2")
        self.house.kick("2")
        self.house.store.finish_all()
        told = self.house.dispatcher.summarized()
        self.assertEqual(
            (told.flapping, told.gone_last_hour, told.lost_last_hour), (1, 3, 3)
        )
        record = self.successResultOf(self.house.dispatcher.client("1"))
        self.assertEqual(record.deaths_in_ten_minutes, 3)

    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(HAPPENINGS)
    def test_whatever_happens_it_says_what_is_listed(self, happenings: Any) -> None:
        house = House(mass_loss_share=0.6)
        for happening in happenings:
            happen(house, *happening)
        house.store.finish_all()
        self.assertEqual(counted(house), listed(house))

    def test_it_costs_nothing_to_ask_however_many_live(self) -> None:
        self.patch(Dispatcher, "clients", None)
        self.patch(type(self.house.registry), "__iter__", None)
        self.assertEqual(counted(self.house)[0], 3)
