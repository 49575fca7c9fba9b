"""What somebody sees while a fleet lives: rich where there is a terminal, else lines.

Knows the fleet's figures alone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from heartbeat_service.core.states import ClientState
from heartbeat_service.simulator.fleet import Fleet

#: How often a terminal is drawn anew, and how often there is a line, in seconds.
DRAWN_EVERY, LINE_EVERY = 0.5, 10.0

COLOURS = {
    ClientState.RUNNING: "green",
    ClientState.CALIBRATED: "cyan",
    ClientState.UNCALIBRATED: "yellow",
    ClientState.DISCONNECTED: "red",
}


class Display:
    """Shows a fleet on standard error until it is left.

    :ivar every: how often :meth:`show` wants to be called, in seconds.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self.every = DRAWN_EVERY if self._console.is_terminal else LINE_EVERY
        self._beats = 0
        self._show: Callable[[], None] = (
            self._draw if self._console.is_terminal else self._print
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self) -> None:
        """Show how it is now."""
        self._show()

    def _beats_a_second(self) -> float:
        beats = self._fleet.referee.beats
        before, self._beats = self._beats, beats
        return (beats - before) / self.every

    def _draw(self) -> None:
        referee, states = self._fleet.referee, self._fleet.states()
        table = Table(show_header=False, box=None, padding=(0, 2))
        for state, colour in COLOURS.items():
            table.add_row(f"[{colour}]{state.value}", f"{states[state]:,}")
        table.add_row("beats a second", f"{self._beats_a_second():,.0f}")
        table.add_row("slowest answer", f"{referee.slowest * 1000:.1f} ms")
        table.add_row("deaths seen", f"{referee.deaths_seen:,}")
        broken = len(referee.broken)
        table.add_row("broken promises", f"[red]{broken}" if broken else "none")
        left = self._fleet.plan.seconds - referee.seconds
        table.add_row("seconds left", f"{max(0.0, left):.0f}")
        self._live.update(table, refresh=True)

    def _print(self) -> None:
        referee, states = self._fleet.referee, self._fleet.states()
        alive = ", ".join(f"{states[state]} {state.value}" for state in COLOURS)
        self._console.print(
            f"{referee.seconds:.0f} s: {alive}; {self._beats_a_second():.0f} beats a "
            f"second; slowest answer {referee.slowest * 1000:.0f} ms",
            highlight=False,
            soft_wrap=True,
        )
