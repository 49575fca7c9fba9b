"""Requests by ZeroMQ (contract, section 4): a ROUTER socket.

Serves REQ, which puts an empty frame before its message, and DEALER, which need
not. Decodes, dispatches, encodes; decides nothing about clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, get_args

import zmq
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from txzmq import ZmqFactory
from typing_extensions import override

from heartbeat_service.core.errors import (
    BadMessage,
    HeartbeatError,
    Overloaded,
    Unauthorized,
)
from heartbeat_service.core.tally import is_time_to_tell
from heartbeat_service.engine.dispatch import error_message
from heartbeat_service.protocol.codec import decode_request, encode, request_id_of
from heartbeat_service.protocol.messages import (
    ClientStateMessage,
    HeartbeatMessage,
    Request,
)
from heartbeat_service.zeromq.connection import MAX_FRAMES, HardenedConnection

#: The longest name that ZeroMQ gives to a peer, in bytes.
LONGEST_ROUTE = 255


class RequestRouter(HardenedConnection):
    """Answers each request on the way that it came.

    :param dispatch: returns a reply, or raises a :class:`HeartbeatError`; or fires with
        the one or fails with the other.
    :param refused: is told of each error that is answered.
    :param heartbeats_allowed: whether clients may beat here. They may not where a beat
        wants a token, which it can't carry here, and no key stands for it.
    :param speaks_for: whether who shows that CURVE key (Z85) may speak for the client
        of that ID; None where nobody shows a key.
    :ivar beats: how many heartbeats were not refused at once.
    :ivar others: the same of other requests, by their type.
    :ivar errors: how many were answered with an error.
    :ivar dropped: how many replies, as their clients left or don't read.
    """

    socketType = zmq.ROUTER
    highWaterMark = 1_000
    options: ClassVar[dict[int, int]] = {
        # What a peer has sent and nobody has read yet: with the longest frames 25 MiB.
        # The rest waits in the peer; none of it is lost.
        zmq.RCVHWM: 25,
        # A client that comes back under its old identity gets it at once.
        zmq.ROUTER_HANDOVER: 1,
        # A reply that can't be sent is told of instead of dropped in silence.
        zmq.ROUTER_MANDATORY: 1,
    }
    _log = Logger()

    def __init__(
        self,
        factory: ZmqFactory,
        dispatch: Callable[
            [Request], ClientStateMessage | Deferred[ClientStateMessage]
        ],
        refused: Callable[[HeartbeatError], object] = lambda _: None,
        *,
        heartbeats_allowed: bool = True,
        speaks_for: Callable[[str, str], bool] | None = None,
    ) -> None:
        self._dispatch = dispatch
        self._refused = refused
        self._heartbeats_allowed = heartbeats_allowed
        self._speaks_for = speaks_for
        self._replies: list[list[bytes]] = []  # to be sent once all is read
        self.beats = 0
        self.others: dict[type[Request], int] = {
            kind: 0 for kind in get_args(Request) if kind is not HeartbeatMessage
        }
        self.errors = 0
        self.dropped = 0
        super().__init__(factory)

    @override
    def messageReceived(self, message: list[bytes]) -> Deferred[None] | None:
        """One request, behind the frames that its reply is routed by."""
        envelope, frames = _opened(message)
        try:
            reply = self._serve(frames)
        except Exception:  # noqa: BLE001 - it is logged, and the client has an answer
            reply = self._error(Failure(), frames)
        if isinstance(reply, bytes):
            self._reply(reply, envelope)
            return None
        reply.addErrback(self._error, frames)
        return reply.addCallback(self._reply, envelope)

    def _serve(self, frames: list[bytes]) -> bytes | Deferred[bytes]:
        if len(frames) != 1:
            raise BadMessage("A request is one frame, after an empty one at most")
        request, request_id = decode_request(frames[0])
        self._check_sender(request)
        answer = self._dispatch(request)
        if isinstance(request, HeartbeatMessage):
            self.beats += 1  # to look them up, too, would take twice the time
        else:
            self.others[type(request)] += 1
        # To ask whether it is a Deferred takes longer: that is an abstract class.
        if isinstance(answer, ClientStateMessage):
            return encode(answer, request_id)
        return answer.addCallback(encode, request_id)

    def _check_sender(self, request: Request) -> None:
        """Pass if who sent the last message may send this request."""
        client_id = request.client_id
        if self._speaks_for is not None and not self._speaks_for(
            # libzmq puts it into each frame. It is never remembered for a route:
            # another peer, with another key, may take that over.
            str(self._last_frame.get("User-Id")),
            client_id,
        ):
            raise Unauthorized(
                f"This key is not good for client {client_id}", client_id
            )
        if isinstance(request, HeartbeatMessage) and not self._heartbeats_allowed:
            raise Unauthorized(
                "send heartbeats by HTTP with the token, or use --curve-keys",
                client_id,
            )

    def _error(self, failure: Failure, frames: list[bytes]) -> bytes:
        error = failure.value
        if not isinstance(error, HeartbeatError):
            self._log.failure("A request failed", failure)
            error = Overloaded("The service failed; try again")
        self.errors += 1
        self._refused(error)
        request_id = request_id_of(frames[0]) if len(frames) == 1 else None
        return encode(error_message(error), request_id)

    def _reply(self, reply: bytes, envelope: list[bytes]) -> None:
        self._replies.append([*envelope, reply])
        if self._speaks_for is not None:
            # The more is read first, the sooner a peer with another key may have taken
            # the route over, and would get what is said to this one.
            self.flush()
        self._read_later()

    @override
    def flush(self) -> bool:
        """Send all replies together.

        To wake libzmq's thread for each one takes half as long as the rest of a beat.
        """
        replies, self._replies = self._replies, []
        for reply in replies:
            # None if it fails, which is logged; the other replies go on.
            if self._guarded(self.send_multipart, reply) is False:
                self._count_dropped()
        return bool(replies)

    def _count_dropped(self) -> None:
        self.dropped += 1
        if is_time_to_tell(self.dropped):
            self._log.warn(
                "replies dropped so far, as their clients left or don't read: {count}",
                count=self.dropped,
            )


def _opened(message: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The frames that the reply is routed by, and what is in that envelope."""
    # ZeroMQ's own envelope: routing frames, then an empty one, if there is one.
    delimiter = message.index(b"", 1, -1) if b"" in message[1:-1] else 0
    envelope, frames = message[: delimiter + 1], message[delimiter + 1 :]
    if len(message) > MAX_FRAMES:  # it was cut: whatever is left is no request
        frames = []
    if max(map(len, envelope)) > LONGEST_ROUTE:
        # No ZeroMQ socket writes such routes; in waiting replies they would pile up.
        return message[:1], []
    return envelope, frames
