"""Where changes become durable, and the journal that leads them there.

Knows changes; nothing of transports or messages.
"""
