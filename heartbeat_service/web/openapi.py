"""What is asked and answered by HTTP as a document for machines: OpenAPI 3.1.

Made of what the routes say of themselves (``route.py``), of the parameters' kinds and
of the messages' structs, so nothing in it is written twice. Each kind of refusal stands
once among the components, for all routes that have it. Knows no route by name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from inspect import cleandoc

from heartbeat_service import __version__
from heartbeat_service.core.errors import (
    BadMessage,
    Forbidden,
    HeartbeatError,
    Overloaded,
    TooLarge,
    Unauthorized,
)
from heartbeat_service.protocol.messages import CLIENT_ID, Body
from heartbeat_service.protocol.schema import Schema, components, in_plain_words, ref
from heartbeat_service.web.problem import MEDIA_TYPE, STATUS, ProblemRecord
from heartbeat_service.web.route import Answers, Files, Listed, Route, Who

ABOUT = (
    "Knows which game clients of an installation are alive, and in what state they "
    "are. docs/protocol.md tells the rules. Besides what stands here, a path that "
    "isn't there is 404, a method that a path doesn't have 405 with `Allow`, and one "
    "that nobody knows 501, all with the code BAD_MESSAGE. HEAD is answered wherever "
    "GET is."
)

#: What any route may refuse.
_ANYWHERE = (BadMessage, Forbidden, TooLarge, Overloaded)

#: What a request may get before its route is asked, all with the code BAD_MESSAGE.
_OF_HTTP = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_URI_TOO_LONG,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
)

_TOKENS = {
    Who.CLIENTS: ("clientToken", "A token of --client-token-file."),
    Who.OPERATORS: ("operatorToken", "A token of --operator-token-file."),
}

_STRING: Schema = {"type": "string"}
_IN_PATHS: Mapping[str, Schema] = {"id": CLIENT_ID, "name": _STRING}

#: The headers of some answers, by their status.
_HEADERS: Mapping[HTTPStatus, Mapping[str, Schema]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": {"const": "Bearer"}},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": {"type": "integer", "minimum": 1}},
}


def openapi(routes: Collection[Route], wants_token: Mapping[Who, bool]) -> Schema:
    """The document.

    :param wants_token: whose door nobody passes without a token.
    """
    problems: dict[str, Schema] = {}
    paths: defaultdict[str, Schema] = defaultdict(dict)
    for route in routes:
        for number, (method, path) in enumerate(route.targets):
            paths[path][method.lower()] = {
                "operationId": f"{route.name}{number or ''}",
                "tags": [route.who.value],
                **_told(route.text),
                "security": _security(route.who, wants_token),
                **_parameters(path, route),
                **_body(route),
                "responses": {**_good(route), **_refusals(route, path, problems)},
            }
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "heartbeat-service",
            "version": __version__,
            "description": ABOUT,
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components(
                received=[body for route in routes for body in route.takes],
                sent=[ProblemRecord, *_sent(routes)],
            ),
            "responses": dict(sorted(problems.items())),
            "securitySchemes": {
                name: {"type": "http", "scheme": "bearer", "description": text}
                for name, text in _TOKENS.values()
            },
        },
    }


def _told(text: str) -> Schema:
    summary, _, more = cleandoc(text).partition("\n\n")
    told = {"summary": in_plain_words(summary), "description": in_plain_words(more)}
    return {name: words for name, words in told.items() if words}


def _security(who: Who, wants_token: Mapping[Who, bool]) -> list[Schema]:
    if who not in _TOKENS:
        return []
    token: Schema = {_TOKENS[who][0]: []}
    return [token] if wants_token[who] else [{}, token]


def _parameters(path: str, route: Route) -> Schema:
    told: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": _IN_PATHS[name]}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    told += [
        {"name": name, "in": "header", "description": means, "schema": _STRING}
        for name, means in route.headers.items()
    ]
    for name, parameter in route.parameters.items():
        schema = parameter.kind.schema
        if parameter.repeated:
            schema = {"type": "array", "items": schema}
        told.append(
            {
                "name": name,
                "in": "query",
                "description": parameter.means,
                "schema": schema,
            }
        )
    return {"parameters": told} if told else {}


def _body(route: Route) -> Schema:
    if not route.takes:
        return {}
    return {
        "requestBody": {
            "required": not route.may_be_empty,
            "content": _json(_one_of(route.takes)),
        }
    }


def _good(route: Route) -> Schema:
    answers, status = route.answers, route.status
    told: Schema = {"description": status.phrase}
    if isinstance(answers, Files):
        told["content"] = {type_: _file(type_) for type_ in answers.types}
    elif answers is not None:
        told["content"] = _json(_schema(answers))
    good = {str(status.value): told}
    if isinstance(answers, Files) and answers.tagged:
        told["headers"] = _headers({"ETag": _STRING})
        known = HTTPStatus.NOT_MODIFIED
        good[str(known.value)] = {
            "description": "It is what `If-None-Match` names.",
            "headers": _headers({"ETag": _STRING}),
        }
    return good


def _file(type_: str) -> Schema:
    if (
        type_ == "text/event-stream"
    ):  # it has no end: /asyncapi.json tells of its events
        return {}
    return {"schema": {"type": "object"} if type_ == "application/json" else _STRING}


def _schema(answers: type | Listed) -> Schema:
    if not isinstance(answers, Listed):
        return ref(answers)
    listed: Schema = {
        "type": "object",
        "properties": {
            answers.name: {
                "type": "array",
                "items": _one_of(answers.items),
            }
        },
        "required": [answers.name],
    }
    if answers.tail is not Body:
        listed["allOf"] = [ref(answers.tail)]
    return listed


def _one_of(types: Iterable[type]) -> Schema:
    schemas = [_STRING if type_ is str else ref(type_) for type_ in types]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _sent(routes: Iterable[Route]) -> Iterable[type]:
    for route in routes:
        yield from _structs(route.answers)


def _structs(answers: Answers) -> Iterable[type]:
    if isinstance(answers, Listed):
        yield from (item for item in answers.items if item is not str)
        if answers.tail is not Body:
            yield answers.tail
    elif isinstance(answers, type):
        yield answers


def _refusals(route: Route, path: str, problems: dict[str, Schema]) -> Schema:
    """What a route may answer if not all is well.

    :param problems: where what many may answer is kept, by its name.
    """
    codes: defaultdict[HTTPStatus, set[str]] = defaultdict(set)
    for error in _errors(route):
        codes[STATUS[error.code]].add(error.code)
    others = [*_OF_HTTP]
    if "{" in path:  # what isn't one part of a path names nothing
        others.append(HTTPStatus.NOT_FOUND)
    for status in others:
        codes[status].add(BadMessage.code)
    told = {}
    for status, which in sorted(codes.items()):
        name = ".".join((str(status.value), *sorted(which)))
        problems[name] = _problem(status, sorted(which))
        told[str(status.value)] = {"$ref": f"#/components/responses/{name}"}
    return told


def _errors(route: Route) -> Iterable[type[HeartbeatError]]:
    yield from _ANYWHERE
    yield from route.refuses
    if route.who is not Who.ANYONE:
        yield Unauthorized


def _problem(status: HTTPStatus, codes: list[str]) -> Schema:
    schema = {
        "allOf": [ref(ProblemRecord)],
        "properties": {"status": {"const": status.value}, "code": {"enum": codes}},
    }
    problem = {
        "description": status.phrase,
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
    if status in _HEADERS:
        problem["headers"] = _headers(_HEADERS[status])
    return problem


def _headers(schemas: Mapping[str, Schema]) -> Schema:
    return {
        name: {"required": True, "schema": schema} for name, schema in schemas.items()
    }


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}
