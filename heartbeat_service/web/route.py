"""What a route says of itself, once: who may use it, what it takes, what it answers.

Klein is told of its method and path, the gate of its door, its query is read by its
parameters, and ``openapi.py`` makes a document of all of it. So whatever is told of a
route is what is done. Knows no route, and nothing of what one does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from functools import wraps
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, TypeVar, cast

from attrs import frozen
from klein import Klein

from heartbeat_service.core.errors import BadMessage, HeartbeatError
from heartbeat_service.protocol.messages import Body
from heartbeat_service.web.query import Parameters, read_query

_Method = TypeVar("_Method", bound=Callable[..., Any])

#: How Klein's own arguments are called in a path.
_IN_PATHS = {"id": "client_id"}


class Who(Enum):
    """Who may use a route."""

    CLIENTS = "clients"
    OPERATORS = "operators"
    ANYONE = "anyone"


@frozen
class Listed:
    """A list as an answer.

    :ivar name: what it is called.
    :ivar items: what may be in it: structs, or strings.
    :ivar tail: what stands behind it.
    """

    name: str
    items: tuple[type, ...]
    tail: type[Body] = Body


@frozen
class Files:
    """Something that isn't JSON.

    :ivar types: what it may be, as media types.
    :ivar tagged: whether it has an ETag, and isn't sent to whoever has it already.
    """

    types: tuple[str, ...]
    tagged: bool = False


#: How a route answers if all is well: with JSON, or files, or not at all (204).
Answers = type | Listed | Files | None


@frozen
class Route:
    """What a route says of itself.

    :ivar name: the name of its method.
    :ivar targets: the methods and paths that it is for: ``GET``, ``/clients/{id}``.
    :ivar text: the docstring of its method.
    :ivar headers: those of a request that it looks at, each with its meaning.
    :ivar takes: the structs that its body may be; none if it takes no body.
    :ivar may_be_empty: whether it may have no body all the same.
    :ivar answers: what it answers if all is well.
    :ivar refuses: what else it may answer, besides what each route of its kind may.
    """

    name: str
    targets: tuple[tuple[str, str], ...]
    who: Who
    text: str
    answers: Answers
    parameters: Parameters
    headers: Mapping[str, str]
    takes: tuple[type, ...]
    may_be_empty: bool
    refuses: tuple[type[HeartbeatError], ...]

    @property
    def status(self) -> HTTPStatus:
        """That of its answer if all is well."""
        return HTTPStatus.NO_CONTENT if self.answers is None else HTTPStatus.OK


class Routes(dict[str, Route]):
    """All routes of a class, by the names of its methods; those of ``app``, too.

    :ivar app: finds the method that a request is for.
    """

    def __init__(self, app: Klein) -> None:
        super().__init__()
        self.app = app

    def add(
        self,
        *targets: str,
        who: Who,
        answers: Answers,
        parameters: Parameters = MappingProxyType({}),
        headers: Mapping[str, str] = MappingProxyType({}),
        takes: tuple[type, ...] = (),
        may_be_empty: bool = False,
        refuses: tuple[type[HeartbeatError], ...] = (),
    ) -> Callable[[_Method], _Method]:
        """Make a method a route.

        A route for operators is handed the parameters of the query that are there.

        :param targets: its methods and paths, each as ``GET /clients/{id}``.
        """
        pairs = tuple((*target.split(" "),) for target in targets)

        def decorate(method: _Method) -> _Method:
            if who is Who.OPERATORS:
                method = _reading(method, parameters)
            for verb, path in pairs:
                self.app.route(_klein_rule(path), methods=[verb])(method)
            self[method.__name__] = Route(
                name=method.__name__,
                targets=cast(tuple[tuple[str, str], ...], pairs),
                who=who,
                text=method.__doc__ or "",
                answers=answers,
                parameters=parameters,
                headers=headers,
                takes=takes,
                may_be_empty=may_be_empty,
                refuses=refuses,
            )
            return method

        return decorate


def _reading(method: _Method, parameters: Parameters) -> _Method:
    @wraps(method)
    def read(app: Any, request: Any, **path: str) -> Any:
        # What is in a body would be passed over.
        if request.method in (b"GET", b"HEAD") and request.content.read():
            raise BadMessage("A GET takes no body, only parameters")
        return method(app, request, **path, **read_query(request.uri, parameters))

    return cast(_Method, read)


def _klein_rule(path: str) -> str:
    return re.sub(
        r"\{(\w+)\}", lambda name: f"<{_IN_PATHS.get(name[1], name[1])}>", path
    )
