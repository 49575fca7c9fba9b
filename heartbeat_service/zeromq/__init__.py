"""ZeroMQ: txZMQ's connections, hardened, and the two sockets of the service.

Carries frames; what a message says is the dispatcher's business.
"""
