"""The programs that are measured: each a process that prints one line when it listens.

A peer does the least that somebody would write by hand: it reads the heartbeat's JSON,
keeps when each client beat last, and answers with JSON. Peers know nothing of the
service, and nothing of who drives them.
"""
