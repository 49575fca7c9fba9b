"""People are told, by Apprise, at a real HTTP receiver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent
from twisted.web.resource import Resource
from twisted.web.server import Site
from typing_extensions import override

from heartbeat_service.notify import delivery
from tests.integration.conftest import Serve
from tests.integration.processes import LOOPBACK, Spawn
from tests.integration.test_starting import TWISTD
from tests.integration.waiting import patiently, reactor, until

SECRET = "d0nt-te11"  # noqa: S105 - of nobody


@define(eq=False)
class Receiver(Resource):
    """Takes what ``json://`` sends.

    :ivar refusing: how many posts it refuses first.
    """

    port: Any = None
    refusing: int = 0
    posts: list[dict[str, Any]] = field(factory=list)
    isLeaf = True

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    @property
    def url(self) -> str:
        """What Apprise calls it."""
        return f"json://user:{SECRET}@127.0.0.1:{self.port.getHost().port}/{SECRET}"

    def render_POST(self, request: Any) -> bytes:
        if self.refusing:
            self.refusing -= 1
            request.setResponseCode(503)
        else:
            self.posts.append(json.loads(request.content.read()))
        return b""


class QuietSite(Site):
    """One that doesn't name the paths that it was asked for."""

    @override
    def log(self, request: Any) -> None:
        """Tell nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """One that listens."""
    receiver = Receiver()
    receiver.port = reactor.listenTCP(0, QuietSite(receiver), interface="127.0.0.1")
    yield receiver
    stopped: Deferred[None] = receiver.port.stopListening()
    pytest_twisted.blockon(Deferred.fromCoroutine(patiently(stopped)))


@pytest_twisted.ensureDeferred
async def test_deaths_of_one_moment_are_one_message_and_so_is_a_return(
    serve: Serve, receiver: Receiver
) -> None:
    service = await serve(notify=receiver.url, notify_pause=0.5, timebomb=0.1)
    for name in ("headset-1", "headset-2"):
        await service.beat(name, labels={"room": "A"})
    await until(lambda: bool(receiver.posts))
    assert receiver.posts[0]["title"] == "2 clients lost in room A"
    assert receiver.posts[0]["message"].endswith("room A: headset-1, headset-2")
    assert receiver.posts[0]["type"] == "failure"
    await service.beat("headset-1", timebombSeconds=60)
    await until(lambda: len(receiver.posts) == 2)
    assert receiver.posts[1]["message"].startswith("1 client back: headset-1")


@pytest_twisted.ensureDeferred
async def test_a_message_is_sent_again_until_it_is_taken_and_no_secret_is_logged(
    serve: Serve,
    receiver: Receiver,
    logged: list[LogEvent],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(delivery, "PAUSES", (0.1,))
    receiver.refusing = 2
    service = await serve(notify=receiver.url, notify_pause=0.1, timebomb=0.1)
    await service.beat("1")
    await until(lambda: bool(receiver.posts))
    await until(lambda: any("again" in (formatEvent(one) or "") for one in logged))
    lines = [formatEvent(event) or "" for event in logged]
    told = [line for line in lines if "json://" in line]
    name = "json://… (--notify, number 1)"
    assert told == [
        f"a message can't be sent to {name}: 1 tries so far, the next in 0.1 s",
        f"a message can't be sent to {name}: 2 tries so far, the next in 0.1 s",
        f"messages reach {name} again",
    ]
    out, error = capfd.readouterr()
    assert SECRET not in "".join((*lines, out, error))


@pytest_twisted.ensureDeferred
async def test_what_was_gathered_is_sent_when_the_service_stops(
    serve: Serve, receiver: Receiver
) -> None:
    service = await serve(notify=receiver.url, notify_pause=3600, timebomb=0.1)
    await service.beat("1")

    async def dead() -> bool:
        status, _, _ = await service.http("GET", "/clients/1")
        return status == 404

    await until(dead)
    await service.stop()
    assert [post["title"] for post in receiver.posts] == ["1 client lost"]


@pytest_twisted.ensureDeferred
async def test_a_url_that_cant_be_used_ends_the_start_with_a_sentence(
    spawn: Spawn,
) -> None:
    given = ("--notify", "json://localhost", "--notify", f"gopher://{SECRET}@x")
    service = spawn(*TWISTD, *LOOPBACK, "--store", "memory:", *given)
    assert await service.ends() == 1
    assert SECRET not in service.output
    assert "Traceback" not in service.output
    assert (
        "The heartbeat service can't start: --notify, number 2: gopher://… is no URL"
        " that Apprise can use"
    ) in service.output
