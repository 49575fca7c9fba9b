"""Who was here and is not: what operators are shown of them, and when.

The registry and the journal are the real ones; the store is moved by hand.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from heartbeat_service.core.changes import Fact, Reason
from heartbeat_service.core.errors import HeartbeatError, Overloaded, UnknownClient
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine import gone
from heartbeat_service.engine.engine import Engine
from heartbeat_service.protocol.messages import ErrorMessage, GoneRecord
from heartbeat_service.protocol.orders import LockoutOrder
from tests.unit.engine.test_dispatch import FUSE, NOON, DispatchTestCase, House
from tests.unit.fakes import HandStore, stored_state
from tests.unit.storage.store_suite import snapshot

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState


class GoneTestCase(DispatchTestCase):
    def setUp(self) -> None:
        """Begin with nobody."""
        super().setUp()
        self.kept: list[Fact] = []

    def records(self, since: float | None = None) -> list[GoneRecord]:
        """Who is told to be gone."""
        records, following = self.dispatcher.gone_clients(since)
        self.assertIsNone(following)
        return list(records)

    def gone(self, since: float | None = None) -> list[str]:
        """Their names."""
        return [record.client_id for record in self.records(since)]

    def kick(self, *client_ids: str) -> None:
        """These clients come and go, in this order, and the store knows it."""
        for client_id in client_ids:
            self.house.register(client_id)
            self.house.kick(client_id)
            self.store.finish_all()

    def restart(self) -> None:
        """The service is killed; another one finds what was kept."""
        self.kept += self.store.kept
        self.house = House(stored_state(self.kept, 100))
        self.store, self.dispatcher = self.house.store, self.house.dispatcher


class TestGoneClients(GoneTestCase):
    def test_a_record_says_when_and_how_it_went(self) -> None:
        self.house.register("1")
        self.house.steer("1", RUNNING)
        self.store.finish_all()
        self.house.listen(4)
        self.house.beat("1", RUNNING)
        self.store.finish_all()
        self.house.listen(FUSE)
        self.store.finish_all()
        expected = GoneRecord(
            client_id="1",
            last_state=RUNNING,
            reason=Reason.TIMEBOMB,
            ended_at="2022-03-29T12:00:14.000Z",
            registered_at="2022-03-29T12:00:00.000Z",
            beats=2,
            longest_gap_seconds=FUSE,
            labels={},
        )
        self.assertEqual(self.records(), [expected])
        self.restart()
        self.assertEqual(self.records(), [expected])

    def test_a_record_has_the_labels_that_it_had_when_it_went(self) -> None:
        self.house.beat("1", labels={"room": "a"})
        self.house.beat("1", labels={"room": "b", "seat": "4"})
        self.house.kick("1")
        self.store.finish_all()
        for _ in range(2):
            self.assertEqual(self.records()[0].labels, {"room": "b", "seat": "4"})
            self.restart()

    def test_whoever_went_is_gone_however_it_went_and_the_last_comes_first(self):
        self.house.register("1", "2", "3", "4")
        self.house.kick("2")
        self.house.leave("3")
        self.store.finish_all()
        self.house.listen(FUSE / 2)
        self.house.beat("4")
        self.house.listen(FUSE / 2)
        self.store.finish_all()
        self.assertEqual(self.gone(), ["1", "3", "2"])
        self.restart()
        self.assertEqual(self.gone(), ["1", "3", "2"])

    def test_who_comes_back_is_no_longer_gone(self) -> None:
        self.kick("1", "2")
        self.house.register("1")
        self.assertEqual(self.gone(), ["2"])
        self.restart()
        self.assertEqual(self.gone(), ["2"])
        self.house.register("2")
        self.assertEqual(self.gone(), [])

    def test_who_begins_another_life_at_once_was_never_gone(self) -> None:
        self.house.beat("1", RUNNING)
        self.house.beat("1", DISCONNECTED)
        self.house.beat("1", RUNNING, instance_id="another")
        self.store.finish_all()
        self.assertEqual(self.gone(), [])
        self.restart()
        self.assertEqual(self.gone(), [])

    def test_nobody_is_gone_before_the_store_knows(self) -> None:
        self.house.register("1")
        self.house.kick("1")
        self.assertEqual(self.gone(), [])
        self.store.finish_all()
        self.assertEqual(self.gone(), ["1"])
        self.house.beat("1")
        self.assertEqual(self.gone(), ["1"])
        self.store.finish_all()
        self.assertEqual(self.gone(), [])

    def test_death_that_was_not_kept_when_the_service_was_killed_never_was(self):
        self.house.register("1")
        self.house.kick("1")
        self.restart()
        self.assertEqual(self.gone(), [])

    def test_while_the_store_is_in_trouble_those_are_gone_that_it_knows(self) -> None:
        self.kick("1")
        self.house.register("2")
        refused = self.house.kick("2")
        self.store.break_down()
        self.expect_refusal(refused, Overloaded, "2")
        self.assertEqual(self.gone(), ["1"])
        self.house.calm_down()
        self.assertEqual(self.gone(), ["2", "1"])

    def test_before_the_store_is_open_nothing_is_told(self) -> None:
        engine = Engine(Clock(), HandStore())
        self.assertRaises(Overloaded, engine.dispatcher.gone_clients)

    def test_order_is_that_of_going_though_the_clock_is_set_back(self) -> None:
        set_back = iter((0.0, 0.0, -5000.0, -5000.0, -100.0, -100.0))
        self.house.registry.wall_clock = lambda: NOON + next(set_back)
        self.kick("1", "2", "3")
        self.assertEqual(self.gone(), ["3", "2", "1"])
        self.restart()
        self.assertEqual(self.gone(), ["3", "2", "1"])
        self.assertEqual(self.gone(since=1000.0), ["3", "1"])

    def test_since_is_so_many_seconds_ago(self) -> None:
        self.kick("1")
        self.house.listen(60)
        self.kick("2")
        self.assertEqual(self.gone(since=59.0), ["2"])
        self.assertEqual(self.gone(since=60.0), ["2", "1"])
        self.assertEqual(self.gone(since=0.0), ["2"])

    def test_the_last_are_kept_and_who_dies_often_takes_one_place(self) -> None:
        self.patch(gone, "MOST_GONE", 3)
        self.kick("1", "2", "3", "4")
        self.assertEqual(self.gone(), ["4", "3", "2"])
        for _ in range(10):
            self.kick("3")
            self.house.listen(1)
        self.assertEqual(self.gone(), ["3", "4", "2"])

    def test_all_may_come_back(self) -> None:
        names = [str(number) for number in range(50)]
        self.kick(*names)
        self.assertEqual(self.gone(), names[::-1])
        self.house.register(*names)
        self.assertEqual(self.gone(), [])

    def test_client_that_lives_in_the_store_is_not_gone(self) -> None:
        self.kick("1")
        self.house.beat("1")
        self.store.finish({"1": snapshot("1", 200)})
        self.assertEqual(self.gone(), [])

    def test_client_whose_return_the_store_refuses_is_gone_as_before(self) -> None:
        self.kick("1")
        self.house.registry.wall_clock = lambda: NOON + 7
        self.house.beat("1")
        self.store.finish({"1": None})
        self.assertEqual(self.records()[0].ended_at, "2022-03-29T12:00:00.000Z")


class TestPages(GoneTestCase):
    def page(self, after: int | None, limit: int = 2) -> tuple[list[str], int | None]:
        """Some of those who are gone."""
        records, following = self.dispatcher.gone_clients(after=after, limit=limit)
        return [record.client_id for record in records], following

    def all_pages(self) -> list[list[str]]:
        """All of them."""
        pages: list[list[str]] = []
        after: int | None = None
        while not pages or after is not None:
            page, after = self.page(after)
            pages.append(page)
        return pages

    def test_pages_are_as_long_as_asked_for_and_the_last_has_no_next(self) -> None:
        self.assertEqual(self.all_pages(), [[]])
        self.kick("1")
        self.assertEqual(self.all_pages(), [["1"]])
        self.kick("2")
        self.assertEqual(self.all_pages(), [["2", "1"]])
        self.kick("3", "4", "5")
        self.assertEqual(self.all_pages(), [["5", "4"], ["3", "2"], ["1"]])

    def test_nobody_is_passed_over_or_told_twice_though_others_come_and_go(self):
        self.kick("1", "2", "3", "4", "5", "6")
        page, after = self.page(None)
        self.assertEqual(page, ["6", "5"])
        self.kick("7")
        self.house.register("5", "4")  # also the one that the page ended with
        page, after = self.page(after)
        self.assertEqual(page, ["3", "2"])
        self.kick("2", "8")
        page, after = self.page(after)
        self.assertEqual((page, after), (["1"], None))

    def begin_other_lives(self) -> None:
        """Lives of a client end, and nobody goes."""
        for _ in range(3):
            self.house.beat("lives", RUNNING)
            self.house.beat("lives", DISCONNECTED)
        self.store.finish_all()

    def test_next_page_is_found_after_a_restart(self) -> None:
        self.kick("1", "2", "3")
        for some in ("45", "67"):
            self.begin_other_lives()
            self.kick(*some)
            in_order = self.gone()
            page, after = self.page(None, 1)
            self.restart()
            self.kick(f"after {some}")
            following, _ = self.page(after)
            self.assertEqual([*page, *following], in_order[:3])


class TestWhoAsksForThem(GoneTestCase):
    def told(self, answer: Deferred[Any]) -> str:
        """Why it is refused."""
        error = self.failureResultOf(answer, UnknownClient).value
        assert isinstance(error, HeartbeatError)
        self.assertEqual(error.client_id, "1")
        return error.detail

    def assert_told(self, *parts: str) -> None:
        """An operator is told that, whatever he wants of client 1."""
        for answer in (
            self.dispatcher.client("1"),
            self.house.steer("1", RUNNING),
            self.house.kick("1"),
        ):
            detail = self.told(answer)
            for part in parts:
                self.assertIn(part, detail)
        (in_a_list,) = self.successResultOf(self.house.steer_many(RUNNING, ["1"]))
        assert isinstance(in_a_list, ErrorMessage)
        self.assertEqual((in_a_list.code, in_a_list.detail), ("UNKNOWN_CLIENT", detail))

    def test_operator_is_told_when_and_how_a_client_went(self) -> None:
        self.house.register("1")
        self.house.steer("1", RUNNING)
        self.store.finish_all()
        self.house.listen(FUSE)
        self.store.finish_all()
        at = "2022-03-29T12:00:10.000Z"
        self.assert_told(
            "1 is not here: no heartbeat came", f"lost at {at}", "RUNNING until then"
        )
        self.kick("1")
        self.assert_told(f"kicked at {at}, UNCALIBRATED until then")
        self.house.register("1")
        self.house.leave("1")
        self.store.finish_all()
        self.assert_told(f"said goodbye at {at}")
        self.restart()
        self.assert_told(f"said goodbye at {at}")

    def test_operator_is_told_who_has_kicked_a_client(self) -> None:
        self.house.register("1")
        self.house.registry.kick("1", by="Anna")
        self.store.finish_all()
        self.assert_told("kicked at 2022-03-29T12:00:00.000Z by Anna, UNCALIBRATED")

    def test_operator_is_told_that_nobody_of_this_id_is_known(self) -> None:
        self.assert_told(
            "no client 1 is here", "the last 10,000", "is its ID spelt right?"
        )

    def test_operator_is_told_that_a_client_is_locked_out(self) -> None:
        self.house.register("1")
        self.house.orders.to_one("1", LockoutOrder(seconds=600))
        self.store.finish_all()
        self.assert_told("kicked at", "an operator keeps it out for 600 s more")

    def test_answer_waits_until_the_store_has_the_death(self) -> None:
        self.house.register("1")
        self.house.kick("1")
        asked = self.dispatcher.client("1")
        many = self.house.steer_many(RUNNING, ["1"])
        self.assertNoResult(asked)
        self.assertNoResult(many)
        self.store.finish_all()
        self.assertIn("kicked at", self.told(asked))
        (in_a_list,) = self.successResultOf(many)
        assert isinstance(in_a_list, ErrorMessage)
        self.assertIn("kicked at", in_a_list.detail)

    def test_who_came_only_after_it_was_asked_for_is_not_called_unknown(self) -> None:
        self.house.register("1")
        self.assertIn("ask again", self.dispatcher.how_it_went("1").detail)

    def test_client_itself_is_told_to_send_a_heartbeat(self) -> None:
        self.kick("1")
        for answer in (self.house.ask(), self.house.set(RUNNING), self.house.leave()):
            self.assertEqual(self.told(answer), "send a heartbeat first")
