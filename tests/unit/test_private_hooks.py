"""What the package relies on in other libraries, though they don't promise it.

Each hook is looked for in the library itself, without a class of ours. When one is
gone after an upgrade, the test says which file needs it, and for what.
"""

from __future__ import annotations

import socket
import struct
from typing import Any
from unittest.mock import Mock

import zmq
from klein import Klein
from klein.resource import KleinResource
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection, Port
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.basic import LineReceiver
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http
from twisted.web.http import HTTPChannel
from twisted.web.iweb import IRequest
from twisted.web.server import Request, Site
from txzmq import ZmqConnection, ZmqFactory

CHANNEL = "heartbeat_service/web/channel.py"
FRAMING = "heartbeat_service/web/framing.py"
SITE = "heartbeat_service/web/site.py"
HANDSHAKES = "heartbeat_service/web/handshakes.py"
PORT = "heartbeat_service/web/port.py"
ROUTING = "heartbeat_service/web/routing.py"
LISTING = "heartbeat_service/web/listing.py"
CLOCK = "heartbeat_service/core/listening_clock.py"
MONOTONIC = "heartbeat_service/host/monotonic.py"
ZEROMQ = "heartbeat_service/zeromq/connection.py"
LIMIT = "heartbeat_service/zeromq/peer_limit.py"

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class _Kept(http.Request):
    """A request that is never answered; what the channel did and was meanwhile."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[object] = []

    def gotLength(self, length: int | None) -> None:
        self.calls.append(("gotLength", length))

    def requestReceived(self, *_: bytes) -> None:
        channel = self.channel
        self.calls.append((channel._busyReceiving, channel._handlingRequest))


class TestPrivateHooks(SynchronousTestCase):
    """They are there, and do what is relied on."""

    def has(self, thing: object, file: str, **hooks: str) -> None:
        """Each hook is there; if not, say which file needs it, and for what."""
        owner = thing.__name__ if isinstance(thing, type) else type(thing).__name__
        for name, use in hooks.items():
            self.assertTrue(hasattr(thing, name), f"{file} needs {owner}.{name}: {use}")

    def channel(self) -> Any:
        """Twisted's own channel, connected."""
        channel: Any = HTTPChannel()
        channel.requestFactory = _Kept
        channel.callLater = Clock().callLater
        channel.timeOut = 10
        channel.makeConnection(StringTransport())
        return channel

    def test_the_parser_has_its_ways_in(self) -> None:
        self.has(
            HTTPChannel,
            CHANNEL,
            lineReceived="overridden, to shut it for a peer that was refused",
            rawDataReceived="overridden, to shut it for a peer that was refused",
            allContentReceived="overridden, to learn that a request came in whole",
            headerReceived="overridden, to answer a length that Python can't read",
            allHeadersReceived="overridden, to refuse by length before a body is read",
            lineLengthExceeded="overridden, to answer a line that is too long",
            requestDone="overridden, to give the next request a turn of its own",
            writeHeaders="overridden, to write a head in one piece",
            _finishRequestBody="given to the decoder of chunks",
            timeoutConnection="overridden, since the peer's time is up by our rules",
            _respondToBadRequestAndDisconnect="overridden: it answers all that is no "
            "HTTP, and ours does so as problem+json",
        )
        self.has(
            Request,
            CHANNEL,
            requestReceived="overridden, since Twisted's own reads forms",
            gotLength="overridden, so that no body goes to a temporary file",
            handleContentChunk="overridden, to bound a body without a length",
            parseCookies="overridden, since 16 KiB of cookies take a megabyte",
            render="overridden, since Twisted's own logs what it dislikes",
            processingFailed="overridden, to answer a failure as problem+json",
            _handleStar="overridden, so that the path * has no answer of Twisted's own",
        )

    def test_the_channel_tells_of_bad_requests_in_one_place(self) -> None:
        for bad in (b"x\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n"):
            channel, told = self.channel(), Mock()
            channel._respondToBadRequestAndDisconnect = told
            channel.dataReceived(bad)
            self.assertTrue(
                told.called,
                f"{CHANNEL} needs HTTPChannel to call "
                f"_respondToBadRequestAndDisconnect for {bad!r}",
            )

    def test_the_channel_tells_what_it_is_about(self) -> None:
        channel = self.channel()
        self.has(
            channel,
            CHANNEL,
            _buffer="whether a request has begun, or another one waits",
            _busyReceiving="whether the parser is at work, and time is kept after it",
            _handlingRequest="whether an answer is being worked on",
            _waitingForTransport="whether the peer has to read before all goes on",
            _networkProducer="what is paused while a peer isn't listened to",
            _requestProducer="whether a long answer is under way",
            _savedTimeOut="set to None, so that Twisted starts no timer of its own",
            paused="set, so that the parser leaves the next request where it is",
            requests="whether a request is under way",
            persistent="set to 0, to close after the answer under way",
            length="how long a body is said to be",
            line_mode="whether lines are still to come",
            totalHeadersSize="what headers may have in all",
            maxHeaders="how many there may be",
            _receivedHeaderSize="what of it is used up",
            _receivedHeaderCount="how many have come",
            _dataBuffer="what waits behind the request under way",
            _transferDecoder="replaced by one that bounds its work",
        )
        self.has(
            FileDescriptor,
            CHANNEL,
            bufferSize="set, to bound what is read at once and waits to be sent",
        )
        self.has(
            FileDescriptor(Mock()),
            CHANNEL,
            dataBuffer="what waits to be sent",
            _tempDataLen="what waits behind that",
        )
        channel.dataReceived(REQUEST[:5])
        self.assertEqual(
            (channel._buffer, channel._busyReceiving, channel._handlingRequest),
            (REQUEST[:5], False, False),
            f"{CHANNEL} needs to see in _buffer that a request has begun",
        )
        channel.dataReceived(REQUEST[5:])
        (request,) = channel.requests
        self.assertEqual(
            request.calls,
            [("gotLength", 0), (True, True)],
            f"{CHANNEL} needs gotLength to be called, and _busyReceiving and "
            "_handlingRequest to be set while a request is worked on",
        )
        self.assertEqual(
            channel._savedTimeOut,
            10,
            f"{CHANNEL} needs to find the timeout that requestDone would start again",
        )
        channel._savedTimeOut = None
        channel.requestDone(request)
        self.assertEqual(
            (channel.requests, channel._handlingRequest, channel.timeOut),
            ([], False, None),
            f"{CHANNEL} needs requestDone to leave the channel without a timer",
        )

    def test_the_channel_hands_on_what_was_read_before(self) -> None:
        channel, line = self.channel(), (b"POST", b"/a?b", b"HTTP/1.1")
        channel.dataReceived(b"POST /a?b HTTP/1.1\r\nHost: x\r\n")
        self.assertEqual(
            (channel._command, channel._path, channel._version),
            line,
            f"{CHANNEL} needs to see the first line of a request in these",
        )
        channel, request = self.channel(), Mock()
        channel.requests.append(request)
        channel._command, channel._path, channel._version = line
        channel.allContentReceived()
        self.assertEqual(
            (request.requestReceived.call_args.args, channel._handlingRequest),
            (line, True),
            f"{CHANNEL} needs allContentReceived to take a request's first line there",
        )

    def test_a_request_is_over_without_write_and_finish(self) -> None:
        channel = self.channel()
        channel.dataReceived(REQUEST)
        (request,) = channel.requests
        self.has(request, CHANNEL, startedWriting="set", finished="set")
        over = request.notifyFinish()
        request._cleanup()
        self.successResultOf(over)
        self.assertEqual(
            (channel.requests, channel._handlingRequest),
            ([], False),
            f"{CHANNEL} needs Request._cleanup to tell the channel and all who wait",
        )

    def test_a_connection_sends_at_once_what_it_can(self) -> None:
        ours, peer = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(peer.close)
        ours.setblocking(False)
        connection = Connection(ours, Protocol(), _reactor())
        sent: Any = connection.writeSomeData(b"at once")
        self.assertEqual((sent, peer.recv(100)), (7, b"at once"), CHANNEL)
        for _ in range(1_000):
            sent = connection.writeSomeData(b"x" * 65_536)
        self.assertEqual(sent, 0, f"{CHANNEL} needs to learn that there is no room")
        peer.close()
        self.assertFalse(
            isinstance(connection.writeSomeData(b"x"), int),
            f"{CHANNEL} needs writeSomeData to return what is wrong, not to raise it",
        )

    def test_the_decoder_of_chunks_reads_each_length_in_one_place(self) -> None:
        read: list[int] = []

        class Chunks(http._ChunkedTransferDecoder):
            def _dataReceived_CHUNK_LENGTH(self) -> bool:
                before = len(self._buffer)
                found = super()._dataReceived_CHUNK_LENGTH()
                read.append(before - len(self._buffer) if found else 0)
                return found

        done: list[bytes] = []
        chunks: Any = Chunks(read.append, done.append)  # type: ignore[arg-type]  # bytes
        self.has(chunks, FRAMING, _maxTrailerHeadersSize="lowered")
        chunks.dataReceived(b"1;x\r\ny\r\n0\r\n\r\nrest")
        self.assertEqual(
            (read, done, chunks.length),
            ([5, b"y", 3], [b"rest"], 0),
            f"{FRAMING} needs _dataReceived_CHUNK_LENGTH to take a chunk's first line "
            "off _buffer, and say so",
        )
        chunks = Chunks(read.append, done.append)  # type: ignore[arg-type]  # bytes
        with self.assertRaises(http._MalformedChunkedDataError):
            chunks.dataReceived(b"x\r\n")

    def test_an_endpoint_asks_its_reactor_to_listen_with_tls(self) -> None:
        asked: list[object] = []
        context, reactor = Mock(), Mock(listenSSL=lambda *_, **how: asked.append(how))
        SSL4ServerEndpoint(reactor, 1, context).listen(Mock())
        self.assertEqual(
            asked,
            [{"contextFactory": context, "backlog": 50, "interface": ""}],
            f"{PORT} needs endpoints to call listenSSL so, to offer fewer ciphers",
        )

    def test_a_wrapped_connection_knows_whether_its_header_came(self) -> None:
        wrapped = HAProxyWrappingFactory(Factory.forProtocol(Protocol))
        connection = wrapped.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        connection.makeConnection(StringTransport())
        before = connection._proxyInfo
        connection.dataReceived(b"PROXY UNKNOWN 1\r\n")
        self.assertEqual(
            (before, connection._proxyInfo is None),
            (None, False),
            f"{PORT} needs HAProxyProtocolWrapper._proxyInfo to bound the header",
        )

    def test_a_connection_inside_tls_knows_whether_its_handshake_is_done(self) -> None:
        self.has(
            BufferingTLSTransport, HANDSHAKES, _handshakeDone="what follows goes on"
        )
        self.assertIs(
            TLSMemoryBIOFactory.protocol,
            BufferingTLSTransport,
            f"{HANDSHAKES} needs a TLS port to make that, to put its own there",
        )

    def test_the_channel_hands_a_long_answer_through(self) -> None:
        channel = self.channel()
        self.assertIs(
            channel._networkProducer,
            channel.transport,
            f"{CHANNEL} needs HTTPChannel._networkProducer to pause the transport",
        )
        producer = StringTransport()  # which can be paused, too
        channel.registerProducer(producer, True)
        self.assertIs(
            channel._requestProducer,
            producer,
            f"{CHANNEL} needs to see in _requestProducer that an answer is long",
        )
        for waits, state in ((True, "paused"), (False, "producing")):
            getattr(channel, "pauseProducing" if waits else "resumeProducing")()
            self.assertEqual(
                (channel._waitingForTransport, producer.producerState),
                (waits, state),
                f"{CHANNEL} and {LISTING} need the channel to hand on that it waits",
            )
        channel.unregisterProducer()
        self.assertIsNone(
            channel._requestProducer, f"{CHANNEL} needs to see that it is over"
        )

    def test_a_paused_line_receiver_keeps_what_is_left_in_its_buffer(self) -> None:
        lines: list[bytes] = []
        receiver: Any = LineReceiver()
        receiver.lineReceived = lines.append
        receiver.paused = True
        receiver.dataReceived(b"a\r\nb")
        self.assertEqual(
            (receiver._buffer, lines),
            (b"a\r\nb", []),
            f"{CHANNEL} needs LineReceiver to keep pipelined requests in _buffer",
        )
        receiver.paused = False
        receiver.dataReceived(b"")
        self.assertEqual(
            (receiver._buffer, lines),
            (b"b", [b"a"]),
            f"{CHANNEL} needs dataReceived(b'') to go on with what is in _buffer",
        )

    def test_a_channel_has_no_timer_but_by_setTimeout(self) -> None:
        set_to: list[float | None] = []
        channel: Any = Site(
            KleinResource(Klein()), reactor=Clock(), timeout=10
        ).buildProtocol(None)
        http_channel = channel._channel
        http_channel.setTimeout = set_to.append
        channel.makeConnection(StringTransport())
        self.assertEqual(
            set_to,
            [10],
            f"{CHANNEL} needs a new connection's timer to be set by setTimeout",
        )
        channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn(
            None, set_to, f"{CHANNEL} needs setTimeout(None) while it is answered"
        )

    def test_a_port_accepts_no_more_at_once_than_numberAccepts(self) -> None:
        built: list[object] = []

        class Counting(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Protocol:
                built.append(addr)
                return Protocol()

        port: Any = Port(0, Counting(), interface="127.0.0.1", reactor=_reactor())
        port.startListening()
        self.addCleanup(port.connectionLost, Failure(ConnectionLost()))
        self.has(port, PORT, numberAccepts="lowered to the room that there is")
        for _ in range(2):
            peer = socket.create_connection(("127.0.0.1", port.getHost().port))
            self.addCleanup(peer.close)
        port.numberAccepts = 1
        port.doRead()
        # Whoever was let in is closed with the test; its reactor reads nothing.
        for reader in port.reactor.readers - {port}:
            self.addCleanup(reader.connectionLost, Failure(ConnectionLost()))
        self.assertEqual(
            len(built), 1, f"{PORT} needs Port.doRead to obey numberAccepts"
        )

    def test_klein_cancels_a_route_whose_peer_is_gone(self) -> None:
        app, gone = Klein(), []
        waiting: Deferred[None] = Deferred(lambda _: gone.append(CancelledError))
        app.route("/")(lambda _: waiting)
        self.assertIn(
            "render",
            vars(KleinResource),
            f"{ROUTING} needs KleinResource.render, which it overrides to answer what "
            "Klein can't route at all",
        )
        channel: Any = Site(app.resource(), reactor=Clock()).buildProtocol(None)
        channel.makeConnection(StringTransport())
        channel.dataReceived(REQUEST)
        self.assertEqual(gone, [])
        channel.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(
            gone,
            [CancelledError],
            f"{LISTING} needs Klein to cancel a route's Deferred when the peer goes",
        )
        self.flushLoggedErrors(CancelledError)

    def test_klein_calls_what_it_holds_for_a_route_in_one_place(self) -> None:
        class Answering(Klein):
            def execute_endpoint(self, endpoint: str, *_: Any, **__: Any) -> Any:
                return b"called " + endpoint.encode()

        class App:
            app = Answering()

            @app.route("/")
            def it(self, request: IRequest) -> Any:
                return self, request

        app: Any = App()
        self.assertEqual(
            app.app.endpoints["it"](app, "a request"),
            (app, "a request"),
            f"{ROUTING} needs Klein.endpoints to be called with the app and a request",
        )
        channel: Any = Site(app.app.resource(), reactor=Clock()).buildProtocol(None)
        channel.makeConnection(StringTransport())
        channel.dataReceived(REQUEST)
        self.assertIn(
            b"called it",
            channel._channel.transport.value(),
            f"{ROUTING} needs KleinResource to call the app's execute_endpoint",
        )

    def test_a_delayed_call_can_live_in_another_heap(self) -> None:
        cancelled: list[object] = []
        sooner: list[object] = []
        done: list[object] = []
        call = DelayedCall(
            *(9.0, done.append, ("done",), {}),
            *(lambda call: cancelled.append(call.cancelled), sooner.append),
            lambda: 5.0,
        )
        self.has(
            call,
            CLOCK,
            time="the place in the heap",
            delayed_time="how much later it is due than its place says",
            activate_delay="moves the place to where it is due",
            called="set when it is run",
            cancelled="whether it is only still to be taken out",
            func="what is called",
            args="with what",
        )
        call.reset(10)
        self.assertEqual(
            (call.time, call.delayed_time, sooner),
            (9.0, 6.0, []),
            f"{CLOCK} needs reset to a later time to leave the place in the heap",
        )
        call.delay(2)
        self.assertEqual(
            (call.time, call.delayed_time, call.getTime(), sooner),
            (9.0, 8.0, 17.0, []),
            f"{CLOCK} needs delay to do so, too: it is what a beat calls",
        )
        call.reset(10)
        call.activate_delay()
        self.assertEqual((call.time, call.delayed_time), (15.0, 0.0), CLOCK)
        call.reset(1)
        self.assertEqual(
            (call.time, call.delayed_time, sooner),
            (6.0, 0.0, [call]),
            f"{CLOCK} needs reset to a sooner time to call its hook",
        )
        later = DelayedCall(7.0, list, (), {}, sooner.append, sooner.append)
        self.assertTrue(
            call < later and not later < call, f"{CLOCK} needs calls ordered by time"
        )
        call.func(*call.args)
        self.assertEqual(done, ["done"])
        call.cancel()
        self.assertEqual(
            (cancelled, bool(call.cancelled)),
            ([0], True),
            f"{CLOCK} needs the hook of cancel to be called before it is marked",
        )
        later.called = 1
        self.assertFalse(
            later.active(), f"{CLOCK} needs a call that is marked called to be over"
        )

    def test_a_reactors_seconds_can_be_replaced(self) -> None:
        reactor: Any = SelectReactor()
        self.addCleanup(reactor.waker.connectionLost, None)
        reactor.seconds = lambda: 100.0
        call = reactor.callLater(5, list)
        self.assertEqual(
            (call.getTime(), reactor.timeout()),
            (105.0, 5.0),
            f"{MONOTONIC} needs callLater and timeout to ask the reactor's seconds",
        )
        call.seconds = lambda: 200.0
        call.reset(5)
        self.assertEqual(
            call.getTime(),
            205.0,
            f"{MONOTONIC} needs a call that waits to be reset by its own seconds",
        )
        reactor.seconds = lambda: 300.0
        reactor.runUntilCurrent()
        self.assertTrue(
            call.called, f"{MONOTONIC} needs runUntilCurrent to ask seconds"
        )

    def test_a_zeromq_connection_is_read_and_closed_by_its_fields(self) -> None:
        factory: Any = ZmqFactory()
        self.addCleanup(factory.context.destroy, 0)
        factory.reactor = _reactor()
        self.has(factory, ZEROMQ, lingerPeriod="set, to bound what a stop waits for")
        factory.lingerPeriod = 123
        read: list[object] = []

        class Dealer(ZmqConnection):
            socketType = zmq.DEALER

            def doRead(self) -> None:
                read.append(self)

        connection: Any = Dealer(factory)
        self.assertEqual(
            connection.socket.get(zmq.LINGER),
            123,
            f"{ZEROMQ} needs the factory's lingerPeriod to become the socket's",
        )
        self.assertEqual(
            (read, factory.reactor.readers),
            ([connection], {connection}),
            f"{ZEROMQ} overrides doRead, which must be what the reactor calls; "
            "and the constructor calls it, before which _frames must be there",
        )
        self.has(
            connection,
            ZEROMQ,
            read_scheduled="the read that is still to come, of which there is one",
            socket="what is read and written without txZMQ",
            factory="None once it is shut down",
        )
        self.assertIsNone(connection.read_scheduled, ZEROMQ)
        self.assertEqual(
            factory.connections,
            {connection},
            f"{ZEROMQ} needs ZmqFactory.connections, so that its shutdown closes all",
        )
        connection.shutdown()
        self.assertEqual(
            (connection.factory, factory.connections, factory.reactor.readers),
            (None, set(), set()),
            f"{ZEROMQ} needs shutdown to leave nothing, and no factory, behind",
        )

    def test_pyzmqs_compiled_socket_sends_one_frame(self) -> None:
        context: Any = zmq.Context()
        self.addCleanup(context.destroy, 0)
        pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        pull.bind("inproc://frames")
        push.connect("inproc://frames")
        send = zmq.backend.Socket.send
        self.assertTrue(issubclass(zmq.Socket, zmq.backend.Socket))
        send(push, b"frame", int(zmq.NOBLOCK | zmq.SNDMORE))
        send(push, b"last", int(zmq.NOBLOCK))
        self.assertEqual(
            pull.recv_multipart(zmq.NOBLOCK),
            [b"frame", b"last"],
            f"{ZEROMQ} calls zmq.backend.Socket.send, to leave out what is for drafts",
        )
        pull.close()
        push.close()

    def test_libzmq_tells_of_each_connection_by_its_descriptor(self) -> None:
        context: Any = zmq.Context()
        self.addCleanup(context.destroy, 0)
        router = context.socket(zmq.ROUTER)
        monitor = router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        told = []
        with socket.create_connection(("127.0.0.1", port)) as peer:  # says nothing
            told.append(monitor.recv_multipart())
            _, descriptor = struct.unpack("=HI", told[0][0])
            accepted = socket.socket(fileno=descriptor)
            self.assertEqual(
                (accepted.getpeername(), told[0][1]),
                (peer.getsockname(), b"tcp://127.0.0.1:%d" % port),
                f"{LIMIT} needs EVENT_ACCEPTED to tell the descriptor and the port",
            )
            accepted.shutdown(socket.SHUT_RDWR)
            accepted.detach()
            told.append(monitor.recv_multipart())
        self.assertEqual(
            [struct.unpack("=HI", frames[0]) for frames in told],
            [(zmq.EVENT_ACCEPTED, descriptor), (zmq.EVENT_DISCONNECTED, descriptor)],
            f"{LIMIT} needs libzmq to close, and tell of, what was shut down",
        )
        router.disable_monitor()
        monitor.close()
        router.close()


class _Reactor(MemoryReactorClock):
    """Remembers who wants to be read, as a reactor does."""

    readers: set[Any]


def _reactor() -> Any:
    return _Reactor()
