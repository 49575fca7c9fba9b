"""The charts that the README shows, drawn of the results: SVG, white behind.

The same results are drawn into the same bytes. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.scenario import Figures

OURS, PEERS, GREY = "#0969da", "#afb8c1", "#59636e"


def draw(results: Mapping[str, Any], folder: Path) -> None:
    """Write the charts.

    :param results: what ``bench/results.json`` has; of scenarios that aren't in it, no
        chart is drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scenarios = {
        name: scenario["figures"] for name, scenario in results["scenarios"].items()
    }
    with mpl.rc_context():
        _set_style()
        for name, (needed, chart) in CHARTS.items():
            if scenarios.keys() >= set(needed):
                drawn = chart(*(scenarios[scenario] for scenario in needed))
                drawn.supxlabel(
                    caption(results), x=0.01, ha="left", color=GREY, fontsize=8
                )
                # No moment of drawing: it would make another file of the same results.
                drawn.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _set_style() -> None:
    # Letters as letters, not as shapes: a tenth of the bytes.
    mpl.rc("svg", fonttype="none", hashsalt="bench")
    mpl.rc("font", family="sans-serif", size=10)
    mpl.rc("axes", titlesize=11, titlelocation="left")
    mpl.rc("axes.spines", top=False, right=False)


def caption(results: Mapping[str, Any]) -> str:
    """When and where it was measured."""
    machine = results["machine"]
    quick = "quick, so not to be relied on; " if results["quick"] else ""
    return (
        f"{quick}{results['date']}, {machine['cpu']}, {machine['cores']} cores,"
        f" Linux {machine['kernel']}, Python {machine['python']}"
    )


def beats(http: Mapping[str, Figures], router: Mapping[str, Figures]) -> Figure:
    """Bars of what a beat costs, of each contestant."""
    drawn = Figure((8, 3.4), layout="constrained")
    bars = drawn.subplots(
        2, 1, sharex=True, height_ratios=(len(http) + 0.8, len(router) + 0.8)
    )
    for axes, (way, figures) in zip(
        bars, (("HTTP", http), ("ZeroMQ", router)), strict=True
    ):
        costs = {name: figures[name]["cpu_us"] for name in figures}
        colours = [OURS if name == "ours" else PEERS for name in costs]
        drawn_bars = axes.barh(list(costs), list(costs.values()), color=colours)
        axes.bar_label(drawn_bars, fmt="%.0f", padding=3)
        axes.margins(x=0.08)
        axes.invert_yaxis()
        axes.set_title(f"A heartbeat over {way}: µs of the server's processor")
    return drawn


def lateness(figures: Mapping[str, Figures]) -> Figure:
    """Of each contestant a line from p50 to the latest death, on a log scale."""
    drawn = Figure((8, 2.6), layout="constrained")
    axes = drawn.subplots()
    names = [
        f"{name}, {of['clients']:,.0f} clients, {of['early']:.0f} died early"
        for name, of in figures.items()
    ]
    colours = [OURS if name == "ours" else PEERS for name in figures]
    of_each = figures.values()
    axes.hlines(
        names,
        [of["p50_ms"] for of in of_each],
        [of["max_ms"] for of in of_each],
        colours,
        linewidth=2,
    )
    for figure, marker in (("p50_ms", "o"), ("p99_ms", "s"), ("max_ms", "|")):
        values = [of[figure] for of in of_each]
        label = figure.removesuffix("_ms")
        axes.scatter(
            values, names, s=60, c=colours, marker=marker, label=label, zorder=2
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter("")
    axes.margins(y=0.25)
    axes.invert_yaxis()
    axes.set_title("From a fuse's end until the death is heard of: ms")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return drawn


def growth(figures: Mapping[str, Figures]) -> Figure:
    """What a client and a beat cost, over how many live."""
    drawn = Figure((8, 3.2), layout="constrained")
    memory, cost = drawn.subplots(1, 2)
    clients = [of["clients"] for of in figures.values()]
    lines: Sequence[tuple[Any, str, str, str]] = (
        (memory, "memory_mib", OURS, ""),
        (cost, "http_cpu_us", GREY, "HTTP"),
        (cost, "router_cpu_us", OURS, "ZeroMQ"),
    )
    for axes, figure, colour, label in lines:
        values = [of[figure] for of in figures.values()]
        axes.plot(clients, values, "o-", color=colour, label=label)
        for point in zip(clients, values, strict=True):
            axes.annotate(
                f"{point[1]:,.0f}",
                point,
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
            )
    [*_, most] = figures.values()
    a_client = f"{most['bytes_a_client']:,.0f} bytes a client"
    memory.set_title(f"Memory of the server: MiB ({a_client})")
    cost.set_title("A heartbeat: µs of the server's processor")
    for axes in (memory, cost):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("clients that live")
        axes.set_ylim(0, 1.2 * axes.dataLim.ymax)
        axes.margins(x=0.12)
    cost.legend(frameon=False)
    return drawn


#: Each chart's file, the scenarios that it is drawn of, and how.
CHARTS: Mapping[str, tuple[Sequence[str], Callable[..., Figure]]] = {
    "beats": (("http", "router"), beats),
    "lateness": (("lateness",), lateness),
    "growth": (("growth",), growth),
}
