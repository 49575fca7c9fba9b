"""How many went lately, and who flaps: what is counted, and for how long.

Where a client lives, registry and journal are the real ones; the store is moved by
hand.
"""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Reason, StoredState
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine import deaths as module
from heartbeat_service.engine.deaths import MOST_LOSSES, Deaths
from tests.unit.engine.test_dispatch import FUSE, NOON, DispatchTestCase, House
from tests.unit.fakes import stored_state
from tests.unit.storage.store_suite import death, life, reconnect, registration

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState

TIMEBOMB, GOODBYE, KICK = Reason.TIMEBOMB, Reason.GOODBYE, Reason.KICK


class TestWhoDies(DispatchTestCase):
    def numbers(self) -> tuple[int, int, int]:
        """How many went within an hour, were lost within an hour, and flap."""
        deaths = self.house.engine.deaths
        return deaths.gone_last_hour(), deaths.lost_last_hour(), deaths.flapping()

    def lose(self, *client_ids: str) -> None:
        """These come and are lost, and the store knows it."""
        self.house.register(*client_ids)
        self.house.listen(FUSE)
        self.store.finish_all()

    def restart(self, later: float = 0.0) -> None:
        """The service is killed; another one finds what was kept, so much later."""
        stored = stored_state(self.store.kept, 100)
        since = self.house.clock.seconds() + later
        self.house = House(stored, noon=NOON + since)
        self.store = self.house.store

    def test_who_is_lost_is_counted_also_when_it_is_back(self) -> None:
        self.lose("1", "2")
        self.assertEqual(self.numbers(), (2, 2, 0))
        self.house.register("1")
        self.assertEqual(self.numbers(), (2, 2, 0))
        self.house.kick("1")
        self.store.finish_all()
        self.assertEqual(self.numbers(), (2, 2, 0))

    def test_who_says_goodbye_or_is_kicked_is_gone_and_not_lost(self) -> None:
        self.house.register("1", "2")
        self.house.leave("1")
        self.house.kick("2")
        self.store.finish_all()
        self.assertEqual(self.numbers(), (2, 0, 0))
        self.assertEqual(self.house.engine.deaths.deaths_in_ten_minutes("2"), 0)

    def test_who_begins_another_life_at_once_is_neither(self) -> None:
        for _ in range(4):
            self.house.beat("1", RUNNING)
            self.house.beat("1", DISCONNECTED)
            self.store.finish_all()
            self.house.listen(1)
        self.assertEqual(self.numbers(), (0, 0, 0))

    def test_death_counts_once_the_store_knows_it(self) -> None:
        self.house.register("1")
        self.house.kick("1")
        self.assertEqual(self.numbers(), (0, 0, 0))
        self.store.finish_all()
        self.assertEqual(self.numbers(), (1, 0, 0))

    def test_third_loss_within_ten_minutes_makes_a_client_flap(self) -> None:
        deaths = self.house.engine.deaths
        for number, flapping in ((1, 0), (2, 0), (3, 1), (4, 1)):
            self.lose("1")
            self.assertEqual(deaths.deaths_in_ten_minutes("1"), number)
            self.assertEqual(self.numbers(), (1, 1, flapping))
        self.assertEqual(deaths.deaths_in_ten_minutes("2"), 0)

    def test_dispatcher_is_handed_what_the_engine_counts(self) -> None:
        self.assertIs(self.dispatcher.deaths, self.house.engine.deaths)

    def test_all_of_it_outlives_a_restart(self) -> None:
        self.house.register("2")
        self.house.kick("2")
        for _ in range(3):
            self.lose("1")
        self.restart(later=500)
        self.assertEqual(self.numbers(), (2, 1, 1))
        self.assertEqual(self.house.engine.deaths.deaths_in_ten_minutes("1"), 3)
        self.house.clock.advance(85)
        self.assertEqual(self.numbers(), (2, 1, 0))
        self.restart(later=2600)
        self.assertEqual(self.numbers(), (0, 0, 0))

    def test_wall_clock_that_is_set_changes_no_number(self) -> None:
        for moment in (NOON, NOON + 86_400.0, NOON - 86_400.0):
            self.house.registry.wall_clock = partial(float, moment)
            self.lose("1")
        self.assertEqual(self.numbers(), (1, 1, 1))

    def test_wall_clock_set_back_at_a_restart_is_made_up_for_in_an_hour(self) -> None:
        for _ in range(3):
            self.lose("1")
        self.restart(later=-1800)
        self.assertEqual(self.numbers(), (1, 1, 1))
        self.house.clock.advance(601)
        self.assertEqual(self.numbers(), (1, 1, 0))
        self.house.clock.advance(3000)
        self.assertEqual(self.numbers(), (0, 0, 0))


