"""The rules of a client's life."""
