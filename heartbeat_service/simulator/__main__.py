"""``heartbeat-fleet``: simulated clients, at a service or in virtual time.

``python -m heartbeat_service.simulator`` is the same. The report goes to standard
output, what happens meanwhile to standard error.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take their time
    from heartbeat_service.host.starting import end_by_interrupt

    end_by_interrupt()

import gc
import signal
import sys
from typing import Any

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
from heartbeat_service.protocol.messages import is_word
from heartbeat_service.simulator.plan import Plan, Transport
from heartbeat_service.simulator.report import as_json, as_text

#: Exit statuses, as heartbeatctl has them.
BROKEN, WRONG_USAGE, NO_SERVER = 1, 2, 3


def _number(text: str) -> float:
    number = float(text)
    if number != number:  # noqa: PLR0124 - NaN alone isn't itself
        raise ValueError("expected a number")
    return number


class Options(CommandLine):
    """Options of the program.

    :ivar plan: what they come to.
    """

    synopsis = "[--server http[s]://HOST:PORT | --virtual] [options]"
    longdesc = (
        "Simulated clients that crash, pause, restart and come twice, with messages "
        "that get lost. At the end a report says whether the service kept its "
        "promises. Rates are shares of the clients a minute: 0.05 is one in twenty."
    )
    plan: Plan

    optFlags = [  # noqa: RUF012 - usage.Options wants a list
        ["virtual", None, "An engine in this process, in virtual time; no server"],
        ["json", None, "Tell the report as JSON"],
    ]
    optParameters = [  # noqa: RUF012 - usage.Options wants a list
        ["server", None, "http://127.0.0.1:6969", "Where the service serves HTTP"],
        ["clients", None, 500, "How many clients", int],
        ["seconds", None, 120.0, "For how long", _number],
        ["transport", None, "http", "What they beat by: http, zeromq or mixed"],
        ["seed", None, "1", "All that happens follows from it"],
        ["prefix", None, "fleet-", "What their IDs begin with"],
        ["timebomb", None, None, "The fuse that they ask for, seconds", _number],
        ["crash-rate", None, 0.0, "Killed, and started again after a while", _number],
        ["pause-rate", None, 0.0, "Silent for a while, then go on", _number],
        ["restart-rate", None, 0.0, "Leave with a Goodbye and come back", _number],
        ["duplicate-rate", None, 0.0, "A second process takes over", _number],
        ["lossy", None, 0.0, "Share of requests, and of answers, lost", _number],
        ["skew", None, 0.0, "How much their clocks run fast or slow", _number],
        ["slow", None, 0.0, "Seconds that answers lie unread, at most", _number],
        ["stall-rate", None, 0.0, "Stalls of the service a minute; virtual", _number],
        ["interval", None, 2.0, "Seconds between beats; virtual", _number],
        ["fuse", None, 10.0, "The service's own timebomb, seconds; virtual", _number],
        ["token-file", None, None, "File of the token that beats carry [none]"],
        ["ca-file", None, None, "PEM file of whose certificates to trust [system's]"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self._labels: dict[str, tuple[str, ...]] = {}

    def opt_label(self, text: str) -> None:
        """NAME:VALUE,VALUE… that clients have in turn; {n} is a client's number."""
        name, _, values = text.partition(":")
        each = tuple(values.split(","))
        if not is_word(name) or not all(
            is_word(value.replace("{n}", "1")) for value in each
        ):
            raise usage.UsageError(f"--label: expected NAME:VALUE,…, got {text!r}")
        self._labels[name] = each

    @override
    def postOptions(self) -> None:
        """Check what was given."""
        names = {
            *(
                "clients",
                "seconds",
                "seed",
                "prefix",
                "timebomb",
                "crash-rate",
                "pause-rate",
            ),
            *("restart-rate", "duplicate-rate", "lossy", "skew", "slow", "stall-rate"),
        }
        given = {name.replace("-", "_"): self[name] for name in names}
        try:
            transport = Transport(self["transport"])
        except ValueError:
            raise usage.UsageError(
                "--transport: expected http, zeromq or mixed, got "
                f"{self['transport']!r}"
            ) from None
        if self["stall-rate"] and not self["virtual"]:
            raise usage.UsageError("--stall-rate: only with --virtual")
        for name in ("interval", "fuse"):
            if not 0.1 <= self[name] <= 3600:  # noqa: PLR2004 - as a service's own
                raise usage.UsageError(f"--{name}: expected 0.1 to 3600 seconds")
        try:
            self.plan = Plan(transport=transport, labels=self._labels, **given)
        except ValueError as error:
            raise usage.UsageError(str(error)) from None

    @override
    def parseOptions(self, options: Any = None) -> None:
        """Take the arguments; what is wrong ends the program with status 2."""
        try:
            super().parseOptions(options)
        except SystemExit as end:
            if isinstance(end.code, str):
                sys.stderr.write(f"{end.code}\n")
                raise SystemExit(WRONG_USAGE) from None
            raise


def main() -> None:
    """Run the program."""
    options = Options()
    options.parseOptions()
    if options["virtual"]:
        raise SystemExit(_tell(options, _in_virtual_time(options)))
    from twisted.internet import task

    task.react(lambda reactor: Deferred.fromCoroutine(_on_sockets(reactor, options)))


def _tell(options: Options, told: dict[str, Any]) -> int:
    say(as_json(told) if options["json"] else as_text(told))
    return 0 if told["kept"] else BROKEN


def have_nothing_else_to_do() -> None:
    """Let this process write no log, and look for no garbage."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    # Little of it is garbage, and none in circles: to look for some takes a tenth.
    gc.disable()


def _in_virtual_time(options: Options) -> dict[str, Any]:
    from heartbeat_service.simulator.virtual import run

    have_nothing_else_to_do()
    return run(options.plan, options["interval"], options["fuse"])


async def _on_sockets(reactor: Any, options: Options) -> None:
    from twisted.internet.task import LoopingCall

    from heartbeat_service.game_client.credentials import (
        BadCredentials,
        Credentials,
        read_authorities,
        read_token,
    )
    from heartbeat_service.host.descriptors import allow_most
    from heartbeat_service.host.monotonic import use_monotonic_time
    from heartbeat_service.simulator.display import Display
    from heartbeat_service.simulator.fleet import Fleet, NoService

    use_monotonic_time(reactor)
    allow_most()
    warnings = FilteringLogObserver(
        textFileLogObserver(sys.stderr), [LogLevelFilterPredicate(LogLevel.warn)]
    )
    globalLogBeginner.beginLoggingTo([warnings], redirectStandardIO=False)
    try:
        credentials = Credentials(
            authorities=read_authorities(options["ca-file"])
            if options["ca-file"]
            else (),
            token=read_token(options["token-file"]) if options["token-file"] else None,
        )
        fleet = Fleet(reactor, options.plan, options["server"], credentials)
    except BadCredentials as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(WRONG_USAGE) from None
    except ValueError as error:
        sys.stderr.write(f"--server: {error}, got {options['server']!r}\n")
        raise SystemExit(WRONG_USAGE) from None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: reactor.callFromThread(fleet.end))
    with Display(fleet) as display:
        showing = LoopingCall(display.show)
        showing.clock = reactor
        showing.start(display.every, now=False)
        try:
            told = await fleet.run()
        except NoService as error:
            sys.stderr.write(f"{options['server']}: {error}\n")
            raise SystemExit(NO_SERVER) from None
        finally:
            showing.stop()
    status = _tell(options, told)
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    main()
