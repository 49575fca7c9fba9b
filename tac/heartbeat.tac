# -*- mode: python -*-
"""The service for ``twistd --pidfile= -ny tac/heartbeat.tac``.

The same makeService as ``twistd -n heartbeat``, with the options written here
instead of on the command line. Copy the file and change what is in OPTIONS.

Several services on one machine: one copy of this file for each, with ports of
its own and a store of its own, and one entry of the process supervisor for each
copy:

    OPTIONS = [
        "--store", "sqlite:second.sqlite",
        "--http", "tcp:6970:interface=127.0.0.1",
        "--router", "tcp://127.0.0.1:8766",
        "--pub", "tcp://127.0.0.1:4322",
    ]

Under systemd this, too, tells when it is ready, well and stopping: Type=notify and
WatchdogSec as in deploy/heartbeat.service.

``--pidfile=`` keeps them from sharing a pid file.

Nothing is opened in here: a .tac file is read before twistd daemonises, and a
ZeroMQ socket does not survive a fork. All that happens in startService.
"""

from twisted.application.service import Application

from heartbeat_service.service import Options, makeService

OPTIONS: list[str] = []

options = Options()
options.parseOptions(OPTIONS)

application = Application("heartbeat")
makeService(options).setServiceParent(application)
