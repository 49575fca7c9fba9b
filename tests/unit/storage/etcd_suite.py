"""What the port to etcd promises: one suite, passed by the fake and by the real one.

So what is proven on the fake says something about the real one. Each test has a prefix
of its own, since a real etcd is shared. Waits by :meth:`EtcdSuite.wait_for` and
:meth:`EtcdSuite.wait_until` only, which take as long as whoever answers needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.storage.etcd.port import (
    Compacted,
    Compare,
    Delete,
    Etcd,
    EtcdAway,
    EtcdError,
    EtcdRefuses,
    Event,
    Get,
    KeyValue,
    Operation,
    Outcome,
    Page,
    Put,
    Transaction,
    UnknownLease,
    Watch,
)

if TYPE_CHECKING:
    _Mixin = SynchronousTestCase
else:  # so that no runner takes the suite itself for a test
    _Mixin = object


@define(eq=False)
class Ear:
    """Remembers what a watch has told.

    :ivar calls: what it was told at once, without the signs of life.
    :ivar signs: how often it was told nothing.
    :ivar lost: why the watch was lost.
    """

    calls: list[Sequence[Event]] = field(factory=list)
    signs: int = 0
    lost: list[EtcdError] = field(factory=list)

    def hear(self, events: Sequence[Event]) -> None:
        """Remember them."""
        if events:
            self.calls.append(events)
        else:
            self.signs += 1

    @property
    def events(self) -> list[Event]:
        """All that was told, in order."""
        return [event for events in self.calls for event in events]

    @property
    def told(self) -> list[tuple[bytes, bytes | None]]:
        """All that was told: keys with their values, None for a deleted one."""
        return [
            (event.key.key, None if event.deleted else event.key.value)
            for event in self.events
        ]


class EtcdSuite(_Mixin):
    """Mix this into a test case, and say how etcd is reached and waited for."""

    def make_etcd(self) -> Etcd:
        """One more client of the same etcd."""
        raise NotImplementedError  # each has its own

    def compact(self, revision: int) -> None:
        """Let etcd forget what happened before that revision."""
        raise NotImplementedError  # the port has no need of it

    def wait_for(self, waiting: Deferred[Any]) -> Any:
        """The result of ``waiting``, or its failure raised."""
        raise NotImplementedError  # each has its own time

    def wait_until(self, predicate: Callable[[], object]) -> None:
        """Return as soon as it holds; fail if that takes longer than 10 s."""
        raise NotImplementedError  # each has its own time

    def setUp(self) -> None:
        """Begin with a prefix under which nothing is."""
        super().setUp()
        self.prefix = f"suite/{uuid4().hex}/".encode()
        self.etcd = self.open_etcd()

    def open_etcd(self) -> Etcd:
        """A client, closed at the end of the test."""
        etcd = self.make_etcd()
        self.addCleanup(lambda: self.wait_for(etcd.close()))
        return etcd

    def key(self, name: str) -> bytes:
        """A key of this test."""
        return self.prefix + name.encode()

    def put(self, name: str, value: bytes = b"", lease: int = 0) -> int:
        """Write a key; the revision of that."""
        return self.do(Put(self.key(name), value, lease)).revision

    def do(self, *operations: Operation) -> Outcome:
        """Do that, whatever there is."""
        return self.transact(Transaction((), operations))

    def transact(self, transaction: Transaction) -> Outcome:
        """What a transaction came to."""
        outcome: Outcome = self.wait_for(self.etcd.transact(transaction))
        return outcome

    def get(self, name: str) -> KeyValue | None:
        """A key as it is."""
        (found,) = self.do(Get(self.key(name))).results
        assert not isinstance(found, Outcome)
        return found

    def scan(self, **more: Any) -> Page:
        """Some of this test's keys."""
        page: Page = self.wait_for(self.etcd.scan(self.prefix, **more))
        return page

    def names(self, page: Page) -> list[str]:
        """Of a page the names of the keys."""
        return [key.key.removeprefix(self.prefix).decode() for key in page.keys]

    def revision(self) -> int:
        """Etcd's, now."""
        return self.scan(limit=1).revision

    def listen(self, revision: int, etcd: Etcd | None = None) -> tuple[Ear, Watch]:
        """Watch this test's keys from that revision on."""
        ear = Ear()
        watch = (etcd or self.etcd).watch(
            self.prefix, revision, ear.hear, ear.lost.append
        )
        self.addCleanup(watch.stop)
        return ear, watch

    # Keys.

    def test_key_is_made_if_it_must_not_exist_and_does_not(self) -> None:
        create = Transaction(
            [Compare(self.key("a"), 0)],
            [Put(self.key("a"), b"1")],
            [Get(self.key("a"))],
        )
        first = self.transact(create)
        second = self.transact(create)
        self.assertEqual((first.held, second.held), (True, False))
        made = KeyValue(self.key("a"), b"1", first.revision, first.revision)
        self.assertEqual(list(second.results), [made])
        self.assertEqual(self.get("a"), made)

    def test_put_keeps_the_revision_that_made_the_key(self) -> None:
        made = self.put("a", b"1")
        changed = self.put("a", b"2")
        self.assertGreater(changed, made)
        self.assertEqual(self.get("a"), KeyValue(self.key("a"), b"2", made, changed))

    def test_key_that_was_deleted_and_put_is_made_anew(self) -> None:
        self.put("a")
        self.do(Delete(self.key("a")))
        self.assertIsNone(self.get("a"))
        again = self.put("a")
        self.assertEqual(self.get("a"), KeyValue(self.key("a"), b"", again, again))

    def test_put_is_done_only_after_the_change_that_it_follows(self) -> None:
        known = self.put("a", b"1")

        def follow(value: bytes) -> Outcome:
            key = self.key("a")
            then, otherwise = [Put(key, value)], [Get(key)]
            return self.transact(Transaction([Compare(key, known)], then, otherwise))

        self.assertTrue(follow(b"2").held)
        late = follow(b"3")
        self.assertFalse(late.held)
        (present,) = late.results
        assert isinstance(present, KeyValue)
        self.assertEqual(present.value, b"2")

    def test_key_is_told_from_another_that_was_made_later_in_its_place(self) -> None:
        made = self.put("a")
        ours = [Compare(self.key("a"), made, of_creation=True)]
        self.put("a", b"changed")
        self.assertTrue(self.transact(Transaction(ours, ())).held)
        self.do(Delete(self.key("a")))
        self.assertFalse(self.transact(Transaction(ours, ())).held)
        self.put("a")
        self.assertFalse(self.transact(Transaction(ours, ())).held)

    def test_all_conditions_must_hold(self) -> None:
        known = self.put("a")
        for others, expected in ((0, True), (known, False)):
            conditions = [Compare(self.key("a"), known), Compare(self.key("b"), others)]
            held = self.transact(Transaction(conditions, ())).held
            self.assertEqual(held, expected)

    def test_transaction_is_one_revision_with_a_result_for_each_operation(self) -> None:
        self.put("gone")
        before = self.revision()
        outcome = self.do(
            Put(self.key("a"), b"1"),
            Get(self.key("a")),
            Delete(self.key("gone")),
            Get(self.key("gone")),
            Put(self.key("b"), b"2"),
        )
        revision = before + 1
        made = KeyValue(self.key("a"), b"1", revision, revision)
        self.assertEqual(outcome, Outcome(True, outcome.results, revision))
        self.assertEqual(list(outcome.results), [None, made, None, None, None])
        self.assertEqual({key.mod_revision for key in self.scan().keys}, {revision})

    def test_what_changes_nothing_makes_no_revision(self) -> None:
        before = self.put("a")
        outcome = self.do(Get(self.key("a")), Delete(self.key("never")))
        self.assertEqual(outcome.revision, before)

    def test_of_nested_transactions_those_are_done_that_hold(self) -> None:
        a, b = self.put("a", b"1"), self.put("b", b"1")

        def follow(name: str, known: int) -> Transaction:
            key = self.key(name)
            return Transaction([Compare(key, known)], [Put(key, b"2")], [Get(key)])

        outer = [Compare(self.key("a"), a, of_creation=True)]
        inner = [follow("a", a), follow("b", b - 1), follow("c", 0)]
        outcome = self.transact(Transaction(outer, inner))
        nested = [each for each in outcome.results if isinstance(each, Outcome)]
        self.assertEqual([each.held for each in nested], [True, False, True])
        self.assertEqual({each.revision for each in nested}, {outcome.revision})
        present = KeyValue(self.key("b"), b"1", b, b)
        self.assertEqual(
            [list(each.results) for each in nested], [[None], [present], [None]]
        )
        self.assertEqual([key.value for key in self.scan().keys], [b"2", b"1", b"2"])

    def test_nested_transactions_are_not_done_where_the_outer_does_not_hold(self):
        inner = Transaction((), [Put(self.key("a"), b"")])
        absent = [Compare(self.key("session"), 1)]
        outcome = self.transact(Transaction(absent, [inner], [Get(self.key("a"))]))
        self.assertEqual((outcome.held, list(outcome.results)), (False, [None]))
        self.assertIsNone(self.get("a"))

    def test_nested_conditions_are_looked_at_before_anything_is_done(self) -> None:
        made = Transaction([Compare(self.key("a"), 0)], (), [Get(self.key("a"))])
        outcome = self.do(Put(self.key("a"), b""), made)
        nested = outcome.results[1]
        assert isinstance(nested, Outcome)
        self.assertTrue(nested.held)

    def test_hundred_changes_of_two_operations_fit_into_a_transaction(self) -> None:
        changes = [
            Transaction(
                [Compare(self.key(str(number)), 0)],
                [Put(self.key(str(number)), b""), Put(self.key(f"{number}/life"), b"")],
                [Get(self.key(str(number)))],
            )
            for number in range(100)
        ]
        self.assertTrue(self.do(*changes).held)
        self.assertEqual(len(self.scan().keys), 200)

    def test_more_operations_than_etcd_takes_are_refused(self) -> None:
        puts = [Put(self.key(str(number)), b"") for number in range(129)]
        nested = Transaction((), puts[:28])
        self.do(*puts[:128])
        self.do(*puts[28:127], nested)
        for too_many in (puts, [*puts[28:128], nested]):
            with self.assertRaises(EtcdRefuses):
                self.do(*too_many)

    def test_no_key_is_put_twice_in_a_transaction(self) -> None:
        put = Put(self.key("a"), b"")
        nested = Transaction((), [put])
        either = Transaction((), [put], [put])
        self.assertTrue(self.do(either).held)
        for twice in (
            [put, put],
            [put, nested],
            [nested, nested],
            [put, Delete(put.key)],
        ):
            with self.assertRaises(EtcdRefuses):
                self.do(*twice)

    # Scans.

    def test_scan_tells_what_begins_so_in_the_order_of_the_keys(self) -> None:
        for name in ("b", "a", "a/1", "ab"):
            self.put(name, name.encode())
        last = self.put("c")
        page = self.scan()
        self.assertEqual(self.names(page), ["a", "a/1", "ab", "b", "c"])
        self.assertEqual((page.revision, page.is_last), (last, True))
        below = self.wait_for(self.etcd.scan(self.key("a/")))
        self.assertEqual(self.names(below), ["a/1"])

    def test_scan_of_nothing_is_an_empty_last_page(self) -> None:
        page = self.scan()
        self.assertEqual((list(page.keys), page.is_last), ([], True))

    def test_pages_of_a_scan_are_of_one_revision_while_others_write(self) -> None:
        for name in "abcde":
            self.put(name, b"1")
        first = self.scan(limit=2)
        self.put("c", b"2")
        self.do(Delete(self.key("d")))
        self.put("cc")
        pages, last = [first], first
        while not last.is_last:
            after = last.keys[-1].key
            last = self.scan(after=after, revision=first.revision, limit=2)
            pages.append(last)
        self.assertEqual(
            [self.names(page) for page in pages], [["a", "b"], ["c", "d"], ["e"]]
        )
        self.assertEqual({page.revision for page in pages}, {first.revision})
        self.assertEqual({key.value for page in pages for key in page.keys}, {b"1"})
        self.assertEqual(self.names(self.scan()), ["a", "b", "c", "cc", "e"])

    def test_page_that_the_last_key_fills_is_the_last(self) -> None:
        self.put("a")
        self.put("b")
        self.assertTrue(self.scan(limit=2).is_last)
        self.assertFalse(self.scan(limit=1).is_last)

    def test_scan_of_a_revision_that_is_forgotten_fails(self) -> None:
        old = self.put("a")
        self.compact(self.put("a"))
        with self.assertRaises(Compacted):
            self.scan(revision=old)

    # Watches.

    def test_watch_hears_of_puts_and_deletes_in_order(self) -> None:
        ear, _ = self.listen(self.revision() + 1)
        made = self.put("a", b"1")
        changed = self.put("a", b"2")
        deleted = self.do(Delete(self.key("a"))).revision
        self.wait_until(lambda: len(ear.events) == 3)
        key = self.key("a")
        self.assertEqual(
            ear.events,
            [
                Event(KeyValue(key, b"1", made, made)),
                Event(KeyValue(key, b"2", made, changed)),
                Event(KeyValue(key, b"", 0, deleted), deleted=True),
            ],
        )

    def test_watch_hears_of_its_prefix_only(self) -> None:
        ear, _ = self.listen(self.revision() + 1)
        self.do(Put(self.prefix[:-1] + b"0", b""), Put(self.key("a"), b""))
        self.do(Delete(self.prefix[:-1] + b"0"))
        self.put("b")
        self.wait_until(lambda: len(ear.events) == 2)
        self.assertEqual(ear.told, [(self.key("a"), b""), (self.key("b"), b"")])

    def test_watch_hears_a_revision_whole(self) -> None:
        ear, _ = self.listen(self.revision() + 1)
        self.put("z")
        for value in (b"1", b"2", b"3"):
            self.do(*(Put(self.key(f"{number}"), value) for number in range(100)))
        self.wait_until(lambda: len(ear.events) == 301)
        of_calls = [{event.key.mod_revision for event in call} for call in ear.calls]
        revisions = [revision for call in of_calls for revision in sorted(call)]
        self.assertEqual(revisions, sorted(set(revisions)))
        sizes = [
            len(list(events))
            for _, events in groupby(ear.events, lambda event: event.key.mod_revision)
        ]
        self.assertEqual(sizes, [1, 100, 100, 100])

    def test_watch_begins_with_what_happened_long_ago(self) -> None:
        first = self.put("a", b"1")
        self.put("b")
        self.do(Delete(self.key("b")))
        ear, _ = self.listen(first)
        late, _ = self.listen(first + 1, self.open_etcd())
        self.put("c")
        told = [
            (self.key("a"), b"1"),
            (self.key("b"), b""),
            (self.key("b"), None),
            (self.key("c"), b""),
        ]
        self.wait_until(lambda: len(ear.events) == 4 and len(late.events) == 3)
        self.assertEqual((ear.told, late.told), (told, told[1:]))

    def test_watch_shows_that_it_is_alive(self) -> None:
        ear, _ = self.listen(self.revision() + 1)
        self.wait_until(lambda: ear.signs >= 3)
        self.assertEqual((ear.events, ear.lost), ([], []))

    def test_watch_hears_what_others_do(self) -> None:
        ear, _ = self.listen(self.revision() + 1)
        other = self.open_etcd()
        put = Put(self.key("a"), b"theirs")
        self.wait_for(other.transact(Transaction((), [put])))
        self.wait_until(lambda: ear.events)
        self.assertEqual(ear.told, [(self.key("a"), b"theirs")])

    def test_watch_that_was_stopped_hears_nothing_any_more(self) -> None:
        begin = self.revision() + 1
        ear, watch = self.listen(begin)
        other, _ = self.listen(begin)
        self.put("a")
        self.wait_until(lambda: ear.events and other.events)
        watch.stop()
        watch.stop()
        self.put("b")
        self.wait_until(lambda: len(other.events) == 2)
        self.assertEqual((len(ear.events), ear.lost), (1, []))

    def test_watch_of_what_is_forgotten_is_lost(self) -> None:
        old = self.put("a")
        self.put("a")
        last = self.put("a")
        self.compact(last)
        ear, _ = self.listen(old)
        self.wait_until(lambda: ear.lost)
        self.assertIsInstance(ear.lost[0], Compacted)
        self.assertEqual((len(ear.lost), ear.events), (1, []))
        again, _ = self.listen(last + 1)
        self.put("b")
        self.wait_until(lambda: again.events)
        self.assertEqual(again.told, [(self.key("b"), b"")])

    # Leases.

    def test_end_of_a_lease_deletes_its_keys_and_is_heard(self) -> None:
        lease = self.wait_for(self.etcd.grant(2))
        self.put("other")
        self.do(
            Put(self.key("a"), b"", lease),
            Put(self.key("b"), b"", lease),
        )
        found = self.get("a")
        assert found is not None
        self.assertEqual(found.lease, lease)
        ear, _ = self.listen(self.revision() + 1)
        self.wait_until(lambda: ear.events)
        self.assertEqual(len({event.key.mod_revision for event in ear.events}), 1)
        self.assertCountEqual(ear.told, [(self.key("a"), None), (self.key("b"), None)])
        self.assertEqual(self.names(self.scan()), ["other"])
        self.assertEqual(self.wait_for(self.etcd.keep_alive(lease)), 0)

    def test_lease_that_is_kept_alive_does_not_end(self) -> None:
        kept = self.wait_for(self.etcd.grant(4))
        left = self.wait_for(self.etcd.grant(4))
        self.put("kept", b"", kept)
        self.put("left", b"", left)
        ear, _ = self.listen(self.revision() + 1)
        while not ear.events:
            self.assertEqual(self.wait_for(self.etcd.keep_alive(kept)), 4)
            ear.signs = 0
            self.wait_until(lambda: ear.signs or ear.events)
        self.assertEqual(ear.told, [(self.key("left"), None)])

    def test_revoked_lease_takes_its_keys_along_and_may_be_revoked_again(self) -> None:
        lease = self.wait_for(self.etcd.grant(60))
        self.put("a", b"", lease)
        self.assertIsNone(self.wait_for(self.etcd.revoke(lease)))
        self.assertIsNone(self.get("a"))
        self.assertIsNone(self.wait_for(self.etcd.revoke(lease)))
        self.assertEqual(self.wait_for(self.etcd.keep_alive(lease)), 0)

    def test_lease_that_never_was_lives_no_second(self) -> None:
        self.assertEqual(self.wait_for(self.etcd.keep_alive(4711)), 0)
        self.assertIsNone(self.wait_for(self.etcd.revoke(4711)))
        with self.assertRaises(UnknownLease):
            self.put("a", b"", lease=4711)

    def test_key_that_was_put_without_its_lease_outlives_it(self) -> None:
        lease = self.wait_for(self.etcd.grant(60))
        self.put("a", b"1", lease)
        self.put("a", b"2")
        self.wait_for(self.etcd.revoke(lease))
        found = self.get("a")
        assert found is not None
        self.assertEqual((found.value, found.lease), (b"2", 0))

    # The end.

    def test_who_is_closed_lets_go(self) -> None:
        etcd = self.open_etcd()
        ear, _ = self.listen(self.revision() + 1, etcd)
        self.wait_until(lambda: ear.signs)
        waiting = etcd.scan(self.prefix)
        closed = etcd.close()
        with self.assertRaises(EtcdAway):
            self.wait_for(waiting)
        self.wait_for(closed)
        other, _ = self.listen(self.revision() + 1)
        self.put("a")
        self.wait_until(lambda: other.events)
        self.assertEqual((ear.events, ear.lost), ([], []))
        with self.assertRaises(EtcdAway):
            self.wait_for(etcd.grant(60))
