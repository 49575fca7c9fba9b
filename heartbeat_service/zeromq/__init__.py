"""ZeroMQ: txZMQ's connection, hardened, and the two sockets of the service.

Each socket is read in the reactor, so many frames a turn; a ROUTER answers requests, a
PUB tells of changes. Two sockets serve all clients, so that none costs more than one
descriptor; budgets and limits keep one peer from holding up the others.

Carries frames; what a message says is the dispatcher's business. Knows nothing of HTTP.
"""
