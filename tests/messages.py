"""Messages for all tests: how a request is written, and the examples of ``contract/``.

What is no JSON of Python's is put in as ``msgspec.Raw``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from attrs import frozen

CONTRACT = Path(__file__).parents[1] / "contract"


def message(message_type: str, **body: Any) -> bytes:
    """A request of the contract, as bytes."""
    return envelope(messageType=message_type, body=body)


def heartbeat(client_id: Any = "1", state: Any = "DISCONNECTED", **more: Any) -> bytes:
    """A HEARTBEAT, as bytes."""
    return message("HEARTBEAT", clientID=client_id, clientState=state, **more)


def envelope(**fields: Any) -> bytes:
    """A message of these fields and, where they are not among them, the usual ones."""
    usual = {"sdkVersion": 0.1, "timestamp": "2022-03-29 12:21:25.153292"}
    return msgspec.json.encode({**usual, **fields})


def over_http(
    first: str, *headers: str, body: bytes | None = None, host: str | None = "localhost"
) -> bytes:
    """A request of HTTP/1.1 as it goes over the wire, its body with its length.

    :param first: its method and its target.
    """
    lines = [f"{first} HTTP/1.1", *headers]
    lines += [] if host is None else [f"Host: {host}"]
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def padded(length: int) -> bytes:
    """A good heartbeat of that many bytes."""
    return heartbeat().ljust(length)


@frozen
class Example:
    """A line of ``contract/``; what is not in it is empty."""

    name: str
    data: bytes
    to: str
    everywhere: bool
    message_type: str
    client_id: str | None
    request_id: str | None
    code: str
    detail: str


def examples(file: str) -> list[Example]:
    """All that is in a file of ``contract/``."""
    rows: list[dict[str, Any]] = json.loads((CONTRACT / file).read_text("utf-8"))
    return [
        Example(
            row["name"],
            _data(row),
            row.get("to", "any transport"),
            row.get("everywhere", False),
            row.get("messageType", ""),
            row.get("clientID"),
            row.get("requestID"),
            row.get("code", ""),
            row.get("detail", ""),
        )
        for row in rows
    ]


def _data(row: dict[str, Any]) -> bytes:
    if "hex" in row:
        return bytes.fromhex(row["hex"])
    parts = [row["text"]] if isinstance(row["text"], str) else row["text"]
    return "".join(
        part if isinstance(part, str) else part[0] * part[1] for part in parts
    ).encode()


GOOD = examples("messages.json")
BAD = examples("bad_messages.json")
BAD_MESSAGES = [example for example in BAD if example.to == "any transport"]
