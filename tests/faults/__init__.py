"""What is done to a running service, and what must not come of it.

Nothing lost, no one falsely dead, no one let in: shown on real processes, real
sockets and real files. ``FAULTS=short`` does less of each.
"""
