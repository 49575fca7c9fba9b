"""Reads what the clients of a cluster have written down, and says what went wrong.

All that it knows is what they were told, and the contract. What a pair (incarnation,
sequence) has ever meant, it always means. A life that was answered a beat doesn't end
by its timebomb within a fuse of the moment when that beat was sent. What was
acknowledged or told is there when all is calm, and each node has told it, unless it
said that it doesn't know it all. No node goes back. It knows no clock and no process.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection

from attrs import define, field

from tests.cluster.records import GONE, Pair, Record, Word

#: Who beats all the time, and where it is answered.
TALKERS = ("balanced-", "direct-", "dealer-", "rover-")

#: Answers that tell a client's state.
ANSWERS = ("beat", "set", "get", "bye", "steer", "grant", "kick")

#: Those that change it, unless it was so before.
CHANGES = ("set", "steer")


@define
class Life:
    """What is known of one incarnation of a client.

    :ivar answered_until: no timebomb may end it sooner, as it was answered a beat.
    :ivar granted_until: nor sooner than that, as it was granted a silence.
    :ivar over: when it was first heard that it is over.
    :ivar excused: whether it was ended by the client or an operator.
    """

    answered_until: float = -math.inf
    granted_until: float = -math.inf
    over: float = math.inf
    excused: bool = False

    @property
    def safe_until(self) -> float:
        """When its timebomb may end it."""
        return max(self.answered_until, self.granted_until)

    @property
    def wronged(self) -> bool:
        """Whether it was ended too soon."""
        return not self.excused and self.over < self.safe_until


@define
class Judge:
    """Hears all records in the order in which they were written.

    :ivar answers: how many there were of each kind, or what came in their place.
    :ivar two_states: each pair that meant two.
    :ivar backwards: what a node said that was older than what it had said before.
    :ivar silent: who fell silent on purpose, and when.
    :ivar listings: what each node showed last.
    :ivar stale: answers to beats that were out of date: for how many seconds.
    """

    answers: Counter[tuple[str, str]] = field(factory=Counter)
    two_states: set[str] = field(factory=set)
    backwards: set[str] = field(factory=set)
    silent: dict[str, float] = field(factory=dict)
    listings: dict[str, Record] = field(factory=dict)
    stalls: list[Record] = field(factory=list)
    stale: list[tuple[float, Record]] = field(factory=list)
    _meaning: dict[tuple[str, Pair], tuple[str, str, float]] = field(factory=dict)
    _lives: defaultdict[str, dict[int, Life]] = field(factory=lambda: defaultdict(dict))
    _newest: dict[str, Word] = field(factory=dict)
    _said: dict[tuple[str, str], tuple[Pair, float]] = field(factory=dict)
    _streams: dict[tuple[str, str, str], Pair] = field(factory=dict)
    _acknowledged: dict[tuple[str, Pair], float] = field(factory=dict)
    _told: defaultdict[str, set[tuple[str, Pair]]] = field(
        factory=lambda: defaultdict(set)
    )
    _tells_since: dict[str, float] = field(factory=dict)
    _numbers: dict[str, int] = field(factory=dict)
    _skipped: set[str] = field(factory=set)
    _beats: list[Record] = field(factory=list)
    _changes: list[Record] = field(factory=list)
    _deaths: list[Record] = field(factory=list)

    def hear(self, record: Record) -> None:
        """Take one record."""
        if record.kind in ANSWERS:
            self._answered(record)
        elif record.kind == "list":
            self._listed(record)
        elif record.kind in ("published", "event"):
            self._told_of(record)
        elif record.kind == "silent":
            self.silent[record.client] = record.at
        elif record.kind == "over":
            present = max(self._lives[record.client], default=0)
            self._life(record.client, record.life or present).excused = True
        elif record.kind == "stalled":
            self.stalls.append(record)
        if record.kind in ("event", "notice", "reset"):
            self._count_event(record)

    # What is wrong, at any time.

    def wrongly_dead(self) -> set[str]:
        """Lives that a timebomb ended though they were answered within their fuse."""
        return {
            f"{client}: {incarnation} is over at {life.over:.3f}, but was answered and "
            f"safe until {life.safe_until:.3f}"
            for client, lives in self._lives.items()
            for incarnation, life in lives.items()
            if life.wronged
        }

    def alive_though_silent(self) -> set[str]:
        """Who fell silent on purpose, and has not been heard to be dead."""
        present = {one: self._lives[one][max(self._lives[one])] for one in self.silent}
        return {client for client, life in present.items() if life.over == math.inf}

    def missing(self, nodes: Collection[str], since: float) -> set[str]:
        """What was acknowledged or told, and a node doesn't show, asked since then."""
        missing = set()
        for node in nodes:
            listing = self.listings.get(node)
            if listing is None or listing.sent < since:
                missing.add(f"{node} shows no list since {since:.3f}")
                continue
            missing |= {
                f"{node} shows {listing.shown.get(client)} of {client}, at "
                f"{listing.sent:.3f}; known: {known}"
                for client, known in self._newest.items()
                if listing.shown is not None
                and not self._agrees(listing, client, known)
            }
        return missing

    def untold(self, nodes: Collection[str], since: float, until: float) -> set[str]:
        """What was acknowledged between these moments, and a node told in no event.

        Only of the time in which the node said that its events are whole.
        """
        return self._skipped | {
            f"{node} has told no event of {client} {pair}, acknowledged at {at:.3f}"
            for node in nodes
            for (client, pair), at in self._acknowledged.items()
            if max(since, self._tells_since.get(node, math.inf) + 2) < at < until
            and (client, pair) not in self._told[node]
        }

    # How long something took.

    def changes_since(self, moment: float) -> float | None:
        """When the first change was accepted that was asked for since then."""
        return min(
            (each.at for each in self._changes if each.sent >= moment), default=None
        )

    def all_alive_since(self, moment: float, nodes: Collection[str]) -> float | None:
        """When these nodes had answered all who go on beating, and show it, since then.

        One of them has to know when each beat; None if it isn't so yet.
        """
        talkers = {client for client in self._lives if client.startswith(TALKERS)}
        first: dict[str, float] = {}
        for each in self._beats:
            if each.sent >= moment and each.node in nodes and each.client in talkers:
                first.setdefault(each.client, each.at)
        lists = [
            each
            for each in self.listings.values()
            if each.node in nodes and each.sent >= moment
        ]
        shown = [each.shown or {} for each in lists]
        if (
            len(lists) < len(nodes)
            or first.keys() < talkers
            or not all(talkers <= each.keys() for each in shown)
            or not all(
                any(each[one].age is not None for each in shown) for one in talkers
            )
        ):
            return None
        return max((*first.values(), *(each.at for each in lists)))

    def longest_unanswered(self, since: float, until: float) -> tuple[float, str]:
        """The longest time that one who goes on beating had no answer; and who."""
        last: dict[str, float] = {}
        longest = 0.0, ""
        for each in self._beats:
            if each.client.startswith(TALKERS) and each.at <= until:
                before = max(since, last.get(each.client, each.at))
                longest = max(longest, (each.at - before, each.client))
                last[each.client] = each.at
        return longest

    def deaths(self, since: float, until: float) -> list[Record]:
        """Which deaths by timebomb were told between these moments."""
        return [each for each in self._deaths if since <= each.at <= until]

    def beats(self, since: float, until: float) -> int:
        """How many that were sent between these moments were answered."""
        return sum(since <= each.sent <= until for each in self._beats)

    def accepted(self, since: float, until: float) -> int:
        """How many changes that were asked for between these moments were accepted."""
        return sum(since <= each.sent <= until for each in self._changes)

    # What a record says.

    def _answered(self, record: Record) -> None:
        self.answers[record.kind, record.code or "ok"] += 1
        if record.word is None:
            if record.code == "UNKNOWN_CLIENT" and self._knew(record):
                self._ended(record.client, record.life, record.at)
            return
        is_new = self._known_at(record.client, record.word) > record.sent
        self._is_said(record, record.client, record.word)
        self._acknowledged.setdefault((record.client, record.word.pair), record.at)
        if record.kind == "beat":
            self._beats.append(record)
            late = record.sent - self._next_known_at(record.client, record.word)
            if late > 0:
                self.stale.append((late, record))
            life = self._life(record.client, record.word.incarnation)
            life.answered_until = max(life.answered_until, record.sent + record.fuse)
            life.granted_until = -math.inf
        elif record.kind in CHANGES and is_new:
            self._changes.append(record)
        elif record.kind == "grant":
            life = self._life(record.client, record.word.incarnation)
            life.granted_until = record.sent + record.fuse
        elif record.kind == "bye":
            self._life(record.client, record.word.incarnation).over = record.at

    def _listed(self, record: Record) -> None:
        self.listings[record.node] = record
        for client, shown in (record.shown or {}).items():
            self._is_said(record, client, shown.word)

    def _told_of(self, record: Record) -> None:
        assert record.word is not None
        if record.kind == "event":
            self._told[record.node].add((record.client, record.word.pair))
        if record.reason == "reconnect":
            self._excuse_former(record.client, record.word.incarnation)
        self._in_order(record, record.word)
        self._is_said(record, record.client, record.word)
        if record.word.state == GONE:
            life = self._life(record.client, record.word.incarnation)
            life.excused |= record.reason != "timebomb"
            life.over = min(life.over, record.at)
            if record.reason == "timebomb":
                self._deaths.append(record)

    def _count_event(self, record: Record) -> None:
        last = self._numbers.get(record.node)
        self._numbers[record.node] = record.number
        if record.kind == "reset":
            self._tells_since[record.node] = record.at
        elif last is not None and record.number != last + 1:
            self._skipped.add(
                f"{record.node} told event {record.number} after {last}, "
                f"at {record.at:.3f}"
            )

    def _is_said(self, record: Record, client: str, word: Word) -> None:
        who = f"{record.kind} of {record.node} at {record.at:.3f}"
        state, said_first, _ = self._meaning.setdefault(
            (client, word.pair), (word.state, who, record.at)
        )
        if state != word.state:
            self.two_states.add(
                f"{client} {word.pair}: {state} ({said_first}), {word.state} ({who})"
            )
        self._begins(client, word.incarnation, record.at)
        newest = self._newest.setdefault(client, word)
        if word.pair > newest.pair:
            self._newest[client] = word
        if not record.node:
            return
        said, at = self._said.get((record.node, client), ((0, 0), 0.0))
        if record.sent > at and word.pair < said:
            self.backwards.add(
                f"{client}: {word} ({who}, asked at {record.sent:.3f}), but it had "
                f"said {said} at {at:.3f}"
            )
        if word.pair > said:
            self._said[record.node, client] = word.pair, record.at

    def _known_at(self, client: str, word: Word) -> float:
        """When a pair was first heard of."""
        return self._meaning.get((client, word.pair), ("", "", math.inf))[2]

    def _next_known_at(self, client: str, word: Word) -> float:
        """When something newer than that was first heard of."""
        if self._newest[client].pair <= word.pair:
            return math.inf
        return min(
            at
            for (whose, pair), (_, _, at) in self._meaning.items()
            if whose == client and pair > word.pair
        )

    def _begins(self, client: str, incarnation: int, at: float) -> None:
        """A life is there; if it is new, the one before it is over."""
        lives = self._lives[client]
        if incarnation not in lives:
            lives[incarnation] = Life()
            former = max((each for each in lives if each < incarnation), default=None)
            if former is not None:
                self._ended(client, former, at)

    def _ended(self, client: str, incarnation: int, at: float) -> None:
        life = self._life(client, incarnation)
        life.over = min(life.over, at)

    def _excuse_former(self, client: str, incarnation: int) -> None:
        """It was the client itself that began anew."""
        lives = self._lives[client]
        former = max((each for each in lives if each < incarnation), default=None)
        if former is not None:
            lives[former].excused = True

    def _in_order(self, record: Record, word: Word) -> None:
        """A node tells of each client what was first, first."""
        stream = record.kind, record.node, record.client
        if word.pair < self._streams.get(stream, (0, 0)):
            self.backwards.add(
                f"{record.client}: {word} ({record.kind} of {record.node} at "
                f"{record.at:.3f}) after {self._streams[stream]}"
            )
        self._streams[stream] = word.pair

    def _life(self, client: str, incarnation: int) -> Life:
        return self._lives[client].setdefault(incarnation, Life())

    def _knew(self, record: Record) -> bool:
        """Whether that node had said before that this life is there."""
        (incarnation, _), at = self._said.get(
            (record.node, record.client), ((0, 0), 0.0)
        )
        return incarnation >= record.life > 0 and at < record.sent

    def _agrees(self, listing: Record, client: str, known: Word) -> bool:
        shown = (listing.shown or {}).get(client)
        if known.state == GONE:
            return shown is None or shown.word.pair > known.pair
        if shown is None:
            life = self._life(client, known.incarnation)
            return life.safe_until < listing.sent  # it may rightly be dead
        return shown.word.pair >= known.pair
