"""The service without sockets, files and signals.

A request changes the registry, the journal leads the change through the store, and the
reply waits until the store has what it shows. Is handed its store and its clock.
"""
