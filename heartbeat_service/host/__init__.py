"""What the machine wants: descriptors, hangup, monotonic time, supervision.

Each module deals with one thing of the operating system. Knows nothing of clients.
"""
