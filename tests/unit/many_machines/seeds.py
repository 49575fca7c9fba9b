"""Run many seeds, and say what was found.

``python -m tests.unit.many_machines.seeds 200``; a second number is the first seed.
Takes about half a second a seed.
"""

from __future__ import annotations

import sys
from collections import Counter

from tests.unit.many_machines.referee import Violation
from tests.unit.many_machines.trouble import run


def main(count: int, first: int = 1) -> int:
    """Run them all; how many of them found something."""
    done: Counter[str] = Counter()
    changes = replies = found = 0
    for seed in range(first, first + count):
        try:
            trouble = run(seed)
        except Violation as error:
            found += 1
            print(f"FOUND {error}", flush=True)  # noqa: T201 - a program prints
            continue
        done += trouble.done
        changes += len(trouble.world.referee.changes)
        replies += trouble.world.referee.replies
    print(  # noqa: T201 - a program prints
        f"{count} seeds, {found} found something; {changes} changes, {replies} replies;"
        f" {', '.join(f'{kind} {number}' for kind, number in sorted(done.items()))}"
    )
    return found


if __name__ == "__main__":
    sys.exit(1 if main(*map(int, sys.argv[1:] or ["100"])) else 0)
