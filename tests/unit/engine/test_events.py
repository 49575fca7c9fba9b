"""The log of events: what is told of each thing, under which id, and for how long."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.changes import Change, Lockout, Reason, SilenceEnd
from heartbeat_service.core.instances import Instances
from heartbeat_service.core.notices import (
    Held,
    HoldEnd,
    LabelsChanged,
    Late,
    MassLossBegun,
    MassLossOver,
    News,
    Recovered,
    Reported,
    Silence,
    StoreNotice,
)
from heartbeat_service.core.states import ClientState
from heartbeat_service.engine import events
from heartbeat_service.engine.events import EventLog
from tests.unit.engine.test_dispatch import House
from tests.unit.storage.store_suite import snapshot

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState


def anybody(_: str) -> bool:
    """Each client is wanted."""
    return True


OF_1: Any = {"client_id": "1", "incarnation": 7}
TOLD_OF_1 = {"clientID": "1", "incarnation": 7}
ROOM = {"room": "A"}

#: What happens, and what is told of it: the table of the contract's section 3a.
TABLE: list[tuple[News, str, dict[str, Any]]] = [
    (
        Late(
            **OF_1,
            seconds_since_heartbeat=4.0,
            seconds_to_timebomb=6.0,
            timebomb_seconds=10.0,
        ),
        "Late",
        {
            **TOLD_OF_1,
            "secondsSinceHeartbeat": 4.0,
            "secondsToTimebomb": 6.0,
            "timebombSeconds": 10.0,
        },
    ),
    (Recovered(**OF_1), "Recovered", TOLD_OF_1),
    (
        Held(**OF_1, seconds_since_heartbeat=10.0),
        "Held",
        {**TOLD_OF_1, "secondsSinceHeartbeat": 10.0},
    ),
    (
        Silence(**OF_1, seconds=300.0, by="Ada"),
        "Silence",
        {**TOLD_OF_1, "seconds": 300.0, "by": "Ada"},
    ),
    (Silence(**OF_1, seconds=300.0), "Silence", {**TOLD_OF_1, "seconds": 300.0}),
    *(
        (
            Silence(**OF_1, seconds=0.0, reason=reason),
            "Silence",
            {**TOLD_OF_1, "seconds": 0.0, "reason": word},
        )
        for reason, word in zip(SilenceEnd, ("beat", "operator", "ended"), strict=True)
    ),
    (
        Lockout("1", 1600.0, "Ada", 7, 600.0),
        "LockedOut",
        {**TOLD_OF_1, "seconds": 600.0, "by": "Ada"},
    ),
    (
        Lockout("1", 0.0),
        "LockedOut",
        {"clientID": "1", "incarnation": None, "seconds": 0.0, "by": None},
    ),
    (LabelsChanged(**OF_1, labels=ROOM), "Labels", {**TOLD_OF_1, "labels": ROOM}),
    (
        Reported(**OF_1, reported_state=RUNNING),
        "Reported",
        {**TOLD_OF_1, "reportedState": "RUNNING"},
    ),
    (
        MassLossBegun("h", 3, 60.0),
        "MassLoss",
        {"hold": "h", "held": 3, "secondsLeft": 60.0},
    ),
    *(
        (
            MassLossOver("h", 2, 5.0, reason),
            "MassLossOver",
            {"hold": "h", "held": 2, "secondsLeft": 5.0, "reason": word},
        )
        for reason, word in zip(HoldEnd, ("recovered", "time", "operator"), strict=True)
    ),
    (
        MassLossOver("h", 2, 5.0, HoldEnd.OPERATOR, "Ada"),
        "MassLossOver",
        {"hold": "h", "held": 2, "secondsLeft": 5.0, "reason": "operator", "by": "Ada"},
    ),
    (StoreNotice("the disk is full"), "Store", {"trouble": "the disk is full"}),
    (StoreNotice(None), "Store", {"trouble": None}),
]

#: A change, as it is told.
CHANGE = {
    **TOLD_OF_1,
    "clientState": "RUNNING",
    "previousState": "CALIBRATED",
    "reason": "client",
    "sequence": 3,
    "at": "1970-01-01T00:16:40.000Z",
}


def change(**more: Any) -> Change:
    """Client 1 has begun to run, by itself."""
    client = {"sequence": 3, "state": RUNNING, "state_since": 1000.0}
    client.update(more.pop("client", {}))
    what = {"previous_state": CALIBRATED, "reason": Reason.CLIENT, **more}
    return Change(snapshot("1", 7, **client), **what)


class TestEventLog(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with nothing told."""
        self.log = EventLog(lambda: 1000.0)

    def told(self, news: News) -> tuple[str, dict[str, Any]]:
        """What is told of that: the event's name and its data."""
        self.log.hear(news)
        [event] = self.log.since(self.log.last)
        return event.name, json.loads(event.data)

    def hear(self, count: int) -> None:
        """So many things happen."""
        for _ in range(count):
            self.log.hear(StoreNotice(None))

    def test_each_event_has_the_fields_of_the_contract_and_no_others(self) -> None:
        for news, name, data in TABLE:
            self.assertEqual(self.told(news), (name, data))

    def test_change_is_told_as_it_is_published_and_when_it_was(self) -> None:
        self.assertEqual(self.told(change()), ("OnStateChange", CHANGE))
        instances = Instances().succeeded_by("one")
        self.assertEqual(
            self.told(change(client={"instances": instances})),
            ("OnStateChange", {**CHANGE, "instanceID": "one"}),
        )

    def test_change_by_an_operator_has_the_operators_name(self) -> None:
        _, data = self.told(change(reason=Reason.OPERATOR, by="Ada"))
        self.assertEqual(data, {**CHANGE, "reason": "operator", "by": "Ada"})

    def test_labels_are_told_with_a_registration_and_with_no_other_change(self) -> None:
        for labels in (ROOM, {}):
            client = {"labels": labels, "state": UNCALIBRATED}
            for reason in (Reason.HEARTBEAT, Reason.RECONNECT):
                _, data = self.told(
                    change(reason=reason, client={**client, "sequence": 1})
                )
                self.assertEqual(data["labels"], labels)
            _, data = self.told(change(client={**client, "sequence": 2}))
            self.assertNotIn("labels", data)

    def test_an_event_is_one_line(self) -> None:
        self.log.hear(StoreNotice("two\nlines\r\u2028"))
        [event] = self.log.since(1)
        self.assertEqual(len(event.data.splitlines()), 1)
        self.assertEqual(json.loads(event.data), {"trouble": "two\nlines\r\u2028"})

    def test_ids_are_the_runs_and_grow_by_one(self) -> None:
        self.assertEqual(self.log.last_id, f"{self.log.run}-0")
        self.hear(3)
        self.assertEqual(
            [event.id for event in self.log.since(1)],
            [f"{self.log.run}-{number}" for number in (1, 2, 3)],
        )
        self.assertEqual(self.log.last_id, f"{self.log.run}-3")

    def test_no_two_runs_are_named_alike_and_no_name_has_a_hyphen(self) -> None:
        runs = {EventLog().run for _ in range(100)}
        self.assertEqual(len(runs), 100)
        self.assertNotIn("-", "".join(runs))

    def test_a_reset_has_the_id_of_the_last_event_before_it(self) -> None:
        for count in (0, 2):
            self.hear(count)
            reset = self.log.reset()
            self.assertEqual((reset.id, reset.name), (self.log.last_id, "Reset"))
            told = {"run": self.log.run, "serverTime": "1970-01-01T00:16:40.000Z"}
            self.assertEqual(json.loads(reset.data), told)

    def test_the_event_after_each_known_id_is_found(self) -> None:
        self.hear(3)
        following = [
            self.log.next_after(f"{self.log.run}-{number}") for number in range(4)
        ]
        self.assertEqual(following, [1, 2, 3, 4])

    def test_no_other_id_is_known(self) -> None:
        self.hear(3)
        run = self.log.run
        for strange in (
            *("", "-", "3", "-3", run, f"{run}-", f"{run}-x", f"{run}--1", f"{run}-4"),
            *(f"{run}-1.0", f"{run}-\u0663", f"{run}-{'9' * 5000}", f"{run}- 3"),
            *(f"{EventLog().run}-3", f"{run}-1-3", f"x{run}-3"),
        ):
            self.assertIsNone(self.log.next_after(strange), strange)

    def test_the_last_ten_thousand_are_kept_and_no_more(self) -> None:
        self.assertEqual(events.MOST_EVENTS, 10_000)
        self.patch(events, "MOST_EVENTS", 10)
        self.hear(25)
        self.assertEqual((self.log.first, self.log.last), (16, 25))
        self.assertEqual(
            [event.id for event in self.log.since(16)],
            [f"{self.log.run}-{number}" for number in range(16, 26)],
        )
        following = [self.log.next_after(f"{self.log.run}-{n}") for n in (14, 15, 25)]
        self.assertEqual(following, [None, 16, 26])

    def report(self, *client_ids: str) -> None:
        """They report another state."""
        for client_id in client_ids:
            self.log.hear(
                Reported(client_id=client_id, incarnation=7, reported_state=RUNNING)
            )

    def test_who_has_reported_after_an_event_is_told_in_parts(self) -> None:
        self.report("0")
        after = self.log.last_id
        self.hear(1)
        self.report("1", "2", "1", "3")
        run = self.log.run
        self.assertEqual(
            self.log.who_reported(after, 2, anybody), (["1", "2"], f"{run}-4")
        )
        self.assertEqual(
            self.log.who_reported(f"{run}-4", 2, anybody),
            (["1", "3"], self.log.last_id),
        )
        last = self.log.last_id
        self.assertEqual(self.log.who_reported(last, 2, anybody), ([], last))

    def test_after_what_is_lost_the_last_are_told_who_have_reported(self) -> None:
        self.report("0", "1", "2", "1", "3")
        last = self.log.last_id
        for lost in ("", "another-5"):
            self.assertEqual(
                self.log.who_reported(lost, 2, anybody), (["1", "3"], last)
            )
            self.assertEqual(
                self.log.who_reported(lost, 9, anybody), (["0", "2", "1", "3"], last)
            )
        self.assertEqual(EventLog().who_reported("", 9, anybody)[0], [])

    def test_who_is_not_wanted_takes_no_place_among_those_who_have_reported(self):
        self.report("0")
        after = self.log.last_id
        self.report("x1", "1", "x2", "2", "3")
        who = self.log.who_reported(after, 2, lambda one: not one.startswith("x"))
        self.assertEqual(who, (["1", "2"], f"{self.log.run}-5"))

    def test_whoever_waits_hears_that_there_is_more_once_it_is_there(self) -> None:
        known: list[int] = []
        self.log.told = lambda: known.append(self.log.last)
        self.hear(2)
        self.assertEqual(known, [1, 2])


class TestDurability(SynchronousTestCase):
    def test_nothing_is_told_before_the_store_has_it(self) -> None:
        house = House()
        log = house.engine.events
        house.beat("1")
        house.beat("1", RUNNING)  # another state is reported, behind the registration
        self.assertEqual(log.last, 0)
        house.store.finish_all()
        names = [event.name for event in log.since(1)]
        self.assertEqual(names, ["OnStateChange", "Reported"])
        house.beat("1", CALIBRATED)  # of whom nothing waits
        self.assertEqual(log.last, 3)
