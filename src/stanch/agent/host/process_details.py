"""What is asked about processes beside what the kernel says of them at once: hash, sockets, package of the program.

Everything is read through the folder of the process, after its start time was seen to be the right one: so a program
that was deleted or belongs to a container is hashed as what it is, and never another that got the pid or the path.
"""

import asyncio
import errno
import hashlib
import os
import pwd
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from threading import Event
from typing import TypeVar

from stanch.agent.host.cgroup_names import GroupNames, names_of
from stanch.agent.host.packages import Packages
from stanch.agent.host.patience import MOST_HANGING, Done, Patience
from stanch.agent.host.process_sockets import MAX_DESCRIPTORS, inodes_of, of_process, tables_of
from stanch.agent.host.procfs import (
    DELETED,
    PROC,
    living_thread,
    opened,
    pids,
    read_outline,
    read_process,
    read_stat,
    read_stat_in,
)
from stanch.core.processes import Detail, OpenSocket, Process, Told
from stanch.core.types import EndpointPath

AT_ONCE = 2
"""Programs that are hashed at a time."""
MAX_PROGRAM = 2 * 1_073_741_824
"""Bytes of a program that is hashed."""
MAX_ALL = 32 * 1_073_741_824
"""Bytes of all programs that are hashed for one question."""
MAX_NETWORKS = 1000
"""Network namespaces whose sockets are read."""
PATIENCE = 3.0
"""Seconds that a process may take to answer what is asked through its own memory."""
MAX_TRIED = 5
"""Processes that are tried in turn for what several have in common."""
READ_PATIENCE = 15.0
"""Seconds without a block of a program."""

HANGS = "Its command line cannot be read: it does not answer, as one does that hangs inside the kernel."
NOT_ASKED = f"Its command line was not read: {MOST_HANGING} other processes hang, and no more are asked."
SKIPPED = f"Its details were not read: {MOST_HANGING} other processes or programs hang, and no more are asked."
NO_DETAILS = "Its details cannot be read: it, or the disk of its program, does not answer."
TOO_MANY_OPEN = f"It may have more sockets than are told: only {MAX_DESCRIPTORS} of its open files were looked at."
TOO_LARGE = f"Its program is too large to be hashed: over {MAX_PROGRAM >> 30} GiB, or too much with all the others."

_BLOCK = 262_144
_DELETED = DELETED.encode()
_OF_PROGRAM = frozenset({Detail.HASH, Detail.PACKAGE})
_MOST_GROUPS = 4096
"""Texts of control groups whose meaning is remembered while all processes are read."""

Version = tuple[int, int, int, int, int]
"""Device, inode, size, and the two times that change when the content does: one content of one file."""

Fields = Mapping[str, object]
"""Of a process, by name."""

Key = tuple[int, int]
"""Of a process: pid and start time."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was found out about one process."""

    at: str
    """Where it is looked at: its folder, or that of a thread of it."""
    program: Version | None = None
    own: bool = False
    """Is its program the file that we see at that path?"""
    sockets: frozenset[int] = frozenset()
    more_open: bool = False
    """Has it more descriptors than are looked at?"""
    network: int = 0
    """The number of its network namespace."""


