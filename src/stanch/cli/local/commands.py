"""`stanch local`: on an endpoint itself, as root, with the server or without it. Written by hand.

Through the agent where one answers; where none does, the isolation can still be seen and lifted: whoever stands in
front of a machine that is cut off must not need the network for it.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from stanch.cli.command import Group, json_option
from stanch.cli.local.quarantine import quarantine
from stanch.cli.local.scanning import scan
from stanch.cli.local.socket import ask
from stanch.cli.places import CODE_SOCKET, socket_option, state_option
from stanch.cli.programs import completed
from stanch.cli.render import Fields, show
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import Cancelled, Denied, Unavailable

MAX_TYPED = 200
"""Characters: enough for every way to write a code."""


@click.group(cls=Group, examples=("local status", "local isolation off"))
def local() -> None:
    """On an endpoint itself: how is the agent, is the machine isolated, let it back on the network. Mostly as root."""


@local.command(examples=("local status", "local status --json"))
@socket_option
@json_option
def status(*, socket: Path, as_json: bool) -> None:
    """Show how the agent of this machine is."""
    found = ask(socket, "status")
    if found is None:
        raise Unavailable("No agent runs here", got=f"nobody at {socket}", hint="Start it: stanch agent run")
    _tell(found, as_json=as_json)


local.add_command(quarantine)
local.add_command(scan)


@local.group(examples=("local isolation status", "local isolation off"))
def isolation() -> None:
    """See and lift the network isolation of this machine."""


@isolation.command("status", examples=("local isolation status",))
@socket_option
@state_option
@json_option
def isolation_status(*, socket: Path, state: Path, as_json: bool) -> None:
    """Show whether this machine is isolated, as the kernel says. Every user may see that; root sees all of it."""
    found = _status(socket)
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


@isolation.command(
    "release-code", examples=("local isolation release-code", "local isolation release-code 7KQ2-9XTR-M4WB-0ZHD")
)
@click.argument("code", required=False)
@socket_option
@state_option
@json_option
def isolation_release_code(*, code: str | None, socket: Path, state: Path, as_json: bool) -> None:
    """Let this machine back on the network with its release code; every user may who has the code.

    `stanch release-code ENDPOINT` shows the code elsewhere. It is asked for if it is not given. Small letters, spaces
    and dashes do not matter. Wrong codes are counted: 5 of one account in 15 minutes.
    """
    typed = _typed() if code is None else code
    done = ask(_everybodys(socket), "release-code", code=typed[:MAX_TYPED])
    _tell(_without_agent(state, typed) if done is None else done, as_json=as_json)


def _typed() -> str:
    """From the keyboard, unseen; or the first line of what is piped in."""
    if sys.stdin.isatty():
        return str(click.prompt("Release code", hide_input=True, err=True))
    return sys.stdin.readline(MAX_TYPED)


def _without_agent(state: Path, code: str) -> Mapping[str, Any]:
    if os.geteuid() != 0:
        raise Unavailable(
            "The agent of this machine does not run, and only it can take a code from this account",
            hint="Start it (systemctl start stanch-agent), or let root do it: sudo stanch local isolation release-code",
        )
    from stanch.agent.local import isolation_release_code as lift

    done: Mapping[str, Any] = completed(lift(state, code))
    return done


def _status(socket: Path) -> Mapping[str, Any] | None:
    """All of it for root, in short for others; None if no agent answers."""
    try:
        return ask(socket, "isolation-status")
    except Denied:
        in_short = ask(_everybodys(socket), "isolation-status")
        if in_short is None:
            raise
        return in_short


def _everybodys(socket: Path) -> Path:
    return socket.with_name(CODE_SOCKET)


def _tell(value: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(dict(value))
    else:
        show_blocks([Fields(tuple((show(name).replace("_", " "), show(one)) for name, one in value.items()))])
