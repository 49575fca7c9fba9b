"""What happens to a page happens to its client: closed, left, cached, not let in."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
import pytest_twisted
from playwright.async_api import Page

from tests.conformance.chromium import Kiosk, chromium, in_browser
from tests.integration.conftest import Running, start_service
from tests.integration.waiting import patiently, until

pytestmark = [
    pytest.mark.skipif(
        shutil.which("chromium") is None, reason="there is no chromium here"
    ),
    pytest.mark.xdist_group("chromium"),  # the browser of the cases
]

INTERVAL, FUSE = 0.1, 1.0


@pytest_twisted.async_yield_fixture
async def running() -> AsyncIterator[Running]:
    """A service that lets the page in."""
    running = await start_service(
        store="memory:",
        interval=INTERVAL,
        timebomb=FUSE,
        allow_origin=(chromium().origin,),
    )
    yield running
    await running.stop()


async def begin(running: Running) -> Kiosk:
    """A page whose client is registered."""
    kiosk = Kiosk("--id", "k", "--server", running.url)
    await until(lambda: " UNCALIBRATED " in kiosk.told)
    return kiosk


async def do(coroutine: Coroutine[Any, Any, int]) -> None:
    """Have it done in the browser."""
    await patiently(in_browser(coroutine))


async def lives(running: Running) -> list[dict[str, Any]]:
    """The lives of the client, newest first."""
    _, found, _ = await running.http("GET", "/clients/k/history")
    lives: list[dict[str, Any]] = found["lives"]
    return lives


async def assert_says_goodbye(
    running: Running, go: Callable[[Page], Awaitable[object]]
) -> None:
    """Its life ends when the page goes so, and not by its timebomb."""
    kiosk = await begin(running)

    async def gone() -> int:
        _, page = await asyncio.wrap_future(kiosk.page)
        await go(page)
        return 0

    await do(gone())

    async def has_ended() -> bool:
        return (await lives(running))[0]["endedAt"] is not None

    await until(has_ended)
    assert [life["reason"] for life in await lives(running)] == ["goodbye"]
    await kiosk.ends("KILL")


@pytest_twisted.ensureDeferred
async def test_a_page_that_is_closed_says_goodbye(running: Running) -> None:
    await assert_says_goodbye(running, lambda page: page.close(run_before_unload=True))


@pytest_twisted.ensureDeferred
async def test_a_page_that_is_left_says_goodbye(running: Running) -> None:
    await assert_says_goodbye(running, lambda page: page.goto("about:blank"))


@pytest_twisted.ensureDeferred
async def test_a_page_that_comes_back_begins_a_new_life(running: Running) -> None:
    kiosk = await begin(running)
    event = "new PageTransitionEvent('{}', {{persisted: true}})"

    async def cache_and_take_back() -> int:
        _, page = await asyncio.wrap_future(kiosk.page)
        for name in ("pagehide", "pageshow"):
            await page.evaluate(f"window.dispatchEvent({event.format(name)})")
        return 0

    await do(cache_and_take_back())
    await until(lambda: len(re.findall(" UNCALIBRATED ", kiosk.told)) == 2)
    assert await kiosk.ends("TERM") == 0
    reasons = [life["reason"] for life in await lives(running)]
    assert reasons[0] == "goodbye"
    assert set(reasons) <= {"goodbye", "reconnect"}


@pytest_twisted.ensureDeferred
async def test_a_page_that_is_not_let_in_is_told_how_it_would_be() -> None:
    running = await start_service(store="memory:")
    kiosk = Kiosk("--id", "k", "--server", running.url)
    wanted = f"start it with --allow-origin {chromium().origin}"
    await until(lambda: f"{wanted}\n" in kiosk.output)
    assert kiosk.told == ""
    await kiosk.ends("KILL")
    await running.stop()
