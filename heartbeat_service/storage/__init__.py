"""Where facts become durable: the store's port, and the stores.

Knows facts; nothing of transports, messages or waiting.
"""
