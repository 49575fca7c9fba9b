"""A service that gives set answers, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import httpx
from attrs import define, field

from tests.heartbeatctl import Ended, Terminal, run_program

#: The time of all answers.
NOW = "2026-11-27T20:00:10.000Z"

Answer = dict[str, Any] | Callable[[httpx.Request], Any] | Exception


@define
class FakeService:
    """Answers by method and path.

    :ivar asked: each request as ``METHOD PATH?QUERY`` and its body's JSON.
    """

    answers: dict[str, Answer]
    asked: list[tuple[str, Any]] = field(factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one."""
        target = request.url.raw_path.decode()
        body = json.loads(request.content or b"null")
        self.asked.append((f"{request.method} {target}", body))
        answer = self.answers.get(f"{request.method} {request.url.path}")
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return answer
        if answer is None:
            return problem(404, "UNKNOWN_CLIENT", f"{request.url.path} is not here")
        return httpx.Response(200, json=answer)

    def run(
        self,
        *words: str,
        typed: str | None = None,
        on_screen: bool = False,
        **environment: str,
    ) -> Ended:
        """Run ``heartbeatctl`` on it.

        :param typed: at its terminal; it has none if that is None.
        """
        stdin = None if typed is None else Terminal(typed)
        transport = httpx.MockTransport(self)
        return run_program(words, transport, stdin, on_screen, **environment)


def problem(status: int, code: str, detail: str) -> httpx.Response:
    """A refusal."""
    return httpx.Response(status, json={"code": code, "detail": detail})


def stream(*events: tuple[str, dict[str, Any]], begin: int = 0) -> httpx.Response:
    """A stream of events, which ends behind them.

    :param begin: the number of the first.
    """
    text = "".join(
        f"id: r-{number}\nevent: {name}\ndata: {json.dumps(data)}\n\n"
        for number, (name, data) in enumerate(events, begin)
    )
    kind = {"Content-Type": "text/event-stream"}
    return httpx.Response(200, headers=kind, text=text)


def client(client_id: str, state: str = "RUNNING", **more: Any) -> dict[str, Any]:
    """A living client's record."""
    return {
        "clientID": client_id,
        "clientState": state,
        "reportedState": state,
        "sequence": 3,
        "incarnation": 7,
        "timebombSeconds": 10.0,
        "secondsSinceHeartbeat": 1.0,
        "secondsToTimebomb": 9.0,
        "registeredAt": "2026-11-27T20:00:00.000Z",
        "labels": {},
        "late": False,
        "held": False,
        "silentSeconds": None,
        "deathsInTenMinutes": 0,
        **more,
    }


def listing(clients: Iterable[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The answer of ``GET /clients``."""
    rest = {"next": None, "serverTime": NOW, "asOf": "r-0"}
    return {"clients": list(clients), **rest, **more}
