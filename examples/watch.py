"""Watch every change of state on a raw SUB socket: plain pyzmq, nothing of ours.

Prints each publication on a line; tells of its connection on standard error.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C ends it also while the imports take their time
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))

import argparse
import sys

import zmq
from zmq.auth import load_certificate
from zmq.utils.monitor import parse_monitor_message

REFUSED = "refused: the server has other keys, or none, or speaks no ZeroMQ"
LOST = "the connection is lost, trying again"
UNWELCOME = "no welcome: the server doesn't know this key, or speaks no ZeroMQ"

#: What becomes of a connection, in words.
WORDS = {
    zmq.EVENT_CONNECTED: "",  # the greeting follows, if this key is let in
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "connected",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: REFUSED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: REFUSED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: REFUSED,
    zmq.EVENT_DISCONNECTED: LOST,
    zmq.EVENT_CLOSED: "nobody listens there, trying again",
}
WELCOME_WITHIN = 2000  # milliseconds


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Shows each change of state on a line, until Ctrl-C."
    )
    add = parser.add_argument
    topic, address = "OnStateChange/", "tcp://127.0.0.1:4321"
    add("topic", metavar="TOPIC", nargs="?", default=topic, help="[%(default)s]")
    add("address", metavar="ADDRESS", nargs="?", default=address, help="[%(default)s]")
    add("--curve-key", metavar="FILE", help="a .key_secret file that the server knows")
    add("--curve-server-key", metavar="FILE", help="the server's .key file")
    options = parser.parse_args()
    if (options.curve_key is None) != (options.curve_server_key is None):
        parser.error("--curve-key and --curve-server-key: both or neither")
    return options


def main() -> None:
    """Watch until somebody stops it."""
    options = parse_arguments()
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.IPV6, "[" in options.address)  # tcp://[::1]:4321
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    try:
        if options.curve_key:
            own, server = options.curve_key, options.curve_server_key
            socket.curve_publickey, socket.curve_secretkey = load_certificate(own)
            socket.curve_serverkey, _ = load_certificate(server)
        monitor = socket.get_monitor_socket(sum(WORDS))
        socket.subscribe(options.topic)
        socket.connect(options.address)
    except TypeError:
        sys.exit("watch.py: --curve-key: expected a .key_secret file")
    except (OSError, ValueError, zmq.ZMQError) as error:
        sys.exit(f"watch.py: {error}")
    tell(f"waiting for {options.topic} from {options.address}, Ctrl-C ends")
    watch(socket, monitor)


def watch(socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
    """Show what comes in; say what becomes of the connection, once in a row."""
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(monitor, zmq.POLLIN)
    said, wait = "", None
    while True:
        ready = dict(poller.poll(wait))
        if socket in ready:
            frames = (
                frame.decode("utf-8", "replace") for frame in socket.recv_multipart()
            )
            print(*frames, flush=True)
        words, wait = ("", wait) if ready else (UNWELCOME, None)
        if monitor in ready:
            event = zmq.Event(parse_monitor_message(monitor.recv_multipart())["event"])
            wait = WELCOME_WITHIN if event == zmq.EVENT_CONNECTED else None
            words = WORDS[event]
        if words not in ("", said) and (said, words) != (REFUSED, LOST):
            tell(words)
            said = words


def tell(text: str) -> None:
    """Say what isn't a publication."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # nobody reads any more
        os._exit(1)
