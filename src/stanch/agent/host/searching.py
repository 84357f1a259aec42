"""Find files below some places: through descriptors, without following links, in flat memory.

Each folder is opened in its parent (`dir_fd`, O_NOFOLLOW), so that a folder that is swapped for a link meanwhile leads
nowhere. Names are met in the order in which the file system has them: a folder with a million names is never held in
memory, so nothing is sorted. Of a pattern only those folders are entered that can still fit.
"""

import os
import re
import stat
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

from stanch.agent.host.digests import digests_of
from stanch.agent.host.metadata import extents, info_of
from stanch.agent.host.other_names import mount_points
from stanch.agent.host.pinned import kind_of, same_file
from stanch.core.errors import ForbiddenHere, StanchError, TargetGone
from stanch.core.files import MOUNTED, Digests, Extent, Found, Kind, Search, Skipped
from stanch.core.filesystems import MADE_UP
from stanch.core.types import EndpointPath, Glob

BATCH = 500
"""What fits, in one batch at most."""

LOOKS = 20_000
"""Names that are looked at before a batch comes, full or not: whoever waits can end it, and sees that it goes on."""

HASHED = 256 * 1_048_576
"""Bytes that are hashed before a batch comes."""

DEEPEST = 400
"""Folders that are open at a time, one in the other."""

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Batch = list[Found | Skipped]
Forbidden = Callable[[EndpointPath], None]


@dataclass(frozen=True, slots=True)
class Pattern:
    """The part of a pattern below the folder where it begins, name by name; None stands for `**`."""

    start: bytes
    steps: Sequence[re.Pattern[bytes] | None]

    @classmethod
    def of(cls, glob: Glob) -> "Pattern":
        """Up to the first name with a pattern in it, it is a folder."""
        parts = [part for part in glob.raw.split(b"/") if part not in {b"", b"."}]
        first = next(n for n, part in enumerate(parts) if set(part) & set(b"*?["))
        steps = tuple(None if part == b"**" else _compiled(part) for part in parts[first:])
        return cls(b"/" + b"/".join(parts[:first]), steps)

    def begin(self) -> frozenset[int]:
        """Where in the pattern somebody is who stands in the first folder."""
        return self._reachable({0})

    def step(self, at: frozenset[int], name: bytes) -> frozenset[int]:
        """Where one is after this name; nowhere if it does not fit."""
        after: set[int] = set()
        for n in at:
            if n < len(self.steps):
                here = self.steps[n]
                if here is None:
                    after.add(n)
                elif here.fullmatch(name):
                    after.add(n + 1)
        return self._reachable(after)

    def fits(self, at: frozenset[int]) -> bool:
        """Is one at its end?"""
        return len(self.steps) in at

    def goes_on(self, at: frozenset[int]) -> bool:
        """Can anything below still fit?"""
        return any(n < len(self.steps) for n in at)

    def _reachable(self, at: set[int]) -> frozenset[int]:
        """`**` stands for no folder, too."""
        found, waiting = set(at), list(at)
        while waiting:
            n = waiting.pop()
            if n < len(self.steps) and self.steps[n] is None and n + 1 not in found:
                found.add(n + 1)
                waiting.append(n + 1)
        return frozenset(found)


def _compiled(part: bytes) -> re.Pattern[bytes]:
    """As the shell means it, in linear time: the standard library makes atomic groups of it."""
    return re.compile(translate(part.decode("latin-1")).encode("latin-1"))


@dataclass(slots=True)
class _Open:
    """A folder that is being looked through."""

    descriptor: int
    path: bytes
    depth: int
    at: frozenset[int]
    identity: tuple[int, int]
    entries: "Iterator[os.DirEntry[str]]"
    closing: ExitStack


