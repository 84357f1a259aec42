"""`stanch agent service`: the units of systemd that run this interpreter's agent, written, shown and removed again.

Only files are written, nothing is started: what is left to type is printed. A file that somebody else wrote is not
touched; changes of one's own belong in drop-ins (`systemctl edit`), which stay.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import click

from stanch.cli.command import Group, json_option
from stanch.cli.render import Block, Note, Table
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import Conflict, Denied, Invalid, NotFound
from stanch.disk import service_files
from stanch.disk.atomic import atomic_write
from stanch.disk.service_files import File, links

ENABLE: Final = "systemctl enable --now stanch-isolation.service stanch-agent.service"
F = TypeVar("F", bound=Callable[..., object])


def files(root: Path, python: str) -> tuple[File, ...]:
    """All files below a root folder, for this interpreter; Invalid if a unit cannot name it."""
    try:
        return service_files.files(root, python)
    except ValueError:
        hint = "Move the environment to a path of letters, digits, and any of _./+-"
        raise Invalid("A unit cannot name this interpreter", got=python, expected="a plain path", hint=hint) from None
    except FileNotFoundError as error:
        hint = "Install the package again."
        raise NotFound("The units are not part of this installation", got=error, hint=hint) from None


# --- commands --------------------------------------------------------------------------------------------------------


def root_option(command: F) -> F:
    """`--root`: another folder in the place of `/`."""
    kind = click.Path(path_type=Path, file_okay=False)
    return click.option(
        "--root", type=kind, default=Path("/"), show_default=True, help="Below this folder, for an image."
    )(command)


def dry_option(command: F) -> F:
    """`--dry-run`."""
    return click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")(command)


@click.group(cls=Group, examples=("agent service install --dry-run", "agent service install", "agent service remove"))
def service() -> None:
    """Let systemd start the agent at boot, and restore isolation before the network comes up."""


@service.command(examples=("agent service show", "agent service show --json"))
@root_option
@json_option
def show(*, root: Path, as_json: bool) -> None:
    """Show which units are installed."""
    _tell([(one, one.state) for one in files(root, sys.executable)], as_json=as_json)


@service.command(examples=("agent service install --dry-run", "agent service install"))
@root_option
@dry_option
@json_option
def install(*, root: Path, dry_run: bool, as_json: bool) -> None:
    """Write the units for this interpreter. Says what is left to type; `remove` undoes it."""
    some = files(root, sys.executable)
    _refuse_foreign(some)
    states = [(one, {"absent": "new", "outdated": "changed"}.get(one.state, "as it was")) for one in some]
    if not dry_run:
        for one in some:
            _write(one)
    _tell(states, as_json=as_json, dry_run=dry_run, left=_then(root, ENABLE))


@service.command(examples=("agent service remove --dry-run", "agent service remove"))
@root_option
@dry_option
@json_option
def remove(*, root: Path, dry_run: bool, as_json: bool) -> None:
    """Remove the units again. An isolation that is in force stays until its deadline, but not over a reboot."""
    some = files(root, sys.executable)
    _refuse_foreign(some)
    states = [(one, "as it was" if one.present is None else "removed") for one in some]
    if not dry_run:
        for path in (*links(root), *(one.path for one in some)):
            _unlink(path)
    _tell(states, as_json=as_json, dry_run=dry_run, left=_then(root, "systemctl stop stanch-agent.service"))


def _refuse_foreign(some: tuple[File, ...]) -> None:
    foreign = [str(one.path) for one in some if one.state == "foreign"]
    if foreign:
        raise Conflict(
            "Somebody else wrote this file",
            got=", ".join(foreign),
            expected="nothing, or a file of `stanch agent service install`",
            hint="Is a package of Stanch installed? Then its units do. Otherwise move the file away.",
        )


def _write(one: File) -> None:
    try:
        one.path.parent.mkdir(parents=True, exist_ok=True)
        if one.present != one.text:
            atomic_write(one.path, one.text.encode(), mode=0o644)
    except PermissionError as error:
        raise _denied(error) from None


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError as error:
        raise _denied(error) from None


def _denied(error: PermissionError) -> Denied:
    return Denied("Units cannot be written by this account", got=error.filename, hint="Try again as root, with sudo.")


def _then(root: Path, command: str) -> tuple[str, ...]:
    """What root types next; nothing for an image, which systemd of this machine does not read."""
    return ("systemctl daemon-reload", "udevadm control --reload", command) if root == Path("/") else ()


def _tell(states: list[tuple[File, str]], *, as_json: bool, dry_run: bool = False, left: tuple[str, ...] = ()) -> None:
    if as_json:
        rows = [{"path": os.fspath(one.path), "state": state} for one, state in states]
        print_json({"dry_run": dry_run, "files": rows, "next": list(left)})
    else:
        show_blocks(_blocks(states, dry_run=dry_run, left=left))


def _blocks(states: list[tuple[File, str]], *, dry_run: bool, left: tuple[str, ...]) -> Iterator[Block]:
    yield Table(("file", "state"), tuple((os.fspath(one.path), state) for one, state in states))
    if dry_run:
        yield Note("Nothing was changed: --dry-run.")
    elif left:
        yield Note("Now type: " + " && ".join(left))
