"""Where facts become durable: the store's port, and two stores.

A store takes a batch of facts, and what it has kept comes back when it is opened again.
It only commits, refuses or fails: who waits for it, and how often it is tried again, is
the engine's business. So a new store is a small class.

Knows facts; nothing of transports, messages or waiting.
"""
