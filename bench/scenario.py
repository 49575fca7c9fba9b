"""What a measurement is, and how contestants take turns at it.

Whatever else the machine does, hits all contestants of a round alike, so that their
ratios hold where their figures don't. Knows no program that is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from attrs import frozen

#: What was measured: a name with its unit, as ``cpu_us`` or ``p99_ms``, and the value.
Figures = dict[str, float]


@frozen
class Scenario:
    """One thing that is measured, and of whom.

    :ivar name: its key in the results.
    :ivar title: what people are told that it is.
    :ivar contestants: ours first.
    :ivar measure: starts the contestant of that name, drives it once, and ends it; the
        second argument says whether it has to be quick.
    :ivar rounds: how often each has its turn; one where nothing is compared.
    """

    name: str
    title: str
    contestants: Sequence[str]
    measure: Callable[[str, bool], Figures]
    rounds: int = 3


def turns(scenario: Scenario, quick: bool) -> int:
    """How many turns all contestants have together: one each where it is quick."""
    return len(scenario.contestants) * (1 if quick else scenario.rounds)


def run(
    scenario: Scenario,
    quick: bool,
    begun: Callable[[str], None] = lambda _: None,
    ended: Callable[[], None] = lambda: None,
) -> dict[str, Figures]:
    """Let everybody have their turns; the medians of each one's figures.

    :param begun: is told who begins a turn.
    :param ended: is told that a turn has ended.
    """
    samples: dict[str, list[Figures]] = {name: [] for name in scenario.contestants}
    for _ in range(1 if quick else scenario.rounds):
        for name in scenario.contestants:
            begun(name)
            samples[name].append(scenario.measure(name, quick))
            ended()
    return {name: medians(taken) for name, taken in samples.items()}


def medians(samples: Sequence[Figures]) -> Figures:
    """Of each figure the median."""
    return {key: median(one[key] for one in samples) for key in samples[0]}


def ratio(results: Mapping[str, Figures], figure: str, ours: str, peer: str) -> float:
    """How many times the peer's figure ours is."""
    return results[ours][figure] / results[peer][figure]
