"""`stanch agent support-bundle`: one archive for a developer, with nothing in it that is secret."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from stanch.cli.command import Command, json_option
from stanch.cli.local.socket import ask
from stanch.cli.places import config_option, socket_option, state_option
from stanch.cli.render import Note, human_size, show, table
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import StanchError

_PATIENCE = 20.0


@click.command(
    cls=Command,
    examples=(
        "agent support-bundle",
        "agent support-bundle --output /root/stanch.tar.gz",
        "agent support-bundle --json",
    ),
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.tar.gz",
    help="Where to put it.  [default: a new name in this folder]",
)
@click.option("--with-names", is_flag=True, help="Tell the paths of what is in the vault, too.")
@config_option
@state_option
@socket_option
@json_option
def support_bundle(
    *, output: Path | None, with_names: bool, config: Path, state: Path, socket: Path, as_json: bool
) -> None:
    """Collect what a developer needs to see into one archive. Nothing is sent anywhere.

    No keys, no passwords, no parameters or results of tasks, nothing from the vault. Run it as root.
    """
    from stanch.agent import bundle
    from stanch.agent.selftest_probe import Bench
    from stanch.agent.settings import Settings

    settings = Settings(config=config.absolute(), state=state.absolute(), socket=socket.absolute())
    path = (output or bundle.usual_name(Path.cwd())).absolute()
    bundle.refuse(path)
    made = bundle.Bundle(bench=Bench(settings=settings), status=lambda: _status(socket), with_names=with_names)
    archive, manifest = asyncio.run(made.collect())
    bundle.write(path, archive)
    if as_json:
        print_json({"path": os.fspath(path), "size": len(archive), "manifest": manifest.model_dump(mode="json")})
        return
    files = (*((one.name, human_size(one.size), "") for one in manifest.files),)
    missing = (*((name, "-", why) for name, why in manifest.missing.items()),)
    show_blocks(
        [
            table(("file", "size", "why not"), (*files, *missing)),
            Note(
                f"{show(os.fspath(path))}, {human_size(len(archive))}. Look through it before you send it to anybody."
            ),
        ]
    )


def _status(socket: Path) -> Mapping[str, Any] | None:
    """What the running agent says, its errors included."""
    try:
        status = ask(socket, "status", patience=_PATIENCE)
        return None if status is None else {**status, "isolation": ask(socket, "isolation-status", patience=_PATIENCE)}
    except StanchError as error:
        return {"error": str(error)}
