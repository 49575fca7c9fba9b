"""The server that knows which game clients are alive, and in what state they are."""

__version__ = "0.1.0"
