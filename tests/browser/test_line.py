"""What the page says of a service that is stopped, killed, or wants a token."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import LIVE, Listen, OpenPage, Serve
from tests.browser.service import Service, until

#: In seconds: no byte for 5.5, then 2 for ``/healthz``; the rest is for slow machines.
NOTICED = 7.5 + 3

LOST = "body[data-line=lost].stale"


def streams(service: Service) -> int:
    """How many operators' streams are read."""
    text = service.ask("GET", "/metrics")
    (line,) = (
        line
        for line in text.splitlines()
        if line.startswith("heartbeat_event_streams{") and "operator" in line
    )
    return int(float(line.rpartition(" ")[2]))


def test_a_stopped_service_is_noticed_and_nothing_is_shown_as_fresh(
    serve: Serve, open_page: OpenPage, listen: Listen
) -> None:
    service = serve("--store", "memory:", "--interval", "1", "--timebomb", "60")
    service.beat("headset-1", "headset-2")
    page = open_page(service)
    sent = listen(page)
    expect(page.locator(".tile.late")).to_have_count(2)
    began = time.monotonic()
    service.signal(signal.SIGSTOP)
    page.wait_for_selector(LOST)
    assert time.monotonic() - began < NOTICED
    expect(page.locator(".band.cutoff")).to_contain_text("nothing can be sent")
    expect(page.locator("#top h1")).to_have_text("Unknown: no line to the service")
    expect(page).to_have_title("✕ No line · heartbeat")
    expect(page.locator("#cry")).to_contain_text("No line to the service")
    expect(page.locator(".tile.late .num b")).to_have_text(["?", "?"])
    assert page.locator(".tile .fuse:visible").count() == 0
    expect(page.get_by_role("button", name="Act on all…")).to_be_disabled()
    clock = page.locator(".clock").text_content()
    page.keyboard.press("Control+a")
    for button in page.locator("#foot [data-verb]").all():
        expect(button).to_be_disabled()
    page.keyboard.press("c")
    expect(page.locator("#toasts")).to_contain_text("nothing can be sent")
    assert page.locator(".clock").text_content() == clock
    service.signal(signal.SIGCONT)
    page.wait_for_selector(LIVE)
    expect(page.locator("#bands .band")).to_have_count(0)
    expect(page.locator(".tile.late .num b").first).not_to_have_text("?")
    service.beat("headset-1", "headset-3", timebombSeconds=600)
    expect(page.locator(".tile[data-id=headset-3]")).to_be_visible()
    assert sent.orders == []


def test_a_service_that_was_killed_comes_back_as_another_run(
    serve: Serve, open_page: OpenPage
) -> None:
    service = serve(
        "--store", "sqlite:heartbeat.sqlite", "--interval", "60", "--timebomb", "600"
    )
    service.beat("headset-1", "headset-2", "headset-3")
    service.steer("CALIBRATED", "headset-1")
    page = open_page(service)
    expect(page.locator(".tile[data-id=headset-1]")).to_contain_text("Calibrated")
    service.kill()
    page.wait_for_selector(LOST)
    service.start()
    service.steer("CALIBRATED", "headset-2")
    service.ask("POST", "/clients/kick", {"clientIDs": ["headset-3"]})
    page.wait_for_selector(LIVE)
    band = page.locator(".band.note")
    expect(band).to_contain_text("The service was restarted")
    expect(band).to_contain_text("Everybody has a full fuse")
    for client_id in ("headset-1", "headset-2"):
        expect(page.locator(f".tile[data-id={client_id}]")).to_contain_text(
            "Calibrated"
        )
    expect(page.locator(".tile[data-id=headset-3]")).to_contain_text("Kicked")
    expect(page.locator("#top .alive dd")).to_have_text("2")
    page.get_by_role("button", name="Good").click()
    expect(band).to_have_count(0)


def test_seven_tabs_share_one_stream_and_are_all_live(
    service: Service, open_page: OpenPage
) -> None:
    service.beat("headset-1")
    first = open_page(service)
    tabs = [first, *(first.context.new_page() for _ in range(6))]
    for page in tabs[1:]:
        page.goto(service.url)
        page.wait_for_selector(LIVE)
    assert streams(service) == 1
    service.beat("headset-2")
    for page in tabs:
        expect(page.locator(".tile[data-id=headset-2]")).to_have_count(1)
    for page in tabs[:-1]:
        page.close()
    service.beat("headset-3")
    expect(tabs[-1].locator(".tile[data-id=headset-3]")).to_have_count(1)
    assert streams(service) == 1


def test_who_does_not_look_for_a_minute_gives_the_line_back(
    service: Service, open_page: OpenPage
) -> None:
    service.beat("headset-1")
    page = open_page(service)
    page.clock.install()
    page.reload()
    page.wait_for_selector(LIVE)
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    page.clock.fast_forward(50_000)
    assert page.evaluate("document.body.dataset.line") == "live"
    page.clock.fast_forward(11_000)
    page.wait_for_selector("body[data-line=paused]", state="attached")
    until(lambda: streams(service) == 0)
    service.beat("headset-2")
    page.evaluate(hide, False)
    page.wait_for_selector(LIVE)
    expect(page.locator(".tile[data-id=headset-2]")).to_be_visible()


def test_a_token_is_asked_for_and_kept_in_its_tab_alone(
    serve: Serve, open_page: OpenPage, tmp_path: Path
) -> None:
    tokens, later = tmp_path / "operators", tmp_path / "later"
    tokens.write_text("operator-token-one anna\n")
    later.write_text("operator-token-two anna\n")
    options = ("--store", "memory:", "--interval", "60", "--timebomb", "600")
    service = serve(*options, "--operator-token-file", tokens)
    service.beat("headset-1")
    page = open_page(service, wait="dialog.token")
    page.locator("#token").fill("operator-token-old")
    page.keyboard.press("Enter")
    expect(page.locator("dialog.token .wrong")).to_have_text(
        re.compile("know this token")
    )
    page.locator("#token").fill("operator-token-one")
    page.keyboard.press("Enter")
    page.wait_for_selector(LIVE)
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(".tile[data-id=headset-1]")).to_be_visible()
    kept = page.evaluate("[Object.values(sessionStorage), Object.values(localStorage)]")
    assert "operator-token-one" in kept[0]
    assert "operator-token-one" not in str(kept[1]) + page.url + str(
        page.context.cookies()
    )
    page.reload()
    page.wait_for_selector(LIVE)
    # In mid-show it is good no more.
    service.kill()
    service.start(*options, "--operator-token-file", later)
    page.wait_for_selector("dialog.token")
    page.locator("#token").fill("operator-token-two")
    page.keyboard.press("Enter")
    page.wait_for_selector(LIVE)
    expect(page.locator("dialog")).to_have_count(0)
