"""The server that knows which game clients are alive, and in what state they are.

Bytes become a message, the message changes the registry, the store keeps the change,
and then the others and the client hear of it (docs/architecture.md).
"""

__version__ = "0.1.0"
