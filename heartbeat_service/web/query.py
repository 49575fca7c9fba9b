"""The query of an operator's request: only parameters that its route knows, each once.

A slip here asks for others than were meant, so nothing is passed over: ``?dryRun`` on a
route without such a parameter is an error, and so is one that lacks its ``=``. Each
kind of value tells as JSON Schema, too, what it may be. Knows no route.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from attrs import frozen

from heartbeat_service.core.errors import BadMessage
from heartbeat_service.protocol.messages import (
    WORD,
    WORD_PATTERN,
    are_client_ids,
    is_word,
)
from heartbeat_service.protocol.schema import Schema


@frozen
class Kind:
    """What a parameter's value may be.

    :ivar read: reads one, or raises a ValueError that says what is expected.
    :ivar schema: the same as JSON Schema.
    """

    read: Callable[[str], Any]
    schema: Schema


@frozen
class Parameter:
    """One that a route may be asked with.

    :ivar means: what it does, for people.
    :ivar repeated: whether it may be given several times: what is read is a tuple then.
    """

    kind: Kind
    means: str
    repeated: bool = False


#: What a route may be asked with, by name.
Parameters = Mapping[str, Parameter]

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def read_query(target: bytes, parameters: Parameters) -> dict[str, Any]:
    """The parameters of a request, by name; those that aren't there are left out.

    :param target: what it asks for, as it was sent.
    :raises BadMessage: if there is another one, one twice, or a value is wrong.
    """
    read: dict[str, Any] = {}
    for name, value in _pairs(target):
        if name not in parameters:
            raise BadMessage(f"Unknown parameter `{name[:64]}`; {_known(parameters)}")
        parameter = parameters[name]
        if name in read and not parameter.repeated:
            raise BadMessage(f"The parameter `{name}` is given twice")
        try:
            one = parameter.kind.read(value)
            read[name] = (*read.get(name, ()), one) if parameter.repeated else one
        except ValueError as error:
            raise BadMessage(
                f"{error}, got {value[:64]!r} - at the parameter `{name}`"
            ) from None
    return read


def whole_number(least: int, most: int) -> Kind:
    """A whole number, in ASCII digits only."""

    def read(value: str) -> int:
        number = int(value) if _is_short_number(value) else -1
        if not least <= number <= most:
            raise ValueError(f"Expected a whole number from {least} to {most}")
        return number

    return Kind(read, {"type": "integer", "minimum": least, "maximum": most})


def one_of(words: Mapping[str, Any]) -> Kind:
    """One of some words; what is read is what it stands for."""

    def read(value: str) -> Any:
        if value not in words:
            raise ValueError(f"Expected one of {', '.join(words)}")
        return words[value]

    return Kind(read, {"type": "string", "enum": list(words)})


def _read_decimal(value: str) -> float:
    if not _NUMBER.fullmatch(value):
        raise ValueError("Expected a number from 0 on, as 600 or 0.5")
    return float(value)


def _read_start_of_id(value: str) -> str:
    if not are_client_ids((value,)) and value not in (".", ".."):
        raise ValueError(
            "Expected the first of a client ID's characters: A-Z a-z 0-9 . _ : @ -"
        )
    return value


def _read_label(value: str) -> list[tuple[str, str]]:
    parts = value.split(":")
    pairs = [(":".join(parts[:i]), ":".join(parts[i:])) for i in range(1, len(parts))]
    labels = [pair for pair in pairs if all(map(is_word, pair))]
    if not labels:
        raise ValueError(f"Expected NAME:VALUE, each {WORD}")
    return labels


#: True or false.
yes_or_no = Kind(one_of({"true": True, "false": False}).read, {"type": "boolean"})

#: A number that isn't below 0, in decimal digits: a number's schema would let 1e3 pass.
decimal = Kind(_read_decimal, {"type": "string", "pattern": f"^{_NUMBER.pattern}$"})

#: What a client ID can begin with.
start_of_id = Kind(
    _read_start_of_id, {"type": "string", "pattern": rf"^{WORD_PATTERN}$(?!\n)"}
)

#: ``NAME:VALUE``, read as all the labels that it can mean. Both may have colons of
#: their own: ``a:b:c`` is ``a`` with ``b:c``, or ``a:b`` with ``c``.
label = Kind(
    _read_label,
    {"type": "string", "pattern": rf"^{WORD_PATTERN}:{WORD_PATTERN}$(?!\n)"},
)


def _pairs(target: bytes) -> list[tuple[str, str]]:
    _, _, query = target.partition(b"?")
    try:
        return parse_qsl(
            query.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
        )
    except ValueError:  # also for what is not UTF-8
        raise BadMessage("Expected `?NAME=VALUE&NAME=VALUE…` in UTF-8") from None


def _is_short_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= len(str(2**63))


def _known(parameters: Parameters) -> str:
    if not parameters:
        return "this route has none"
    return "expected " + ", ".join(f"`{name}`" for name in parameters)
