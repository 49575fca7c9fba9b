"""The console commands, and ``python -m heartbeat_service``.

A program's imports take half a second. So nothing is imported here before it is settled
what a signal does meanwhile.
"""

from __future__ import annotations

import sys

from heartbeat_service.host.starting import end_by_interrupt, outlive_hangup


def service() -> None:
    """``heartbeat-service``: what ``twistd -n --pidfile= heartbeat`` is."""
    end_by_interrupt()
    outlive_hangup()
    from twisted.scripts import twistd

    sys.argv[1:1] = ["-n", "--pidfile=", "heartbeat"]
    twistd.run()


def client() -> None:
    """``heartbeat-client``: a game client without a game."""
    end_by_interrupt()
    from heartbeat_service.game_client.__main__ import main

    main()


def curve_keys() -> None:
    """``heartbeat-curve-keys``: makes the keys for ``--curve-keys``."""
    end_by_interrupt()
    from heartbeat_service.curve_keys import main

    main()


def operator() -> None:
    """``heartbeatctl``: asks and steers a service, for operators."""
    end_by_interrupt()
    from heartbeat_service.operator.__main__ import main

    main()


def fleet() -> None:
    """``heartbeat-fleet``: simulated clients, and whether promises were kept."""
    end_by_interrupt()
    from heartbeat_service.simulator.__main__ import main

    main()


if __name__ == "__main__":
    service()
