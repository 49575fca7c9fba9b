"""Whether ZeroMQ gets through while beats do, and whether the game knows.

Counted in beats that were answered, not by a timer: while beats fail too, the whole
server is lost, and that is told already. Knows no socket.
"""

from __future__ import annotations

from attrs import define, field


@define(eq=False)
class ZmqOutage:
    """How long the two ZeroMQ sockets have been away.

    :ivar trouble: why they are, for people.
    """

    trouble: str = field(default="", init=False)
    _connected: bool = field(default=False, init=False)
    _away: float = field(default=0.0, init=False)  # in seconds
    _told: bool = field(default=False, init=False)

    def ends(self) -> bool:
        """Both have shaken hands; whether the game has to be told."""
        self._connected, self._away = True, 0.0
        told, self._told = self._told, False
        return told

    def begins(self, trouble: str = "") -> None:
        """One of them has no connection: it was lost, or isn't made yet.

        :param trouble: why, if that is known.
        """
        self._connected = False
        self.trouble = trouble or self.trouble

    def lasts(self, interval: float, patience: float) -> bool:
        """A beat was answered; whether they have been away for too long, once more.

        :param interval: seconds since the beat before.
        :param patience: seconds that they may be away.
        """
        if self._connected:
            return False
        self._away += interval
        if self._away <= patience:
            return False
        self._away = 0.0
        return True

    def tell(self) -> bool:
        """Whether the game has to be told of it: once, until it is over."""
        told, self._told = self._told, True
        return not told
