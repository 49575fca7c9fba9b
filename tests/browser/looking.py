"""How a page is looked at: pictures, axe, and what no page may have anywhere.

Each check names what it has found. Knows no service and no client.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

#: Where pictures of the page are kept.
PICTURES = Path(__file__).parents[2] / "build" / "page"

#: Those that documents show, which ``make pictures`` takes.
DOCUMENTS = Path(__file__).parents[2] / "docs" / "page"
SHOWN = {
    "wall-dark": "wall-dark", "wall-light": "wall-light", "client-dark": "client",
    "phone-now-dark": "phone", "mass-loss-dark": "mass-loss",
}  # fmt: skip
FOR_DOCUMENTS = "PICTURES" in os.environ

AXE = files("axe_core_python").joinpath("axe.min.js").read_text("utf-8")

#: Those of Debian's that differ most in how wide they run.
FONTS = ("Inter", "Noto Sans", "Liberation Sans", "DejaVu Sans")

#: The smallest picture of anything, in bytes: one colour takes less.
SOMETHING = 8_000

#: In pixels: fingers want that much.
FINGER = 44

WORDS = """() => {
  const found = [document.title, document.body.innerText];
  for (const element of document.querySelectorAll("*"))
    for (const name of ["aria-label", "title", "placeholder", "aria-valuetext"])
      if (element.hasAttribute(name)) found.push(element.getAttribute(name));
  return found;
}"""

# What is told by a tile must lie within it, and beside its number.
CLIPPED = """() => {
  const found = [];
  for (const tile of document.querySelectorAll(".tile")) {
    const edge = tile.getBoundingClientRect(), boxes = [];
    for (const part of tile.querySelectorAll(".id, .st, .ex, .lb, .num")) {
      if (!part.textContent || !part.checkVisibility()) continue;
      const range = document.createRange();
      range.selectNodeContents(part);
      const box = range.getBoundingClientRect();
      if (box.right > edge.right - 1 || box.bottom > edge.bottom - 1 ||
          box.left < edge.left || box.top < edge.top)
        found.push(["clipped", tile.dataset.id, part.className, part.textContent]);
      boxes.push([part, box]);
    }
    // A number and its unit reach less far up than their lines do.
    for (const word of tile.querySelectorAll(".num:not([hidden]) *")) {
      const { left, top, bottom, height } = word.getBoundingClientRect();
      for (const [part, box] of boxes)
        if (part.className !== "num" && word.textContent && box.right > left &&
            box.bottom > top + height * .22 && box.top < bottom)
          found.push(["covered", tile.dataset.id, part.className, part.textContent]);
    }
  }
  return found;
}"""

WIDER = """() => [document.documentElement.scrollWidth, innerWidth]"""

SMALL = """(least) => {
  const found = [];
  for (const one of document.querySelectorAll("button, a, input, select, summary")) {
    const target = one.closest("label") ?? one;
    if (!one.checkVisibility({visibilityProperty: true})) continue;
    if (target.closest("[inert]")) continue;
    const { width, height, right, bottom } = target.getBoundingClientRect();
    if (right <= 0 || bottom <= 0 || one.matches(".skip")) continue;
    if (width < least - .5 || height < least - .5)
      found.push([one.outerHTML.slice(0, 120), width, height]);
  }
  return found;
}"""

SET_FONT = """(font) =>
  document.documentElement.style.setProperty("--font", font)"""

#: Until what is to be drawn anew is drawn.
DRAWN = """() => new Promise((done) =>
  setTimeout(() => requestAnimationFrame(done), 250))"""


def shoot(page: Page, name: str, theme: str) -> None:
    """Take a picture of it, and a small one for the documents if that is asked for."""
    path = PICTURES / f"{name}-{theme}.png"
    page.screenshot(path=path)
    assert path.stat().st_size > SOMETHING, f"{path} shows nothing"
    if FOR_DOCUMENTS and path.stem in SHOWN:
        how = {"format": "webp", "quality": 75}
        browser = page.context.new_cdp_session(page)
        taken = browser.send("Page.captureScreenshot", how)["data"]
        DOCUMENTS.mkdir(exist_ok=True)
        DOCUMENTS.joinpath(f"{SHOWN[path.stem]}.webp").write_bytes(b64decode(taken))


def resize(page: Page, size: tuple[int, int]) -> None:
    """A window of another size, when all is drawn anew."""
    width, height = size
    page.set_viewport_size({"width": width, "height": height})
    page.evaluate(DRAWN)


def assert_accessible(page: Page) -> None:
    """Axe finds nothing."""
    page.evaluate(AXE)
    # To tell of all that is well, too, would take it three times as long.
    found: dict[str, Any] = page.evaluate("axe.run({resultTypes: ['violations']})")
    violations = [
        (one["id"], one["impact"], [node["target"] for node in one["nodes"][:3]])
        for one in found["violations"]
    ]
    assert violations == []


def assert_whole(page: Page) -> None:
    """It is as wide as its window, and says nothing that only programs say."""
    wide, window = page.evaluate(WIDER)
    assert wide <= window
    slips = re.compile(r"undefined|\bNaN\b|\bnull\b|\[object|Invalid Date|Infinity")
    assert [text for text in page.evaluate(WORDS) if slips.search(text)] == []


def assert_readable(page: Page) -> None:
    """No tile's text is cut off or covered, in any font."""
    size = page.viewport_size
    assert size is not None
    for narrower, font in enumerate(FONTS, 1):
        page.evaluate(SET_FONT, font)
        # Another width: the page measures its fonts anew, as where it begins with them.
        resize(page, (size["width"] - narrower, size["height"]))
        assert page.evaluate(CLIPPED) == [], font
        wide, window = page.evaluate(WIDER)
        assert wide <= window, font
    page.evaluate(SET_FONT, "")
    resize(page, (size["width"], size["height"]))


def assert_for_fingers(page: Page) -> None:
    """All that can be touched is large enough for it."""
    assert page.evaluate(SMALL, FINGER) == []
