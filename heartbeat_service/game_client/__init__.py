"""The client's side of the contract, for games written in Python.

:class:`~heartbeat_service.game_client.session.Session` is told what came in, and says
what to do next, without any I/O;
:class:`~heartbeat_service.game_client.driver.GameClient` does it, with sockets and
timers. So what a client decides can be tried without a server. ``python -m
heartbeat_service.game_client`` is a client of its own.

Knows the messages; nothing of the server's rules, its store or its routes.
"""
