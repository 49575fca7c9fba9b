"""What the machine wants: descriptors, files, signals, time, Python's pauses, systemd.

Each module deals with one thing of the operating system or of the interpreter. Most of
them change it for the whole process: so the service calls them where it starts, and no
rule depends on them.

Knows nothing of clients.
"""
