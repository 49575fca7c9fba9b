"""``heartbeatctl``: its commands put together, and what it says of itself."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from heartbeat_service import __version__
from heartbeat_service.operator import nodes, showing, steering
from heartbeat_service.operator.options import DONE, connection_options


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88}
)
@connection_options
@click.version_option(
    __version__, "--version", message=f"heartbeat-service {__version__}"
)
def cli(**_: str | None) -> None:
    """Ask and steer a heartbeat service.

    Server, token and CA come from options, from the environment (HEARTBEAT_SERVER,
    HEARTBEAT_TOKEN_FILE, HEARTBEAT_CA) or from ~/.config/heartbeatctl.toml (server,
    token-file, ca), in that order; the server is http://127.0.0.1:6969 if nobody says
    another.

    Exit status: 0 done, 1 refused or not found (also: some of many), 2 wrong usage,
    3 no server.
    """


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh"]))
def completion(shell: str) -> int:
    """Print what completes commands, options and client IDs in a shell.

    For bash: heartbeatctl completion bash > ~/.local/share/bash-completion/completions/heartbeatctl.
    For zsh: a file named _heartbeatctl in a folder of its $fpath.
    """  # noqa: E501 - a path to copy
    made = get_completion_class(shell)
    assert made is not None  # click has both
    click.echo(made(cli, {}, "heartbeatctl", "_HEARTBEATCTL_COMPLETE").source())
    return DONE


for each in (
    *(showing.list_, showing.gone, showing.history, showing.watch, showing.events),
    *(showing.status, steering.set_, steering.kick, steering.lockout, steering.silence),
    *(nodes.nodes, nodes.drain),
):
    cli.add_command(each)
