"""Machines are killed, stopped, cut off and taken down, with clients that remember.

Whatever is done, nothing acknowledged may be lost, no pair (incarnation, sequence) mean
two states, nobody die who was answered within its fuse, and who is silent must die.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from random import Random

import pytest

from tests.cluster.cluster import ETCDS, INTERVAL, NODES, READY, Program
from tests.cluster.trial import SESSION, TALKING, Trial, either

#: Longer than any session, with what a stopped machine takes to be noticed.
LONG_ENOUGH = 2 * SESSION + 2

#: Who falls silent on purpose, leaves, or waits for a node that is away.
MAY_DIE = ("silent", "leaver", "stubborn")


@pytest.mark.fault("a node: SIGKILL")
def test_a_killed_node_is_not_missed(trial: Trial) -> None:
    with trial.strikes(living=("b", "c")):
        trial.cluster.nodes["a"].kill()
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("two nodes at once: SIGKILL")
def test_one_node_is_enough(trial: Trial) -> None:
    with trial.strikes(living=("c",)):
        trial.cluster.nodes["a"].kill()
        trial.cluster.nodes["b"].kill()
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("a node: SIGSTOP beyond its session, SIGCONT")
def test_a_node_that_wakes_too_late_harms_nobody(trial: Trial) -> None:
    with trial.strikes(living=("a", "c")):
        trial.cluster.nodes["b"].signal(signal.SIGSTOP)
    trial.lasts(trial.struck + LONG_ENOUGH - time.monotonic())
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("all nodes: SIGSTOP beyond their sessions, SIGCONT")
def test_nodes_that_all_wake_too_late_harm_nobody(trial: Trial) -> None:
    _sleep(trial, trial.cluster.nodes)


@pytest.mark.long
@pytest.mark.fault("all nodes, all of etcd: SIGSTOP, SIGCONT")
def test_a_cluster_that_was_asleep_goes_on(trial: Trial) -> None:
    _sleep(trial, {**trial.cluster.etcds, **trial.cluster.nodes})


def _sleep(trial: Trial, programs: Mapping[str, Program]) -> None:
    """They are stopped for long, and wake together."""
    for program in programs.values():
        program.signal(signal.SIGSTOP)
    trial.lasts(LONG_ENOUGH)
    with trial.strikes():
        for program in programs.values():
            program.signal(signal.SIGCONT)
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("a node: SIGSTOP for 3 s, 5 times")
def test_a_node_that_stalls_again_and_again_kills_nobody(trial: Trial) -> None:
    for _ in range(5):
        with trial.strikes():
            trial.cluster.nodes["c"].signal(signal.SIGSTOP)
            trial.lasts(3)
            trial.cluster.nodes["c"].signal(signal.SIGCONT)
    trial.ends()


@pytest.mark.fault("etcd's leader: SIGKILL")
def test_a_killed_leader_loses_nothing(trial: Trial) -> None:
    leader = trial.cluster.leader()
    with trial.strikes():
        trial.cluster.etcds[leader].kill()
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("etcd's leader: SIGSTOP, SIGCONT")
def test_a_stopped_leader_loses_nothing(trial: Trial) -> None:
    leader = trial.cluster.leader()
    with trial.strikes():
        trial.cluster.etcds[leader].signal(signal.SIGSTOP)
    trial.lasts(trial.struck + LONG_ENOUGH - time.monotonic())
    trial.ends()


def both(trial: Trial, node: str) -> None:
    """Nothing gets through."""
    trial.cluster.network.part([node], ETCDS)


def towards_etcd(trial: Trial, node: str) -> None:
    """What the node sends is lost."""
    trial.cluster.network.cut([node], ETCDS)


def from_etcd(trial: Trial, node: str) -> None:
    """What etcd sends is lost."""
    trial.cluster.network.cut(ETCDS, [node])


def from_etcd_and_peers(trial: Trial, node: str) -> None:
    """It can ask nobody whether it is alone."""
    others = [each for each in NODES if each != node]
    trial.cluster.network.part([node], [*ETCDS, *others])


def from_all(trial: Trial, node: str) -> None:
    """Its cable is pulled."""
    others = [each for each in NODES if each != node]
    trial.cluster.network.part([node], [*ETCDS, *others, "balancer", "clients"])


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(both, marks=pytest.mark.fault("a node cut from etcd")),
        *(
            pytest.param(cut, marks=[pytest.mark.long, pytest.mark.fault(name)])
            for cut, name in [
                (towards_etcd, "a node's words to etcd lost"),
                (from_etcd, "etcd's words to a node lost"),
                (from_etcd_and_peers, "a node cut from etcd and from its peers"),
                (from_all, "a node cut from everybody"),
            ]
        ),
    ],
)
def test_a_node_that_is_cut_off_leaves_its_clients_to_others(
    trial: Trial, cut: Callable[[Trial, str], None]
) -> None:
    with trial.strikes(living=("a", "b")):
        cut(trial, "c")
    trial.lasts(trial.struck + either(8, LONG_ENOUGH) - time.monotonic())
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("a node cut from etcd every other 2 s, 8 times")
def test_a_loose_contact_kills_nobody(trial: Trial) -> None:
    for _ in range(8):
        both(trial, "a")
        trial.lasts(2)
        trial.cluster.network.join()
        trial.lasts(2)
    with trial.strikes():
        pass
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("a node cut from its peers")
def test_who_reaches_etcd_needs_no_peers(trial: Trial) -> None:
    with trial.strikes():
        trial.cluster.network.part(["b"], ["a", "c"])
    trial.lasts(LONG_ENOUGH)
    trial.is_back(time.monotonic())
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("etcd's leader cut from the other members")
def test_a_leader_that_leads_nobody_is_left(trial: Trial) -> None:
    leader = trial.cluster.leader()
    with trial.strikes():
        others = [each for each in ETCDS if each != leader]
        trial.cluster.network.part([leader], others)
    trial.lasts(trial.struck + LONG_ENOUGH - time.monotonic())
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("etcd's members cut from each other")
def test_members_that_agree_on_nothing_are_waited_for(trial: Trial) -> None:
    for member in ETCDS:
        trial.cluster.network.cut([member], [each for each in ETCDS if each != member])
    _without_etcd(trial, 2 * LONG_ENOUGH)
    with trial.strikes():
        trial.cluster.network.join()
    trial.ends()


@pytest.mark.fault("etcd gone")
def test_without_etcd_beats_are_answered_and_nobody_dies(trial: Trial) -> None:
    for member in trial.cluster.etcds.values():
        member.kill()
    share = _without_etcd(trial, either(15, 60))
    assert share > 0.25, f"{share:.0%} of beats were answered without etcd"
    with trial.strikes():
        trial.cluster.heal()
    trial.ends()


def _without_etcd(trial: Trial, seconds: float) -> float:
    """No change is accepted then, and nobody dies; the share of beats answered.

    Of a client whose change is under way, none is: nobody knows what it came to.
    """
    judge, gone = trial.cluster.judge, time.monotonic()
    trial.lasts(seconds)
    now = time.monotonic()
    assert judge.deaths(gone + 1, now) == [], "somebody died without etcd"
    assert not judge.accepted(gone + 1, now), "a change was accepted without etcd"
    settled = gone + SESSION + 5
    usual = TALKING * (now - settled) / INTERVAL
    share = judge.beats(settled, now) / usual
    trial.row.add(f"{share:.0%} of beats answered without etcd")
    return share


def stopped(trial: Trial, node: str) -> None:
    """It is told to end."""
    trial.cluster.nodes[node].stop()


def drained(trial: Trial, node: str) -> None:
    """An operator has its clients move before."""
    trial.cluster.drain(node)
    trial.lasts(1)
    trial.cluster.nodes[node].stop()


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(
            stopped,
            marks=[pytest.mark.long, pytest.mark.fault("all nodes anew: SIGTERM")],
        ),
        pytest.param(drained, marks=pytest.mark.fault("all nodes anew: drained")),
    ],
)
def test_an_upgrade_is_not_noticed(
    trial: Trial, leave: Callable[[Trial, str], None]
) -> None:
    for name, node in trial.cluster.nodes.items():
        leave(trial, name)
        with trial.strikes():
            node.start()
            node.says(READY)
    died = trial.cluster.judge.deaths(trial.begun, time.monotonic())
    unexpected = [each for each in died if not each.client.startswith(MAY_DIE)]
    assert unexpected == [], "clients died of an upgrade"
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("power cut: all nodes, all of etcd")
def test_a_power_cut_loses_nothing(trial: Trial) -> None:
    for program in (*trial.cluster.nodes.values(), *trial.cluster.etcds.values()):
        program.kill()
    with trial.strikes():
        trial.cluster.heal()
    trial.ends()


@pytest.mark.long
@pytest.mark.fault("anything at random for a minute")
def test_whatever_comes_together_harms_nobody(trial: Trial) -> None:
    cluster, seed = trial.cluster, int(time.time())
    chance = Random(seed)  # noqa: S311 - so that it can be done again
    trial.row.add(f"seed {seed}")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        node, member = chance.choice(NODES), chance.choice(ETCDS)
        program = chance.choice([cluster.nodes[node], cluster.etcds[member]])
        what = chance.choice(["kill", "term", "stop", "cut", "cut", "one way", "peers"])
        if what == "kill":
            program.kill()
        elif what == "term":
            program.signal(signal.SIGTERM)
        elif what == "stop":
            program.signal(signal.SIGSTOP)
        elif what == "cut":
            cluster.network.part([program.name], [*ETCDS, *NODES])
        elif what == "one way":
            cluster.network.cut([program.name], ETCDS)
        else:
            cluster.network.part([node], NODES)
        trial.lasts(0.5 + 10 * chance.random() ** 2)
        if chance.random() < 0.7:
            cluster.heal()
            trial.lasts(6 * chance.random() ** 2)
    cluster.heal()
    with trial.strikes():
        pass
    trial.ends()
