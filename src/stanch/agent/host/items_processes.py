"""Processes as indicators ask for them: `ProcessItem`.

First what the kernel says without asking anybody: name, program, user, times. What has to be asked of the process or
of a disk (arguments, handles, maps, hashes, memory) is asked with patience: who does not answer is told without it. All
of it is read through the folder of the process, which stays its own; who ends midway is told as far as it was read.
"""

import os
import pwd
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final

from stanch.agent.host.items import Collector, Parts
from stanch.agent.host.items_batches import Values, bounded, chunks, in_batches, not_all
from stanch.agent.host.items_handles import HANDLE, PORT, handles, ports
from stanch.agent.host.items_hashes import KINDS, Hashes, is_forbidden, kinds_of
from stanch.agent.host.items_memory import STRINGS, Memory
from stanch.agent.host.items_sections import SECTION, sections
from stanch.agent.host.items_sockets import Tables
from stanch.agent.host.patience import MOST_HANGING, Patience
from stanch.agent.host.procfs import DELETED, Stat, living_thread, parse_stat
from stanch.core.errors import StanchError
from stanch.core.ioc.items import CUT, Item, Value
from stanch.core.types import MAX_PATH_BYTES, EndpointPath

MAX_PROCESSES = 200_000
PATIENCE = 5.0
"""Seconds without a sign after which a process is given up."""
TOGETHER = 16
"""Processes that are looked at before the first of them is handed over."""
MAX_ARGUMENTS = 131_072
"""Bytes of a command line."""
MAX_PROGRAM = 2 * 1_073_741_824
"""Bytes of a program that is hashed."""

MAX_MISSED = 100
"""Processes that are kept to be told as left out."""
MAX_USER = 200
"""Characters of an account's name that are told."""

_ASKING = "item-process"
"""What a thread is called that asks a process."""
_MAX_STAT = 4096
_MAX_STATUS = 16_384
_UIDS = re.compile(rb"^Uid:\s+(\d{1,10})\s+(\d{1,10})", re.MULTILINE)
_TICKS = os.sysconf("SC_CLK_TCK")
_HASHES: Final = frozenset(KINDS)
_PARENT: Final = frozenset({"parentName", "parentPath"})

