"""What a decoder says of a bad message, in words that name what is allowed.

msgspec tells of a wrong state or field, and where it is; whoever made the slip wants to
read what it could have been. Knows msgspec's sentences, and no bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from heartbeat_service.core.changes import Reason
from heartbeat_service.protocol.messages import WORD, StateNumber
from heartbeat_service.protocol.nodes import BeatsQuestion
from heartbeat_service.protocol.orders import LONGEST_LOCKOUT, Order

_LIVING = ", ".join(state.name for state in StateNumber if state)
_STATES = ", ".join(state.name for state in StateNumber)
_BY_NUMBER = f"{_STATES}, or their numbers 0 to {max(StateNumber)}"

#: What a field may be, or each that is in it.
_ALLOWED: Mapping[str, str] = {
    "clientState": _BY_NUMBER,
    "previousState": _BY_NUMBER,
    "from": _BY_NUMBER,
    "reason": ", ".join(reason.value for reason in Reason),
}
_IN_ORDERS: Mapping[str, str] = {**_ALLOWED, "clientState": _LIVING}

#: What the other fields of an order are, or the list whose items the above are.
_KINDS: Mapping[str, str] = {
    "all": "`true`",
    "clientIDs": "a list of client IDs",
    "dryRun": "`true` or `false`",
    "from": f"a list of one or more of {_BY_NUMBER}",
    "seconds": f"a number from 0 to {LONGEST_LOCKOUT:.0f}",
}

_NOT_ONE_OF = re.compile(
    r"(Invalid enum value|Expected `int \| str`, got) "
    r"(?P<got>.+) - at `(?P<place>\$\.(?P<field>\w+)(\[\d+\])?)`",
    re.DOTALL,
)
_UNLIKE = re.compile(
    r"(Expected `(?!true`)[a-z]+`|Number out|Integer value out).* "
    r"- at `\$\.(?P<field>\w+)[][.\d]*`"
)
_LABELS = re.compile(r".* - at (`key` in )?`\$\.labels(\[\.\.\.\])?`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `\w+`")
_UNKNOWN = re.compile(r"Object contains unknown field (?P<field>`.*`)", re.DOTALL)


def say(detail: str, type_: type) -> str:
    """A sentence of msgspec's about what should have been a ``type_``."""
    order = type_ if issubclass(type_, Order | BeatsQuestion) else None
    if wrong := _NOT_ONE_OF.fullmatch(detail):
        allowed = (_ALLOWED if order is None else _IN_ORDERS).get(wrong["field"])
        if allowed is not None:
            return (
                f"Expected one of {allowed}, got {wrong['got']} - at `{wrong['place']}`"
            )
    if _LABELS.fullmatch(detail):
        number = "at most 8" if order is None else "1 to 8"
        return f"Expected {number} labels, names and values {WORD} - at `$.labels`"
    return detail if order is None else _say_of_order(detail, order)


def _say_of_order(detail: str, order: type[Order | BeatsQuestion]) -> str:
    if unknown := _UNKNOWN.fullmatch(detail):
        return f"Unknown field {unknown['field']}; expected {order.fields}"
    if _MISSING.fullmatch(detail):
        return f"{detail}; expected {order.fields}"
    if unlike := _UNLIKE.fullmatch(detail):
        field = unlike["field"]
        kind = (
            getattr(order, "expects", None)
            if field == "expected"
            else _KINDS.get(field)
        )
        if kind is not None:
            return f"{detail}; `{field}` is {kind}"
    return detail
