"""What people are told, and in which words."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Change, Reason, Snapshot
from heartbeat_service.core.instances import NO_INSTANCES
from heartbeat_service.core.notices import (
    HoldEnd,
    Late,
    MassLossBegun,
    MassLossOver,
    Stalled,
    StoreNotice,
)
from heartbeat_service.core.states import ClientState
from heartbeat_service.notify.gathering import (
    MOST_LOST,
    MOST_NAMED,
    MOST_PLACES,
    Gathering,
    Kind,
    Message,
    joined,
)

DISCONNECTED, UNCALIBRATED, _, RUNNING = ClientState

#: 21:14:03, wherever this is.
EVENING = time.mktime((2026, 11, 24, 21, 14, 3, 0, 0, -1))


class GatheringTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with nothing to tell."""
        self.deaths: dict[str, int] = {}
        self.now = EVENING
        self.gathering = Gathering(
            lambda who: self.deaths.get(who, 1), lambda: self.now
        )

    def change(
        self,
        name: str,
        reason: Reason,
        *,
        lives: bool = False,
        labels: dict[str, str] | None = None,
    ) -> bool:
        """A client has changed; whether there is something to tell."""
        client = Snapshot(
            client_id=name,
            incarnation=1,
            sequence=1,
            state=UNCALIBRATED if lives else DISCONNECTED,
            instances=NO_INSTANCES,
            fuse=10.0,
            registered_at=EVENING,
            reported_state=DISCONNECTED,
            has_reported=False,
            beats=1,
            longest_gap_seconds=0.0,
            labels=labels or {},
        )
        previous = DISCONNECTED if lives else RUNNING
        return self.gathering.hear(Change(client, previous, reason))

    def lose(self, *names: str, **labels: str) -> None:
        """These die by their timebombs."""
        for name in names:
            assert self.change(name, Reason.TIMEBOMB, labels=labels)

    def told(self) -> Message:
        """The message that all of it becomes."""
        message = self.gathering.message()
        assert message is not None
        return message


class TestLosses(GatheringTestCase):
    def test_those_of_one_place_are_one_line(self) -> None:
        self.lose("headset-1", "headset-2", "headset-3", room="A", model="quest-3")
        message = self.told()
        self.assertEqual(message.title, "3 clients lost in room A")
        self.assertEqual(
            message.body,
            "3 clients lost in room A: headset-1, headset-2, headset-3",
        )
        self.assertIs(message.kind, Kind.BAD)

    def test_each_place_has_its_line_the_worst_first(self) -> None:
        self.lose("1", room="A")
        self.lose("2", "3", room="B")
        message = self.told()
        self.assertEqual(message.title, "2 clients lost in room B, and one more")
        self.assertEqual(
            message.body.splitlines(),
            ["2 clients lost in room B: 2, 3", "1 client lost in room A: 1"],
        )

    def test_a_client_without_labels_is_lost_nowhere(self) -> None:
        self.lose("1")
        self.assertEqual(self.told().body, "1 client lost: 1")

    def test_of_a_crowd_some_are_named(self) -> None:
        self.lose(*(f"c{number}" for number in range(2_000)), room="A")
        body = self.told().body
        self.assertIn("2,000 clients lost in room A: c0, c1", body)
        self.assertTrue(body.endswith(f" and {2_000 - MOST_NAMED:,} more"))

    def test_of_many_places_the_worst_are_named(self) -> None:
        for number in range(MOST_PLACES + 2):
            self.lose(f"c{number}", room=str(number))
        lines = self.told().body.splitlines()
        self.assertEqual(len(lines), MOST_PLACES + 1)
        self.assertEqual(lines[-1], "2 clients lost elsewhere")

    def test_who_goes_by_somebodys_will_is_no_loss(self) -> None:
        for reason in (Reason.KICK, Reason.GOODBYE):
            self.assertFalse(self.change("1", reason))
        self.assertFalse(self.change("2", Reason.HEARTBEAT, lives=True))
        self.assertIsNone(self.gathering.message())


