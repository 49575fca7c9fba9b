"""ZeroMQ, without a socket."""
