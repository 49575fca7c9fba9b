"""A game client that follows docs/protocol.md alone: copy it into your own game.

The standard library and pyzmq, nothing of this project. Heartbeats go by HTTP, each in
a thread of its own, since a name, a connection and an answer may each keep it waiting.
Publications and requests go by ZeroMQ. Neither waits for the other, and the game waits
for nothing: it calls `step` once a frame.

A heartbeat's reply names the client's life (incarnation). Within it only what has a
higher sequence is news, from whichever side it comes.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # Ctrl-C ends it also while the imports take their time
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import random
import ssl
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener
from uuid import uuid4

import zmq
from zmq.auth import load_certificate

STATES = ("DISCONNECTED", "UNCALIBRATED", "CALIBRATED", "RUNNING")
FRAME = 0.02  # seconds from step to step
ANSWER_WITHIN = 2.0  # seconds; then a beat, or a request, is sent again
FAREWELL = 1.5  # seconds that the end may take
LONGEST = 64 * 1024  # bytes of a message
MOST_HANGING = 10  # beats, at a server whose answers never end

# What to do when the server answers with an Error, besides telling of it.
ON_ERROR = {
    "BAD_MESSAGE": "beat later",  # a bug, here or there: beats get rarer
    "TOO_LARGE": "beat later",  # another one
    "UNAUTHORIZED": "beat later",  # until somebody mends the token or the key
    "FORBIDDEN": "beat later",  # until somebody mends the name of the server
    "OVERLOADED": "beat later",  # it passes, not before retryAfterSeconds
    "LOCKED_OUT": "beat on",  # an operator's wish: when it is over, a beat is let in
    "ILLEGAL_TRANSITION": "ask",  # the state is another than was thought
    "STALE_SEQUENCE": "ask",  # meant for a state that was left: which is it now?
    "STALE_INCARNATION": "beat now",  # meant for a former life: a reply names this one
    "UNKNOWN_CLIENT": "beat now",  # it has died: a beat registers it anew
    "INSTANCE_SUPERSEDED": "stop",  # another process is this client now
}
NONSENSE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


class Superseded(Exception):
    """Another process is this client now; this one must stop."""


class Client:
    """One process of one client; `options` are those of the command line, below."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.id: str = options.id
        self.instance = str(uuid4())  # no other process can pass for this one
        self.state = "DISCONNECTED"
        self.incarnation = self.sequence = 0
        self.news: list[str] = []  # states that the game hasn't been told of
        self.interval, self.fuse = 2.0, 10.0  # seconds, until the server tells its own
        self.posted: Future[Any] | None = None  # the beat that is on its way
        self.posted_at = self.next_beat = 0.0
        self.posting: list[threading.Thread] = []
        self.failures = 0
        self.troubles: dict[str, str] = {}  # where, and the code that was told last
        # No proxy, whatever the environment says of one.
        tls = HTTPSHandler(context=options.ca_file)
        self.opener = build_opener(ProxyHandler({}), tls)
        self.context = zmq.Context()
        self.endpoints: list[str] = []
        self.sockets: list[zmq.Socket[bytes]] = []  # for requests, for publications
        self.request_id = ""
        self.pending: dict[str, Any] | None = None  # the request without an answer
        self.ask_again_at = 0.0
        self.told_by_beat = self.published = 0  # the last sequence of each

    # What a game uses

    def step(self) -> None:
        """Do what is due, without waiting. Raises Superseded."""
        now = time.monotonic()
        if self.posted is None and now >= self.next_beat:
            self.beat()
        elif self.posted is not None and self.posted.done():
            self.beat_ended(self.posted)
        elif self.posted is not None and now > self.posted_at + self.patience():
            self.beat_failed("no answer in time")
        for socket in self.sockets:
            self.read(socket)
        self.tell_game()

    def tell_game(self) -> None:
        """Tell of what was read: the game's own errors are no server's nonsense."""
        while self.news:
            self.state_changed(self.news.pop(0))

    def state_changed(self, state: str) -> None:
        """A new state, or a new life: here the game acts on it.

        Another one may have followed already: `self.state` is the present one.
        """
        print(self.id, "is", state, flush=True)
        if self.options.calibrate and self.state == "UNCALIBRATED":
            self.set_state("CALIBRATED")

    def set_state(self, state: str) -> None:
        """Ask for another state; the server decides, `state_changed` tells of it."""
        life = {"incarnation": self.incarnation, "sequence": self.sequence}
        self.request("SetClientState", clientState=state, **life)

    def leave(self) -> None:
        """Say Goodbye; not if a beat may still be on its way, and begin a new life."""
        end = time.monotonic() + FAREWELL
        while self.posted is not None and time.monotonic() < end:
            self.step()
            time.sleep(FRAME)  # a game draws meanwhile
        is_answered = self.posted is None and not self.failures
        if self.sockets and is_answered and self.state != "DISCONNECTED":
            self.request("Goodbye", incarnation=self.incarnation)
            while self.pending is not None and time.monotonic() < end:
                self.read(self.sockets[0])
                time.sleep(FRAME)  # a game draws meanwhile
            self.tell_game()
        self.context.destroy(linger=100)

    # Heartbeats, by HTTP

    def beat(self) -> None:
        """Post a heartbeat; `step` looks whether it is answered."""
        self.posted_at = time.monotonic()
        self.next_beat = self.posted_at + self.interval
        self.posting = [thread for thread in self.posting if thread.is_alive()]
        if len(self.posting) < MOST_HANGING:
            data = self.message("HEARTBEAT", clientState=self.state)
            self.posted = Future()
            work = (data, self.patience(), self.posted)
            thread = threading.Thread(target=self.post, args=work, daemon=True)
            self.posting.append(thread)
            thread.start()

    def post(self, data: bytes, patience: float, posted: Future[Any]) -> None:
        """Post it, in a thread of its own; keep the answer, or why there is none."""
        headers = {"Content-Type": "application/json"}
        if self.options.token_file:
            headers["Authorization"] = f"Bearer {self.options.token_file}"
        try:
            request = Request(f"{self.options.server}/heartbeat", data, headers)
            try:
                response = self.opener.open(request, timeout=patience)
            except HTTPError as error:  # an answer, too
                response = error
            with response:
                posted.set_result(response.read(LONGEST))
        except (OSError, HTTPException, ValueError) as error:
            posted.set_exception(error)

    def patience(self) -> float:
        """Seconds after which a beat is given up, with time left for another."""
        return min(ANSWER_WITHIN, self.fuse / 2)

    def beat_ended(self, posted: Future[Any]) -> None:
        """There is an answer, or none will come."""
        try:
            answer = self.parse(posted.result())
            if "body" in answer:
                self.beat_answered(self.checked({**answer["body"]}))
            else:  # an Error has no envelope here (RFC 9457)
                self.refused(answer, of_beat=True)
        except (OSError, HTTPException) as error:
            self.beat_failed(str(getattr(error, "reason", error)) or repr(error))
        except NONSENSE as error:
            self.beat_failed(f"an answer that makes no sense: {error!r}")

    def beat_answered(self, body: dict[str, Any]) -> None:
        """Its word on the life counts, and no other's."""
        self.fuse = max(0.1, min(float(body["timebombSeconds"]), 3600.0))
        interval = float(body["heartbeatIntervalSeconds"])
        self.interval = max(0.05, min(interval, self.fuse / 2))
        endpoints = [str(body["requestEndpoint"]), str(body["stateChangeEndpoint"])]
        if self.next_beat:  # else it was told meanwhile to beat at once
            self.next_beat = self.posted_at + self.interval
        self.posted, self.failures = None, 0
        self.tell(self.options.server)
        is_deaf = self.told_by_beat > self.published  # and that a whole beat ago
        is_silent = self.pending is not None and time.monotonic() > self.ask_again_at
        self.told_by_beat = 0
        if body["incarnation"] != self.incarnation:  # a new life
            self.incarnation, self.sequence, self.pending = body["incarnation"], 0, None
            self.published = 0
        elif self.is_news(body):
            self.told_by_beat = body["sequence"]
        if is_silent:
            self.tell(self.endpoints[0], "lost", "asking again")
        if endpoints != self.endpoints or is_deaf or is_silent:
            self.open_sockets(endpoints)
            # What was asked names the state that it was meant for: twice does no harm.
            self.request(**self.pending or {"message_type": "GetClientState"})
        elif self.told_by_beat and self.pending is None:
            self.request("GetClientState")
        self.apply(body)

    def beat_failed(self, why: str, code: str = "lost", at_least: float = 0.0) -> None:
        """Beat again: ever more rarely, yet within half a fuse; not all at one time."""
        self.posted, self.failures = None, min(self.failures + 1, 16)
        longest = min(self.interval * 2.0**self.failures, self.fuse / 2)
        wait = random.uniform(self.interval, longest)  # noqa: S311 - jitter, no secret
        wait = min(max(wait, at_least), self.fuse / 2)
        self.next_beat = self.posted_at + wait
        self.tell(self.options.server, code, f"{why}; trying again")

    # Requests and publications, by ZeroMQ

    def open_sockets(self, endpoints: list[str]) -> None:
        """Connect, or connect anew."""
        for socket in self.sockets:
            socket.close()
        self.endpoints = endpoints
        self.sockets = [self.context.socket(zmq.DEALER), self.context.socket(zmq.SUB)]
        self.sockets[1].subscribe(f"OnStateChange/{self.id}/")  # with the last slash
        for socket, endpoint in zip(self.sockets, endpoints, strict=True):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.IPV6, "[" in endpoint)  # tcp://[::1]:8765
            socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)  # milliseconds
            socket.setsockopt(zmq.MAXMSGSIZE, LONGEST)
            use_keys(socket, self.options)
            try:
                socket.connect(endpoint)
            except zmq.ZMQError as error:
                self.warn(f"can't connect to {endpoint}: {error}")

    def request(self, message_type: str, **body: Any) -> None:
        """Send a request; the reply has its requestID (a server of 1.0 has none)."""
        self.pending = {"message_type": message_type, **body}
        self.ask_again_at = time.monotonic() + ANSWER_WITHIN
        self.request_id = str(uuid4())
        data = self.message(message_type, self.request_id, **body)
        # The empty frame is what REQ sends, and what proxies need.
        with suppress(zmq.Again):  # not connected
            self.sockets[0].send_multipart([b"", data], zmq.DONTWAIT)

    def read(self, socket: zmq.Socket[bytes]) -> None:
        """Read what has come in; not for ever, if it never ends."""
        for _ in range(100):
            if socket.closed or not socket.poll(0):
                return
            try:
                self.heard(self.parse(socket.recv_multipart()[-1]))
            except NONSENSE as error:
                self.warn(f"a message that makes no sense: {error!r}")

    def heard(self, message: dict[str, Any]) -> None:
        """A publication, or the reply to a request."""
        body = {**message["body"]}
        if message["messageType"] == "OnStateChange":
            self.published = self.checked(body)["sequence"]
            has_gap = self.published > self.sequence + 1
            if self.apply(body) and has_gap:
                self.request("GetClientState")
        elif message.get("requestID", self.request_id) == self.request_id:
            self.tell(self.endpoints[0])
            if message["messageType"] == "Error":
                self.refused(body, of_beat=False)
            else:
                self.pending = None
                self.apply(self.checked(body))

    # What both have in common

    def is_news(self, body: dict[str, Any]) -> bool:
        """Whether it is later than what is known of this life of this process."""
        life = (body["incarnation"], body.get("instanceID", self.instance))
        is_mine = life == (self.incarnation, self.instance)
        return is_mine and int(body["sequence"]) > self.sequence

    def apply(self, body: dict[str, Any]) -> bool:
        """Take a state over, if it is news."""
        is_news = self.is_news(body)
        if is_news:
            self.sequence, self.state = body["sequence"], body["clientState"]
            if self.state == "DISCONNECTED":  # said to be dead, and yet here
                self.next_beat = 0.0
            self.news.append(self.state)
        return is_news

    def refused(self, error: dict[str, Any], *, of_beat: bool) -> None:
        """The server says no: see ON_ERROR."""
        if error.get("clientID", self.id) != self.id:
            raise ValueError("an error of another client")
        what = ON_ERROR.get(error["code"], "beat later")
        why = f"{error['detail']} ({error['code']})"
        retry_after = float(error.get("retryAfterSeconds", 0))
        if what == "stop":
            raise Superseded(why)
        if of_beat and what == "beat on":
            self.posted = None  # and the next when it is time
            self.tell(self.options.server, error["code"], why)
        elif of_beat:
            self.beat_failed(why, error["code"], retry_after)
        else:
            self.warn(why)
            self.pending = self.pending if error["code"] == "OVERLOADED" else None
            self.ask_again_at = time.monotonic() + retry_after
            if what == "beat now":
                self.next_beat = 0.0
            elif what == "ask":
                self.request("GetClientState")

    def message(self, message_type: str, request_id: str = "", **body: Any) -> bytes:
        """A message of the contract."""
        sent = {
            "sdkVersion": 0.1,
            "timestamp": str(datetime.now()),
            "messageType": message_type,
            **({"requestID": request_id} if request_id else {}),
            "body": {"clientID": self.id, "instanceID": self.instance, **body},
        }
        self.show(">", sent)
        return json.dumps(sent).encode()

    def parse(self, data: bytes) -> dict[str, Any]:
        """A message of the server; or one of NONSENSE is raised."""
        message: dict[str, Any] = {**json.loads(data)}
        self.show("<", message)
        return message

    def checked(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body that tells of a state of this client; or one of NONSENSE is raised."""
        numbers = (body["incarnation"], body["sequence"])
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("expected whole numbers")
        if body["clientID"] != self.id or body["clientState"] not in STATES:
            raise ValueError("expected a state of this client")
        return body

    def show(self, way: str, message: dict[str, Any]) -> None:
        """Show a message, if that is wished."""
        if self.options.verbose:
            print(way, json.dumps(message), flush=True)

    def tell(self, where: str, code: str = "", text: str = "well again") -> None:
        """Say what is wrong: once in a row for each code, and when it is over."""
        if code != self.troubles.get(where, ""):
            self.warn(f"{where}: {text}")
        self.troubles[where] = code

    def warn(self, text: str) -> None:
        """Say what is wrong: on one line, not too long, all of it visible."""
        shown = text[:300].encode("unicode_escape").decode()
        print(f"{self.id}: {shown}", file=sys.stderr, flush=True)


def use_keys(socket: zmq.Socket[bytes], options: argparse.Namespace) -> None:
    """Encrypt what goes over a socket, if there are keys."""
    if options.curve_key:
        socket.curve_publickey, socket.curve_secretkey = load_certificate(
            options.curve_key
        )
        socket.curve_serverkey, _ = load_certificate(options.curve_server_key)


def parse_arguments() -> argparse.Namespace:
    """The command line, with the token and the authorities in place of their files."""
    parser = argparse.ArgumentParser(
        description="A game client without a game: it beats, and shows its state on a "
        "line each time it changes, until Ctrl-C.",
    )
    add = parser.add_argument
    add("id", metavar="ID", help="the client's ID")
    url = "http[s]://HOST:PORT"
    default = "http://127.0.0.1:6969"
    add("server", metavar=url, nargs="?", default=default, help="[%(default)s]")
    add("--token-file", metavar="FILE", help="in it is the token of heartbeats")
    add("--ca-file", metavar="FILE", help="PEM file of whose certificates to trust")
    add("--curve-key", metavar="FILE", help="this client's .key_secret file")
    add("--curve-server-key", metavar="FILE", help="the server's .key file")
    add("--calibrate", action="store_true", help="report CALIBRATED when UNCALIBRATED")
    add(
        "--verbose",
        action="store_true",
        help="show each message, sent > and received <",
    )
    options = parser.parse_args()
    if not options.server.startswith(("http://", "https://")):
        parser.error(f"expected {url}, not {options.server}")
    if (options.curve_key is None) != (options.curve_server_key is None):
        parser.error("--curve-key and --curve-server-key: both or neither")
    try:
        if options.token_file:
            words = Path(options.token_file).read_text("ascii").split()
            if len(words) != 1:
                parser.error("--token-file: expected one token in it, without spaces")
            options.token_file = words[0]
        if options.ca_file:
            options.ca_file = ssl.create_default_context(cafile=options.ca_file)
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            use_keys(socket, options)
    except TypeError:
        parser.error("--curve-key: expected a .key_secret file")
    except (OSError, ValueError, zmq.ZMQError) as error:
        parser.error(f"a file of no use: {error}")
    return options


def main() -> None:
    """Beat until somebody stops it."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    client = Client(parse_arguments())
    try:
        while not stop.is_set():
            client.step()
            time.sleep(FRAME)  # a game draws meanwhile
        client.leave()
    except Superseded as error:
        client.context.destroy(linger=0)
        client.warn(f"stopped: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
