"""`stanch ioc`: indicators of compromise, explained before they are used. Offline: needs no server and no agent."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.command import Group, json_option
from stanch.cli.ioc_scan import scan
from stanch.core.errors import Invalid

if TYPE_CHECKING:
    from stanch.core.ioc.errors import Unreadable
    from stanch.core.ioc.stix import Bundle

SUFFIXES = (".ioc", ".xml", ".json")
"""Ends of the names of files that are looked for in folders; what a file is, its content tells."""
MAX_FILES = 20_000


@click.group(cls=Group, examples=("ioc check FILE", "ioc check FOLDER --json", "ioc scan --path DIR FILE"))
def ioc() -> None:
    """Indicators of compromise (OpenIOC, STIX): what they look for, and what of it this system can know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came of one file."""

    file: Path
    bundle: "Bundle | None" = None
    error: "Unreadable | None" = None


@ioc.command(
    examples=(
        "ioc check dropper.ioc",
        "ioc check bundle.json --full",
        "ioc check indicators/ --json",
    )
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--full", is_flag=True, help="Show all of the logic, however long.")
@json_option
def check(*, files: tuple[Path, ...], full: bool, as_json: bool) -> int:
    """Read indicators of compromise, and say in words what they look for.

    FILE is OpenIOC 1.0 or 1.1 (up to 3 MB), or a STIX 2.0 or 2.1 bundle of indicators (up to 16 MB); its content tells
    which. In a folder, every .ioc, .xml and .json file is read. Terms that cannot be known on Linux are listed, and so
    is whatever can never match, and ids that are there twice. Nothing is looked for, and no server is asked.

    Ends with 0 if every file can be read, and with 2 if one cannot.
    """
    from stanch.cli.ioc_text import show_checked, told_of
    from stanch.cli.screen import print_json

    found = tuple(_files_of(files))
    if not found:
        raise Invalid(
            "There are no indicators",
            got="folders without such files",
            expected=f"files whose names end in {', '.join(SUFFIXES)}",
        )
    checked = read_all(found)
    if as_json:
        print_json(told_of(checked))
    else:
        show_checked(checked, full=full)
    return Invalid.exit_code if any(one.error for one in checked) else 0


def _files_of(places: Sequence[Path]) -> Iterator[Path]:
    """The files, and those in the folders, each once; links to folders are not followed."""
    seen: set[Path] = set()
    for place in places:
        for file in _below(place) if place.is_dir() else (place,):
            if file not in seen:
                seen.add(file)
                yield file
            if len(seen) > MAX_FILES:
                raise Invalid("These are too many files", got=f"more than {MAX_FILES}", expected=f"at most {MAX_FILES}")


def _below(folder: Path) -> Iterator[Path]:
    closed: list[Path] = []
    for above, folders, names in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders.sort()
        yield from (Path(above, name) for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES)
    yield from closed  # read like files, they say why they cannot be


def read_all(files: Sequence[Path]) -> Sequence[Checked]:
    """Read each file; on a terminal one sees how far it is."""
    from stanch.cli.screen import transfer_bar

    sizes = [_size(file) for file in files]
    checked, done, total = [], 0, sum(sizes)
    with transfer_bar("Reading indicators") as progress:
        for file, size in zip(files, sizes, strict=True):
            progress(done, total)
            checked.append(_read(file))
            done += size
    return checked


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _read(file: Path) -> Checked:
    from stanch.core.ioc.errors import Unreadable
    from stanch.core.ioc.formats import LARGEST, read_indicators

    try:
        return Checked(file=file, bundle=read_indicators(_bytes_of(file, LARGEST + 1)))
    except Unreadable as error:
        return Checked(file=file, error=error)
    except OSError as error:
        got = error.strerror or str(error)
        return Checked(file=file, error=Unreadable("The file cannot be opened", got=got, expected="a readable file"))


def _bytes_of(file: Path, most: int) -> bytes:
    """The beginning of a regular file: a pipe that nobody writes would be waited for without end."""
    from stanch.core.ioc.errors import Unreadable

    with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise Unreadable("This is no file", got="a folder, a pipe or a device", expected="a regular file")
        return opened.read(most)


def error_of(error: "Unreadable") -> dict[str, Any]:
    """An error, for programs."""
    return {
        "code": Invalid.code,
        "message": error.message,
        "got": error.got or None,
        "expected": error.expected or None,
        "line": error.line or None,
    }


# Further commands of the group stand in files of their own.
ioc.add_command(scan)
