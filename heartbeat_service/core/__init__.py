"""The rules of a client's life (docs/protocol.md, section 2).

Nothing in here knows a socket, the reactor, a file or the wall clock: time
comes in through a clock, facts go out through a listener. Standard library,
attrs and msgspec only; import-linter holds it to that.
"""
