"""JSON Schema of the messages and bodies, made of their structs.

msgspec tells what a struct's fields and types say, and its docstring what they mean;
here that is put into words for readers of a document. What comes in may be written in
more than one way (a client ID as a number, a state as its number); what goes out is
written in one. Knows no route, no transport and no document.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from heartbeat_service.protocol.messages import (
    CAMEL,
    CLIENT_ID,
    CLIENT_ID_OR_NUMBER,
    CLIENT_ID_PATTERN,
    Body,
    ClientID,
)

#: A JSON Schema, or a part of a document.
Schema = dict[str, Any]

_PLACE = "#/components/schemas/"

_CLIENT_ID_ITSELF: Schema = {
    "type": "string",
    "description": "1 to 64 characters of A-Z a-z 0-9 . _ : @ -, but not . or ..",
    "pattern": rf"^{CLIENT_ID_PATTERN}$(?!\n)",
}

_NAME_OR_NUMBER = [
    {"$ref": f"{_PLACE}{kind}"} for kind in ("ClientState", "StateNumber")
]

_FIELD = re.compile(r":ivar (\w+): (.+?)(?=\n *:|\Z)", re.DOTALL)


def ref(type_: type) -> Schema:
    """The schema of a struct, by its place in a document."""
    return {"$ref": f"{_PLACE}{type_.__name__}"}


def components(received: Iterable[type], sent: Iterable[type]) -> Schema:
    """The schemas of structs, and of all that they are made of, by their names.

    :param received: those that are read here.
    :param sent: those that are written here: each of their fields is there, but for
        those that can be left out.
    """
    schemas = _schemas(received, CLIENT_ID_OR_NUMBER)
    for name, schema in _schemas(sent, CLIENT_ID).items():
        schemas[name] = _as_sent(schema)
    return {"ClientID": _CLIENT_ID_ITSELF, **dict(sorted(schemas.items()))}


def _schemas(types: Iterable[type], client_id: Schema) -> Schema:
    def hook(type_: type) -> Schema:
        if type_ is ClientID:
            return client_id
        raise NotImplementedError(type_)  # msgspec's word for what it doesn't know

    types = list(dict.fromkeys(types))
    _, schemas = msgspec.json.schema_components(
        types, schema_hook=hook, ref_template=f"{_PLACE}{{name}}"
    )
    for type_ in types:
        if issubclass(type_, Body):
            schemas[type_.__name__].update(type_.json_schema)
    for schema in schemas.values():
        _tell(schema)
    return schemas


def _tell(schema: Schema) -> None:
    """Put what a docstring says of a struct and its fields where readers look."""
    del schema["title"]  # the name that it is found by
    text = inspect.cleandoc(schema.pop("description", ""))
    schema["description"] = in_plain_words(text.partition(":ivar")[0])
    for name, meaning in _FIELD.findall(text):
        field = schema["properties"].get(CAMEL.get(name, name))
        if field is not None:
            field.setdefault("description", in_plain_words(meaning))


def in_plain_words(text: str) -> str:
    """A docstring's words as those read them who know no Python."""
    text = re.sub(r":\w+:`[~!]?([^`]*)`|``(.*?)``", r"`\1\2`", text)
    return " ".join(re.sub(r"\bNone\b", "null", text).split())


def _as_sent(schema: Schema) -> Schema:
    for name, field in schema.get("properties", {}).items():
        if field.get("anyOf") == _NAME_OR_NUMBER:
            del field["anyOf"]
            field.update(_NAME_OR_NUMBER[0])
        if "default" in field:
            del field["default"]
            schema["required"].append(name)
    return schema
