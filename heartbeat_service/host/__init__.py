"""What the machine wants: descriptors, hangup, time, Python's pauses, systemd.

Each module deals with one thing of the operating system or of the interpreter. Most of
them change it for the whole process: so a program calls them, at its start, and nothing
that could run inside somebody else's.

Knows nothing of clients.
"""
