"""``heartbeat-client``: a game client without a game.

``python -m heartbeat_service.game_client`` is the same.

Prints each change of its state on a line, and says Goodbye on SIGINT or SIGTERM.
Refusals and warnings go to standard error.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take their time
    from heartbeat_service.host.starting import end_by_interrupt

    end_by_interrupt()

import asyncio
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python import usage
from typing_extensions import override

from heartbeat_service.command_line import CommandLine, say
from heartbeat_service.game_client.actions import (
    Event,
    Refused,
    ServerLost,
    StateChanged,
    Superseded,
    ZmqBack,
    ZmqLost,
)
from heartbeat_service.game_client.credentials import (
    BadCredentials,
    Credentials,
    read_authorities,
    read_keys,
    read_token,
)
from heartbeat_service.game_client.driver import GameClient
from heartbeat_service.game_client.post import base_url
from heartbeat_service.host.monotonic import use_monotonic_time
from heartbeat_service.protocol.messages import ClientID

T = TypeVar("T")


class Options(CommandLine):
    """Options of the program (contract, section 6).

    :ivar credentials: what the files that were given hold.
    """

    synopsis = "--id ID --server http[s]://HOST:PORT [options]"
    longdesc = (
        "A game client without a game: sends heartbeats, prints each change of its "
        "state on a line, and says Goodbye when it is stopped by SIGINT or SIGTERM."
    )
    credentials: Credentials

    optParameters = [  # noqa: RUF012 - usage.Options wants a list
        ["id", None, None, "The client's ID, always needed"],
        ["server", None, None, "Where the service serves HTTP, always needed"],
        ["driver", None, "twisted", "Whose loop: twisted or asyncio [twisted]"],
        ["ca-file", None, None, "PEM file of whose certificates to trust [system's]"],
        ["token-file", None, None, "File of the token that heartbeats carry [none]"],
        [
            "curve-key",
            None,
            None,
            "This client's .key_secret file, for encryption [none]",
        ],
        [
            "curve-server-key",
            None,
            None,
            "The server's .key file, for encryption [none]",
        ],
    ]

    @override
    def postOptions(self) -> None:
        """Check what was given."""
        try:
            ClientID.parse(self["id"])
        except ValueError as error:
            raise usage.UsageError(f"--id: {error}") from None
        try:
            base_url(self["server"] or "")
        except ValueError:
            raise usage.UsageError(
                f"--server: expected http[s]://HOST:PORT, got {self['server']!r}"
            ) from None
        if self["driver"] not in ("twisted", "asyncio"):
            raise usage.UsageError(
                f"--driver: expected twisted or asyncio, got {self['driver']!r}"
            )
        if (self["curve-key"] is None) != (self["curve-server-key"] is None):
            raise usage.UsageError(
                "--curve-key and --curve-server-key: both or neither"
            )
        self.credentials = Credentials(
            authorities=_read(read_authorities, self, "ca-file") or (),
            token=_read(read_token, self, "token-file"),
            keys=_read(read_keys, self, "curve-key", "curve-server-key"),
        )


def _read(read: Callable[..., T], options: Options, *names: str) -> T | None:
    """What the files of these options hold; None if they weren't given."""
    paths = [options[name] for name in names]
    if None in paths:
        return None
    try:
        return read(*paths)
    except BadCredentials as error:
        named = " or ".join(f"--{name}" for name in names)
        raise usage.UsageError(f"{named}: {error}") from None


class Teller:
    """Tells people what becomes of a client.

    :param end: called once there is nothing more to tell, with how to exit.
    """

    def __init__(self, client_id: str, end: Callable[[SystemExit], None]) -> None:
        self._client_id = client_id
        self._end = end

    def tell(self, event: Event) -> None:
        """A change goes to standard output, anything else to standard error."""
        match event:
            case StateChanged():
                now = datetime.now().isoformat(" ", "milliseconds")
                self._say(
                    f"{now} {self._client_id} {event.state.value} "
                    f"incarnation={event.incarnation} sequence={event.sequence}"
                )
            case Refused():
                self._complain(f"the server refuses: {event.detail} ({event.code})")
            case ServerLost():
                self._complain(f"no answer, trying again: {event.detail}")
            case ZmqLost():
                self._complain(
                    f"no ZeroMQ, following by heartbeats alone: {event.detail}"
                )
            case ZmqBack():
                self._complain("ZeroMQ gets through again")
            case Superseded():
                self._complain(f"stopped: {event.detail}")
                self._end(SystemExit(1))

    def _say(self, line: str) -> None:
        try:
            say(line)
        except SystemExit as end:  # nobody reads: as a signal, with a Goodbye
            self._end(end)

    def _complain(self, text: str) -> None:
        print(f"{self._client_id}: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the program."""
    options = Options()
    options.parseOptions()
    if options["driver"] == "asyncio":
        _log_warnings()
        raise asyncio.run(_run_in_asyncio(options))
    task.react(lambda reactor: _run_in_twisted(reactor, options))


def _log_warnings() -> None:
    warnings = FilteringLogObserver(
        textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)]
    )
    # Without an observer Twisted would keep all that is logged in memory.
    globalLogBeginner.beginLoggingTo([warnings], redirectStandardIO=False)


def _listen_to_signals(stop: Callable[[], object]) -> None:
    def heard(*_: object) -> None:
        # A second signal must not disturb it while it says Goodbye.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, heard)


def _run_in_twisted(reactor: Any, options: Options) -> Deferred[None]:
    use_monotonic_time(reactor)
    _log_warnings()
    over: Deferred[None] = Deferred()

    def end(how: SystemExit) -> None:
        if not over.called:
            over.errback(how)

    client = GameClient(
        reactor,
        options["server"],
        options["id"],
        Teller(options["id"], end).tell,
        credentials=options.credentials,
    )
    reactor.addSystemEventTrigger("before", "shutdown", client.stopService)
    # Once it runs, as Twisted's own handlers would take their place.
    stop = partial(reactor.callFromThread, reactor.stop)
    reactor.callWhenRunning(_listen_to_signals, stop)
    client.startService()
    return over


async def _run_in_asyncio(options: Options) -> SystemExit:
    from heartbeat_service.game_client import asyncio_driver  # httpx takes its time

    loop = asyncio.get_running_loop()
    over: asyncio.Future[SystemExit] = loop.create_future()

    def end(how: SystemExit) -> None:
        if not over.done():
            over.set_result(how)

    _listen_to_signals(partial(loop.call_soon_threadsafe, end, SystemExit(0)))
    async with asyncio_driver.GameClient(
        options["server"],
        options["id"],
        Teller(options["id"], end).tell,
        credentials=options.credentials,
    ):
        return await over


if __name__ == "__main__":
    main()
