"""Whom somebody may speak for: a set of client IDs, written as IDs and patterns.

In a pattern ``*`` stands for any characters, also for none; nothing else is special.
That is how operators say which clients a token or a key is good for (contract,
section 6). Knows no token, key or file.
"""

from __future__ import annotations

import fnmatch
import re
from functools import cached_property

from attrs import frozen

from heartbeat_service.protocol.messages import ClientID

_PATTERN = re.compile(r"[A-Za-z0-9._:@*-]{1,64}", re.ASCII)


@frozen
class Scope:
    """A set of client IDs.

    :ivar words: the IDs and patterns that it is made of.
    """

    words: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read IDs and patterns, at least one, separated by spaces.

        :raises ValueError: if one of them can't be; the text doesn't repeat it, as it
            may be a token that was put into the wrong place.
        """
        words = frozenset(word for word in text.split(" ") if word)
        if not words or not all(map(_is_good, words)):
            raise ValueError(
                "expected client IDs, or patterns such as headset-*, "
                "separated by spaces"
            )
        return cls(words)

    @classmethod
    def of(cls, name: str) -> Scope:
        """The client of that name alone; nobody, if no client can have it."""
        try:
            return cls(frozenset({ClientID.parse(name)}))
        except ValueError:
            return cls()

    def __contains__(self, client_id: str) -> bool:
        words = self.words
        return (
            "*" in words
            or client_id in words
            or any(pattern.match(client_id) for pattern in self._patterns)
        )

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        # Made when it is first asked: to make one takes 60 us, and a file may have
        # thousands. Of fnmatch's special characters, words can have the star alone.
        return [re.compile(fnmatch.translate(one)) for one in self.words if "*" in one]

    def __or__(self, other: Scope) -> Scope:
        return Scope(self.words | other.words)

    def is_everybody(self) -> bool:
        """Whether it is the set of all client IDs."""
        return any(not word.strip("*") for word in self.words)


NOBODY = Scope()
EVERYBODY = Scope(frozenset({"*"}))


def _is_good(word: str) -> bool:
    return bool(_PATTERN.fullmatch(word) if "*" in word else Scope.of(word).words)
