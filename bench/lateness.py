"""How late a timebomb is, while thousands of clients beat and some fall silent.

From the moment when a fuse should end, which is when the client's last beat was about
to be sent and its fuse, until the death is heard of: whatever happens on the way there
and back counts. A death before that moment is early, whoever dies. The driver's own
lag, from when a beat was due until it was sent, is told beside: it makes no death late,
but the driver hears of deaths no sooner than it sends beats.

Whoever leaves as many beats unanswered as there are clients gets half as many clients,
until it can keep them: the figure ``clients`` says how many those were. A death that
isn't heard of at all counts as late as the measurement went on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle, islice
from math import ceil, inf
from random import Random

from attrs import frozen

from bench.scenario import Figures, Scenario
from bench.watchers import WATCHERS, Watcher

#: Seconds from one beat of a client to the next.
INTERVAL = 2.0

#: One in so many falls silent.
SILENT = 20

#: The fewest clients that are tried.
FEWEST = 300

#: How long, in seconds, the driver hears nothing, at most.
NAP = 0.001


class TooManyError(Exception):
    """It can't answer the beats of so many clients."""


@frozen
class Plan:
    """How many clients, and for how long, in seconds.

    :ivar falling: the time in which the silent fall silent.
    :ivar patience: how long their deaths are waited for after the last fuse's end.
    """

    clients: int
    fuse: float
    falling: float
    patience: float


FULL = Plan(10_000, fuse=10.0, falling=20.0, patience=60.0)
QUICK = Plan(2_000, fuse=3.0, falling=1.0, patience=1.0)


def measure(contestant: str, quick: bool) -> Figures:
    """As many clients as it can keep, but no more than there are in the plan."""
    plan = QUICK if quick else FULL
    clients = plan.clients
    while True:
        try:
            with WATCHERS[contestant](clients, plan.fuse) as watcher:
                return _Drive(watcher, plan, clients).figures()
        except TooManyError:
            if clients // 2 < FEWEST:
                raise
            clients //= 2


class _Drive:
    """Clients that beat in turn, each :data:`INTERVAL` seconds after its last beat."""

    def __init__(self, watcher: Watcher, plan: Plan, clients: int) -> None:
        self._watcher, self._plan, self._clients = watcher, plan, clients
        self._ring = cycle(range(clients))
        self._last_beat = [inf] * clients
        self._falls_silent = [inf] * clients
        self._heard: dict[int, float] = {}
        self._beats = self._early = 0
        self._lags: list[float] = []

    def figures(self) -> Figures:
        """Let all register and beat and some fall silent, and hear of their deaths."""
        self._turn(self._plan.fuse / 2)
        used, beats = self._watcher.server.cpu_seconds(), self._beats
        silent = self._silence(time.monotonic())
        for _ in range(ceil((self._plan.falling + self._plan.fuse) / INTERVAL)):
            self._turn(INTERVAL)
        until = time.monotonic() + self._plan.patience
        while time.monotonic() < until and not self._heard.keys() >= silent:
            self._turn(INTERVAL)
        used = self._watcher.server.cpu_seconds() - used
        late = sorted(map(self._lateness_ms, silent))
        return {
            "clients": self._clients,
            "deaths": len(self._heard),
            "early": self._early,
            "p50_ms": quantile(late, 0.5),
            "p99_ms": quantile(late, 0.99),
            "max_ms": late[-1],
            "cpu_us": used / (self._beats - beats) * 1e6,
            "driver_lag_p99_ms": quantile(sorted(self._lags), 0.99) * 1000,
            "driver_lag_max_ms": max(self._lags) * 1000,
        }

    def _silence(self, begin: float) -> set[int]:
        """Choose who falls silent, and when."""
        random = Random(1)  # noqa: S311 - no secret, and the same in each run
        silent = random.sample(range(self._clients), self._clients // SILENT)
        for client in silent:
            moment = begin + random.uniform(0, self._plan.falling)
            self._falls_silent[client] = moment
        return set(silent)

    def _turn(self, seconds: float) -> None:
        """Each beats once, evenly in so many seconds."""
        began, step, sent = time.monotonic(), seconds / self._clients, 0
        while sent < self._clients:
            # Before it beats: else who dies, as the driver was late, would die early.
            self._listen()
            now = time.monotonic()
            due = min(int((now - began) / step) + 1, self._clients)
            if due > sent:
                self._lags.append(now - began - sent * step)
                self._beat(now, due - sent)
                sent = due

    def _beat(self, now: float, count: int) -> None:
        """The next ones beat, if they aren't silent."""
        clients = [
            client
            for client in islice(self._ring, count)
            if self._falls_silent[client] > now
        ]
        for client in clients:
            self._last_beat[client] = now
        self._watcher.beat(clients)
        self._beats += len(clients)
        if self._beats - self._watcher.answered > self._clients:
            raise TooManyError

    def _listen(self) -> None:
        for moment, client in self._watcher.hear(NAP):
            self._early += moment < self._last_beat[client] + self._plan.fuse
            if self._falls_silent[client] < moment:
                self._heard.setdefault(client, moment)

    def _lateness_ms(self, client: int) -> float:
        heard = self._heard.get(client, time.monotonic())
        return (heard - self._last_beat[client] - self._plan.fuse) * 1000


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of them doesn't exceed."""
    return ordered[ceil(share * len(ordered)) - 1]


SCENARIOS = (
    Scenario(
        "lateness",
        f"a timebomb's lateness, clients that beat every {INTERVAL:.0f} s",
        tuple(WATCHERS),
        measure,
        rounds=1,  # of earliness a median would say nothing
    ),
)
