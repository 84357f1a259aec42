"""Where the agent of this machine keeps its things: options that name the same places, and mean the same, everywhere.

Each place may also be named by the environment, which the agent itself reads too: so `enroll`, `run` and `local` agree
about a machine whose places are not the usual ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

CONFIG_VARIABLE: Final = "STANCH_AGENT_CONFIG"
STATE_VARIABLE: Final = "STANCH_AGENT_STATE"
SOCKET_VARIABLE: Final = "STANCH_AGENT_SOCKET"

CONFIG: Final = Path("/etc/stanch/agent.toml")
STATE: Final = Path("/var/lib/stanch/agent")
SOCKET: Final = Path("/run/stanch/agent.sock")
CODE_SOCKET: Final = "code.sock"
"""Beside the other: for every user of the machine."""

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F) -> F:
    """`--config`: the local policy."""
    return _place("--config", CONFIG, CONFIG_VARIABLE, "Local policy.", folder=False)(command)


def state_option(command: F) -> F:
    """`--state`: the agent's folder."""
    return _place("--state", STATE, STATE_VARIABLE, "Where the agent keeps everything.", folder=True)(command)


def socket_option(command: F) -> F:
    """`--socket`: where `stanch local` reaches the agent."""
    return _place("--socket", SOCKET, SOCKET_VARIABLE, "Where the agent listens.", folder=False)(command)


def _place(name: str, usual: Path, variable: str, meaning: str, *, folder: bool) -> Callable[[F], F]:
    # Whether this user may read it is asked by whoever opens it, who can say what would help.
    kind = click.Path(path_type=Path, file_okay=not folder, dir_okay=folder, readable=False)
    return click.option(
        name, type=kind, default=usual, envvar=variable, show_default=True, show_envvar=True, help=meaning
    )
