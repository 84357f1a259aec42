"""What is said of every autorun alike: hashes, owner, package, and what deserves a look. Blocks."""

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from stanch.agent.host.autorun_found import Item, Programs, suspicions
from stanch.agent.host.autorun_tree import Tree, endpoint_path
from stanch.agent.host.metadata import moment
from stanch.core.autoruns import CHANGED_PROGRAM, UNPACKAGED_PROGRAM, Autorun, Place
from stanch.core.types import EndpointPath, Mode

HASHED = 256 * 1_048_576
"""Bytes of a file of which the hash is taken at most."""

MAX_HASHES = 50_000
"""Files of which the hash is remembered."""

MAX_NOTES = 20
_MAX_TEXT = 4000

_TEMPORARY = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/shm/", "/run/user/")  # noqa: S108 - where nothing should start from
_PRIVATE = frozenset({Place.SSH_KEY, Place.SHELL, Place.DESKTOP})
"""What is in homes has no package: it need not be told of each."""


class Owners(Protocol):
    """What is asked of the package databases."""

    def owners(self, paths: Collection[EndpointPath]) -> Mapping[EndpointPath, str]:
        """Package by path, for those that have one."""
        ...

    def differs_many(self, paths: Collection[EndpointPath]) -> Mapping[EndpointPath, bool]:
        """Is each another file than its package brought? Only those of which it can be told."""
        ...


class NoPackages:
    """A machine without a package database."""

    def owners(self, paths: Collection[EndpointPath]) -> Mapping[EndpointPath, str]:  # noqa: ARG002 - as Owners has it
        """None has one."""
        return {}

    def differs_many(self, paths: Collection[EndpointPath]) -> Mapping[EndpointPath, bool]:  # noqa: ARG002 - likewise
        """Nobody can tell."""
        return {}


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file, as it was looked at."""

    path: EndpointPath
    """As it is named."""
    real: EndpointPath
    """Where it is."""
    status: os.stat_result | None
    package: str = ""
    differs: bool | None = None


@dataclass(slots=True)
class Describer:
    """Makes autoruns of what readers found; the hash of each file is taken once."""

    tree: Tree
    packages: Owners
    programs: Programs
    _hashes: dict[tuple[int, int, int, int], str | None] = field(default_factory=dict)

    def describe(self, items: Sequence[Item]) -> list[Autorun]:
        """All of a batch: the package databases are asked once."""
        files = [self._seen(one.path, follow=not one.is_link) for one in items]
        programs = [self._program(one) for one in items]
        known = self._known([*files, *(one for one in programs if one is not None)])
        return [
            self._autorun(item, known(file), None if program is None else known(program))
            for item, file, program in zip(items, files, programs, strict=True)
        ]

    def _known(self, ones: Sequence[_Seen]) -> Callable[[_Seen], _Seen]:
        """Puts to each what the package databases know of it, under either of its names."""
        paths = {path for one in ones for path in (one.path, one.real)}
        owners = self.packages.owners(paths)
        differs = self.packages.differs_many({one.real for one in ones if one.path in owners or one.real in owners})

        def known(one: _Seen) -> _Seen:
            package = owners.get(one.real) or owners.get(one.path, "")
            return replace(one, package=package, differs=differs.get(one.real))

        return known

    def _seen(self, path: str, *, follow: bool = True) -> _Seen:
        status, named = self.tree.status(path, follow=follow), endpoint_path(path)
        return _Seen(named, endpoint_path(self.tree.real(path)) if follow and status is not None else named, status)

    def _program(self, item: Item) -> _Seen | None:
        found = item.program or self.programs.of(item.starts or item.command)
        return self._seen(found) if found.startswith("/") else None

    def _autorun(self, item: Item, file: _Seen, program: _Seen | None) -> Autorun:
        notes = [*item.notes, *_of_file(item, file), *suspicions(item.command)]
        notes += _of_program(program) if program is not None else []
        status = file.status
        return Autorun(
            id=item.id,
            place=item.place,
            name=told(item.name) or file.path.name or "-",
            path=file.path,
            line=item.line,
            command=told(item.command),
            program=None if program is None else program.path,
            program_sha256=None if program is None else self._sha256(program),
            user=told(item.user)[:200],
            enabled=item.enabled,
            running=item.running,
            disabled_by=item.disabled_by,
            sha256=self._sha256(file),
            owner="" if status is None else told(self.tree.user(status.st_uid)),
            mode=None if status is None else Mode(stat.S_IMODE(status.st_mode)),
            modified=None if status is None else moment(status.st_mtime_ns),
            package=told(file.package),
            differs=file.differs,
            notes=tuple(told(one) for one in dict.fromkeys(notes))[:MAX_NOTES],
        )

    def _sha256(self, seen: _Seen) -> str | None:
        status = seen.status
        if status is None or not stat.S_ISREG(status.st_mode):
            return None
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            if len(self._hashes) >= MAX_HASHES:
                self._hashes.clear()
            self._hashes[key] = self.tree.sha256(os.fsdecode(seen.real.raw), most=HASHED)
        return self._hashes[key]


def told(text: str) -> str:
    r"""A text as people are told it: bounded, on one line; odd bytes as `\xff`, signs that move a cursor as spaces."""
    plain = text[:_MAX_TEXT].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else " " for one in plain)[:_MAX_TEXT].strip()


def _of_file(item: Item, file: _Seen) -> Iterator[str]:
    if file.status is None:
        return
    if not stat.S_ISLNK(file.status.st_mode) and file.status.st_mode & 0o022:
        yield f"its file may be written by {_whom(file.status.st_mode)}"
    if not (file.package or (item.user and item.place in _PRIVATE) or file.path.startswith("/proc/")):
        yield "no package has brought its file"
    if file.differs:
        yield "its file is not as its package brought it"
    yield from _of_folder(file.real, "its file")


def _of_program(program: _Seen) -> Iterator[str]:
    if program.status is None:
        yield "its program is not there"
        return
    if not stat.S_ISREG(program.status.st_mode):
        return
    if program.status.st_mode & 0o022:
        yield f"its program may be written by {_whom(program.status.st_mode)}"
    if not program.package:
        yield UNPACKAGED_PROGRAM
    if program.differs:
        yield CHANGED_PROGRAM
    yield from _of_folder(program.real, "its program")


def _of_folder(path: str, what: str) -> Iterator[str]:
    if path.startswith(_TEMPORARY):
        yield f"{what} is in a folder for temporary files"
    elif what == "its program" and any(one.startswith(".") for one in path.split("/")):
        yield f"{what} is hidden"


def _whom(mode: int) -> str:
    return "everybody" if mode & 0o002 else "its group"
