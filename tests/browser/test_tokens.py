"""The colours of the page against what they stand on (WCAG 2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re

import pytest

from heartbeat_service.web.pages import Pages

TEXT, SHAPE = 4.5, 3.0
PLACES = ("bg", "surface-1", "surface-2")
TINTS = ("late-tint", "lost-tint", "held-tint", "own-tint")
STATES = ("st-running", "st-calibrated", "st-uncalibrated")

#: What is written on what.
WRITTEN = [
    *((text, on) for text in ("text-1", "text-2") for on in (*PLACES, *TINTS)),
    ("text-1", "surface-3"),
    *(("text-3", on) for on in PLACES),
    *((state, on) for state in STATES for on in PLACES),
    *((sign, on) for sign in ("late", "lost", "held", "own") for on in PLACES),
    *((sign, f"{sign}-tint") for sign in ("late", "lost", "held", "own")),
    ("on-lost", "lost"), ("on-held", "held"),
    ("on-own", "own"), ("on-primary", "primary"),
]  # fmt: skip

#: What is drawn on what.
DRAWN = [
    *((shape, on) for shape in ("line-strong", "focus") for on in PLACES),
    *(("late-fill", on) for on in (*PLACES, "late-tint")),
    ("focus", "focus-gap"),
    ("on-late", "late-fill"),
]


def luminance(colour: str) -> float:
    digits = colour * 2 if len(colour) == 3 else colour
    if len(colour) == 3:
        digits = "".join(digit * 2 for digit in colour)
    shares = (int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def tokens(theme: str) -> dict[str, str]:
    content = Pages().read("tokens.css").content.decode()
    pairs = re.findall(
        r"--([a-z0-9-]+): light-dark\(#([0-9a-f]+), #([0-9a-f]+)\)", content
    )
    return {name: dark if theme == "dark" else light for name, light, dark in pairs}


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_what_is_written_and_drawn_stands_out_from_what_it_is_on(theme: str) -> None:
    colours = tokens(theme)
    weak = [
        (one, on, round(contrast(colours[one], colours[on]), 2))
        for pairs, least in ((WRITTEN, TEXT), (DRAWN, SHAPE))
        for one, on in pairs
        if contrast(colours[one], colours[on]) < least
    ]
    assert weak == []


def test_contrast_is_measured_as_wcag_has_it() -> None:
    assert contrast("000", "ffffff") == pytest.approx(21)
    assert contrast("777777", "fff") == pytest.approx(4.48, abs=0.01)
