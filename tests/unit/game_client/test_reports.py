"""What a game has reported: few wait, and each follows what it followed in the game."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.states import ClientState
from heartbeat_service.game_client.reports import Reports

DISCONNECTED, UNCALIBRATED, CALIBRATED, RUNNING = ClientState
LIVING = st.sampled_from([UNCALIBRATED, CALIBRATED, RUNNING])


class TestReports(SynchronousTestCase):
    def test_one_is_under_way_at_a_time(self) -> None:
        reports = Reports()
        reports.add(CALIBRATED)
        reports.add(RUNNING)
        first = reports.begin(1, "1")
        assert first is not None
        self.assertEqual(first.state, CALIBRATED)
        self.assertIsNone(reports.begin(2, "2"))
        reports.settle()
        second = reports.begin(2, "2")
        assert second is not None
        self.assertEqual((second.state, second.sequence), (RUNNING, 2))
        reports.settle()
        self.assertIsNone(reports.begin(3, "3"))

    def test_circle_is_cut_out_and_the_way_back_kept(self) -> None:
        reports = Reports()
        for state in (UNCALIBRATED, CALIBRATED, RUNNING, CALIBRATED, UNCALIBRATED):
            reports.add(state)
        self.assertEqual(reports.drop(), [UNCALIBRATED])
        for state in (CALIBRATED, UNCALIBRATED, CALIBRATED, RUNNING):
            reports.add(state)
        self.assertEqual(reports.drop(), [CALIBRATED, RUNNING])

    @given(st.lists(LIVING, min_size=1, max_size=100))
    def test_few_wait_however_many_were_reported(self, states: list[ClientState]):
        reports = Reports()
        for state in states:
            reports.add(state)
        waiting = reports.drop()
        self.assertEqual(len(waiting), len(set(waiting)))
        self.assertEqual((waiting[0], waiting[-1]), (states[0], states[-1]))
        self.assertLessEqual(set(pairwise(waiting)), set(pairwise(states)))
