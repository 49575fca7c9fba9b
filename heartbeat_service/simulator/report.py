"""What came of a run: figures for people, and for machines.

Of a virtual run it is the same to the byte each time, so there is no time of this
machine in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from heartbeat_service.simulator.plan import Mishap, Plan
from heartbeat_service.simulator.referee import Referee


def figures(plan: Plan, referee: Referee, mishaps: Counter[Mishap]) -> dict[str, Any]:
    """All of it, as JSON has it."""
    seconds = referee.seconds
    return {
        "clients": plan.clients,
        "seed": plan.seed,
        "seconds": round(seconds, 1),
        "kept": referee.kept,
        "falseDeaths": referee.false_deaths,
        "missedDeaths": referee.missed_deaths,
        "contradictions": referee.contradictions,
        "broken": referee.broken,
        "beats": referee.beats,
        "beatsPerSecond": round(referee.beats / seconds, 1) if seconds else 0.0,
        "registrations": referee.registrations,
        "deathsExpected": referee.deaths_expected,
        "deathsSeen": referee.deaths_seen,
        "publications": referee.publications,
        "lostPublications": referee.lost_publications,
        "pushMilliseconds": _milliseconds(referee.push_times),
        "deathLateMilliseconds": _milliseconds(referee.death_times),
        "slowestAnswerMilliseconds": round(referee.slowest * 1000, 3),
        "unanswered": referee.unanswered,
        "errors": dict(sorted(referee.errors.items())),
        "mishaps": {mishap.value: mishaps[mishap] for mishap in Mishap},
        "lagMilliseconds": round(referee.lag * 1000, 3),
    }


def as_json(told: Mapping[str, Any]) -> str:
    """One object, its parts a line each."""
    return json.dumps(told, indent=1)


def as_text(told: Mapping[str, Any]) -> str:
    """What people read."""
    lines = {
        "clients": f"{told['clients']:,}, seed {told['seed']}",
        "seconds": f"{told['seconds']:,}",
        "mischief": _counts(told["mishaps"]),
        "beats": f"{told['beats']:,} answered, {told['beatsPerSecond']:,} a second",
        "slowest answer": f"{told['slowestAnswerMilliseconds']:g} ms",
        "registrations": f"{told['registrations']:,}",
        "deaths expected": f"{told['deathsExpected']:,}",
        "deaths seen": f"{told['deathsSeen']:,}",
        "false deaths": f"{told['falseDeaths']:,}",
        "missed deaths": f"{told['missedDeaths']:,}",
        "contradictions": f"{told['contradictions']:,}",
        "pushes": f"{told['publications']:,} heard, {told['lostPublications']:,} lost",
        "pushes took": _shown(told["pushMilliseconds"]),
        "deaths told": f"{_shown(told['deathLateMilliseconds'])} after they were due",
        "errors": _counts(told["errors"]),
        "unanswered": f"{told['unanswered']:,}",
        "own delays": f"up to {told['lagMilliseconds']:g} ms",
    }
    if "stalls" in told:  # of a service that could be stalled
        stalls = told["stalls"]
        lines["stalls"] = (
            f"{stalls['ordered']:,} ordered, {stalls['told']:,} noticed, "
            f"{stalls['seconds']:,} s"
        )
    text = [f"{name:>15}  {what}" for name, what in lines.items()]
    text += [f"BROKEN  {what}" for what in told["broken"]]
    text.append("No promise was broken." if told["kept"] else "A promise was broken.")
    return "\n".join(text)


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in of.items()) or "none"


def _milliseconds(times: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(times)
    return {
        name: round(ordered[int(share * (len(ordered) - 1))] * 1000, 3)
        if ordered
        else None
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def _shown(of: Mapping[str, float | None]) -> str:
    if of["p50"] is None:
        return "none"
    return f"p50 {of['p50']:g} ms, p99 {of['p99']:g} ms"
