"""The service without sockets, files and signals.

A request changes the registry at once. The journal leads the change through the store;
then the listeners hear of it, and then the reply goes out. So nobody is told what a
crash would take back. The service and the tests build the same engine, each with a
clock and a store of its own.

Knows no transport, and of the store its port alone.
"""
