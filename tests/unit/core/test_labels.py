"""Labels: where a client is and what it is (contract, section 2)."""

from __future__ import annotations

from heartbeat_service.core.notices import LabelsChanged, Reported
from tests.unit.core.cases import (
    DISCONNECTED,
    FUSE,
    RUNNING,
    UNCALIBRATED,
    RegistryTestCase,
)

ROOM_A = {"room": "A", "kind": "headset"}
ROOM_B = {"room": "B"}


class TestLabels(RegistryTestCase):
    def labels(self) -> dict[str, str]:
        """Those of client 1."""
        return self.registry.get("1").labels

    def test_a_client_that_names_none_has_none(self) -> None:
        self.registry.beat("1", DISCONNECTED)
        self.assertEqual(self.labels(), {})

    def test_the_first_beats_labels_are_told_with_the_registration(self) -> None:
        self.registry.beat("1", DISCONNECTED, labels=ROOM_A)
        [registration] = self.changes
        self.assertEqual(registration.client.labels, ROOM_A)
        self.assertEqual(self.notices, [])

    def test_a_beat_without_labels_leaves_them(self) -> None:
        self.registry.beat("1", DISCONNECTED, labels=ROOM_A)
        self.registry.beat("1", DISCONNECTED)
        self.registry.beat("1", UNCALIBRATED)
        self.assertEqual(self.labels(), ROOM_A)

    def test_a_beat_with_the_same_labels_is_an_ordinary_one(self) -> None:
        self.registry.beat("1", RUNNING, labels=ROOM_A)
        self.registry.beat("1", RUNNING, labels=dict(reversed(ROOM_A.items())))
        self.assertEqual((len(self.facts), self.notices), (1, []))

    def test_a_beat_with_others_changes_them(self) -> None:
        self.registry.beat("1", RUNNING, labels=ROOM_A)
        client = self.registry.beat("1", RUNNING, labels=ROOM_B)
        self.assertEqual(self.labels(), ROOM_B)
        self.assertEqual(self.snapshots, [client.snapshot()])
        self.assertEqual(
            self.notices,
            [LabelsChanged(client_id="1", incarnation=101, labels=ROOM_B)],
        )
        self.assertEqual(self.log[-2:], ["Snapshot 1", "LabelsChanged 1"])
        self.assertEqual((client.state, client.sequence), (UNCALIBRATED, 1))

    def test_empty_labels_take_them_away(self) -> None:
        self.registry.beat("1", RUNNING, labels=ROOM_A)
        self.registry.beat("1", RUNNING, labels={})
        self.assertEqual(self.labels(), {})

    def test_a_new_life_keeps_them(self) -> None:
        self.registry.beat("1", RUNNING, "a", labels=ROOM_A)
        self.registry.beat("1", DISCONNECTED, "a")
        self.assertEqual(self.changes[-1].client.labels, ROOM_A)
        self.registry.beat("1", DISCONNECTED, "b", labels=ROOM_B)
        self.assertEqual(self.changes[-1].client.labels, ROOM_B)
        self.registry.beat("1", DISCONNECTED, "c", labels={})
        self.assertEqual(self.changes[-1].client.labels, {})

    def test_who_has_died_has_those_that_its_next_beat_brings(self) -> None:
        self.registry.beat("1", RUNNING, labels=ROOM_A)
        self.clock.advance(FUSE)
        self.registry.beat("1", RUNNING)
        self.assertEqual(self.labels(), {})

    def test_a_life_that_has_ended_is_told_with_them(self) -> None:
        self.registry.beat("1", RUNNING, labels=ROOM_A)
        self.registry.kick("1", by="ada")
        ended = self.changes[-1].ended
        assert ended is not None
        self.assertEqual((ended.labels, ended.by), (ROOM_A, "ada"))

    def test_no_other_message_changes_them(self) -> None:
        self.in_state(RUNNING)
        self.registry.beat("1", DISCONNECTED, labels=ROOM_A)
        self.registry.set_state("1", UNCALIBRATED)
        self.registry.steer("1", RUNNING)
        self.assertEqual(self.labels(), ROOM_A)

    def test_they_outlive_a_restart(self) -> None:
        self.registry.beat("1", RUNNING, labels=ROOM_A)
        self.registry.beat("2", RUNNING, labels=ROOM_A)
        self.registry.beat("2", RUNNING, labels=ROOM_B)
        self.start_again()
        self.assertEqual(self.labels(), ROOM_A)
        self.assertEqual(self.registry.get("2").labels, ROOM_B)
        self.registry.beat("1", RUNNING, labels=ROOM_A)
        self.assertEqual(self.notices, [])


class TestReported(RegistryTestCase):
    """Operators hear when a client reports another state than before."""

    def test_another_reported_state_is_told_and_the_same_is_not(self) -> None:
        for reported in (DISCONNECTED, DISCONNECTED, RUNNING, RUNNING, UNCALIBRATED):
            self.registry.beat("1", reported)
        self.assertEqual(
            self.notices,
            [
                Reported(client_id="1", incarnation=101, reported_state=state)
                for state in (RUNNING, UNCALIBRATED)
            ],
        )
