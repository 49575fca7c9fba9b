"""What the log tells of ZeroMQ peers whose keys don't fit the server's.

libzmq turns them away by itself, and tells nobody but the monitor of the socket. Knows
nothing of which keys are listed (``curve.py``).
"""

from __future__ import annotations

from collections import Counter

import zmq
from twisted.logger import Logger

from heartbeat_service.core.tally import is_time_to_tell

#: In place of libzmq's error: the connection ended during the handshake.
LEFT = 0

#: By whether the server wants keys, and libzmq's error: what is wrong, and what to do.
_REASONS: dict[tuple[bool, int], str] = {
    (True, zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): (
        "it shows no key: make it one with heartbeat-curve-keys DIR --client NAME"
    ),
    (True, zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): (
        "it takes another key for this server's: give it server.key of --curve-keys DIR"
    ),
    # A client without keys may see that by itself, and be gone first.
    (True, LEFT): (
        "it left without having shown a listed key, as a client without keys does "
        "(make one with heartbeat-curve-keys DIR --client NAME), or a probe of the port"
    ),
    (False, zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): (
        "it wants encryption: start this service with --curve-keys DIR, or the peer "
        "without keys"
    ),
}


class FailedHandshakes:
    """Counts them by what is wrong; tells of the first, and at each doubling.

    :param with_keys: whether the server wants keys.
    :ivar events: what the monitor of a socket must tell for that, ``zmq.EVENT_…``.
    """

    _log = Logger()

    def __init__(self, *, with_keys: bool) -> None:
        self._with_keys = with_keys
        self.events = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        if with_keys:  # else whoever leaves soon would only be one event more to read
            self.events |= zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        self._counts: Counter[str] = Counter()

    def add(self, error: int, address: str) -> None:
        """One more; of an error without a reason here the log has nothing.

        :param error: ``zmq.PROTOCOL_ERROR_…``, or :data:`LEFT`.
        :param address: the peer's; empty if it isn't known.
        """
        reason = _REASONS.get((self._with_keys, error))
        if reason is None:  # no client of ours, but a stranger that speaks no ZeroMQ
            return
        self._counts[reason] += 1
        if is_time_to_tell(self._counts[reason]):
            self._log.warn(
                "refused a ZeroMQ peer from {address}: {reason}; such refusals so far: "
                "{count}",
                address=address or "an address that isn't known any more",
                reason=reason,
                count=self._counts[reason],
            )
