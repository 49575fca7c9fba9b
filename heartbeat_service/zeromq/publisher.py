"""Publications by ZeroMQ (contract, section 5): a PUB socket."""

from __future__ import annotations

from typing import ClassVar

import zmq

from heartbeat_service.core.changes import Change
from heartbeat_service.protocol.codec import encode, topic_of
from heartbeat_service.protocol.messages import OnStateChange
from heartbeat_service.zeromq.connection import HardenedConnection


class StatePublisher(HardenedConnection):
    """Tells subscribers of each change; a listener of the journal.

    :ivar published: how many changes were told.
    """

    published = 0

    socketType = zmq.PUB
    # Deaths come in crowds. A subscriber further behind than this loses
    # publications, and is set right by its next heartbeat's reply.
    highWaterMark = 10_000
    options: ClassVar[dict[int, int]] = {
        # All that a subscriber sends is topics. The longest has 79 bytes, and each
        # byte of one costs about 40 of memory. More than this is a handshake's.
        zmq.MAXMSGSIZE: 512,
        # libzmq reads a subscriber's queue until it is empty, and the reactor waits:
        # a short one is empty soon, also in a flood of subscriptions. Not 1: a user's
        # name, which a check of keys may give, would fill it for good.
        zmq.RCVHWM: 2,
    }

    def publish(self, change: Change) -> None:
        """Send ``OnStateChange`` to whoever has subscribed to the client."""
        message = OnStateChange.of(change)
        self.published += 1
        self.send_multipart([topic_of(change.client_id), encode(message)])
