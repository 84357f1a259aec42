"""Packs of rules and indicators on the agent's disk: which are there, and which of them scans use.

A folder that only root may enter: each pack, masked, in a file that is named by its SHA-256; and `installed.json`,
which alone says what is in use. A pack is whole, checked and on the disk before that file names it, and is removed only
after that file has forgotten it: so whenever the agent is killed, scans use what they used before, or the new, and what
is left over goes at the next `tidy`.
"""

import hashlib
import os
import stat
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import Field, ValidationError

from stanch.agent.content_files import MASK, Part, opened
from stanch.core.content import (
    MAX_PACK_BYTES,
    MAX_PACK_FILES,
    MAX_PACKS,
    ContentKind,
    ContentName,
    Installed,
    PackIndex,
    PackRef,
)
from stanch.core.errors import Invalid, NotFound, Unavailable, VerificationFailed
from stanch.core.files import Bytes
from stanch.core.model import LooseModel
from stanch.core.pack import MAX_LINE_BYTES, PackCheck, Place, places, read_line
from stanch.core.types import Instant, Sha256, Text
from stanch.disk.atomic import atomic_write

BLOCK = 2**20
MAX_STATE_BYTES = 4 * 2**20
MAX_TOTAL = 2 * 2**30
"""Bytes of all packs that the server may want here."""
MIN_FREE = 256 * 2**20
"""Bytes that stay free on the file system, or a twentieth of a small one: others live there too."""

_STATE = "installed.json"
_PACK, _PART = ".pack", ".part"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = structlog.get_logger(__name__)


class Entry(LooseModel):
    """A version that was tried, and found to load."""

    name: ContentName
    kind: ContentKind
    version: Annotated[int, Field(ge=1, le=2**31)]
    sha256: Sha256
    size: Annotated[int, Field(ge=1, le=MAX_PACK_BYTES)]
    files: Annotated[int, Field(ge=1, le=MAX_PACK_FILES)]
    rules: Annotated[int, Field(ge=0, le=10_000_000)]
    since: Instant

    @property
    def installed(self) -> Installed:
        """As people are told."""
        return Installed(**self.model_dump(exclude={"size"}))


class Kept(LooseModel):
    """What scans use, and what they used before: kept, so that going back to it fetches nothing."""

    current: Entry
    before: Entry | None = None


class Refusal(LooseModel):
    """A version that does not load here: it is not tried again and again."""

    sha256: Sha256
    why: Text


class State(LooseModel):
    """All of `installed.json`."""

    packs: Annotated[Mapping[ContentName, Kept], Field(max_length=MAX_PACKS)] = {}
    refused: Annotated[Mapping[ContentName, Refusal], Field(max_length=MAX_PACKS)] = {}