class ProcessReader:
    """Reads processes and their details; remembers only what hangs."""

    def __init__(self, *, packages: Packages | None = None) -> None:
        self._packages = packages or Packages()
        self._naming: Patience[int] = Patience("account-names", seconds=PATIENCE)
        self._reading: Patience[int] = Patience("process", seconds=PATIENCE)
        self._asking: Patience[Key] = Patience("process-details", seconds=PATIENCE)
        self._hashing: Patience[Version] = Patience("process-hash", seconds=READ_PATIENCE)
        self._sockets: Patience[int] = Patience("process-sockets", seconds=READ_PATIENCE)

    async def all(self) -> list[Process]:
        """Every process, by rising pid; of one that hangs, what the kernel says without asking it."""
        return await _in_thread(lambda stop: self._read(list(pids()), stop))

    async def some(self, wanted: Sequence[int]) -> list[Process]:
        """The processes with these pids, as far as there are any."""
        return await _in_thread(lambda stop: self._read(wanted, stop))

    async def one(self, pid: int) -> Process | None:
        """The process with this pid; None if there is none."""
        return next(iter(await self.some([pid])), None)

    def _read(self, wanted: Sequence[int], stop: Event) -> list[Process]:
        users = dict(_users(wanted))
        # Of each account once, and apart: a name service that is silent is not a process that hangs.
        known = self._naming.each(sorted(set(users.values())), lambda user, _sign: _account(user), stop=stop).values

        def account(user: int) -> str:
            return known.get(user, str(user))

        names = lru_cache(_MOST_GROUPS)(names_of)
        done = self._reading.each(_in_turn(users), lambda pid, _sign: _read(pid, account, names), stop=stop)
        outlines = [_outline(pid, note, account, names) for pid, note in _notes(done, HANGS, NOT_ASKED).items()]
        return sorted((one for one in (*done.values.values(), *outlines) if one is not None), key=lambda one: one.pid)

    async def detailed(
        self, ones: Sequence[Process], details: Collection[Detail], told: Told = lambda _done, _total: None
    ) -> list[Process]:
        """The same processes with these details; `told` hears in the event loop how many programs are hashed."""
        loop = asyncio.get_running_loop()

        def tell(done: int, total: int) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(told, done, total)

        return await _in_thread(lambda stop: self._detailed(ones, frozenset(details), tell, stop))

    def _detailed(self, ones: Sequence[Process], details: frozenset[Detail], tell: Told, stop: Event) -> list[Process]:
        # Threads of the kernel and zombies have neither arguments nor a program.
        wanted = {_key(one): one for one in ones if one.executable is not None or one.arguments}
        done = self._asking.each(wanted, lambda id_, _sign: _ask(wanted[id_], details), stop=stop)
        asked = {id_: found for id_, found in done.values.items() if found is not None}
        more: dict[Key, Fields] = {id_: {"note": note} for id_, note in _notes(done, NO_DETAILS, SKIPPED).items()}
        more |= {id_: {"note": TOO_MANY_OPEN} for id_, found in asked.items() if found.more_open}
        parts: tuple[tuple[Detail, Callable[[], Iterable[tuple[Key, Fields]]]], ...] = (
            (Detail.HASH, lambda: self._hashes(asked, tell, stop)),
            (Detail.SOCKETS, lambda: self._open_sockets(asked, stop)),
            (Detail.PACKAGE, lambda: self._owners(wanted, asked)),
        )
        for detail, find in parts:
            for id_, found in find() if detail in details else ():
                more[id_] = {**more.get(id_, {}), **found}
        filled = ((one, more.get(_key(one))) for one in ones)
        return [one if found is None else one.model_copy(update=found) for one, found in filled]

    def _hashes(self, asked: Mapping[Key, Asked], tell: Told, stop: Event) -> Iterator[tuple[Key, Fields]]:
        runs: dict[Version, dict[Key, Asked]] = {}
        for id_, found in asked.items():
            if found.program is not None:
                runs.setdefault(found.program, {})[id_] = found
        chosen = _within_bounds(runs)
        done = self._hashing.each(
            chosen,
            lambda version, sign: _hash(version, runs[version].values(), stop, sign),
            stop=stop,
            at_once=AT_ONCE,
            told=lambda count: tell(count, len(chosen)),
        )
        notes = dict.fromkeys(runs.keys() - set(chosen), TOO_LARGE) | _notes(done, NO_DETAILS, SKIPPED)
        for version, ids in runs.items():
            note = {"note": notes[version]} if version in notes else {}
            yield from ((id_, {"sha256": done.values.get(version), **note}) for id_ in ids)

    def _open_sockets(self, asked: Mapping[Key, Asked], stop: Event) -> Iterator[tuple[Key, Fields]]:
        wanted = frozenset(number for found in asked.values() for number in found.sockets)
        inside: dict[int, list[Asked]] = {}
        for found in asked.values():
            inside.setdefault(found.network, []).append(found)
        done = self._sockets.each(
            islice(inside, MAX_NETWORKS) if wanted else (),
            lambda network, sign: _tables(network, inside[network], wanted, sign),
            stop=stop,
        )
        # A socket keeps its number, and belongs to the namespace it was made in, wherever its process is by now.
        known = {number: one for table in done.values.values() for number, one in table.items()}
        for id_, found in asked.items():
            yield id_, {"sockets": of_process(found.sockets, known)}

    def _owners(self, wanted: Mapping[Key, Process], asked: Mapping[Key, Asked]) -> Iterator[tuple[Key, Fields]]:
        paths = {id_: path for id_, found in asked.items() if found.own and (path := wanted[id_].executable)}
        owners = self._packages.owners(frozenset(paths.values()))
        return ((id_, {"package": owners[path]}) for id_, path in paths.items() if path in owners)


def _key(one: Process) -> Key:
    return one.pid, one.started


def _notes(done: Done[K, V], hangs: str, skipped: str) -> dict[K, str]:
    """Why each of those is not told that are not."""
    return dict.fromkeys(done.hanging, hangs) | dict.fromkeys(done.skipped, skipped)


def _account(user: int) -> str:
    """The name of an account; its number if it has none. The name service may be slow, or silent."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


class Accounts(dict[int, str]):
    """Account names by user id, each asked for once."""

    def __missing__(self, uid: int) -> str:
        self[uid] = _account(uid)
        return self[uid]


def _users(wanted: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Each process with its user, by number; those that have ended are left out."""
    for pid in wanted:
        with suppress(OSError):
            yield pid, os.stat(f"{PROC}/{pid}").st_uid  # noqa: PTH116 - thousands of paths