class TestReturns(GatheringTestCase):
    def test_who_was_told_to_be_lost_is_told_to_be_back(self) -> None:
        self.lose("1", "2")
        self.told()
        self.now += 180
        self.assertTrue(self.change("1", Reason.HEARTBEAT, lives=True))
        message = self.told()
        self.assertEqual(message.body, "1 client back: 1 (after 3 min)")
        self.assertIs(message.kind, Kind.OVER)
        self.assertIsNone(self.gathering.message())

    def test_who_is_lost_and_back_within_one_message_is_both(self) -> None:
        self.lose("1")
        self.change("1", Reason.HEARTBEAT, lives=True)
        self.assertEqual(self.told().body, "1 client lost: 1\n1 client back: 1")
        self.assertFalse(self.change("1", Reason.RECONNECT, lives=True))

    def test_who_is_lost_again_is_not_back(self) -> None:
        self.lose("1")
        self.change("1", Reason.HEARTBEAT, lives=True)
        self.lose("1")
        self.assertEqual(self.told().body, "1 client lost: 1")

    def test_of_how_many_a_return_is_known_is_bounded(self) -> None:
        self.lose(*(f"c{number}" for number in range(MOST_LOST + 1)))
        self.told()
        self.assertFalse(self.change("c0", Reason.HEARTBEAT, lives=True))
        self.assertTrue(self.change("c1", Reason.HEARTBEAT, lives=True))


class TestFlapping(GatheringTestCase):
    def test_three_deaths_in_ten_minutes_are_told_once(self) -> None:
        self.deaths["1"] = 3
        self.lose("1")
        self.assertIn(
            "1 client flapping, in ten minutes: 1 (3 deaths)", self.told().body
        )
        self.now += 599
        self.deaths["1"] = 4
        self.lose("1")
        self.assertNotIn("flapping", self.told().body)

    def test_who_flaps_still_is_told_again_after_ten_minutes(self) -> None:
        self.deaths["1"] = 3
        self.lose("1")
        self.told()
        self.now += 600
        self.lose("1")
        self.assertIn("flapping", self.told().body)


class TestTheRest(GatheringTestCase):
    def test_a_mass_loss_and_its_end_are_told(self) -> None:
        self.gathering.hear(MassLossBegun("17", 1, 60.0))
        message = self.told()
        self.assertEqual(
            message.body,
            "Mass loss since 21:14:03: so many are silent at once that nobody dies"
            " before 21:15:03. Look at the network first.",
        )
        self.assertEqual(message.title, "Mass loss since 21:14:03")
        self.now += 30
        self.gathering.hear(MassLossOver("17", 0, 30.0, HoldEnd.RECOVERED))
        self.assertEqual(
            self.told().body,
            "Mass loss over at 21:14:33: all that were held have beaten again.",
        )

    def test_the_stores_trouble_and_its_end_are_told(self) -> None:
        self.gathering.hear(StoreNotice("heartbeat.sqlite: disk is full"))
        trouble = self.told()
        self.assertIn("since 21:14:03: heartbeat.sqlite: disk is full", trouble.body)
        self.assertIs(trouble.kind, Kind.BAD)
        self.gathering.hear(StoreNotice(None))
        self.assertIs(self.told().kind, Kind.OVER)

    def test_a_stall_over_five_seconds_is_told(self) -> None:
        self.assertFalse(self.gathering.hear(Stalled(4.9)))
        self.assertTrue(self.gathering.hear(Stalled(7.25)))
        message = self.told()
        self.assertIn("The service stalled for 7.2 s, until 21:14:03", message.body)
        self.assertIs(message.kind, Kind.WARNING)

    def test_who_is_only_late_is_told_to_nobody(self) -> None:
        late = Late(
            client_id="1",
            incarnation=1,
            seconds_since_heartbeat=4.0,
            seconds_to_timebomb=6.0,
            timebomb_seconds=10.0,
        )
        self.assertFalse(self.gathering.hear(late))

    def test_the_worst_is_the_title(self) -> None:
        self.gathering.hear(Stalled(6.0))
        self.lose("1", "2")
        message = self.told()
        self.assertEqual(message.title, "2 clients lost, and one more")
        self.assertIs(message.kind, Kind.BAD)

    def test_messages_that_had_to_wait_become_one(self) -> None:
        self.lose("1")
        first = self.told()
        self.now += 60
        self.change("1", Reason.HEARTBEAT, lives=True)
        one = joined([first, self.told()])
        self.assertEqual(
            one.body,
            "21:14:03\n1 client lost: 1\n\n21:15:03\n1 client back: 1 (after 1 min)",
        )
        self.assertIs(one.kind, Kind.BAD)
        self.assertIn("(2 messages in one)", one.title)