class ContentStore:
    """The folder. Everything here blocks; one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state: State | None = None

    @property
    def state(self) -> State:
        """What is in use; nothing before it was ever written, or if it cannot be read: then all is fetched anew."""
        if self._state is None:
            self._state = self._read()
        return self._state

    def path(self, sha256: Sha256) -> Path:
        """Where a pack is, or would be."""
        return self._folder / f"{sha256}{_PACK}"

    def has(self, sha256: Sha256, size: int) -> bool:
        """Is there a whole pack?"""
        with suppress(OSError):
            there = self.path(sha256).lstat()
            return stat.S_ISREG(there.st_mode) and there.st_size == size
        return False

    def current(self, name: ContentName) -> Entry | None:
        """The version of a name that scans use: the one before, should the file of the newest be gone."""
        kept = self.state.packs.get(name)
        known = (kept.current, kept.before) if kept is not None else ()
        return next((one for one in known if one is not None and self.has(one.sha256, one.size)), None)

    def all(self) -> tuple[Entry, ...]:
        """Everything that scans can use, in the order of the names."""
        entries = (self.current(name) for name in sorted(self.state.packs))
        return tuple(one for one in entries if one is not None)

    def why_refused(self, ref: PackRef) -> str:
        """Why this very version was refused before; empty if it was not."""
        refusal = self.state.refused.get(ref.name)
        return refusal.why if refusal is not None and refusal.sha256 == ref.sha256 else ""

    # --- changes -----------------------------------------------------------------------------------------------------

    def use(self, entry: Entry) -> None:
        """Let scans use this version from now on. Unavailable, and all is as before, if it cannot be written."""
        if entry.name not in self.state.packs and len(self.state.packs) >= MAX_PACKS:
            raise Unavailable("There is too much content here", got=MAX_PACKS + 1, expected=f"at most {MAX_PACKS}")
        before = self.current(entry.name)
        if before is not None and before.sha256 == entry.sha256:
            before = self.state.packs[entry.name].before
        self._change(entry.name, kept=Kept(current=entry, before=before))

    def drop(self, name: ContentName) -> None:
        """Forget a name, and what was kept of it."""
        self._change(name)

    def refuse(self, ref: PackRef, why: str) -> None:
        """Remember that this version does not load; what is in use stays."""
        kept = self.state.packs.get(ref.name)
        self._change(ref.name, kept=kept, refusal=Refusal(sha256=ref.sha256, why=why[:4000]))

    def tidy(self, wanted: Collection[Sha256]) -> None:
        """Remove what nothing refers to: neither what is in use or was before, nor what is still wanted."""
        entries = (one for kept in self.state.packs.values() for one in (kept.current, kept.before))
        needed = {f"{one.sha256}{_PACK}" for one in entries if one is not None} | {_STATE}
        needed |= {f"{sha256}{end}" for sha256 in wanted for end in (_PACK, _PART)}
        with self._opened() as folder:
            with os.scandir(folder) as found:
                left = [one.name for one in found if one.name not in needed]
            for name in left:
                with suppress(OSError):
                    os.unlink(name, dir_fd=folder)

    def _change(self, name: ContentName, *, kept: Kept | None = None, refusal: Refusal | None = None) -> None:
        packs = {one: value for one, value in self.state.packs.items() if one != name}
        refused = {one: value for one, value in self.state.refused.items() if one != name}
        if refusal is not None:
            # The oldest are forgotten: names that are long gone must not stand in the way of new ones.
            refused = dict([*refused.items(), (name, refusal)][-MAX_PACKS:])
        changed = State(
            packs=packs if kept is None else {**packs, name: kept},
            refused=refused,
        )
        with self._opened():
            try:
                atomic_write(self._folder / _STATE, changed.model_dump_json(indent=1).encode())
            except OSError as error:
                raise Unavailable("What scans use cannot be written down", got=error) from error
        self._state = changed

    def _read(self) -> State:
        try:
            with opened(self._folder / _STATE, flags=os.O_NOFOLLOW) as descriptor:
                return State.model_validate_json(os.pread(descriptor, MAX_STATE_BYTES, 0))
        except NotFound:
            return State()
        except (Invalid, OSError, ValidationError) as error:
            log.warning("content-state-unreadable", error=str(error)[:500])
            return State()

    # --- packs -------------------------------------------------------------------------------------------------------

    def part(self, ref: PackRef) -> "PartFile":
        """The pack while it is fetched, with what an earlier start has fetched of it; close it."""
        with self._opened():
            return PartFile(self._folder, ref)

    def free(self) -> int:
        """Bytes that may still be taken of the file system."""
        with self._opened() as folder:
            there = os.fstatvfs(folder)
        margin = min(MIN_FREE, there.f_blocks * there.f_frsize // 20)
        return max(0, there.f_bavail * there.f_frsize - margin)

    def held(self, entry: Entry) -> "HeldPack":
        """A pack that can be read from now on, whatever becomes of its file; NotFound, or Invalid if it is damaged."""
        with opened(self.path(entry.sha256), flags=os.O_NOFOLLOW) as descriptor:
            return HeldPack(descriptor)

    def checked(self, ref: PackRef) -> PackIndex:
        """What is in a pack that is here; VerificationFailed or Invalid if it is not what was signed."""
        with opened(self.path(ref.sha256), flags=os.O_NOFOLLOW) as descriptor:
            return checked(descriptor, ref)

    def feed(self, sha256: Sha256, pipe: int) -> None:
        """Write a pack into a pipe, for as long as somebody reads it, and close that; NotFound or Invalid."""
        try:
            with opened(self.path(sha256), flags=os.O_NOFOLLOW) as descriptor, suppress(BrokenPipeError):
                for piece in _pieces(descriptor):
                    _write_all(pipe, piece)
        finally:
            os.close(pipe)

    def discard_damaged(self) -> frozenset[ContentName]:
        """Remove packs that are not what they were, so that they are fetched anew; the names that had them."""
        names: set[ContentName] = set()
        for name, kept in self.state.packs.items():
            for one in (kept.current, kept.before):
                if one is not None and self.has(one.sha256, one.size) and not self._is_whole(one.sha256):
                    log.warning("content-damaged", name=name, version=one.version)
                    self.discard(one.sha256)
                    names.update([name] if one is kept.current else [])
        return frozenset(names)

    def _is_whole(self, sha256: Sha256) -> bool:
        """Unless it is damaged; one that cannot be read now may well be whole."""
        try:
            with opened(self.path(sha256), flags=os.O_NOFOLLOW) as descriptor:
                return _sha256(descriptor) == sha256
        except (NotFound, Unavailable):
            return True
        except (Invalid, OSError):
            return False

    def discard(self, sha256: Sha256) -> None:
        """Remove a pack that is damaged, whoever refers to it."""
        self.path(sha256).unlink(missing_ok=True)

    def remove(self, sha256: Sha256) -> None:
        """A pack that is of no use; nothing if something refers to it."""
        entries = (one for kept in self.state.packs.values() for one in (kept.current, kept.before))
        if sha256 not in {one.sha256 for one in entries if one is not None}:
            self.path(sha256).unlink(missing_ok=True)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder, made if it is not there. Unavailable."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder, _FOLDER)
        except OSError as error:
            raise Unavailable("The folder of rules and indicators cannot be used", got=error) from error
        try:
            os.fchmod(descriptor, 0o700)
            yield descriptor
        finally:
            os.close(descriptor)


class HeldPack:
    """A pack in use: a scan that has begun with it ends with it, though an update removes the file meanwhile."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor`: of the pack, which stays the caller's."""
        line = _first_line(descriptor)
        self.places = tuple(places(read_line(line), len(line)))
        """The files in it, and where they are."""
        self._descriptor = os.dup(descriptor)  # last, so that it is not lost if the rest fails

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    @asynccontextmanager
    async def part(self, place: Place) -> AsyncIterator[Bytes]:
        """The bytes of one of its files; whoever reads them compares the hash."""
        yield Part(self._descriptor, place.start, place.file.size, masked=True)


