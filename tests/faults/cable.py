"""A cable between clients and a service, that can be cut: what is sent then is lost.

Not so that the other end notices: as with a Wi-Fi that is gone, a connection hangs.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.protocols.portforward import (
    ProxyClient,
    ProxyClientFactory,
    ProxyFactory,
    ProxyServer,
)
from typing_extensions import override

from tests.faults.herd import reactor


class _FarEnd(ProxyClient):
    peer: _NearEnd

    @override
    def dataReceived(self, data: bytes) -> None:
        if not self.peer.factory.cable.is_cut:
            super().dataReceived(data)


class _FarEnds(ProxyClientFactory):
    noisy = False
    protocol = _FarEnd


class _NearEnd(ProxyServer):
    clientProtocolFactory = _FarEnds
    factory: _NearEnds

    @override
    def connectionMade(self) -> None:
        self.factory.cable.ends.append(self)
        super().connectionMade()

    @override
    def dataReceived(self, data: bytes) -> None:
        if not self.factory.cable.is_cut:
            super().dataReceived(data)


class _NearEnds(ProxyFactory):
    noisy = False
    protocol = _NearEnd
    cable: Cable


@define(eq=False)
class Cable:
    """Leads from a port of its own to the service.

    :ivar http: ``HOST:PORT`` of the clients' end.
    :ivar is_cut: whether what is sent is lost.
    :ivar ends: the connections that there ever were.
    """

    http: str = ""
    is_cut: bool = False
    ends: list[Any] = field(factory=list)
    _port: Any = None

    def lay(self, http: str) -> None:
        """Connect it to ``HOST:PORT`` of a service."""
        host, _, port = http.rpartition(":")
        ends = _NearEnds(host, int(port))
        ends.cable = self
        self._port = reactor.listenTCP(0, ends, interface=host)
        self.http = f"{host}:{self._port.getHost().port}"

    def cut(self) -> None:
        """From now on, what is sent is lost."""
        self.is_cut = True

    def join(self) -> None:
        """Who connects gets through again; what has lost something is gone."""
        self.is_cut = False
        self.hang_up()

    def hang_up(self) -> None:
        """End all connections."""
        ends, self.ends = self.ends, []
        for end in ends:
            end.transport.abortConnection()

    async def remove(self) -> None:
        """Take it away."""
        self.hang_up()
        if self._port is not None:
            await self._port.stopListening()