class Searcher:
    """One search, batch by batch. Blocks, each call in a thread; `stop` from anywhere ends it."""

    def __init__(self, search: Search, *, forbidden: Forbidden) -> None:
        self._search = search
        self._forbidden = forbidden
        self._pattern = None if search.pattern is None else Pattern.of(search.pattern)
        self._open: list[_Open] = []
        self._looks = 0
        self._hashed = 0
        self._stopped = threading.Event()
        self._work: Iterator[Found | Skipped | None] | None = None
        self._made_up: frozenset[int] = frozenset()
        self._mounts: frozenset[bytes] = frozenset()

    def next(self) -> Batch | None:
        """What was found next, which may be nothing yet; None at the end. TargetGone if a root is not there."""
        if self._work is None:
            self._made_up = frozenset(_made_up_devices())
            self._mounts = mount_points() if self._search.leaves_mounts else self._mounts
            self._work = self._all()
        batch: Batch = []
        for one in self._work:
            if one is None:
                return batch
            batch.append(one)
            if len(batch) >= BATCH:
                return batch
        return batch or None

    def stop(self) -> None:
        """End it at the next name."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of everything; not while `next` runs."""
        self._stopped.set()
        while self._open:
            self._open.pop().closing.close()

    # --- walking -----------------------------------------------------------------------------------------------------

    def _all(self) -> Iterator[Found | Skipped | None]:
        """Everything that fits; None now and then, where nothing did for a while."""
        roots = [one.raw for one in self._search.roots]
        if self._pattern is not None and not roots:
            roots = [self._pattern.start]
        for root in roots:
            yield from self._root(root)
            while self._open and not self._stopped.is_set():
                yield from self._step()
                if self._looks >= self._search.most_looked_at:
                    yield Skipped(EndpointPath.of(root), f"the search ended after {self._looks} names")
                    return

    def _root(self, raw: bytes) -> Iterator[Found | Skipped]:
        """A root is what its links lead to."""
        real = os.path.realpath(raw)
        path = EndpointPath.of(real)
        try:
            status = os.lstat(real)
        except OSError as error:
            if self._pattern is not None:
                return  # nothing can fit
            raise TargetGone(f"There is no {EndpointPath.of(raw)}", got=error.strerror) from error
        if real in self._mounts:
            yield Skipped(path, MOUNTED)
            return
        at = frozenset[int]() if self._pattern is None else self._pattern.begin()
        if self._pattern is None or self._pattern.fits(at):
            yield from self._told(path, status)
        if stat.S_ISDIR(status.st_mode):
            yield from self._enter(None, real, real, 0, at)

    def _step(self) -> Iterator[Found | Skipped | None]:
        folder = self._open[-1]
        entry = _next(folder.entries)
        if entry is None:
            self._open.pop().closing.close()
            return
        self._looks += 1
        if self._looks % LOOKS == 0:
            yield None
        name = os.fsencode(entry.name)
        at = folder.at if self._pattern is None else self._pattern.step(folder.at, name)
        if self._pattern is not None and not at:
            return
        path = os.path.join(folder.path, name)  # noqa: PTH118 - bytes
        if path in self._mounts:
            yield Skipped(EndpointPath.of(path), MOUNTED)
            return
        if self._pattern is None or self._pattern.fits(at):
            yield from self._entry(entry, path)
        if self._may_enter(folder, entry, at):
            yield from self._enter(folder, name, path, folder.depth + 1, at)

    def _entry(self, entry: "os.DirEntry[str]", path: bytes) -> Iterator[Found | Skipped | None]:
        if not _may_be(entry, self._search.kinds):
            return
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as error:
            yield Skipped(EndpointPath.of(path), error.strerror or str(error))
            return
        yield from self._told(EndpointPath.of(path), status, name=os.fsencode(entry.name))
        if self._hashed >= HASHED:
            self._hashed = 0
            yield None

    def _told(
        self, path: EndpointPath, status: os.stat_result, *, name: bytes | None = None
    ) -> Iterator[Found | Skipped]:
        if kind_of(status.st_mode) not in self._search.kinds:
            return
        refused = self._refused(path)
        if refused is not None:
            yield refused
            return
        digests = None if name is None or not self._search.hashes else self._digests(name, status)
        yield Found(path, info_of(status), digests)

    def _digests(self, name: bytes, status: os.stat_result) -> Digests | None:
        """Of the very file that was looked at, through its folder's descriptor; None if it cannot be taken here."""
        most = self._search.hash_at_most
        if not stat.S_ISREG(status.st_mode) or (most is not None and status.st_size > most):
            return None
        self._hashed += status.st_size
        try:
            file = _opened(name, self._open[-1].descriptor)
        except OSError:
            return None
        try:
            now = os.fstat(file)
            if not same_file(now, status):
                return None
            pieces = (Extent(0, now.st_size),) if now.st_blocks * 512 >= now.st_size else extents(file, now.st_size)
            return digests_of(file, size=now.st_size, extents=pieces, kinds=self._search.hashes, stop=self._stopped)
        except (OSError, StanchError):
            return None
        finally:
            os.close(file)

    def _refused(self, path: EndpointPath) -> Skipped | None:
        try:
            self._forbidden(path)
        except ForbiddenHere:
            return Skipped(path, "forbidden by the owner")
        return None

    # --- folders -----------------------------------------------------------------------------------------------------

    def _may_enter(self, folder: _Open, entry: "os.DirEntry[str]", at: frozenset[int]) -> bool:
        if self._is_too_deep(folder.depth + 1) or (self._pattern is not None and not self._pattern.goes_on(at)):
            return False
        with suppress(OSError):
            return entry.is_dir(follow_symlinks=False)
        return False

    def _is_too_deep(self, depth: int) -> bool:
        return self._search.depth is not None and depth >= self._search.depth

    def _enter(
        self, above: _Open | None, name: bytes, path: bytes, depth: int, at: frozenset[int]
    ) -> Iterator[Skipped]:
        shown = EndpointPath.of(path)
        if self._is_too_deep(depth):
            return
        if len(self._open) >= DEEPEST:
            yield Skipped(shown, "nested too deep")
            return
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=None if above is None else above.descriptor)
        except OSError as error:
            yield Skipped(shown, error.strerror or str(error))
            return
        why = self._why_not(descriptor, shown)
        if why is not None:
            os.close(descriptor)
            yield why
            return
        status, closing = os.fstat(descriptor), ExitStack()
        closing.callback(os.close, descriptor)
        entries = closing.enter_context(os.scandir(descriptor))
        self._open.append(_Open(descriptor, path, depth, at, (status.st_dev, status.st_ino), entries, closing))

    def _why_not(self, descriptor: int, path: EndpointPath) -> Skipped | None:
        status = os.fstat(descriptor)
        if status.st_dev in self._made_up:
            return Skipped(path, "made up by the kernel")
        if any(one.identity == (status.st_dev, status.st_ino) for one in self._open):
            return Skipped(path, "the same folder as one above it")
        return self._refused(path)


def _opened(name: bytes, folder: int) -> int:
    """For reading, and without a new access time where that is allowed (to root and the owner)."""
    try:
        return os.open(name, _FILE | os.O_NOATIME, dir_fd=folder)
    except PermissionError:
        return os.open(name, _FILE, dir_fd=folder)


def _next(entries: "Iterator[os.DirEntry[str]]") -> "os.DirEntry[str] | None":
    """A folder that cannot be read any further ends."""
    try:
        return next(entries, None)
    except OSError:
        return None


def _may_be(entry: "os.DirEntry[str]", wanted: Collection[Kind]) -> bool:
    """Told by the entry alone where that can be, which costs nothing."""
    with suppress(OSError):
        if entry.is_symlink():
            return Kind.LINK in wanted
        if entry.is_dir(follow_symlinks=False):
            return Kind.FOLDER in wanted
        if entry.is_file(follow_symlinks=False):
            return Kind.FILE in wanted
    return True


def _made_up_devices() -> Iterator[int]:
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        kind = after.split(b" ", 1)[0].decode(errors="replace")
        if kind in MADE_UP or kind.startswith("fuse.gvfsd"):
            major, _, minor = before.split()[2].partition(b":")
            yield os.makedev(int(major), int(minor))
