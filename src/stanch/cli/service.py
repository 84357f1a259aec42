"""`stanch agent service`: the units of systemd that run this interpreter's agent, written, shown and removed again.

Only files are written, nothing is started: what is left to type is printed. A file that somebody else wrote is not
touched; changes of one's own belong in drop-ins (`systemctl edit`), which stay.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import click

import stanch
from stanch.cli.command import Group, json_option
from stanch.cli.render import Block, Note, Table
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import Conflict, Denied, Invalid, NotFound
from stanch.disk.atomic import atomic_write

UNITS: Final = Path("etc/systemd/system")
RULES: Final = Path("etc/udev/rules.d")
FILES: Final = {
    "stanch-isolation.service": UNITS,
    "stanch-isolation-device@.service": UNITS,
    "stanch-agent.service": UNITS,
    "90-stanch-isolation.rules": RULES,
}
"""Name to folder, in the order in which they are shown."""

LINKS: Final = ("sysinit.target.wants/stanch-isolation.service", "multi-user.target.wants/stanch-agent.service")
"""What `systemctl enable` adds; it cannot take them away any more when the units are gone."""

HEAD: Final = "# Written by `stanch agent service install`. Changes of your own: systemctl edit.\n"
ENABLE: Final = "systemctl enable --now stanch-isolation.service stanch-agent.service"
MAX_BYTES: Final = 65_536

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+-]*")
_PROGRAMS: Final = {"/usr/bin/stanch-boot": "stanch.agent.boot", "/usr/bin/stanch": "stanch.cli.main"}

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it should be and as it is."""

    path: Path
    text: str

    @property
    def present(self) -> str | None:
        """What is there now; None if nothing is."""
        try:
            with self.path.open("rb") as file:
                return file.read(MAX_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return None

    @property
    def state(self) -> str:
        """absent, installed, outdated, or foreign: written by somebody else."""
        present = self.present
        if present is None:
            return "absent"
        if not present.startswith(HEAD):
            return "foreign"
        return "installed" if present == self.text else "outdated"


def files(root: Path, python: str) -> tuple[File, ...]:
    """All files below a root folder, for this interpreter; Invalid if a unit cannot name it."""
    if not _PLAIN_PATH.fullmatch(python):
        hint = "Move the environment to a path of letters, digits, and any of _./+-"
        raise Invalid("A unit cannot name this interpreter", got=python, expected="a plain path", hint=hint)
    return tuple(File(root / folder / name, HEAD + _for(python, _template(name))) for name, folder in FILES.items())


def _for(python: str, template: str) -> str:
    """The template with our programs replaced by this interpreter's; -I: root's daemons import from nowhere else."""
    return re.sub(
        r"(?m)^(Exec[A-Z][a-z]+=)(/usr/bin/stanch(?:-boot)?)\b(?!-)",
        lambda found: f"{found[1]}{python} -I -m {_PROGRAMS[found[2]]}",
        template,
    )


def _template(name: str) -> str:
    """A unit as it is packaged: beside this package, or in the checkout that it runs from."""
    package = Path(stanch.__file__).parent
    for folder in (package / "systemd", package.parents[1] / "packaging" / "systemd"):
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise NotFound("The units are not part of this installation", got=f"no {name}", hint="Install the package again.")


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
        for path in (*(root / UNITS / link for link in LINKS), *(one.path for one in some)):
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
