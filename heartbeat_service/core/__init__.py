"""The rules of a client's life (docs/protocol.md, section 2).

Each message is one method of the registry, which runs to its end before the next
begins; what it did goes to a listener as a frozen fact. Time comes in through a clock
that is handed in. So every rule can be tried in no time, and no two changes interleave.

Knows no socket, no reactor, no file and no wall clock: standard library, attrs and
msgspec only, and Twisted's kind of timer in ``listening_clock.py``; import-linter holds
it to that.
"""
