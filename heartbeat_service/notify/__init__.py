"""Tells people who don't look at the page: what is wrong, and that it is over.

What happens within a minute becomes one message, which Apprise sends in a thread. So
nothing here is ever in the way of a heartbeat.
"""
