"""Each scene of the page, in both themes: axe looks at it, and pictures are kept.

They are in ``build/page/``, for people to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser import show
from tests.browser.conftest import LIVE, OpenPage, Serve
from tests.browser.looking import (
    DRAWN,
    assert_accessible,
    assert_for_fingers,
    assert_readable,
    assert_whole,
    resize,
    shoot,
)
from tests.browser.service import Service

Theme = Literal["dark", "light"]
THEMES: tuple[Theme, ...] = ("dark", "light")

WALL, LAPTOP, PHONE = (1920, 1080), (1440, 900), (390, 844)
WIDTHS = ((768, 1024), (1280, 720), (1920, 1080), (3840, 2160))


@pytest.fixture(scope="module")
def running(serve_all: Serve) -> Iterator[Service]:
    """A show, in which some are late, lost, flapping, silent and locked out."""
    service = serve_all(*show.A_SHOW)
    fleet = show.begin(service)
    yield service
    fleet.end()


@pytest.fixture(scope="module")
def crowded(serve_all: Serve) -> Iterator[Service]:
    """Two thousand."""
    service = serve_all(*show.A_CROWD)
    fleet = show.crowd(service, 2000)
    yield service
    fleet.end()


@pytest.fixture(scope="module")
def cut_off(serve_all: Serve) -> Iterator[Service]:
    """A show of which half has lost its network."""
    service = serve_all(*show.A_MASS_LOSS)
    fleet = show.lose_half(service)
    yield service
    fleet.end()


def look_at(page: Page, name: str, themes: tuple[Theme, ...] = THEMES) -> None:
    """What is so of each scene in either theme; pictures of it are kept."""
    assert_whole(page)
    for theme in themes:
        page.emulate_media(color_scheme=theme)
        page.wait_for_selector(f":root[data-theme={theme}]")
        page.evaluate(DRAWN)
        assert_accessible(page)
        shoot(page, name, theme)


def wall_is_complete(page: Page) -> None:
    for sign in ("late", "flapping", "silent", "differs", "ghost"):
        expect(page.locator(f".tile.{sign}").first).to_be_visible()


def test_the_wall_of_thirty(running: Service, open_page: OpenPage) -> None:
    page = open_page(running, size=WALL)
    wall_is_complete(page)
    assert page.locator(".tile").count() >= 29
    look_at(page, "wall")


@pytest.mark.parametrize("size", WIDTHS, ids=lambda size: str(size[0]))
def test_no_tile_cuts_a_text_off_in_any_window_and_font(
    running: Service, open_page: OpenPage, size: tuple[int, int]
) -> None:
    page = open_page(running, size=size)
    wall_is_complete(page)
    assert_readable(page)
    assert_whole(page)
    shoot(page, f"wall-{size[0]}", "dark")


def test_the_dense_wall_of_two_thousand(crowded: Service, open_page: OpenPage) -> None:
    page = open_page(crowded, size=WALL)
    expect(page.locator("canvas")).to_have_count(12)
    expect(page.locator(".attn .tile.late").first).to_be_visible()
    assert_readable(page)
    look_at(page, "dense")


@pytest.mark.parametrize("size", WIDTHS, ids=lambda size: str(size[0]))
def test_the_dense_wall_fits_any_window(
    crowded: Service, open_page: OpenPage, size: tuple[int, int]
) -> None:
    page = open_page(crowded, size=size)
    expect(page.locator("canvas").first).to_be_visible()
    expect(page.locator(".attn .tile").first).to_be_visible()
    assert_whole(page)
    assert_readable(page)
    shoot(page, f"dense-{size[0]}", "dark")


def test_the_table(running: Service, open_page: OpenPage) -> None:
    page = open_page(running, "?view=table", size=WALL)
    expect(page.locator(".trow[data-id=headset-01]")).to_be_visible()
    look_at(page, "table")
    for size in WIDTHS:
        resize(page, size)
        assert_whole(page)


def test_one_client_with_its_lives(running: Service, open_page: OpenPage) -> None:
    page = open_page(running, f"?client={show.FLAPPING}", size=WALL)
    expect(page.locator("#drawer .lifelist tbody tr")).to_have_count(4)
    expect(page.locator("#drawer .telemetry")).to_contain_text("battery")
    expect(page.locator("#drawer [data-alarm=flapping]")).to_be_visible()
    look_at(page, "client")
    for size in WIDTHS:
        resize(page, size)
        assert_whole(page)


def select_room(page: Page, room: str) -> None:
    page.get_by_role("button", name=f"of room {room}").click()


def test_the_sheet_that_asks_first(running: Service, open_page: OpenPage) -> None:
    page = open_page(running, size=WALL)
    wall_is_complete(page)
    select_room(page, "B")
    page.keyboard.press("e")
    sheet = page.locator("dialog.ask")
    expect(sheet).to_contain_text("Running")
    expect(page.locator("#sheet-cancel")).to_be_focused()
    look_at(page, "confirm")


def test_what_came_of_it(running: Service, open_page: OpenPage) -> None:
    names = [f"spare-{number}" for number in range(4)]
    running.beat(*names, labels={"room": "D"}, timebombSeconds=60)
    running.steer("CALIBRATED", *names)
    page = open_page(running, size=WALL)
    expect(page.locator(".tile[data-id=spare-3]")).to_contain_text("Calibrated")
    select_room(page, "D")
    page.keyboard.press("s")
    expect(page.locator("#sheet-go")).to_have_text("Start 4 clients")
    running.ask("POST", "/clients/kick", {"clientIDs": ["spare-3"]})
    expect(page.locator("dialog .notice.own")).to_contain_text("spare-3")
    page.locator("#sheet-go").click()
    expect(page.locator("dialog.result")).to_contain_text("Started 3 of 4")
    expect(page.locator("dialog.result")).to_contain_text("kicked at")
    look_at(page, "result")
    page.locator("#sheet-undo").click()
    expect(page.locator("#toasts")).to_contain_text("Undone: 3 clients")
    running.ask("POST", "/clients/kick", {"clientIDs": names[:3]})


@pytest.mark.parametrize("theme", THEMES)
def test_a_mass_loss(cut_off: Service, open_page: OpenPage, theme: Theme) -> None:
    page = open_page(cut_off, size=WALL, theme=theme)
    expect(page.locator(".band.mass")).to_contain_text("Nobody dies before")
    expect(page.locator("#top h1")).to_contain_text("Mass loss")
    expect(page.locator(".tile.held").first).to_be_visible()
    expect(page.locator(".tile.late").first).to_be_visible()
    look_at(page, "mass-loss", (theme,))
    assert_readable(page)


def test_the_line_lost_and_a_restart(serve: Serve, open_page: OpenPage) -> None:
    service = serve("--store", "sqlite:heartbeat.sqlite", *show.A_SHOW[2:])
    for name in show.ROOMS:
        service.beat(name, labels=show.labels(name), timebombSeconds=300)
    service.steer("RUNNING", *list(show.ROOMS)[:20])
    page = open_page(service, size=WALL)
    expect(page.locator(".tile").first).to_be_visible()
    service.kill()
    page.wait_for_selector("body[data-line=lost].stale")
    expect(page.locator(".band.cutoff")).to_contain_text("No line to the service since")
    look_at(page, "line-lost")
    service.start()
    page.wait_for_selector(LIVE)
    expect(page.locator(".band.note")).to_contain_text("The service was restarted")
    look_at(page, "restart")


def test_the_token_and_nobody_here_yet(
    serve: Serve, open_page: OpenPage, tmp_path: Path
) -> None:
    tokens = tmp_path / "operators"
    tokens.write_text("operator-token-one anna\n")
    service = serve("--store", "memory:", "--operator-token-file", tokens)
    page = open_page(service, size=LAPTOP, wait="dialog.token")
    expect(page.locator("#token")).to_be_focused()
    look_at(page, "token")
    page.keyboard.type("operator-token-one")
    page.keyboard.press("Enter")
    expect(page.locator("pre")).to_contain_text(f"curl {service.url}heartbeat")
    look_at(page, "empty")


def phone_now(page: Page) -> None:
    expect(page.locator(".t-now .prow.late").first).to_be_visible()


def phone_clients(page: Page) -> None:
    page.locator("#tab-clients").click()
    expect(page.locator(".t-clients .prow[data-id=headset-01]")).to_be_visible()


def phone_gone(page: Page) -> None:
    page.locator("#tab-gone").click()
    expect(page.locator(".t-gone")).to_contain_text(show.LOST)


def phone_drawer(page: Page) -> None:
    page.locator("#tab-clients").click()
    page.locator(f".prow[data-id={show.FLAPPING}] .open").click()
    expect(page.locator("#drawer .lifelist tbody tr")).to_have_count(4)


def phone_whom(page: Page) -> None:
    page.locator("#tab-act").click()
    expect(page.locator("dialog.whom")).to_be_visible()


def phone_confirm(page: Page) -> None:
    phone_whom(page)
    page.locator("dialog.whom .chip", has_text="room A").click()
    page.locator("dialog.whom [data-verb=stop]").click()
    expect(page.locator("dialog.ask")).to_contain_text("Running")


@pytest.mark.parametrize(
    "scene",
    [phone_now, phone_clients, phone_gone, phone_drawer, phone_whom, phone_confirm],
    ids=lambda scene: scene.__name__,
)
def test_the_page_on_a_phone(
    running: Service, open_page: OpenPage, scene: Callable[[Page], None]
) -> None:
    page = open_page(running, size=PHONE)
    scene(page)
    assert_for_fingers(page)
    look_at(page, scene.__name__.replace("_", "-"))
