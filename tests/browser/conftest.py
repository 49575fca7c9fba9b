"""A browser for all tests of the page, a context and a service for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from tests.browser.service import PATIENCE, Fleet, Service, is_root

CHROMIUM = "/usr/bin/chromium"

#: What a browser says of answers that a test means to get, and of a line that it cuts.
EXPECTED = "Failed to load resource"

#: The line is live, all are listed, and the keys are heard.
LIVE = "body[data-line=live]:not(.stale) #main > .view"

#: Clients of it need not beat while a test lasts.
PATIENT = ("--store", "memory:", "--interval", "60", "--timebomb", "600")

expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        arguments = ["--disable-dev-shm-usage", "--no-proxy-server", "--disable-gpu"]
        arguments += ["--no-sandbox"] if is_root() else []
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=arguments, timeout=PATIENCE * 1000
        )
        yield browser
        browser.close()


#: ``serve(option, …)`` starts a service, which is stopped after the test.
Serve = Callable[..., Service]


def _services(folder: Path) -> Iterator[Serve]:
    services: list[Service] = []

    def serve(*options: str | Path) -> Service:
        own = folder / str(len(services))
        own.mkdir()
        services.append(Service(own, *options))
        return services[-1]

    yield serve
    for service in services:
        service.end()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A way to start services for one test."""
    yield from _services(tmp_path)


@pytest.fixture(scope="module")
def serve_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A way to start services for the tests of a module, which only look at them."""
    yield from _services(tmp_path_factory.mktemp("services"))


@pytest.fixture
def service(serve: Serve) -> Service:
    """A service whose clients need not beat while a test lasts."""
    return serve(*PATIENT)


@pytest.fixture
def fleet(service: Service) -> Iterator[Fleet]:
    """Clients of that service that beat."""
    fleet = Fleet(service)
    yield fleet
    fleet.end()


@define
class Sent:
    """What a page has sent that changes anything."""

    orders: list[tuple[str, str, Any]] = field(factory=list)

    def hear(self, request: Request) -> None:
        """A request leaves."""
        if request.method != "GET":
            path = "/" + request.url.split("/", 3)[3]
            self.orders.append((request.method, path, request.post_data_json))


#: ``open_page(service, query, size=…, theme=…)`` opens a page in a browser of its own.
OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """A way to open pages; none of them may have thrown anything when the test ends."""
    contexts = []
    errors: list[str] = []

    def open_page(
        service: Service,
        query: str = "",
        *,
        size: tuple[int, int] = (1440, 900),
        theme: str = "dark",
        wait: str = LIVE,
    ) -> Page:
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="light" if theme == "light" else "dark",
            has_touch=width <= 720,
        )
        context.set_default_timeout(PATIENCE * 1000)
        contexts.append(context)
        context.on("weberror", lambda one: errors.append(str(one.error)))
        context.on(
            "console",
            lambda one: (
                errors.append(one.text)
                if one.type == "error" and EXPECTED not in one.text
                else None
            ),
        )
        page = context.new_page()
        page.goto(service.url + query)
        page.wait_for_selector(wait)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors


#: ``listen(page)`` hears what a page orders from then on.
Listen = Callable[[Page], Sent]


@pytest.fixture
def listen() -> Listen:
    """A way to hear what a page orders."""

    def listen(page: Page) -> Sent:
        sent = Sent()
        page.on("request", lambda request: sent.hear(request))  # noqa: PLW0108 - Playwright marks a method, which a slotted class has no room for
        return sent

    return listen