def _in_turn(users: Mapping[int, int]) -> list[int]:
    """The processes of root first, then one of each user in turn: whoever makes some that hang hides their own."""
    turn = Counter[int]()
    order = dict[int, tuple[bool, int]]()
    for pid, user in users.items():
        order[pid] = (user != 0, turn[user])
        turn[user] += 1
    return sorted(order, key=order.__getitem__)


async def _in_thread(work: Callable[[Event], T]) -> T:
    stop = Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()


# --- one process -----------------------------------------------------------------------------------------------------


def _read(pid: int, account: Callable[[int], str], names: Callable[[bytes], GroupNames]) -> Process | None:
    try:
        return read_process(pid, account, names)
    except OSError as error:  # whatever one process is like, the others are told
        return _outline(pid, f"It cannot be read: {error.strerror}.", account, names)


def _outline(
    pid: int, note: str, account: Callable[[int], str], names: Callable[[bytes], GroupNames]
) -> Process | None:
    with suppress(OSError):
        return read_outline(pid, note, account, names)
    return None


def _ask(one: Process, details: frozenset[Detail]) -> Asked | None:
    """What can be found out of exactly this process; None if it has ended.

    Its start time is read last: if it is still the right one then, the pid was its own all the time.
    """
    at = f"{PROC}/{one.pid}/"
    asked = _ask_at(one, details, at)
    stat = read_stat(one.pid)
    if stat is None or stat.started != one.started:
        return None
    if stat.state == "Z" and stat.threads > 1:
        with suppress(FileNotFoundError, ProcessLookupError), opened(one.pid) as folder:
            if read_stat_in(folder).started == one.started:
                return _ask_at(one, details, f"{at}{living_thread(folder, stat)}")
    return asked


def _ask_at(one: Process, details: frozenset[Detail], at: str) -> Asked:
    program = _status(f"{at}exe") if not details.isdisjoint(_OF_PROGRAM) else None
    if program is not None and not _still_runs(one, at):
        program = None
    network = _status(f"{at}ns/net") if Detail.SOCKETS in details else None
    sockets, more_open = (frozenset[int](), False) if network is None else inodes_of(at)
    return Asked(
        at=at,
        program=None if program is None else _version(program),
        own=Detail.PACKAGE in details and program is not None and _is_at(one.executable, program),
        sockets=sockets,
        more_open=more_open,
        network=0 if network is None else network.st_ino,
    )


def _still_runs(one: Process, at: str) -> bool:
    """Is it the program with which it was listed? It may run another one by now, whose hash would stand by this one."""
    try:
        now = os.fsencode(os.readlink(f"{at}exe"))  # noqa: PTH115 - a link of the kernel, not a path to walk
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG and one.executable is None
    then = b"" if one.executable is None else one.executable.raw
    return now.removesuffix(_DELETED) == then.removesuffix(_DELETED)


def _status(path: str | bytes) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - links of the kernel, not paths to walk
    except OSError:
        return None


def _version(status: os.stat_result) -> Version:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_at(path: EndpointPath | None, program: os.stat_result) -> bool:
    here = None if path is None else _status(path.raw)
    return here is not None and (here.st_dev, here.st_ino) == (program.st_dev, program.st_ino)


def _within_bounds(versions: Iterable[Version]) -> list[Version]:
    """Those that are hashed: the small ones first, up to MAX_ALL bytes."""
    by_size = sorted(versions, key=lambda version: version[2])
    sums = accumulate(version[2] for version in by_size)
    return [one for one, sum_ in zip(by_size, sums, strict=True) if one[2] <= MAX_PROGRAM and sum_ <= MAX_ALL]


def _hash(version: Version, runs: Iterable[Asked], stop: Event, sign: Callable[[], None]) -> str | None:
    """SHA-256 of this content, read through one of those who run it; None if nobody does any more.

    Whoever has the pid by now: what is opened is this content of this file, or it is not hashed.
    """
    for one in islice(runs, MAX_TRIED):
        with suppress(OSError):
            program = os.open(f"{one.at}exe", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _version(os.fstat(program)) == version:
                    return _sha256(program, version[2], stop, sign)
            finally:
                os.close(program)
    return None


def _sha256(program: int, size: int, stop: Event, sign: Callable[[], None]) -> str | None:
    """Of this many bytes; None if there are not so many, or it is to stop."""
    digest, left = hashlib.sha256(), size
    while left > 0 and not stop.is_set():
        block = os.read(program, min(_BLOCK, left))
        if not block:
            return None
        digest.update(block)
        left -= len(block)
        sign()
    return None if left else digest.hexdigest()


def _tables(
    network: int, inside: Iterable[Asked], wanted: frozenset[int], sign: Callable[[], None]
) -> Mapping[int, OpenSocket]:
    """The sockets of a network namespace, read through one of those who are in it."""
    for one in islice(inside, MAX_TRIED):
        with suppress(OSError), _folder(one.at) as folder:
            # The folder stays with its process, and a process tells of the namespace that it is in.
            if os.stat("ns/net", dir_fd=folder).st_ino == network:
                return tables_of(folder, wanted, sign)
    return {}


@contextmanager
def _folder(path: str) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)