Sign = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What the kernel says of a process without asking it."""

    stat: Stat
    kernel: float
    """Seconds of processor time inside of the kernel."""
    user_time: float
    """Outside of it."""
    uid: int | None
    """Effective; None if it cannot be known."""
    program: tuple[str, ...] | None
    """Its path, with and without the remark that it was deleted; none of a kernel thread; None if it is not known."""

    @property
    def names(self) -> tuple[str, ...]:
        """As the kernel has it, and the file name of its program."""
        files = [path.rpartition("/")[2] for path in self.program or ()]
        return tuple(dict.fromkeys([os.fsdecode(self.stat.name), *files]))


@dataclass(frozen=True, slots=True)
class _Question:
    """What one call wants to know, and what it shares between processes."""

    proc: str
    wanted: frozenset[str]
    stop: Event
    hashes: Hashes
    memory: Memory
    forbidden: Callable[[EndpointPath], None]
    """ForbiddenHere for programs whose memory the owner of the machine lets nobody read."""
    booted: float
    """When the machine was started, in seconds since 1970."""
    tables: Tables = field(default_factory=Tables)
    accounts: dict[int, str] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    """Processes of which not all is known, and why."""

    def miss(self, ones: Iterable[tuple[int, int]], why: str) -> None:
        """Not all is known of these (pid and start)."""
        some = islice(ones, max(0, MAX_MISSED - len(self.missed)))
        self.missed.extend(f"process {pid} {why}" for pid, _started in some)

    def forbids(self, paths: Iterable[str]) -> bool:
        """Does the owner of the machine let nobody read one of these?"""
        return any(is_forbidden(self.forbidden, path) for path in paths)

    def asks(self, paths: Iterable[str]) -> bool:
        """Is one of these wanted?"""
        return not self.wanted.isdisjoint(paths)

    def asks_below(self, prefix: str) -> bool:
        """Is anything wanted that begins so?"""
        return any(path.startswith(prefix) for path in self.wanted)


def process_items(parts: Parts) -> Collector:
    """The collector of `ProcessItem`."""
    return _Processes(parts.proc, parts.forbidden).collect


class _Processes:
    """Remembers what hangs, between questions."""

    def __init__(self, proc: Path, forbidden: Callable[[EndpointPath], None]) -> None:
        self._proc = str(proc)
        self._forbidden = forbidden
        self._naming: Patience[int] = Patience("item-account", seconds=PATIENCE)
        self._asking: Patience[tuple[int, int]] = Patience(_ASKING, seconds=PATIENCE)

    def collect(self, wanted: frozenset[str]) -> AsyncIterator[Sequence[Item]]:
        """Every process, with these paths as far as they can be known."""
        return in_batches(lambda stop: self._items(wanted, stop), silence=None)

    def _items(self, wanted: frozenset[str], stop: Event) -> Iterator[Item | None]:
        booted = time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_BOOTTIME)
        hashes = Hashes(stop, forbidden=self._forbidden)
        question = _Question(self._proc, wanted, stop, hashes, Memory(stop), self._forbidden, booted)
        known = all_pids(self._proc)
        for pids in chunks(known[:MAX_PROCESSES], TOGETHER):
            if stop.is_set():
                return
            seen = [one for pid in pids if (one := self._outline(question, pid)) is not None]
            self._name(question, seen)
            more = self._more(question, seen)
            for one in seen:
                yield _item(question, one, more.get((one.stat.pid, one.stat.started), {}))
            yield None
        if len(known) > MAX_PROCESSES:
            question.missed.append(f"only {MAX_PROCESSES} processes were looked at")
        if hashes.refused:
            question.missed.append(f"{hashes.refused} times a file that the local policy forbids was not hashed")
        if question.missed:
            raise not_all(question.missed)

    def _outline(self, question: _Question, pid: int) -> Outline | None:
        """What is known of it; None if it has ended, or hides behind something else, which is told."""
        found = outline(self._proc, pid)
        if found is not None and found.stat.pid == pid:
            return found
        if found is not None or os.path.isdir(f"{self._proc}/{pid}"):  # noqa: PTH112 - thousands of paths are waste
            question.miss([(pid, 0)], f"does not show itself: is something mounted over /proc/{pid}?")
        return None

    def _name(self, question: _Question, seen: Sequence[Outline]) -> None:
        new = {one.uid for one in seen if one.uid is not None} - question.accounts.keys()
        done = self._naming.each(sorted(new), lambda uid, _sign: account(uid), stop=question.stop)
        question.accounts.update({uid: done.values.get(uid, str(uid)) for uid in new})

    def _more(self, question: _Question, seen: Sequence[Outline]) -> Mapping[tuple[int, int], Values]:
        parts = [part for part in _PARTS if part.is_wanted(question)]
        if not parts:
            return {}
        by_key = {(one.stat.pid, one.stat.started): one for one in seen}
        if _too_many_hang():
            question.miss(by_key, "was not asked, as too many others do not answer")
            return {}
        done = self._asking.each(by_key, lambda key, sign: _ask(question, by_key[key], parts, sign), stop=question.stop)
        question.miss(done.hanging, "does not answer")
        question.miss(done.skipped, "was not asked, as too many others do not answer")
        return done.values


def _too_many_hang() -> bool:
    """Do so many threads hang, of earlier questions too, that no more may be risked?"""
    return sum(thread.name == _ASKING for thread in threading.enumerate()) >= MOST_HANGING


# --- what the kernel says --------------------------------------------------------------------------------------------


def all_pids(proc: str) -> list[int]:
    """Every number of a process, rising: a list as long as the kernel allows processes."""
    names = os.listdir(proc)  # noqa: PTH208 - thousands of paths are waste
    return sorted(int(name) for name in names if name.isdecimal())


@contextmanager
def folder_of(proc: str, pid: int) -> Iterator[int]:
    """The folder of the process that has this pid now; OSError if there is none."""
    folder = os.open(f"{proc}/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def outline(proc: str, pid: int) -> Outline | None:
    """What the kernel says of the process with this pid; None if there is none, or it says something odd."""
    with suppress(OSError, StanchError, ValueError, IndexError), folder_of(proc, pid) as folder:
        raw = read(folder, "stat", _MAX_STAT)
        stat = parse_stat(raw)
        user, kernel = (int(one) / _TICKS for one in raw.rpartition(b")")[2].split()[11:13])
        return Outline(
            stat=stat,
            kernel=kernel,
            user_time=user,
            uid=_uid(folder),
            program=() if stat.kernel_thread else _program(folder, living_thread(folder, stat)),
        )
    return None


def _uid(folder: int) -> int | None:
    with suppress(OSError):
        found = _UIDS.search(read(folder, "status", _MAX_STATUS))
        return int(found[2]) if found else None
    return None


def _program(folder: int, thread: str) -> tuple[str, ...] | None:
    try:
        path = os.readlink(f"{thread}exe", dir_fd=folder)
    except FileNotFoundError:  # a zombie, or one that is about to end
        return ()
    except OSError:
        return None
    return with_and_without_remark(path)


def with_and_without_remark(path: str) -> tuple[str, ...]:
    """A path as the kernel has it; of a deleted file also without its remark that it was."""
    return (path.removesuffix(DELETED), path) if path.endswith(DELETED) else (path,)


def read(folder: int, path: str, limit: int) -> bytes:
    """The first bytes of a file in a folder of /proc, in one piece; OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(file, limit)
    finally:
        os.close(file)


