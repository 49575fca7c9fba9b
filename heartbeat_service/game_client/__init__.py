"""The client's side of the contract, for games written in Python.

:class:`~heartbeat_service.game_client.session.Session` is told what came in, and says
what to do next, without any I/O;
:class:`~heartbeat_service.game_client.runner.Runner` does it, with a clock and two
transports. So what a client decides can be tried without a server.
:class:`~heartbeat_service.game_client.driver.GameClient` is made of them for Twisted,
:class:`~heartbeat_service.game_client.asyncio_driver.GameClient` for asyncio. ``python
-m heartbeat_service.game_client`` is a client of its own.

Knows the messages; nothing of the server's rules, its store or its routes.
"""
