"""What the page shows of what happens, and shows again when it is opened anew."""

from __future__ import annotations

import json
import random
import re

from playwright.sync_api import Page, Response, expect

from heartbeat_service.web.pages import Pages
from tests.browser.conftest import LIVE, OpenPage
from tests.browser.looking import assert_accessible, assert_whole
from tests.browser.service import Service, until

#: What the page may weigh: on the wire, and in a browser's memory.
ON_THE_WIRE = 120 * 1024

COUNTS = ("alive", "RUNNING", "CALIBRATED", "UNCALIBRATED", "late", "held")


def counts(page: Page) -> dict[str, int]:
    """What stands at the top."""
    found: dict[str, str] = page.evaluate(
        """(names) => Object.fromEntries(names.map((name) =>
          [name, document.querySelector(`#top .${name} dd`).textContent]))""",
        list(COUNTS),
    )
    return {name: int(text.replace(",", "")) for name, text in found.items()}


def summary(service: Service) -> dict[str, int]:
    """The same, as the service counts; the page's late ones are not held."""
    told = service.ask("GET", "/summary")
    return {
        name: told["states"][name] if name.isupper() else told[name] for name in COUNTS
    }


def test_who_falls_silent_is_late_and_who_beats_again_has_recovered(
    service: Service, open_page: OpenPage
) -> None:
    service.beat("headset-1", timebombSeconds=20, labels={"room": "A"})
    service.beat("headset-2", labels={"room": "A"})
    page = open_page(service)
    tile = page.locator(".tile[data-id=headset-1]")
    expect(tile).to_contain_class("late")
    label = re.compile(r"headset-1, Uncalibrated, late, \d seconds left")
    expect(tile).to_have_attribute("aria-label", label)
    expect(page.locator("#top h1")).to_have_text("1\u00a0late")
    expect(page).to_have_title("1\u00a0late · heartbeat")
    service.beat("headset-1", timebombSeconds=600, labels={"room": "A"})
    expect(tile).to_have_class("tile")
    expect(page.locator("#top h1")).to_have_text("All well")
    expect(page.locator("#say")).to_contain_text("recovered")


def test_a_death_leaves_a_ghost_at_its_place_and_an_entry_in_the_lane(
    service: Service, open_page: OpenPage
) -> None:
    service.beat("headset-1", "headset-3")
    service.beat("headset-2", timebombSeconds=1)
    page = open_page(service)
    ghost = page.locator(".tile.ghost.timebomb")
    expect(ghost).to_have_attribute("data-id", "headset-2")
    ids = page.locator(".tile").evaluate_all("all => all.map(one => one.dataset.id)")
    assert ids == ["headset-1", "headset-2", "headset-3"]
    expect(page.locator(".lane")).to_contain_text("no heartbeat for its whole fuse")
    service.beat("headset-2")
    expect(page.locator(".tile[data-id=headset-2]")).to_have_class("tile")


def test_silence_and_a_lock_out_are_shown_with_their_end(
    service: Service, open_page: OpenPage
) -> None:
    service.beat("headset-1", "headset-2")
    page = open_page(service)
    order = {"clientIDs": ["headset-1"], "seconds": 900}
    service.ask("PUT", "/clients/silence", order)
    service.ask("PUT", "/clients/headset-2/lockout", {"seconds": 600})
    silent = page.locator(".tile[data-id=headset-1]")
    expect(silent).to_contain_text("Silent until")
    expect(page.locator(".tile[data-id=headset-2]")).to_contain_text("Out until")
    page.locator(".tile[data-id=headset-2]").click()
    page.get_by_role("button", name="Let in again").click()
    expect(page.locator("#toasts")).to_contain_text("headset-2 may come again")
    service.beat("headset-1", "headset-2")
    expect(page.locator(".tile.silent, .tile.ghost")).to_have_count(0)


def test_the_address_holds_what_is_seen(service: Service, open_page: OpenPage) -> None:
    service.beat("headset-1", labels={"room": "A", "model": "pico-4"})
    service.beat("headset-2", labels={"room": "B", "model": "pico-4"})
    service.steer("RUNNING", "headset-2")
    page = open_page(service)
    page.locator("#group").select_option("model")
    expect(page.locator(".group")).to_have_count(1)
    page.keyboard.press("t")
    page.locator(".chip", has_text="Running").click()
    expect(page.locator(".trow:visible")).to_have_count(1)
    page.locator(".trow[data-id=headset-2]:visible").click()
    expect(page.locator("#drawer h2")).to_have_text("headset-2")
    for part in ("view=table", "group=model", "filter=RUNNING", "client=headset-2"):
        assert part in page.url
    page.reload()
    page.wait_for_selector(LIVE)
    expect(page.locator("#drawer h2")).to_have_text("headset-2")
    expect(page.locator(".trow:visible")).to_have_count(1)
    expect(page.locator(".chip", has_text="Running")).to_have_attribute(
        "aria-pressed", "true"
    )
    page.keyboard.press("w")
    expect(page.locator(".group h2")).to_have_text("modelpico-4")


def test_a_search_finds_by_id_and_label(service: Service, open_page: OpenPage) -> None:
    service.beat("headset-1", labels={"room": "A"})
    service.beat("kiosk-1", labels={"room": "cellar"})
    page = open_page(service)
    page.keyboard.press("/")
    page.keyboard.type("cell")
    expect(page.locator(".trow:visible")).to_have_count(1)
    expect(page.locator(".trow:visible")).to_have_attribute("data-id", "kiosk-1")
    page.keyboard.press("Escape")
    expect(page.locator(".trow:visible")).to_have_count(2)