def account(uid: int) -> str:
    """The name of an account; its number if it has none. May wait for a name service."""
    with suppress(KeyError, OSError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _item(question: _Question, one: Outline, more: Values) -> Item:
    return Item(
        document="ProcessItem",
        name=f"{one.names[0]} ({one.stat.pid})",
        values=bounded({**_plain(question, one), **more}, question.wanted),
        about=about(one, None if one.uid is None else question.accounts[one.uid]),
    )


def about(one: Outline, user: str | None) -> dict[str, Value]:
    """What it takes to find a process again; its path in the form of `core.types.EndpointPath`, if it is one."""
    found: dict[str, Value] = {"pid": one.stat.pid, "started": one.stat.started}
    path = os.fsencode(one.program[-1]) if one.program else b""
    if path.startswith(b"/") and len(path) <= MAX_PATH_BYTES:  # not that of a file system that was taken away
        found["path"] = str(EndpointPath.of(path))
    if user is not None:
        found["user"] = user[:MAX_USER]
    return found


def _plain(question: _Question, one: Outline) -> Values:
    values = Values(
        pid=(one.stat.pid,),
        parentpid=(one.stat.parent,),
        name=one.names,
        startTime=(question.booted + one.stat.started / _TICKS,),
        kernelTime=(one.kernel,),
        userTime=(one.user_time,),
    )
    if one.program is not None:
        values["path"] = one.program
    if one.uid is not None:
        values["Username"] = (question.accounts[one.uid],)
        values["SecurityID"] = (str(one.uid),)
    return values


# --- what is asked of the process or a disk --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A process that is being asked."""

    question: _Question
    one: Outline
    folder: int
    at: str
    """Where in its folder it is looked at: `task/TID/` if its main thread has ended."""
    sign: Sign

    @property
    def is_empty(self) -> bool:
        """Has it no memory of its own: is it a thread of the kernel, or a zombie?"""
        return self.one.stat.kernel_thread or (self.one.stat.state in "ZX" and not self.at)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of what can be asked."""

    is_wanted: Callable[[_Question], bool]
    ask: Callable[[Asked], Mapping[str, Sequence[Value]]]
    """OSError if it cannot be known."""


def _ask(question: _Question, one: Outline, parts: Sequence[_Part], sign: Sign) -> Values:
    """What these parts tell of exactly this process; nothing if it has ended."""
    values = Values()
    with suppress(OSError, StanchError), folder_of(question.proc, one.stat.pid) as folder:
        stat = parse_stat(read(folder, "stat", _MAX_STAT))
        if stat.started != one.stat.started:
            return values
        asked = Asked(question, one, folder, living_thread(folder, stat), sign)
        for part in parts:
            with suppress(OSError, StanchError):
                values.update(bounded(part.ask(asked), question.wanted))  # at once: several wait to be handed over
            sign()
    return values


def _arguments(asked: Asked) -> Mapping[str, Sequence[Value]]:
    raw = b"" if asked.is_empty else _all_of(asked.folder, f"{asked.at}cmdline", MAX_ARGUMENTS)
    line = b" ".join(raw.rstrip(b"\0").split(b"\0"))
    whole = () if len(raw) < MAX_ARGUMENTS else (CUT,)
    return {"arguments": (os.fsdecode(line), *whole) if line else whole}


def _all_of(folder: int, path: str, limit: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = bytearray()
        while len(found) < limit and (block := os.read(file, limit - len(found))):
            found += block
        return bytes(found)
    finally:
        os.close(file)


def _parent(asked: Asked) -> Mapping[str, Sequence[Value]]:
    if not asked.one.stat.parent:
        return dict.fromkeys(_PARENT, ())
    found = outline(asked.question.proc, asked.one.stat.parent)
    if found is None or found.stat.started > asked.one.stat.started:  # it has ended, and the number is another's
        return {}
    return {"parentName": found.names, **({} if found.program is None else {"parentPath": found.program})}


def _program_hashes(asked: Asked) -> Mapping[str, Sequence[Value]]:
    if not asked.one.program:
        return {} if asked.one.program is None else dict.fromkeys(KINDS, ())
    kinds = kinds_of("", asked.question.wanted)
    link = f"{asked.at}exe"
    found = asked.question.hashes.of(link, asked.folder, kinds, asked.sign, most=MAX_PROGRAM)
    return {kind: (digest,) for kind, digest in found.items()}


def _handles(asked: Asked) -> Mapping[str, Sequence[Value]]:
    question, one = asked.question, asked.one
    user = "" if one.uid is None else question.accounts[one.uid]
    return handles(
        asked.folder,
        question.wanted,
        user=user,
        tables=question.tables,
        hashes=question.hashes,
        stop=question.stop,
        sign=asked.sign,
    )


def _ports(asked: Asked) -> Mapping[str, Sequence[Value]]:
    one = asked.one
    return ports(asked.folder, pid=one.stat.pid, names=one.names, program=one.program, tables=asked.question.tables)


def _sections(asked: Asked) -> Mapping[str, Sequence[Value]]:
    question = asked.question
    return sections(asked.folder, asked.at, question.wanted, hashes=question.hashes, sign=asked.sign)


def _strings(asked: Asked) -> Mapping[str, Sequence[Value]]:
    if asked.is_empty:
        return {STRINGS: ()}
    if os.getpid() in {asked.one.stat.pid, asked.one.stat.parent}:  # the indicators themselves are in there
        return {}
    if asked.question.forbids(_program(asked.folder, asked.at) or ()):
        asked.question.miss([(asked.one.stat.pid, 0)], "runs a program that the local policy forbids to look into")
        return {}
    return {STRINGS: asked.question.memory.strings(asked.folder, asked.at, sign=asked.sign)}


_PARTS: Final = (
    _Part(lambda question: "arguments" in question.wanted, _arguments),
    _Part(lambda question: question.asks(_PARENT), _parent),
    _Part(lambda question: question.asks_below(PORT), _ports),
    _Part(lambda question: question.asks_below(HANDLE), _handles),
    _Part(lambda question: question.asks_below(SECTION), _sections),
    _Part(lambda question: question.asks(_HASHES), _program_hashes),
    _Part(lambda question: STRINGS in question.wanted, _strings),
)
"""The cheap ones first: if one hangs, what came before is lost too, but nothing dear has been done for nothing."""
