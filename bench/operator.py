"""What an operator asks of the service over HTTP."""

from __future__ import annotations

import json
from http.client import HTTPConnection

#: How long an answer may take, in seconds.
PATIENCE = 120.0


def ask(port: int, method: str, path: str, **body: object) -> HTTPConnection:
    """Send a request, whose answer is to be read.

    :param body: the fields of the order, if there are any.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request(method, path, json.dumps(body) if body else None)
    return connection


def steer(port: int, state: str = "CALIBRATED") -> HTTPConnection:
    """Order all clients into a state."""
    return ask(port, "PUT", "/clients/state", clientState=state, all=True)


def read(connection: HTTPConnection) -> bytes:
    """Take the whole answer, and hang up.

    :raises RuntimeError: if it isn't 200.
    """
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {text[:300]!r}")
    return text
