"""What rpm knows, asked of the program `rpm`: its database has had three forms, and only the program reads them all.

Two questions: which packages are concerned, by name; and what files those have. An answer is believed for a file only
if the second one names it, so that a path that was made up to look like an answer changes nothing.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stanch.agent.host.package_database import Brought, DigestKind, in_batches, package_name
from stanch.agent.host.run import find, run
from stanch.core.errors import StanchError, Unsupported
from stanch.core.types import minutes

PLACES = ("usr/lib/sysimage/rpm", "var/lib/rpm")
OUTPUT_LIMIT = 64 * 1_048_576
FILES_AT_ONCE = 400
PACKAGES_AT_ONCE = 40
"""For one command line: the answer about a package has all its files."""

_BYTES_AT_ONCE = 65_536
_PACKAGE = re.compile(rb"^:([A-Za-z0-9][A-Za-z0-9._+~^-]{0,250})$", re.MULTILINE)
_FILE = re.compile(rb"^:([A-Za-z0-9][^\t\n]*)\t([0-9]+)\t([0-9a-f]*)\t(/[^\n]*)$", re.MULTILINE)
_WHICH = ":%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n"
_WHAT = "[:%{=NAME}\\t%{FILEFLAGS}\\t%{FILEDIGESTS}\\t%{FILENAMES}\\n]"
_GHOST = 1 << 6
"""Of the flags: the package owns the name and brings no content."""

_KINDS: Mapping[int, DigestKind] = {
    32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512",
}  # fmt: skip
"""Hexadecimal digits to the kind of digest."""

Ask = Callable[[Sequence[str]], bytes]
"""Runs a program to its end; what it wrote. StanchError if it cannot."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A file as the database tells of it."""

    package: str
    name: bytes
    brought: Brought | None
    """None for what has no content of its own: folders, links, ghosts."""


def parse_packages(raw: bytes) -> Iterator[str]:
    """Read the answer to the first question: each package once. Complaints stand in between."""
    return iter(dict.fromkeys(found[1].decode("ascii") for found in _PACKAGE.finditer(raw)))


def parse_files(raw: bytes) -> Iterator[Packed]:
    """Read the answer to the second question; what is no file is passed over."""
    for found in _FILE.finditer(raw):
        ghost = len(found[2]) > 9 or int(found[2]) & _GHOST  # noqa: PLR2004 - 32 bits have ten digits at most
        yield Packed(package_name(found[1]), found[4], None if ghost else _brought(found[3].decode("ascii")))


def _brought(digest: str) -> Brought | None:
    kind = _KINDS.get(len(digest))
    return None if kind is None else Brought(kind, digest)


def ask(argv: Sequence[str]) -> bytes:
    """Run a program, from a thread that has no event loop."""
    return asyncio.run(run(argv, within=minutes(1), output_limit=OUTPUT_LIMIT)).stdout


class Rpm:
    """The database of Red Hat, SUSE and their like, below a root folder; it knows nothing where `rpm` is missing."""

    def __init__(self, root: Path, *, ask: Ask = ask) -> None:
        self._root = root
        self._ask = ask

    def owners(self, names: Collection[bytes]) -> Mapping[bytes, str]:
        """The package of each file that has one."""
        return {one.name: one.package for one in self._files(names)}

    def brought(self, names: Collection[bytes]) -> Mapping[bytes, Brought]:
        """The digest of each file as its package brought it."""
        return {one.name: one.brought for one in self._files(names) if one.brought is not None}

    def _files(self, paths: Collection[bytes]) -> Iterator[Packed]:
        database = next((place for one in PLACES if (place := self._root / one).is_dir()), None)
        if database is None or not paths or not _installed(self._ask):
            return
        command = ["rpm", "--dbpath", str(database)]
        wanted = frozenset(paths)
        packages = dict.fromkeys(
            package
            for answer in self._answers([*command, "-qf", "--queryformat", _WHICH, "--"], sorted(wanted), FILES_AT_ONCE)
            for package in parse_packages(answer)
        )
        names = map(str.encode, packages)
        for answer in self._answers([*command, "-q", "--queryformat", _WHAT, "--"], names, PACKAGES_AT_ONCE):
            yield from (one for one in parse_files(answer) if one.name in wanted)

    def _answers(self, command: Sequence[str], names: Iterable[bytes], count: int) -> Iterator[bytes]:
        for batch in in_batches(names, count=count, size=_BYTES_AT_ONCE):
            with suppress(StanchError):
                # Bytes that are no text pass through: the program gets them as they are.
                yield self._ask([*command, *[name.decode("utf-8", "surrogateescape") for name in batch]])


def _installed(asked: Ask) -> bool:
    if asked is not ask:
        return True
    try:
        return bool(find("rpm"))
    except Unsupported:
        return False
