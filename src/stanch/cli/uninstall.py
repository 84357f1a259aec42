"""`stanch agent uninstall`: take the agent off this machine, and say what is left."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from stanch.cli.command import Command, json_option
from stanch.cli.local.socket import ask
from stanch.cli.places import config_option, socket_option, state_option
from stanch.cli.render import Block, Note, show, table
from stanch.cli.screen import print_json, show_blocks
from stanch.cli.service import dry_option, root_option
from stanch.core.errors import Cancelled, Denied, Invalid
from stanch.core.model import Model


@click.command(
    cls=Command,
    examples=(
        "agent uninstall --dry-run",
        "agent uninstall",
        "agent uninstall --lift --yes",
        "agent uninstall --discard-vault",
    ),
)
@dry_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--lift", is_flag=True, help="Lift first what is in force: isolation, blocks, locked accounts, and so on."
)
@click.option("--discard-vault", is_flag=True, help="Remove what is in the vault, too. This cannot be undone.")
@root_option
@config_option
@state_option
@socket_option
@json_option
@click.pass_context
def uninstall(
    ctx: click.Context,
    *,
    dry_run: bool,
    yes: bool,
    lift: bool,
    discard_vault: bool,
    root: Path,
    config: Path,
    state: Path,
    socket: Path,
    as_json: bool,
) -> None:
    """Take the agent off this machine: units, sockets, firewall tables, identity, journal. Says first what it will do.

    Refused while something is in force, unless it is to be lifted. The vault stays with its key unless it is to be
    discarded, and the local policy stays in any case. If it was cut short, say it again. The server goes on listing
    the endpoint until it is revoked there.
    """
    from stanch.agent.settings import Settings
    from stanch.agent.uninstall import Uninstall
    from stanch.agent.uninstall_survey import Places, root_of

    if os.geteuid() != 0:
        raise Denied("Only root may do this", got=f"user {os.geteuid()}", hint="Try again with sudo.")
    root = root_of(root)
    if lift and root != Path("/"):
        hint = "Start the image, and lift it there."
        raise Invalid("In an image nothing can be lifted", got=f"--lift --root {root}", expected="--root /", hint=hint)
    config, state, socket = (_below(ctx, root, name, one) for name, one in _named(config, state, socket))

    async def order(action: str, params: Mapping[str, Any]) -> object:
        return await _order(config, state, socket, action, params)

    settings = Settings(config=config, state=state, socket=socket)
    it = Uninstall(places=Places.of(settings, root), order=order, lift=lift, discard_vault=discard_vault)
    told = _run(it.plan())
    if not dry_run:
        _ask(told, yes=yes, as_json=as_json)
        told = _run(it.carry_out())
    if as_json:
        print_json({"dry_run": dry_run, **told})
    else:
        show_blocks(_blocks(told, dry_run=dry_run))


def _run(work: Coroutine[Any, Any, Model]) -> Mapping[str, Any]:
    """Standard output is the answer's: a line of the log would make no JSON of it."""
    with redirect_stdout(sys.stderr):
        return asyncio.run(work).model_dump(mode="json")


def _named(config: Path, state: Path, socket: Path) -> Iterator[tuple[str, Path]]:
    yield from (("config", config), ("state", state), ("socket", socket))


def _below(ctx: click.Context, root: Path, name: str, path: Path) -> Path:
    """A place that nobody named is the image's, not this machine's."""
    if root != Path("/") and ctx.get_parameter_source(name) is ParameterSource.DEFAULT:
        return root.absolute() / path.relative_to("/")
    return path.absolute()


async def _order(config: Path, state: Path, socket: Path, action: str, params: Mapping[str, Any]) -> object:
    """By the running agent, or by this process in its place."""
    from stanch.agent.alone import run_alone

    # Lifting may take long, and takes as long as it takes.
    done = await asyncio.to_thread(ask, socket, "run", patience=None, action=action, params=dict(params))
    return await run_alone(config, state, action, params) if done is None else done


def _ask(told: Mapping[str, Any], *, yes: bool, as_json: bool) -> None:
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise Cancelled("Nobody is there to be asked", hint="Give --yes, or see with --dry-run what would be done.")
    show_blocks(_blocks(told, dry_run=True))
    if not click.confirm("Take the agent off this machine?", err=True):
        raise Cancelled("Nothing was changed", hint="Answer yes, or give --yes.")


def _blocks(told: Mapping[str, Any], *, dry_run: bool) -> Iterator[Block]:
    yield table(("to do" if dry_run else "done",), ((one,) for one in told["steps"]))
    if told["stays"]:
        yield table(("stays",), ((one,) for one in told["stays"]))
    if dry_run:
        yield Note("Nothing is changed yet.")
    yield Note(f"Afterwards type: {' && '.join(map(show, told['next'][:1]))}")
    for one in told["next"][1:]:
        yield Note(f"The server still lists this endpoint. On a machine that is signed in: {show(one)}")