class TestNumbers(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin when nobody has died."""
        self.clock = Clock()
        self.clock.advance(7.0)
        self.deaths = Deaths(self.clock)

    def die(self, client_id: str, reason: Reason = TIMEBOMB) -> None:
        """A client goes."""
        self.deaths.hear(death(client_id, life(1, reason)))

    def test_each_death_counts_for_its_time_to_the_second(self) -> None:
        for _ in range(3):
            self.die("1")
            self.clock.advance(10.0)
        self.clock.advance(570.0)
        self.assertEqual(self.deaths.deaths_in_ten_minutes("1"), 3)
        self.assertEqual(self.deaths.flapping(), 1)
        self.clock.advance(1.0)
        self.assertEqual(self.deaths.deaths_in_ten_minutes("1"), 2)
        self.assertEqual(self.deaths.flapping(), 0)
        self.clock.advance(3600.0 - 600.0 + 19.0)
        self.assertEqual(self.deaths.lost_last_hour(), 1)
        self.assertEqual(self.deaths.gone_last_hour(), 1)
        self.clock.advance(1.0)
        self.assertEqual(self.deaths.lost_last_hour(), 0)
        self.assertEqual(self.deaths.gone_last_hour(), 0)

    def test_loss_counts_for_its_hour_though_its_client_is_kicked_later(self) -> None:
        self.die("1")
        self.clock.advance(1800.0)
        self.die("1", KICK)
        self.clock.advance(1800.0)
        self.assertEqual(self.deaths.lost_last_hour(), 1)
        self.clock.advance(1.0)
        self.assertEqual(self.deaths.lost_last_hour(), 0)
        self.assertEqual(self.deaths.gone_last_hour(), 1)

    def test_what_ends_no_life_is_not_counted(self) -> None:
        self.deaths.hear(registration("1", 1))
        self.deaths.hear(reconnect("1", life(1, Reason.RECONNECT), 2))
        self.assertEqual(self.deaths.gone_last_hour(), 0)

    def test_losses_of_one_are_counted_up_to_a_bound(self) -> None:
        for _ in range(3 * MOST_LOSSES):
            self.die("1")
            self.clock.advance(1.0)
        self.assertEqual(self.deaths.deaths_in_ten_minutes("1"), MOST_LOSSES)
        self.assertEqual(self.deaths.flapping(), 1)

    def test_of_all_the_last_to_go_are_counted(self) -> None:
        self.patch(module, "MOST_LATELY", 3)
        for name in "1112223334445556":
            self.die(name)
        self.assertEqual(self.deaths.gone_last_hour(), 3)
        self.assertEqual(self.deaths.lost_last_hour(), 3)
        self.assertEqual(self.deaths.flapping(), 2)
        of_each = [self.deaths.deaths_in_ten_minutes(name) for name in "123456"]
        self.assertEqual(of_each, [0, 0, 0, 3, 3, 1])

    def test_what_is_kept_is_bounded_however_long_they_die(self) -> None:
        self.patch(module, "MOST_LATELY", 50)
        for number in range(20_000):
            self.die(f"{number % 100}" if number % 2 else f"once-{number}")
            self.clock.advance(0.7)
        deaths = self.deaths
        self.assertLessEqual(len(deaths._records), 50)
        for window in (deaths._gone, deaths._lost, deaths._flapping):
            self.assertLessEqual(len(window._at), 2 * window.seconds + 1)

    def test_what_is_too_old_makes_room_before_anybody_else(self) -> None:
        for number in range(100):
            self.die(f"{number}")
        self.clock.advance(4000.0)
        for number in range(100):
            self.die(f"later-{number}")
        self.assertEqual(len(self.deaths._records), 100)

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from("123"),
                st.sampled_from([TIMEBOMB, TIMEBOMB, GOODBYE, KICK, Reason.RECONNECT]),
                st.sampled_from([0, 1, 10, 299, 300, 301, 599, 1200, 3599, 3600, 3601]),
            ),
            max_size=30,
        ),
        st.integers(0, 30),
    )
    def test_numbers_are_those_of_who_counts_them_all(self, ends, restart_after):
        """Also if the service was restarted in between."""
        clock = Clock()
        deaths = Deaths(clock)
        told: list[tuple[int, str, Reason]] = []
        for number, (name, reason, pause) in enumerate(ends):
            clock.advance(pause)
            now = int(clock.seconds())
            if number == restart_after:
                stored = [
                    (who, life(1, why, ended_at=NOON + at))
                    for at, who, why in told
                    if at >= now - 3600
                ]
                deaths = Deaths(clock)
                deaths.restore(StoredState(0, ended_lately=stored), NOON + now)
            ended = life(1, reason)
            deaths.hear(
                reconnect(name, ended, 2)
                if reason is Reason.RECONNECT
                else death(name, ended)
            )
            told.append((now, name, reason))
            hour = [(who, why) for at, who, why in told if at >= now - 3600]
            losses = [
                who for at, who, why in told if at >= now - 600 and why is TIMEBOMB
            ]
            self.assertEqual(
                deaths.gone_last_hour(),
                len({who for who, why in hour if why is not Reason.RECONNECT}),
            )
            self.assertEqual(
                deaths.lost_last_hour(),
                len({who for who, why in hour if why is TIMEBOMB}),
            )
            self.assertEqual(
                deaths.flapping(), sum(losses.count(who) >= 3 for who in "123")
            )
            for who in "123":
                self.assertEqual(deaths.deaths_in_ten_minutes(who), losses.count(who))
