"""Makes ``twistd heartbeat`` known.

Names modules only: to import them here would install a reactor before
``twistd -r`` can choose one.
"""

from twisted.application.service import ServiceMaker

heartbeat = ServiceMaker(
    "heartbeat-service",
    "heartbeat_service.service",
    "Knows which game clients are alive, and in what state they are.",
    "heartbeat",
)
