"""What the service costs, measured beside what one would write instead.

``python -m bench``: each contestant in a process of its own, in turns, in the same run.
"""
