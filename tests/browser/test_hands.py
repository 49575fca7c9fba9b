"""Whom the page steers: those that one saw, as they were, and nobody else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Listen, OpenPage, Sent
from tests.browser.service import Service, until

STATES = {
    "headset-1": "RUNNING", "headset-2": "RUNNING", "headset-3": "CALIBRATED",
    "headset-4": "CALIBRATED", "headset-5": "UNCALIBRATED", "headset-6": "UNCALIBRATED",
}  # fmt: skip

#: By key: the states that a verb takes up, and what it sets.
VERBS = {
    "c": ({"UNCALIBRATED"}, "CALIBRATED"),
    "s": ({"CALIBRATED"}, "RUNNING"),
    "e": ({"RUNNING"}, "CALIBRATED"),
}


@pytest.fixture
def page(service: Service, open_page: OpenPage) -> Page:
    """A page that shows two of each state."""
    service.beat(*STATES, labels={"room": "A"})
    for state in ("CALIBRATED", "RUNNING"):
        service.steer(state, *(one for one in STATES if STATES[one] == state))
    page = open_page(service)
    expect(page.locator(".tile")).to_have_count(6)
    return page


@pytest.fixture
def sent(page: Page, listen: Listen) -> Sent:
    """What that page orders."""
    return listen(page)


def tile(page: Page, client_id: str) -> Locator:
    return page.locator(f".tile[data-id={client_id}]")


def expected_of(service: Service) -> dict[str, list[int]]:
    """The incarnation and sequence of each."""
    return {
        name: [record["incarnation"], record["sequence"]]
        for name, record in service.records.items()
    }


def agree(page: Page, *, tick: bool = True) -> None:
    """Say yes to the sheet."""
    if tick and page.locator("#sure").count():
        page.locator("#sure").check()
    page.locator("#sheet-go").click()


def undo(page: Page) -> None:
    """Take back what has just been done, once that is answered."""
    expect(page.locator("#toasts").get_by_role("button", name="Undo")).to_be_visible()
    page.keyboard.press("u")


@pytest.mark.parametrize("key", VERBS)
def test_a_verb_asks_only_for_those_whose_state_it_is_for_and_as_they_were_seen(
    service: Service, page: Page, sent: Sent, key: str
) -> None:
    seen = expected_of(service)
    source, target = VERBS[key]
    page.keyboard.press("Control+a")
    page.keyboard.press(key)
    expect(page.locator("#sheet-cancel")).to_be_focused()
    agree(page)
    expect(page.locator("#toasts")).to_contain_text("2 clients")
    meant = sorted(name for name, state in STATES.items() if state in source)
    ((method, path, body),) = sent.orders
    assert (method, path) == ("PUT", "/clients/state")
    assert sorted(body["clientIDs"]) == meant
    assert set(body["from"]) == source
    assert body["expected"] == {name: seen[name] for name in meant}
    assert body["clientState"] == target
    assert body.keys() == {"clientIDs", "from", "expected", "clientState"}
    wanted = {name: target if name in meant else STATES[name] for name in STATES}
    assert service.states == wanted
    undo(page)
    expect(page.locator("#toasts")).to_contain_text("Undone: 2 clients")
    assert service.states == STATES


def test_start_all_the_same_takes_the_uncalibrated_too(
    service: Service, page: Page, sent: Sent
) -> None:
    page.keyboard.press("Control+a")
    page.keyboard.press("s")
    page.get_by_role("button", name="Start all the same").click()
    agree(page)
    expect(page.locator("#toasts")).to_contain_text("Started 4 clients")
    assert set(sent.orders[0][2]["from"]) == {"CALIBRATED", "UNCALIBRATED"}
    assert set(service.states.values()) == {"RUNNING"}


@pytest.mark.parametrize(
    ("key", "path", "more"),
    [
        ("m", "/clients/silence", {"seconds": 300}),
        ("Shift+K", "/clients/kick", {}),
        ("Shift+L", "/clients/lockout", {"seconds": 600}),
    ],
)
def test_what_is_for_any_state_asks_with_whom_it_saw(
    service: Service, page: Page, sent: Sent, key: str, path: str, more: dict[str, Any]
) -> None:
    seen = expected_of(service)
    tile(page, "headset-1").click(modifiers=["Control"])
    tile(page, "headset-5").click(modifiers=["Control"])
    page.keyboard.press(key)
    agree(page)
    expect(page.locator("#toasts")).to_contain_text("2 clients")
    ((_, asked, body),) = sent.orders
    meant = ["headset-1", "headset-5"]
    assert asked == path
    assert sorted(body.pop("clientIDs")) == meant
    assert body.pop("expected") == {name: seen[name] for name in meant}
    assert set(body.pop("from")) == set(STATES.values())
    assert body == more
    if "silence" in path:
        expect(page.locator(".tile.silent")).to_have_count(2)
        undo(page)
        expect(page.locator(".tile.silent")).to_have_count(0)
    else:
        expect(page.locator(".tile.ghost")).to_have_count(2)
        assert sorted(service.states) == sorted(STATES.keys() - set(meant))


def test_who_dies_or_changes_under_an_open_sheet_is_left_alone(
    service: Service, page: Page, sent: Sent
) -> None:
    service.beat("headset-7", timebombSeconds=3, labels={"room": "A"})
    service.steer("RUNNING", "headset-7")
    expect(tile(page, "headset-7")).to_contain_text("Running")
    seen = expected_of(service)
    page.keyboard.press("Control+a")
    page.keyboard.press("e")
    expect(page.locator("#sheet-go")).to_have_text("Stop 3 clients")
    service.steer("CALIBRATED", "headset-1")
    service.steer("RUNNING", "headset-1")
    notice = page.locator("dialog .notice.own")
    expect(notice).to_contain_text("headset-1")
    expect(notice).to_contain_text("headset-7")
    agree(page)
    result = page.locator("dialog.result")
    expect(result).to_contain_text("Stopped 1 of 3")
    expect(result.locator("[data-id=headset-7]")).to_contain_text("lost at")
    expect(result.locator("[data-id=headset-1]")).to_contain_text("has gone on since")
    assert sent.orders[0][2]["expected"]["headset-1"] == seen["headset-1"]
    assert service.states["headset-1"] == "RUNNING"
    assert service.states["headset-2"] == "CALIBRATED"
    page.locator("#sheet-undo").click()
    until(lambda: service.states["headset-2"] == "RUNNING")


def test_undo_is_only_for_who_still_has_what_was_made(
    service: Service, page: Page, sent: Sent
) -> None:
    page.keyboard.press("Control+a")
    page.keyboard.press("e")
    agree(page)
    expect(page.locator("#toasts")).to_contain_text("Stopped 2 clients")
    made = expected_of(service)
    service.steer("UNCALIBRATED", "headset-1")
    service.steer("CALIBRATED", "headset-1")
    page.locator("#undo").click()
    expect(page.locator("#toasts")).to_contain_text("Undone for 1 of 2")
    expect(page.locator("#toasts")).to_contain_text("gone on since")
    assert sent.orders[1][2]["expected"] == {
        name: made[name] for name in ("headset-1", "headset-2")
    }
    assert service.states["headset-1"] == "CALIBRATED"
    assert service.states["headset-2"] == "RUNNING"


def test_one_client_is_steered_at_once_and_can_be_given_back(
    service: Service, page: Page
) -> None:
    tile(page, "headset-3").click()
    drawer = page.locator("#drawer")
    expect(drawer.locator("[data-verb=calibrate]")).to_have_attribute(
        "aria-disabled", "true"
    )
    expect(drawer.locator("[data-verb=stop]")).to_have_attribute(
        "title", re.compile("run, is left alone")
    )
    drawer.locator("[data-verb=start]").click()
    expect(page.locator("#toasts")).to_contain_text("Started headset-3")
    assert service.states["headset-3"] == "RUNNING"
    expect(tile(page, "headset-3")).to_contain_text("Running")
    page.keyboard.press("u")
    expect(page.locator("#toasts")).to_contain_text("Undone: headset-3")
    assert service.states["headset-3"] == "CALIBRATED"


def test_who_is_unticked_is_not_asked_for(
    service: Service, page: Page, sent: Sent
) -> None:
    page.keyboard.press("Control+a")
    page.keyboard.press("e")
    page.locator("dialog .whom [data-id=headset-1] input").uncheck()
    expect(page.locator("#sheet-go")).to_have_text("Stop headset-2")
    agree(page)
    expect(page.locator("#toasts")).to_contain_text("Stopped headset-2")
    assert sent.orders[0][2]["clientIDs"] == ["headset-2"]
    assert service.states["headset-1"] == "RUNNING"


def test_to_put_out_more_than_twenty_five_wants_a_tick(
    service: Service, open_page: OpenPage, listen: Listen
) -> None:
    names = [f"kiosk-{number}" for number in range(28)]
    service.beat(*names, labels={"room": "A"})
    service.beat("headset-1", labels={"room": "B"})
    page = open_page(service)
    sent = listen(page)
    expect(tile(page, "headset-1")).to_be_visible()
    page.get_by_role("button", name="of room A").click()
    page.keyboard.press("Shift+K")
    expect(page.locator("#sheet-go")).to_be_disabled()
    page.get_by_label("Yes, I mean these 28.").check()
    expect(page.locator("#sheet-go")).to_be_enabled()
    assert sent.orders == []
    agree(page)
    expect(page.locator("#toasts")).to_contain_text("Kicked 28 clients")
    assert sorted(sent.orders[0][2]["clientIDs"]) == sorted(names)
    assert list(service.states) == ["headset-1"]


def test_who_comes_later_is_not_meant(service: Service, page: Page, sent: Sent) -> None:
    page.keyboard.press("Control+a")
    page.keyboard.press("c")
    service.beat("headset-9", labels={"room": "A"})
    expect(tile(page, "headset-9")).to_have_count(1)
    agree(page)
    expect(page.locator("#toasts")).to_contain_text("Calibrated 2 clients")
    assert "headset-9" not in sent.orders[0][2]["clientIDs"]
    assert service.states["headset-9"] == "UNCALIBRATED"


def test_all_of_it_with_the_keyboard_alone(
    service: Service, page: Page, sent: Sent
) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    expect(tile(page, "headset-1")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(tile(page, "headset-2")).to_be_focused()
    page.keyboard.press("a")
    expect(page.locator(".acts .who")).to_contain_text("All 6 selected")
    page.keyboard.press("s")
    expect(page.locator("#sheet-cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    assert sent.orders == []
    page.keyboard.press("s")
    expect(page.locator("#sheet-cancel")).to_be_focused()
    for _ in range(40):
        if page.evaluate("document.activeElement.id") == "sure":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.locator("#sheet-go:enabled").wait_for()
    for _ in range(4):
        if page.evaluate("document.activeElement.id") == "sheet-go":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#toasts")).to_contain_text("Started 2 clients")
    undo(page)
    expect(page.locator("#toasts")).to_contain_text("Undone: 2 clients")
    assert service.states == STATES
    page.keyboard.press("Escape")
    expect(page.locator(".acts")).to_have_count(0)


def test_the_keys_are_told_and_single_ones_can_be_turned_off(
    page: Page, sent: Sent
) -> None:
    page.keyboard.press("?")
    expect(page.locator("dialog.help")).to_contain_text("Calibrate, start, stop")
    page.locator("#single-keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.keyboard.press("Control+a")
    expect(page.locator(".acts")).to_be_visible()
    page.keyboard.press("Shift+K")
    expect(page.locator("dialog")).to_have_count(0)
    assert page.locator(".tile").count() == 6
    assert sent.orders == []


def test_a_mass_loss_is_let_go_of_once_it_was_asked_for(
    serve: Any, open_page: OpenPage, listen: Listen
) -> None:
    service: Service = serve(
        "--store", "memory:", "--interval", "60", "--timebomb", "600",
        "--mass-loss", "0.3", "--mass-loss-hold", "300",
    )  # fmt: skip
    names = [f"headset-{number}" for number in range(1, 5)]
    service.beat("headset-9")
    service.beat(*names, timebombSeconds=2)
    page = open_page(service)
    sent = listen(page)
    band = page.locator(".band.mass")
    expect(band).to_contain_text("4 held")
    expect(page.locator(".tile.held")).to_have_count(4)
    hold = service.ask("GET", "/mass-loss")["hold"]
    band.get_by_role("button", name="Let them go now…").click()
    expect(page.locator("#sheet-cancel")).to_be_focused()
    assert sent.orders == []
    agree(page)
    expect(page.locator(".tile.ghost.timebomb")).to_have_count(4)
    expect(band).to_have_count(0)
    assert sent.orders == [("DELETE", f"/mass-loss?hold={hold}", None)]
