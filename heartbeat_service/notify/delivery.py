"""Sends messages by Apprise: each try in a thread of its own, again until it succeeds.

A URL holds secrets. So only its scheme is ever told, and Apprise's own log, which names
hosts and paths, is kept silent. Knows nothing of what is in a message.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from heartbeat_service.core.notices import News
from heartbeat_service.core.tally import is_time_to_tell
from heartbeat_service.notify.gathering import Gathering, Message, joined

#: How long to wait before each further try, in seconds; from then on the last.
PAUSES = (5.0, 15.0, 60.0, 300.0)

#: How many messages wait for one URL; the oldest go.
MOST_WAITING = 20

#: How long the service waits at its end for what is on its way, in seconds.
LAST_WAIT = 2.0

_SCHEME = re.compile(r"[A-Za-z0-9.+-]{1,32}(?=:)")

#: Sends one message; whether it was taken. May block.
Send = Callable[[Message], bool]


class UnusableURL(ValueError):
    """Apprise can't send anything there; the text shows nothing secret."""


def scheme_of(url: str) -> str:
    """What of a URL may be shown."""
    match = _SCHEME.match(url)
    return f"{match[0]}://…" if match else "something without a scheme"


def open_url(url: str) -> Send:
    """What sends to that URL.

    :raises UnusableURL: if Apprise knows no such URL, or something is missing in it.
    """
    import apprise  # here, as it takes a fifth of a second, and most have no need of it

    quiet = logging.getLogger("apprise")
    quiet.handlers, quiet.propagate = [logging.NullHandler()], False
    service = apprise.Apprise.instantiate(url)
    if not isinstance(service, apprise.NotifyBase):
        raise UnusableURL(f"{scheme_of(url)} is no URL that Apprise can use")

    def send(message: Message) -> bool:
        return bool(
            service.notify(
                title=message.title,
                body=message.body,
                notify_type=apprise.NotifyType(message.kind.value),
                body_format=apprise.NotifyFormat.TEXT,
            )
        )

    return send


class Outbox:
    """Messages on their way to one URL, in order; those that have to wait become one.

    :param clock: waits between two tries: the reactor, or a ``task.Clock``.
    :param name: what is told of the URL.
    :param deliver: sends one message; fires with whether it was taken.
    """

    _log = Logger()

    def __init__(
        self, clock: Any, name: str, deliver: Callable[[Message], Deferred[bool]]
    ) -> None:
        self._clock = clock
        self._name = name
        self._deliver = deliver
        self._waiting: deque[Message] = deque(maxlen=MOST_WAITING)
        self._failed = 0
        self._sending = False
        self._again: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None

    def add(self, message: Message) -> None:
        """Send this one as soon as can be."""
        if len(self._waiting) == MOST_WAITING:
            self._log.warn("the oldest message to {name} is given up", name=self._name)
        self._waiting.append(message)
        if not self._sending and self._again is None:
            self._try()

    def close(self) -> Deferred[None]:
        """Try what waits once more, now; fires when that is done, or given up."""
        done = self._closed = Deferred()
        if self._again is not None:
            self._again.cancel()
            self._try()
        if not self._sending:
            done.callback(None)
        return done.addTimeout(LAST_WAIT, self._clock).addErrback(self._give_up)

    def _try(self) -> None:
        self._again = None
        self._sending = True
        messages = list(self._waiting)
        self._waiting.clear()
        self._deliver(joined(messages)).addCallback(self._tried, messages)

    def _tried(self, sent: bool, messages: list[Message]) -> None:
        self._sending = False
        if sent:
            if self._failed:
                self._log.info("messages reach {name} again", name=self._name)
            self._failed = 0
        else:
            self._failed += 1
            # What came meanwhile comes after it.
            together = [*messages, *self._waiting][-MOST_WAITING:]
            self._waiting.clear()
            self._waiting.extend(together)
        if self._closed is not None:
            self._end(self._closed)
        elif self._waiting:
            self._try_later()

    def _try_later(self) -> None:
        if not self._failed:
            self._try()
            return
        pause = PAUSES[min(self._failed, len(PAUSES)) - 1]
        if is_time_to_tell(self._failed):
            self._log.warn(
                "a message can't be sent to {name}: {count} tries so far, the next in"
                " {pause:g} s",
                name=self._name,
                count=self._failed,
                pause=pause,
            )
        self._again = self._clock.callLater(pause, self._try)

    def _end(self, closed: Deferred[None]) -> None:
        if self._waiting and not self._failed:
            self._try()  # it came while the last one was on its way
        elif not closed.called:
            if self._waiting:
                self._log_lost()
            closed.callback(None)

    def _give_up(self, _: object) -> None:
        self._log_lost()

    def _log_lost(self) -> None:
        self._log.warn("a message to {name} was not delivered", name=self._name)


class Notifier:
    """Hears what operators are told, and writes one message of what comes together.

    :param clock: the reactor, or a ``task.Clock``.
    :param outboxes: those that get each message.
    :param pause: seconds from the first thing that is worth a message to the message.
    """

    def __init__(
        self, clock: Any, gathering: Gathering, outboxes: list[Outbox], pause: float
    ) -> None:
        self._clock = clock
        self._gathering = gathering
        self._outboxes = outboxes
        self._pause = pause
        self._due: IDelayedCall | None = None

    def hear(self, news: News) -> None:
        """Something has happened; without an outbox nobody wants to know."""
        if self._outboxes and self._gathering.hear(news) and self._due is None:
            self._due = self._clock.callLater(self._pause, self._tell)

    def close(self) -> Deferred[Any]:
        """Tell what was gathered, and wait a moment for it to get out."""
        if self._due is not None:
            self._due.cancel()
            self._tell()
        return gatherResults([outbox.close() for outbox in self._outboxes])

    def _tell(self) -> None:
        self._due = None
        message = self._gathering.message()
        if message is not None:
            for outbox in self._outboxes:
                outbox.add(message)


def in_thread(reactor: Any, send: Send, message: Message) -> Deferred[bool]:
    """Send in a thread that nobody waits for at the program's end."""
    sent: Deferred[bool] = Deferred()

    def work() -> None:
        try:
            taken = send(message)
        except Exception:  # noqa: BLE001 - a plugin may fail in any way, with the URL in it
            taken = False
        reactor.callFromThread(sent.callback, taken)

    Thread(target=work, name="notify", daemon=True).start()
    return sent
