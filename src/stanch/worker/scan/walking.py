"""Walk: every file below some places, folder by folder, through descriptors, in flat memory.

A folder is opened in its parent without following links; what is mounted is judged by the table of mounts before it is
touched. A folder stays open until the last of its files has been looked at. Should a file system not answer, the thread
that waits for it is given up (`give_up`), and another goes on behind the place.
"""

import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from stanch.worker.scan.globs import Asked
from stanch.worker.scan.listing import Begun, How, Listed, Listing, Statuses, begin, enter, more, statuses_of
from stanch.worker.scan.mounts import FileSystem, FileSystems, Origin
from stanch.worker.scan.remembered import Places

BATCH: Final = 32
"""Names that are handed over together."""
DEEPEST: Final = 400
"""Folders that are open at a time, one in the other."""
HERE: Final = b"."
"""A folder in itself: so it is among its own files where folders are looked at, too."""
MAX_NAMED: Final = 200_000
"""Files named one by one that are kept, not to be looked at twice."""

_T = TypeVar("_T")


class Folder:
    """An open folder; closed with the last reference to it."""

    __slots__ = ("device", "fd", "identity", "origin", "path", "place")

    def __init__(self, fd: int, path: bytes, identity: tuple[int, int], origin: Origin, place: bytes) -> None:
        self.fd = fd
        self.path = path
        self.device = identity[0]
        self.identity = identity
        self.origin = origin
        self.place = place
        """Names its file system for what is remembered; empty if nothing of it may be."""

    def __del__(self) -> None:
        os.close(self.fd)

    def of(self, name: bytes) -> bytes:
        """The whole path of a file in it."""
        if name == HERE:
            return self.path
        return self.path + name if self.path == b"/" else self.path + b"/" + name


class Given:
    """A file that was handed over open, in place of a folder with one file in it."""

    __slots__ = ("fd", "label", "path", "pid", "place", "started")

    def __init__(self, fd: int, label: bytes, path: bytes, pid: int, started: int) -> None:
        self.fd = fd
        self.label = label
        """What it is called."""
        self.path = path
        """Empty for none."""
        self.pid = pid
        """Of the process whose program it is; 0 for none."""
        self.started = started
        self.place = b""

    def of(self, _name: bytes) -> bytes:
        """What it is called."""
        return self.label


Place = Folder | Given
Glancing = Callable[[Folder, Statuses], list[bytes]]
"""Those of a folder's files that are not known to be clean."""
Batch = tuple[Place, Sequence[bytes]]
"""Files to look at: a folder, and names in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which files."""

    excluded: Asked | None
    hinted: Asked | None
    network: bool
    one_file_system: bool
    mounts: Mapping[bytes, Origin]
    all_kinds: bool = False
    """Folders and symbolic links, too: somebody asks for what is known of them without their content."""

    def hints_at(self, path: bytes) -> bool:
        """Is it one of those that are asked for?"""
        return not self.hinted or bool(self.hinted(path))


@dataclass(slots=True)
class _Level:
    folder: Folder
    entries: Listing
    listed: bool = False
    """All of it?"""
    folders: list[bytes] = field(default_factory=list)
    """Listed, and not yet entered."""
    names: list[bytes] = field(default_factory=list)
    """Files that are still to be handed over."""


class _Replaced(BaseException):
    """Another thread does this by now."""


