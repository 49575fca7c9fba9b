"""What is asked of etcd: values, and the port that a client and a fake fill.

The words are etcd's own (its API reference, "KV", "Watch" and "Lease"). A *revision*
counts the changes of the whole etcd; a key has the revision that made it and the one
that changed it last. Knows nothing of clients, records or gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred


class EtcdError(Exception):
    """Etcd can't do it, or nobody knows whether it has; the text says why."""


class EtcdAway(EtcdError):
    """No answer came in time. What was asked may have been done, or may yet be."""


class EtcdRefuses(EtcdError):
    """It would answer the same again: a wrong password, a database that is full."""


class UnknownLease(EtcdRefuses):
    """There is no such lease, or no longer."""


class Compacted(EtcdError):
    """What happened since that revision isn't known any more: scan anew."""


@frozen
class KeyValue:
    """A key as it is, or was.

    :ivar create_revision: the revision that made it.
    :ivar mod_revision: the revision that changed it last.
    :ivar lease: with which it ends; 0 without one.
    """

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


@frozen
class Compare:
    """A condition: that revision of a key is this one; 0 if the key must not exist.

    :ivar of_creation: whether it means the key's ``create_revision``; else its
        ``mod_revision``.
    """

    key: bytes
    revision: int
    of_creation: bool = False


@frozen
class Put:
    """Write a key.

    :ivar lease: with which it ends; 0 without one.
    """

    key: bytes
    value: bytes
    lease: int = 0


@frozen
class Delete:
    """Remove a key, if it is there."""

    key: bytes


@frozen
class Get:
    """Read a key."""

    key: bytes


@frozen
class Transaction:
    """If all conditions hold, the one; else the other. All of it at one revision.

    Etcd takes 128 operations in each part, those of a nested one added to the number
    of its parent's; and no key may be put twice.
    """

    conditions: Sequence[Compare]
    then: Sequence[Operation]
    otherwise: Sequence[Operation] = ()


Operation = Put | Delete | Get | Transaction


@frozen
class Outcome:
    """What a transaction came to.

    :ivar held: whether all its conditions did.
    :ivar results: one for each operation that was done, in their order: of a ``Get``
        the key, or None if there is none; of a transaction its outcome; of others None.
    :ivar revision: etcd's, after it.
    """

    held: bool
    results: Sequence[KeyValue | Outcome | None]
    revision: int


@frozen
class Page:
    """Some keys, in their order.

    :ivar revision: at which all pages of one scan are read.
    :ivar is_last: whether no more follow.
    """

    keys: Sequence[KeyValue]
    revision: int
    is_last: bool


@frozen
class Event:
    """A key was put or deleted.

    :ivar key: as it is now; of a deleted one the value is empty, and ``mod_revision``
        is that of its deletion.
    """

    key: KeyValue
    deleted: bool = False


class Watch(Protocol):
    """Hears of all that happens under a prefix, in order, until it is lost."""

    def stop(self) -> None:
        """Hear nothing any more, also not that it is lost. May be called again."""


class Etcd(Protocol):
    """What is asked of etcd. Called, and answers, in the reactor's thread.

    Whatever is asked fails with :class:`EtcdAway` if no answer came in time, and with
    :class:`EtcdRefuses` if it was refused. Where one member doesn't answer, the next
    request goes to another one, and so do the watches.
    """

    def scan(
        self, prefix: bytes, after: bytes = b"", revision: int = 0, limit: int = 0
    ) -> Deferred[Page]:
        """The keys that begin so, those behind ``after`` only.

        :param revision: as they were then; 0 for now.
        :param limit: how many, at the most; 0 for all.
        """

    def transact(self, transaction: Transaction) -> Deferred[Outcome]:
        """Do it, all or nothing."""

    def grant(self, seconds: int) -> Deferred[int]:
        """A new lease, with that time to live; its ID."""

    def keep_alive(self, lease: int) -> Deferred[int]:
        """Let a lease begin anew; how many seconds it lives now, 0 if it is gone."""

    def revoke(self, lease: int) -> Deferred[None]:
        """End a lease, and with it its keys; also one that is gone."""

    def watch(
        self,
        prefix: bytes,
        revision: int,
        hear: Callable[[Sequence[Event]], object],
        lost: Callable[[EtcdError], object],
    ) -> Watch:
        """Hear of each change under a prefix, from that revision on.

        :param hear: takes all events of one or more whole revisions, in order. It is
            called without events, too, about each second while etcd answers, so that
            whoever hears nothing for longer knows that he may be out of touch.
        :param lost: called once if it can't go on: with :class:`Compacted` if what
            follows isn't known any more, with :class:`EtcdAway` if its member went or
            was silent for too long, with :class:`EtcdRefuses` if etcd doesn't let us.
            Never before this returns. Nothing is heard after it; watch anew from the
            revision after the last one told.
        """

    def close(self) -> Deferred[None]:
        """Let go. Whatever waits, fails."""
