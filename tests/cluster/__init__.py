"""Faults of a cluster: real processes on machines of their own, and who watches."""