def test_the_counts_are_the_services_own_after_a_storm(
    service: Service, open_page: OpenPage
) -> None:
    chance = random.Random(11)  # noqa: S311 - a storm, and the same one each time
    names = [f"headset-{number:02}" for number in range(50)]
    service.beat(*names[:30], labels={"room": "A"}, timebombSeconds=300)
    page = open_page(service)
    for _ in range(60):
        some = chance.sample(names, 20)
        match chance.randrange(4):
            case 0:
                room = {"room": chance.choice("ABC")}
                service.beat(*some[:8], labels=room, timebombSeconds=300)
            case 1:
                service.ask("POST", "/clients/kick", {"clientIDs": some[:4]})
            case 2:
                service.beat(*some[:4], timebombSeconds=0.2)
            case _:
                service.steer(chance.choice(["CALIBRATED", "RUNNING"]), *some)
    until(lambda: counts(page) == summary(service))
    tiles = page.locator(".tile:not(.ghost)")
    ids = "all => all.map(one => one.dataset.id)"
    until(lambda: sorted(tiles.evaluate_all(ids)) == sorted(service.states))
    held_by_rooms = page.locator(".ghead .mid").all_text_contents()
    assert sum(map(int, held_by_rooms)) == summary(service)["alive"]


APPLY = """async (record) => {
    const { Model } = await import("/page/model.js");
    const model = new Model(() => Date.now());
    model.takePage([record], 5);
    const late = { clientID: record.clientID, secondsSinceHeartbeat: 4,
        secondsToTimebomb: 6, timebombSeconds: 10 };
    return [-1, 0].map((lives, number) => {
        const incarnation = record.incarnation + lives;
        model.apply("Late", { ...late, incarnation }, 6 + number);
        return model.clients.get(record.clientID).late;
    });
}"""


def test_what_a_former_life_was_told_of_marks_no_later_one(
    service: Service, open_page: OpenPage
) -> None:
    service.beat("headset-1")
    [record] = service.ask("GET", "/clients")["clients"]
    late = open_page(service).evaluate(APPLY, record)
    assert late == [False, True]


def test_names_and_values_that_look_like_markup_are_only_text(
    service: Service, open_page: OpenPage
) -> None:
    service.beat("headset-1", values={"<img src=x onerror=alert(1)>": "</dd><b>x</b>"})
    page = open_page(service, "?client=headset-1")
    telemetry = page.locator("#drawer .telemetry")
    expect(telemetry).to_contain_text("<img src=x onerror=alert(1)>")
    expect(telemetry).to_contain_text("</dd><b>x</b>")
    assert page.locator("#drawer .telemetry :is(img, b)").count() == 0


def test_the_page_is_small_and_loads_nothing_of_anybody_else(
    service: Service, open_page: OpenPage
) -> None:
    service.beat("headset-1")
    page = open_page(service)
    sizes: dict[str, int] = {}
    elsewhere: list[str] = []

    def hear(response: Response) -> None:
        path = "/" + response.url.split("/", 3)[3]
        if not response.url.startswith(service.url):
            elsewhere.append(response.url)
        elif path == "/" or path.startswith("/page/"):
            sizes[path] = response.request.sizes()["responseBodySize"]

    page.on("requestfinished", lambda request: hear(request.response() or _none()))
    browser = page.context.new_cdp_session(page)
    browser.send("Network.enable")
    browser.send("Network.setCacheDisabled", {"cacheDisabled": True})
    page.reload()
    page.wait_for_selector(LIVE)
    loaded = [path.removeprefix("/page/") for path in sizes if path != "/"]
    assert elsewhere == []
    assert set(loaded) <= Pages().names
    assert "main.js" in loaded
    assert min(sizes.values()) > 0
    assert sum(sizes.values()) < ON_THE_WIRE
    print(json.dumps({"files": len(sizes), "bytes": sum(sizes.values())}))  # noqa: T201 - a figure to read


def _none() -> Response:
    raise AssertionError("a request that finished has a response")


def node(name: str, clients: int, here: bool = False) -> dict[str, object]:
    """A node as the service lists it."""
    return {"node": name, "clients": clients, "self": here}


def test_several_nodes_are_shown_and_one_that_is_gone_is_told_of(
    service: Service, open_page: OpenPage
) -> None:
    """Also what nobody but its node knows of a client, which doesn't answer."""
    service.beat("headset-1")
    nodes = [node("a", 1200, here=True), node("b", 1), node("c", 9)]
    page = open_page(service)
    expect(page.locator("#nodes")).to_be_hidden()  # there is one
    page.route(
        "**/nodes", lambda route: route.fulfill(body=json.dumps({"nodes": nodes}))
    )
    unknown = {"secondsSinceHeartbeat": None, "secondsToTimebomb": None}
    record = {**service.records["headset-1"], **unknown, "values": None}
    page.route(
        "**/clients/headset-1", lambda route: route.fulfill(body=json.dumps(record))
    )
    page.reload()
    page.wait_for_selector(LIVE)
    shown = page.locator("#nodes li")
    expect(shown).to_have_text(["a1,200answers", "b1", "c9"])
    page.locator(".tile[data-id=headset-1]").click()
    expect(page.locator(".drawer")).to_contain_text("Not known: its node")
    assert_whole(page)
    assert_accessible(page)
    del nodes[1]
    band = page.locator(".band.warn")
    expect(band).to_contain_text("Node b is gone since")
    expect(band).to_contain_text("Its 1 client goes on at a and c, with a full fuse.")
    expect(page.locator("#say")).to_contain_text("Node b is gone")
    expect(shown).to_have_count(2)
    assert_accessible(page)
    page.get_by_role("button", name="Good").click()
    expect(band).to_have_count(0)