class PartFile:
    """A pack that is not all here yet."""

    def __init__(self, folder: Path, ref: PackRef) -> None:
        self._folder = folder
        self._ref = ref
        self._name = f"{ref.sha256}{_PART}"
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(folder / self._name, flags, 0o600)
        except OSError as error:
            raise Unavailable("A pack cannot be written", got=error) from error

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return os.fstat(self._file).st_size

    def append(self, data: bytes) -> None:
        """The next of them. Unavailable if the disk does not take them."""
        try:
            _write_all(self._file, data.translate(MASK))
        except OSError as error:
            raise Unavailable("A pack cannot be written", got=error) from error

    def restart(self) -> None:
        """Forget what is here."""
        os.ftruncate(self._file, 0)

    def check(self) -> PackIndex:
        """What is in it, now that all of it is here; VerificationFailed or Invalid if it is not what was signed."""
        return checked(self._file, self._ref)

    def finish(self) -> None:
        """Give it the name of a whole pack, on the disk."""
        os.fsync(self._file)
        folder = os.open(self._folder, _FOLDER)
        try:
            os.rename(self._name, f"{self._ref.sha256}{_PACK}", src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Let go; what is here stays for the next time."""
        os.close(self._file)


def checked(descriptor: int, ref: PackRef) -> PackIndex:
    """What is in a pack; VerificationFailed or Invalid if it is not what was signed, or not what it says itself."""
    # The signed hash first: what does not have it was changed on the way, and it does not matter how.
    found = _sha256(descriptor)
    if found != ref.sha256:
        raise VerificationFailed(
            f"{ref.name} {ref.version} is not what the server signed", got=found, expected=ref.sha256
        )
    follows = PackCheck()
    for piece in _pieces(descriptor):
        follows.feed(piece)
    index = follows.end()
    if index.kind is not ref.kind:
        raise Invalid(f"{ref.name} {ref.version} is of another kind than was signed", got=index.kind, expected=ref.kind)
    return index


def _sha256(descriptor: int) -> Sha256:
    digest = hashlib.sha256()
    for piece in _pieces(descriptor):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(descriptor: int) -> Iterator[bytes]:
    """All of a pack's file, as it is in the clear, whatever the file's own offset is."""
    place = 0
    while piece := os.pread(descriptor, BLOCK, place):
        yield piece.translate(MASK)
        place += len(piece)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _first_line(descriptor: int) -> bytes:
    """With its end; Invalid if there is none."""
    line = bytearray()
    while b"\n" not in line:
        piece = os.pread(descriptor, BLOCK, len(line))
        if not piece or len(line) > MAX_LINE_BYTES:
            raise Invalid("The pack has no list of files", got=f"{len(line)} bytes without a line end")
        line += piece.translate(MASK)
    return bytes(line[: line.index(b"\n") + 1])
