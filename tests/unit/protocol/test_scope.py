"""Sets of client IDs: what a pattern stands for, against a matcher that is plain."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from heartbeat_service.protocol.scope import EVERYBODY, NOBODY, Scope

#: Few characters, so that an ID is often in the set; some are special elsewhere.
ALPHABET = "aA.-"


def stands_for(pattern: str, client_id: str) -> bool:
    """Whether it does, by the rule as it is written: a star is any characters."""
    if not pattern:
        return not client_id
    if pattern[0] != "*":
        return client_id[:1] == pattern[0] and stands_for(pattern[1:], client_id[1:])
    ends = range(len(client_id) + 1)
    return any(stands_for(pattern[1:], client_id[end:]) for end in ends)


class TestScope(SynchronousTestCase):
    @settings(deadline=None)  # a slow machine is no defect
    @given(
        st.lists(st.text(ALPHABET + "*", min_size=1, max_size=6), min_size=1),
        st.text(ALPHABET, min_size=1, max_size=6),
    )
    def test_it_has_the_ids_that_one_of_its_words_stands_for(
        self, words: list[str], client_id: str
    ) -> None:
        words = [word for word in words if word not in {".", ".."}] or ["a"]
        self.assertEqual(
            client_id in Scope.parse(" ".join(words)),
            any(stands_for(word, client_id) for word in words),
        )

    @settings(deadline=None)
    @given(st.text(min_size=1, max_size=8))
    def test_whatever_is_read_is_ids_and_stars_alone(self, text: str) -> None:
        try:
            scope = Scope.parse(text)
        except ValueError as error:
            self.assertIn("headset-*", str(error))
        else:
            self.assertRegex("".join(scope.words), r"\A[A-Za-z0-9._:@*-]+\Z")

    def test_nobody_and_everybody(self) -> None:
        for client_id in ("1", "a:b@c", "x" * 64):
            self.assertNotIn(client_id, NOBODY)
            self.assertIn(client_id, EVERYBODY)
            self.assertIn(client_id, NOBODY | EVERYBODY)
