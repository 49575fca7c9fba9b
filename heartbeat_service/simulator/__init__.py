"""A fleet of simulated clients, which go wrong as real ones do.

They beat at a real service by sockets, or at an engine of their own on a virtual clock;
what they did is held against what the service said, so that a false death or a missed
one is found. Knows the messages and the client's session, no rule of the server.
"""
