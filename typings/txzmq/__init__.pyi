# The part of txZMQ that the project uses; the package itself has no types.

from collections.abc import Iterable
from typing import NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet
from zmq import Context, Socket

class ZmqEndpointType:
    bind: str
    connect: str

class ZmqEndpoint(NamedTuple):
    type: str
    address: str

class ZmqFactory:
    reactor: IReactorFDSet
    ioThreads: int
    lingerPeriod: int
    connections: set[ZmqConnection] | None
    context: Context[Socket[bytes]] | None
    def __init__(self) -> None: ...
    def shutdown(self) -> None: ...

class ZmqConnection:
    socketType: int | None
    highWaterMark: int
    factory: ZmqFactory | None
    socket: Socket[bytes]
    read_scheduled: IDelayedCall | None
    def __init__(
        self,
        factory: ZmqFactory,
        endpoint: ZmqEndpoint | None = None,
        identity: bytes | None = None,
    ) -> None: ...
    def addEndpoints(self, endpoints: Iterable[ZmqEndpoint]) -> None: ...
    def shutdown(self) -> None: ...
    def fileno(self) -> int: ...
    def doRead(self) -> None: ...
    def messageReceived(self, message: list[bytes]) -> object: ...
