"""How a message gets out, and what happens while it can't."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.core.notices import Stalled, StoreNotice
from heartbeat_service.notify.delivery import (
    LAST_WAIT,
    MOST_WAITING,
    PAUSES,
    Notifier,
    Outbox,
    UnusableURL,
    open_url,
    scheme_of,
)
from heartbeat_service.notify.gathering import Gathering, Kind, Message


def message(text: str) -> Message:
    """One of which only the text counts."""
    return Message(text, text, Kind.BAD, 0.0)


class DeliveryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with an outbox whose deliveries the test ends."""
        self.clock = Clock()
        self.sent: list[tuple[Message, Deferred[bool]]] = []
        self.outbox = Outbox(self.clock, "json://…", self.deliver)

    def deliver(self, one: Message) -> Deferred[bool]:
        """Take a message on its way."""
        done: Deferred[bool] = Deferred()
        self.sent.append((one, done))
        return done

    def end(self, taken: bool) -> None:
        """The last delivery is over."""
        self.sent[-1][1].callback(taken)


class TestOutbox(DeliveryTestCase):
    def test_a_message_leaves_at_once(self) -> None:
        self.outbox.add(message("1"))
        self.assertEqual([one.body for one, _ in self.sent], ["1"])
        self.end(taken=True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_is_sent_after_the_other(self) -> None:
        for text in "123":
            self.outbox.add(message(text))
        self.assertEqual(len(self.sent), 1)
        self.end(taken=True)
        self.assertEqual(len(self.sent), 2)
        self.assertIn("2", self.sent[-1][0].body)
        self.assertIn("3", self.sent[-1][0].body)

    def test_what_fails_is_tried_again_at_longer_and_longer_pauses(self) -> None:
        self.outbox.add(message("1"))
        for pause in (*PAUSES, PAUSES[-1]):
            tries = len(self.sent)
            self.end(taken=False)
            self.clock.advance(pause - 0.5)
            self.assertEqual(len(self.sent), tries)
            self.clock.advance(0.5)
            self.assertEqual(len(self.sent), tries + 1)
        self.end(taken=True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_comes_meanwhile_waits_for_the_next_try_and_goes_with_it(self) -> None:
        self.outbox.add(message("1"))
        self.end(taken=False)
        self.outbox.add(message("2"))
        self.assertEqual(len(self.sent), 1)
        self.clock.advance(PAUSES[0])
        body = self.sent[-1][0].body
        self.assertLess(body.index("1\n"), body.rindex("2"))

    def test_what_waits_is_bounded_and_the_oldest_go(self) -> None:
        self.outbox.add(message("first"))
        self.end(taken=False)
        for number in range(MOST_WAITING):
            self.outbox.add(message(f"n{number}"))
        self.clock.advance(PAUSES[0])
        body = self.sent[-1][0].body
        self.assertNotIn("first", body)
        self.assertIn("n0", body)

    def test_at_the_end_what_waits_is_tried_once_more(self) -> None:
        self.outbox.add(message("1"))
        self.end(taken=False)
        closed = self.outbox.close()
        self.assertEqual(len(self.sent), 2)
        self.assertNoResult(closed)
        self.end(taken=True)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_end_waits_for_a_hanging_receiver_a_moment_only(self) -> None:
        self.outbox.add(message("1"))
        closed = self.outbox.close()
        self.clock.advance(LAST_WAIT)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.end(taken=False)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TestNotifier(DeliveryTestCase):
    def setUp(self) -> None:
        """Begin with one that gathers for a minute."""
        super().setUp()
        gathering = Gathering(lambda _: 0, lambda: 0.0)
        self.notifier = Notifier(self.clock, gathering, [self.outbox], 60.0)

    def test_what_happens_within_the_pause_is_one_message(self) -> None:
        self.notifier.hear(StoreNotice("disk is full"))
        self.clock.advance(59)
        self.notifier.hear(Stalled(9.0))
        self.assertEqual(self.sent, [])
        self.clock.advance(1)
        self.assertEqual(len(self.sent), 1)
        self.assertIn("disk is full", self.sent[0][0].body)
        self.assertIn("stalled", self.sent[0][0].body)

    def test_nothing_to_tell_is_no_message(self) -> None:
        self.notifier.hear(Stalled(1.0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_where_nobody_is_told_nothing_is_gathered(self) -> None:
        gathering = Gathering(lambda _: 0, lambda: 0.0)
        notifier = Notifier(self.clock, gathering, [], 60.0)
        notifier.hear(StoreNotice("disk is full"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(gathering.message())
        self.successResultOf(notifier.close())

    def test_at_the_end_what_was_gathered_is_told(self) -> None:
        self.notifier.hear(StoreNotice("disk is full"))
        closed = self.notifier.close()
        self.assertEqual(len(self.sent), 1)
        self.end(taken=True)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TestURLs(SynchronousTestCase):
    def test_a_url_that_cant_be_used_shows_no_secret(self) -> None:
        for url in ("foo://secret@example.org", "json://", "secret", "tgram://secret"):
            with self.assertRaises(UnusableURL) as raised:
                open_url(url)
            self.assertNotIn("secret", str(raised.exception))
            self.assertIn("Apprise", str(raised.exception))

    def test_of_a_url_only_its_scheme_is_shown(self) -> None:
        self.assertEqual(scheme_of("jsons://user:secret@example.org/x"), "jsons://…")
        self.assertEqual(scheme_of("secret"), "something without a scheme")
