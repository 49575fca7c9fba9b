"""The commands that steer: whom they mean is said, shown and asked; then it is done.

Results go to standard output, or their JSON and nothing else; questions, progress and
refusals go to standard error. Knows how one is asked, and nothing of what an order
says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import click

from heartbeat_service.operator import orders
from heartbeat_service.operator.options import (
    CLIENT_ID,
    DONE,
    DURATION,
    REFUSED,
    STATE,
    asks,
    by_label,
    print_json,
)
from heartbeat_service.operator.orders import Order, Outcome, Plan, plan, send, tally
from heartbeat_service.operator.server import Server
from heartbeat_service.operator.whom import Found, Whom, find, find_locked_out

#: Up to so many clients, what became of each of them is told; beyond, of those who
#: were refused.
MOST_TOLD = 40


def _steers(command: Callable[..., tuple[Order, Found]]) -> Callable[..., int]:
    """Have the options of all that steer; the command says what, and finds whom."""

    @click.argument("client_ids", metavar="[ID]...", type=CLIENT_ID, nargs=-1)
    @by_label
    @click.option("--all", "everybody", is_flag=True, help="Everybody who is here.")
    @click.option(
        "--from",
        "from_states",
        type=STATE,
        multiple=True,
        metavar="STATE",
        help="Leave alone who is in another state. May be repeated.",
    )
    @click.option("--yes", is_flag=True, help="Don't ask.")
    @asks
    @wraps(command)
    def steer(
        server: Server,
        client_ids: Sequence[str],
        labelled: Sequence[str],
        everybody: bool,
        from_states: Sequence[str],
        yes: bool,
        as_json: bool,
        **given: Any,
    ) -> int:
        try:
            whom = Whom(client_ids, labelled, everybody)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        if not yes and not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask at: say --yes")
        order, found = command(server, whom, from_states, **given)
        return _carry_out(server, plan(order, found, from_states), yes, as_json)

    return steer


@click.command("set")
@click.argument("state", metavar="STATE", type=STATE)
@_steers
def set_(
    server: Server, whom: Whom, _: Sequence[str], state: str
) -> tuple[Order, Found]:
    """Set clients to a STATE: UNCALIBRATED, CALIBRATED or RUNNING."""
    return orders.set_state(state), find(server, whom)


@click.command()
@_steers
def kick(server: Server, whom: Whom, _: Sequence[str]) -> tuple[Order, Found]:
    """Remove clients; who still beats begins a new life."""
    return orders.kick(), find(server, whom)


@click.command()
@click.option(
    "--seconds",
    type=DURATION,
    required=True,
    metavar="DURATION",
    help="For how long: seconds, or such as 10m, 1h; 0 lets them in again.",
)
@_steers
def lockout(
    server: Server, whom: Whom, from_states: Sequence[str], seconds: float
) -> tuple[Order, Found]:
    """Keep clients out: they are kicked, and their beats refused until then.

    IDs that aren't here are kept out, too. With --seconds 0, --all means all who are
    kept out.
    """
    if seconds:
        return orders.lock_out(seconds), find(server, whom)
    if from_states:
        raise click.UsageError("--from: who is kept out is in no state")
    return orders.lock_out(0), find_locked_out(server, whom)


@click.command()
@click.option(
    "--seconds",
    type=DURATION,
    required=True,
    metavar="DURATION",
    help="For how long, a day at most: seconds, or such as 5m, 1h; 0 takes it back.",
)
@_steers
def silence(
    server: Server, whom: Whom, _: Sequence[str], seconds: float
) -> tuple[Order, Found]:
    """Let clients be silent for a while without being late or lost."""
    return orders.silence(seconds), find(server, whom)


def _carry_out(server: Server, planned: Plan, yes: bool, as_json: bool) -> int:
    """Show it, ask, send it, and tell how it went."""
    if planned.targets and not yes and not _agreed(planned):
        click.echo("Nothing is done.", err=True)
        return REFUSED
    outcomes: list[Outcome] = []
    try:
        _send(server, planned, outcomes)
    finally:  # also where the server is gone: what is known then is told
        outcomes += planned.not_found()
        if as_json:
            print_json({"clients": [outcome.answer for outcome in outcomes]})
        else:
            _tell(planned, outcomes, with_left=yes)
    is_fine = all(outcome.is_done for outcome in outcomes)
    return DONE if is_fine and (outcomes or planned.is_needless()) else REFUSED


def _agreed(planned: Plan) -> bool:
    for line in planned.preview():
        click.echo(line, err=True)
    click.echo(f"{planned.question()} [y/N] ", err=True, nl=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _send(server: Server, planned: Plan, outcomes: list[Outcome]) -> None:
    """Send it, and add what has become of whom to ``outcomes``, batch by batch."""
    batches = send(server, planned)
    number = len(planned.targets)
    if number <= orders.BATCH or not sys.stderr.isatty():
        for batch in batches:
            outcomes += batch
        return
    with click.progressbar(length=number, file=sys.stderr) as progress:
        for batch in batches:
            outcomes += batch
            progress.update(len(batch))


def _tell(planned: Plan, outcomes: Sequence[Outcome], with_left: bool) -> None:
    for outcome in outcomes:
        if not outcome.is_done:
            click.echo(outcome.said, err=True)
        elif len(outcomes) <= MOST_TOLD:
            click.echo(outcome.said)
    if with_left or not planned.targets:
        for line in planned.left_alone():
            click.echo(line, err=True)
    if len(outcomes) > 1:
        click.echo(tally(outcomes, planned.order.done))
    if not outcomes and not planned.left:
        click.echo("Nobody is here whom this is for.", err=True)