class Walker:
    """Walks; `run` in a thread of its own. `put` is given the batches, and may block."""

    def __init__(
        self,
        choice: Choice,
        *,
        put: Callable[[Batch], None],
        skip: Callable[[bytes, str, str], None],
        glance: Glancing | None = None,
    ) -> None:
        self._choice = choice
        self._above_mounts = frozenset(path.rpartition(b"/")[0] or b"/" for path in choice.mounts)
        self._put = put
        self._skip = skip
        self._glance = glance
        self._systems = FileSystems()
        self._places = Places()
        self._targets: deque[tuple[bytes, bool] | Given] = deque()
        self._stack: list[_Level] = []
        self._roots: set[tuple[int, int]] = set()
        """Folders that may be met by two paths: the named ones, and what is mounted."""
        self._entered: set[tuple[int, int]] = set()
        """Of them, those that were."""
        self._named: set[tuple[int, int]] = set()
        self._more = threading.Condition()
        self._all_told = False
        self._turn = 0
        self._busy: tuple[float, bytes, Callable[[], object] | None] | None = None
        """Since when it waits for the kernel, over what, and what is to be done if it is given up."""
        self._mount_roots_known = False
        self.found = 0
        """Files so far."""

    # --- from outside ------------------------------------------------------------------------------------------------

    def add(self, paths: Sequence[bytes], *, below: bool) -> None:
        """More places: folders with everything below, or files."""
        with self._more:
            self._targets.extend((path, below) for path in paths)
            self._more.notify_all()

    def give(self, files: Sequence[Given]) -> None:
        """Files that are open already."""
        with self._more:
            self._targets.extend(files)
            self._more.notify_all()

    def all_told(self) -> None:
        """No more places come."""
        with self._more:
            self._all_told = True
            self._more.notify_all()

    def hangs_since(self) -> tuple[float, bytes] | None:
        """Since when (monotonic) it waits for the kernel, and over what."""
        busy = self._busy
        return None if busy is None else (busy[0], busy[1])

    def give_up(self, since: float) -> bool:
        """Leave what has been waited for since then; True if that is still so: then `run` anew in another thread."""
        with self._more:
            busy = self._busy
            if busy is None or busy[0] != since:
                return False
            self._turn += 1
            self._busy = None
            if busy[2] is not None:
                busy[2]()
            return True

    def run(self, stop: threading.Event) -> bool:
        """Walk to the end; False if another thread has taken over."""
        turn = self._turn
        try:
            while not stop.is_set():
                if self._stack:
                    self._step(turn)
                else:
                    target = self._next_target()
                    if target is None:
                        return True
                    if isinstance(target, Given):
                        self.found += 1
                        self._put((target, (b"",)))
                    else:
                        self._begin(turn, *target)
        except _Replaced:
            return False
        return True

    def _next_target(self) -> tuple[bytes, bool] | Given | None:
        with self._more:
            while not self._targets and not self._all_told:
                self._more.wait()
            return self._targets.popleft() if self._targets else None

    def _asked(
        self, turn: int, path: bytes, do: Callable[[], _T], *, if_given_up: Callable[[], object] | None = None
    ) -> _T:
        """Do something that may take for ever."""
        self._busy = mine = (time.monotonic(), path, if_given_up)
        try:
            return do()
        finally:
            with self._more:
                if self._turn != turn or self._busy is not mine:
                    raise _Replaced
                self._busy = None

    # --- places ------------------------------------------------------------------------------------------------------

    def _begin(self, turn: int, raw: bytes, below: bool) -> None:  # noqa: FBT001 - as it was put into the queue
        try:
            path = self._asked(turn, raw, lambda: self._real(raw))
            if path is None:
                return
            status = self._asked(turn, path, lambda: os.lstat(path))
        except OSError as error:
            self._failed(raw, error)
            return
        if self._left_out(path):
            return
        if stat.S_ISDIR(status.st_mode):
            if below:
                self._roots.add((status.st_dev, status.st_ino))
                self._know_mounts(turn)
                self._enter(turn, None, path, path)
        else:
            self._named_file(turn, path, status)

    def _real(self, raw: bytes) -> bytes | None:
        """Where the links of a place lead, if that is not where nothing may be asked."""
        return None if self._not_here(raw) else os.path.realpath(raw)

    def _not_here(self, path: bytes) -> bool:
        """Is this place on a file system that is not to be touched? Then that is told."""
        above = path
        while above not in self._choice.mounts and above not in {b"/", b""}:
            above = above.rpartition(b"/")[0] or b"/"
        return self._unwanted(path, self._choice.mounts.get(above, Origin.LOCAL))

    def _unwanted(self, path: bytes, origin: Origin) -> bool:
        if origin is Origin.KERNEL or (origin is Origin.NETWORK and not self._choice.network):
            self._skip(path, origin.value, "")
            return True
        return False

    def _named_file(self, turn: int, path: bytes, status: os.stat_result) -> None:
        identity = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode) and not self._choice.all_kinds:
            self._skip(path, "not-regular", "")
        elif identity not in self._named and self._choice.hints_at(path):
            if len(self._named) < MAX_NAMED:
                self._named.add(identity)
            parent, _, name = path.rpartition(b"/")
            opened = self._opened(turn, None, parent or b"/", parent or b"/")
            if opened is not None:
                self.found += 1
                self._put((opened[0], (name,)))

    def _know_mounts(self, turn: int) -> None:
        """Which folders can be met twice. Only those of local file systems are touched."""
        if self._mount_roots_known:
            return
        self._mount_roots_known = True
        for path, origin in self._choice.mounts.items():
            if origin is Origin.LOCAL:
                try:
                    status = self._asked(turn, path, partial(os.lstat, path))
                except OSError:
                    continue
                self._roots.add((status.st_dev, status.st_ino))

    # --- folders -----------------------------------------------------------------------------------------------------

    def _step(self, turn: int) -> None:
        level = self._stack[-1]
        if level.folders:
            name = level.folders.pop()
            path = level.folder.of(name)
            if not self._left_out(path):
                self._enter(turn, level.folder, name, path)
        elif level.listed:
            self._stack.pop()
            self._hand_over(level, least=1)
        else:
            self._list(turn, level)

    def _list(self, turn: int, level: _Level) -> None:
        """More names of a folder; if it does not answer, all that is left of it is given up."""
        folder, how = level.folder, self._how(level.folder)
        try:
            found = self._asked(
                turn, folder.path, partial(more, folder.fd, level.entries, how), if_given_up=self._stack.pop
            )
        except OSError as error:
            self._failed(folder.path, error)
            level.listed = True
            return
        self._take(turn, level, found)

    def _take(self, turn: int, level: _Level, found: Listed) -> None:
        """What was listed; files that nobody need look at end here, since handing them over would cost more."""
        level.folders, level.listed, files, links, statuses = found
        folder, choice = level.folder, self._choice
        if choice.hinted is not None or choice.excluded is not None:
            files = [name for name in files if self._is_chosen(folder.of(name))]
            links = [name for name in links if self._is_chosen(folder.of(name))]
        if folder.path in self._above_mounts:
            files = [name for name in files if not self._is_mounted_elsewhere(folder.of(name))]
            statuses = None if statuses is None else [one for one in statuses if one[0] in files]
        self.found += len(files)
        if files and self._glance is not None and folder.place:
            if statuses is None:
                ask = partial(statuses_of, folder.fd, files)
                statuses = self._asked(turn, folder.path, ask, if_given_up=self._stack.pop)
            files = self._glance(folder, statuses)
        level.names += files
        level.names += links
        self._hand_over(level, least=BATCH)

    def _how(self, folder: Folder) -> How:
        plain = self._choice.hinted is None and self._choice.excluded is None
        return How(self._glance is not None and plain and bool(folder.place), self._choice.all_kinds)

    def _is_mounted_elsewhere(self, path: bytes) -> bool:
        """Single files are mounted, too, as names of namespaces are: what cannot be read there is none of the disk."""
        origin = self._choice.mounts.get(path)
        return origin is not None and self._unwanted(path, origin)

    def _is_chosen(self, path: bytes) -> bool:
        return self._choice.hints_at(path) and not self._left_out(path)

    def _hand_over(self, level: _Level, *, least: int) -> None:
        """Names in batches, as long as there are so many."""
        while len(level.names) >= least:
            self._put((level.folder, level.names[:BATCH]))
            del level.names[:BATCH]

    def _left_out(self, path: bytes) -> bool:
        if self._choice.excluded is not None and self._choice.excluded(path):
            self._skip(path, "excluded", "")
            return True
        return False

    def _enter(self, turn: int, above: Folder | None, name: bytes, path: bytes) -> None:
        origin = self._choice.mounts.get(path)
        if origin is not None and self._unwanted(path, origin):
            return
        if above is not None and origin is not None and self._choice.one_file_system:
            self._skip(path, "other", "another file system is mounted there")
            return
        if len(self._stack) >= DEEPEST:
            self._skip(path, "other", "nested too deep")
            self._by_name(above, name, path)
            return
        opened = self._opened(turn, above, name, path)
        if opened is None or self._is_again(opened[0].identity):
            return
        folder, begun = opened
        if begun is None:
            try:
                begun = self._asked(turn, path, partial(begin, folder.fd, self._how(folder)))
            except OSError as error:
                self._failed(path, error)
                self._by_name(folder, HERE, path)
                return
        level = _Level(folder, begun[0])
        self._stack.append(level)
        if self._choice.all_kinds and self._is_chosen(path):
            level.names.append(HERE)
        self._take(turn, level, begun[1])

    def _by_name(self, above: Folder | None, name: bytes, path: bytes) -> None:
        """A folder that cannot be entered has a name all the same."""
        if above is not None and self._choice.all_kinds and self._is_chosen(path):
            self._put((above, [name]))

    def _opened(self, turn: int, above: Folder | None, name: bytes, path: bytes) -> tuple[Folder, Begun | None] | None:
        """The folder, unless it is not to be looked at; and its first names, if it is like the one above."""
        how = How() if above is None else self._how(above)
        do = partial(enter, name, None if above is None else (above.fd, above.device), how)
        try:
            fd, status, begun = self._asked(turn, path, do)
        except OSError as error:
            self._failed(path, error)
            if reason_of(error)[0] != "gone":
                self._by_name(above, name, path)
            return None
        if above is not None and begun is not None:
            return Folder(fd, path, (status.st_dev, status.st_ino), above.origin, above.place), begun
        try:
            folder = self._admitted(turn, fd, path, status)
        except OSError as error:
            os.close(fd)
            self._failed(path, error)
            return None
        return None if folder is None else (folder, None)

    def _admitted(self, turn: int, fd: int, path: bytes, status: os.stat_result) -> Folder | None:
        """The folder, if its file system is one that is to be looked at."""
        system = self._asked(turn, path, lambda: self._systems.of(fd))
        identity = (status.st_dev, status.st_ino)
        folder = Folder(fd, path, identity, system.origin, self._place(status, system))
        return None if self._unwanted(path, system.origin) else folder

    def _is_again(self, identity: tuple[int, int]) -> bool:
        """Was it met by another path? Only those that can be are kept in mind."""
        if identity not in self._roots:
            return False
        again = identity in self._entered
        self._entered.add(identity)
        return again

    def _place(self, status: os.stat_result, system: FileSystem) -> bytes:
        return self._places.of(status.st_dev, system.magic, system.id) if system.remembered else b""

    def _failed(self, path: bytes, error: OSError) -> None:
        self._skip(path, *reason_of(error))


def reason_of(error: OSError) -> tuple[str, str]:
    """Why something could not be opened or read, and in words."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "gone", ""
    return "unreadable", error.strerror or str(error)
