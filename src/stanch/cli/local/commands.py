"""`stanch local`: on an endpoint itself, as root, with the server or without it. Written by hand.

Through the agent where one answers; where none does, the isolation can still be seen and lifted: whoever stands in
front of a machine that is cut off must not need the network for it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from stanch.cli.command import Group, json_option
from stanch.cli.local.socket import ask
from stanch.cli.places import socket_option, state_option
from stanch.cli.programs import completed
from stanch.cli.render import Fields, show
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import Cancelled, Unavailable


@click.group(cls=Group, examples=("local status", "local isolation off"))
def local() -> None:
    """On an endpoint itself, as root: how is the agent, is the machine isolated, let it back on the network."""


@local.command(examples=("local status", "local status --json"))
@socket_option
@json_option
def status(*, socket: Path, as_json: bool) -> None:
    """Show how the agent of this machine is."""
    found = ask(socket, "status")
    if found is None:
        raise Unavailable("No agent runs here", got=f"nobody at {socket}", hint="Start it: stanch agent run")
    _tell(found, as_json=as_json)


@local.group(examples=("local isolation status", "local isolation off"))
def isolation() -> None:
    """See and lift the network isolation of this machine."""


@isolation.command("status", examples=("local isolation status",))
@socket_option
@state_option
@json_option
def isolation_status(*, socket: Path, state: Path, as_json: bool) -> None:
    """Show whether this machine is isolated, as the kernel says."""
    found = ask(socket, "isolation-status")
    if found is None:
        from stanch.agent.local import isolation_status as look

        found = completed(look(state))
    _tell(found, as_json=as_json)


@isolation.command("off", examples=("local isolation off", "local isolation off --yes"))
@socket_option
@state_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def isolation_off(*, socket: Path, state: Path, yes: bool, as_json: bool) -> None:
    """Let this machine back on the network. The server hears of it."""
    question = "Let this machine back on the network?"
    if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        raise Cancelled("The isolation stays", hint="Answer yes, or give --yes.")
    done = ask(socket, "isolation-off")
    if done is None:
        from stanch.agent.local import isolation_off as lift

        done = completed(lift(state))
    _tell(done, as_json=as_json)


def _tell(value: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(dict(value))
    else:
        show_blocks([Fields(tuple((show(name).replace("_", " "), show(one)) for name, one in value.items()))])
