"""The client's side of the contract, for games written in Python.

:class:`~heartbeat_service.game_client.session.Session` decides and does no I/O;
:class:`~heartbeat_service.game_client.driver.GameClient` does what it says.
``python -m heartbeat_service.game_client`` is a client of its own.
"""
