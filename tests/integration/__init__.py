"""Tests with real sockets: a running service, and its clients."""
