"""HTTP: routes, errors, and a site that strangers may talk to.

A channel reads a request within its limits and deadlines, a door asks for its token, a
route decodes, dispatches and encodes. What is long is sent in chunks, as fast as it is
read: so no peer holds up another.

Decides nothing about clients, and knows nothing of ZeroMQ.
"""
