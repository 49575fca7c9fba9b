"""HTTP: routes, errors, and a site that strangers may talk to.

Decodes, dispatches, encodes; decides nothing about clients.
"""
