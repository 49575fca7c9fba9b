"""What the document can't say, told to schemathesis.

OpenAPI says what each parameter and each field may be, not what goes together with
what, and to JSON Schema 1.0 is an integer. What is asked as something good is brought
into line with the rest of the contract here; what is asked as something bad is left
alone.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import schemathesis

#: Who lives, so that an order may hit somebody; half of all questions are about them.
CLIENTS = [f"headset-{number}" for number in range(1, 9)]


@schemathesis.check
def no_failure(ctx: Any, response: Any, case: Any) -> None:  # noqa: ARG001 - its form
    """A 503 is one that the contract knows: nothing in the service has failed."""
    if response.status_code == 503:
        assert "The service failed" not in response.text, response.text


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:  # noqa: ARG001 - its form
    """Bring what is good into line."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if isinstance(case.body, dict):
        case.body = whole_numbers(case.body)
        named = case.body.get("clientIDs")
        if "expected" in case.body and named is not None:
            case.body["expected"] = {str(client_id): (1, 1) for client_id in named}
    path, query = case.path_parameters or {}, case.query or {}
    if "id" in path and crc32(path["id"].encode()) % 2:
        path["id"] = CLIENTS[crc32(path["id"].encode()) // 2 % len(CLIENTS)]
    if "name" in path:
        path["name"] = "index.html"
    if query.get("gone") in (True, "true"):
        for name in ("state", "late"):
            query.pop(name, None)
    else:
        query.pop("since", None)


def whole_numbers(value: Any) -> Any:
    """The same, with 1 instead of 1.0."""
    if isinstance(value, dict):
        return {name: whole_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
