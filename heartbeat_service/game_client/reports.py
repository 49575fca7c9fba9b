"""The states that a game has reported, and how far the server has come with them.

One is under way at a time, with the sequence of the state that it was decided on: the
server takes it on that state alone. So it may be sent again when no answer comes, and
any later sequence settles it, answer or not: it was taken with the very next one, or
never will be. The others wait, each for the one before it.

Knows nothing of messages, and nothing of what settles a report.
"""

from __future__ import annotations

from attrs import define, field, frozen

from heartbeat_service.core.states import ClientState


@frozen
class Report:
    """A state that the server was told of.

    :ivar sequence: that of the state that it was decided on.
    :ivar request_id: what the answer to it is told apart by.
    """

    state: ClientState
    sequence: int
    request_id: str

    def is_taken_by(self, state: ClientState, sequence: int) -> bool:
        """Whether that is where it has led to, with nobody else in between."""
        return (state, sequence) == (self.state, self.sequence + 1)


@define(eq=False)
class Reports:
    """What is under way and what waits.

    :ivar under_way: sent, and not settled yet.
    :ivar is_stale: whether the server said that the client has left the state which
        that one was decided on; what it is in now is not known yet.
    """

    under_way: Report | None = field(default=None, init=False)
    is_stale: bool = field(default=False, init=False)
    _waiting: list[ClientState] = field(factory=list, init=False)

    def add(self, state: ClientState) -> None:
        """A game wants to go on to this state, after those before.

        A circle is cut out: a game that wants to be where it wanted to be before goes
        on from there. So there never wait more than there are states, and each still
        follows one that it followed in the game.
        """
        if state in self._waiting:
            del self._waiting[self._waiting.index(state) + 1 :]
        else:
            self._waiting.append(state)

    def begin(self, sequence: int, request_id: str) -> Report | None:
        """Let the next one be under way; None if there is none, or one is already."""
        if self.under_way is not None or not self._waiting:
            return None
        self.under_way = Report(self._waiting.pop(0), sequence, request_id)
        return self.under_way

    def settle(self) -> None:
        """The one that is under way is settled, in whatever way."""
        self.under_way, self.is_stale = None, False

    def drop(self) -> list[ClientState]:
        """Forget all; which states are not reached, in their order."""
        under_way = [] if self.under_way is None else [self.under_way.state]
        dropped = under_way + self._waiting
        self.settle()
        self._waiting.clear()
        return dropped
