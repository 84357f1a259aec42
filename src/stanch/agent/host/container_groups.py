"""Containers by the control groups of their processes: found, held still, let go and ended without any runtime.

Every runtime puts a container into a group of its own, in the hierarchy of version 2, in those of version 1, or in
both. `cgroup_names` tells which group is a container; here the kernel is asked who is in it and what it is to do.

- Version 2: `cgroup.freeze` holds all processes of a group and of those below it still, `cgroup.kill` (Linux 5.14)
  ends them at once, so that none can fork away.
- Version 1, or an older kernel: `freezer.state`; the processes are ended one by one through pidfds, while they are held
  still where that is possible, until no new one is found.

A frozen group stays frozen when the agent ends: the state is the kernel's.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep

from stanch.agent.host.cgroup_names import FREEZER, MAX_TEXT, V2, GroupNames, container_of, groups_of, names_of
from stanch.agent.host.procfs import MAX_STAT, Stat, parse_stat
from stanch.core.errors import ActionFailed, StanchError, TargetGone, Unsupported

PROC = Path("/proc")
ROOT = Path("/sys/fs/cgroup")
MAX_CONTAINERS, MAX_OF_USER = 4000, 500
"""Of the machine, and of each user: nobody can hide another's by making many."""

MAX_USERS = 100
FREEZE_SECONDS = 10.0
"""How long a group may take to stand still: a process that waits for a device holds it up."""

KILL_SECONDS = 30.0
_LOOK_SECONDS, _MOST_LOOK_SECONDS = 0.01, 0.5
_MOST_INSIDE = 200
_SMALL = 4096


@dataclass(slots=True)
class Member:
    """A process of a container."""

    pid: int
    started: int
    """Clock ticks since boot."""
    inner: int
    """Its pid inside its own pid namespace."""


@dataclass(slots=True)
class Group:
    """A container, as its control groups show it."""

    names: GroupNames
    places: dict[str, bytes]
    """Hierarchy to the container's group in it: of V2 and FREEZER, where it has one there."""
    members: list[Member] = field(default_factory=list)
    inside: set[bytes] = field(default_factory=set)
    """The groups of version 2 in which its processes really are: some runtimes (crun) make one below, and hold that."""

    @property
    def path(self) -> bytes:
        """Its group, in the hierarchy where it was found."""
        return self.names.group

    @property
    def digest(self) -> str:
        """What tells it from another that says it had the same id."""
        return sha256(self.names.hierarchy.encode() + b":" + self.path).hexdigest()[:8]

    @property
    def first(self) -> Member:
        """Its init: pid 1 in its namespace, the oldest if none or several are; never called without members."""
        return min(self.members, key=lambda one: (one.inner != 1, one.started, one.pid))


class Groups:
    """The control groups of this machine; all of it blocks: ask in a thread."""

    def __init__(self, *, root: Path = ROOT, proc: Path = PROC) -> None:
        self._proc = proc
        mixed = root / "unified"
        self._mounts = {
            V2: root if (root / "cgroup.controllers").exists() else mixed if mixed.is_dir() else None,
            FREEZER: root / "freezer" if (root / "freezer").is_dir() else None,
        }

    @property
    def mounts(self) -> str:
        """Where they are, in words."""
        return ", ".join(str(one) for one in self._mounts.values() if one) or "nowhere"

    def find(self) -> list[Group]:
        """All containers that have processes, each once, in no order; as many as are looked at, see `are_all`."""
        found: dict[int | None, dict[tuple[str, bytes], Group]] = {}
        for pid, text, names in self._named():
            member = self._member(pid)
            if member is not None and (names.user in found or len(found) <= MAX_USERS or names.user is None):
                _add(found.setdefault(names.user, {}), names, text, member)
        return [group for groups in found.values() for group in groups.values()]

    def called(self, container: str) -> list[Group]:
        """All that bear this id, however many containers there are: nobody hides one by making others."""
        found: dict[tuple[str, bytes], Group] = {}
        for pid, text, names in self._named():
            member = self._member(pid) if names.container == container else None
            if member is not None:
                _add(found, names, text, member)
        return list(found.values())

    def _named(self) -> Iterator[tuple[int, bytes, GroupNames]]:
        """Every process that is in a container: its pid, its groups as text, and what they say."""
        known: dict[bytes, GroupNames] = {}
        for pid in self._pids():
            text = self._read(pid, "cgroup", MAX_TEXT)
            names = known[text] = known.get(text) or names_of(text)
            if names.container:
                yield pid, text, names

    def _pids(self) -> Iterator[int]:
        return (int(name) for name in os.listdir(self._proc) if name.isdecimal())  # noqa: PTH208 - as in procfs

    def _read(self, pid: int, name: str, limit: int) -> bytes:
        try:
            with open(f"{self._proc}/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - thousands of paths
                return file.read(limit) or b""
        except OSError:
            return b""

    def stat(self, pid: int) -> Stat | None:
        """What the kernel says of a process; None if it has gone."""
        try:
            return parse_stat(self._read(pid, "stat", MAX_STAT))
        except StanchError:
            return None

    def _member(self, pid: int) -> Member | None:
        """None for one that has ended, though nobody has asked for its exit status yet."""
        stat = self.stat(pid)
        if stat is None or stat.kernel_thread or (stat.state in "ZX" and stat.threads <= 1):
            return None
        return Member(pid, stat.started, self._inner(pid))

    def _inner(self, pid: int) -> int:
        status = self._read(pid, "status", _SMALL)
        line = next((one for one in status.split(b"\n") if one.startswith(b"NSpid:")), b"").split()
        return int(line[-1]) if len(line) > 1 and line[-1].isdigit() else 0

    def number(self, group: Group) -> int:
        """The group's number in the kernel; 0 if it cannot be told."""
        with suppress(TargetGone, OSError), self._folder(group, *self._mounts) as folder:
            return os.fstat(folder).st_ino
        return 0

    def frozen(self, group: Group) -> bool:
        """Is it held still: by itself, by a group above it, or all that is in it by groups below it?"""
        return self._held(group) or self._held_below(group)

    def _held_below(self, group: Group) -> bool:
        return bool(group.inside) and all(self._held(replace(group, places={V2: one})) for one in group.inside)

    def _held(self, group: Group) -> bool:
        with suppress(TargetGone, OSError), self._folder(group, V2) as folder:
            if b"frozen 1" in _content(folder, "cgroup.events").split(b"\n"):
                return True
        with suppress(TargetGone, OSError), self._folder(group, FREEZER) as folder:
            return _content(folder, "freezer.state").strip() == b"FROZEN"
        return False

    def freeze(self, group: Group, *, still: bool) -> None:
        """Hold it still, or let it go on, and see that it is so.

        TargetGone if there is no such group, Unsupported if the kernel has no way, ActionFailed if it did not come
        about: then it is let go again.
        """
        try:
            self._write_freezer(group, still=still)
            for one in group.inside if not still and self._held_below(group) else ():
                self._write_freezer(replace(group, places={V2: one}), still=False)
        except OSError as error:
            raise ActionFailed("The kernel does not hold the control group", got=error.strerror) from error
        if not self._wait(group, still=still, within=FREEZE_SECONDS):
            raise self._not_so(group, still=still)

    def _wait(self, group: Group, *, still: bool, within: float) -> bool:
        """Until it is held, or goes on; False if that does not come about in so many seconds."""
        until = monotonic() + within
        held = self._held if still else self.frozen  # there may be more below it by now than were found
        while held(group) is not still:
            if monotonic() > until:
                return False
            sleep(_LOOK_SECONDS)
        return True

    def _write_freezer(self, group: Group, *, still: bool) -> None:
        words = {
            V2: ("cgroup.freeze", b"1" if still else b"0"),
            FREEZER: ("freezer.state", b"FROZEN" if still else b"THAWED"),
        }
        for hierarchy, (name, word) in words.items():
            with suppress(TargetGone, FileNotFoundError), self._folder(group, hierarchy) as folder:
                _put(folder, name, word)
                return
        raise self._no_freezer(group)

    def _no_freezer(self, group: Group) -> StanchError:
        if self.number(group) == 0:
            return TargetGone("The container has no control group any more", got=_told(group.path))
        return Unsupported(
            "This kernel cannot hold a control group still",
            got=f"no freezer for {_told(group.path)}",
            expected="Linux 5.2 with control groups of version 2, or the freezer of version 1",
        )

    def _not_so(self, group: Group, *, still: bool) -> StanchError:
        if not still:
            return ActionFailed(
                "The container does not go on",
                got=f"{_told(group.path)} is still held",
                hint="A group above it is held: let that go.",
            )
        with suppress(StanchError, OSError):
            self._write_freezer(group, still=False)
        return ActionFailed(
            "The container does not stand still, so it was let go again",
            got=f"nothing after {FREEZE_SECONDS:g} s",
            hint="A process in state D waits inside the kernel.",
        )

    def kill(self, group: Group, number: int) -> None:
        """End all its processes and see them gone; ActionFailed if some did not end.

        `number`: of the group that is meant, 0 if unknown. A container that is started anew has another one, and is
        left alone.
        """
        if self._is_another(group, number):
            return
        with suppress(TargetGone, OSError), self._folder(group, V2) as folder:
            _put(folder, "cgroup.kill", b"1")
        until, pause = monotonic() + KILL_SECONDS, _LOOK_SECONDS
        while (left := self.left(group)) and not self._is_another(group, number):
            if monotonic() > until:
                raise ActionFailed(
                    "Some processes of the container did not end",
                    got=f"pids {', '.join(str(one.pid) for one in left[:20])}",
                    hint="A process in state D waits inside the kernel and ends when its device answers.",
                )
            self._end_each(group, left)
            sleep(pause)
            pause = min(2 * pause, _MOST_LOOK_SECONDS)

    def _is_another(self, group: Group, number: int) -> bool:
        return number != 0 and self.number(group) != number

    def _end_each(self, group: Group, left: Sequence[Member]) -> None:
        """SIGKILL for whoever is left, while they cannot fork; a second one harms nobody."""
        self._check()
        with suppress(StanchError, OSError):
            self._write_freezer(group, still=True)
            self._wait(group, still=True, within=_MOST_LOOK_SECONDS)
            left = self.left(group)
        try:
            for one in left:
                self._end(one)
        finally:
            # What the freezer of version 1 holds ends only when it is let go.
            with suppress(StanchError, OSError):
                self._write_freezer(group, still=False)

    def left(self, group: Group) -> list[Member]:
        """Who is in it now."""
        key = (group.names.hierarchy, group.path)
        named = (pid for pid, _text, names in self._named() if (names.hierarchy, names.group) == key)
        return [member for pid in named if (member := self._member(pid)) is not None]

    def _check(self) -> None:
        """A /proc of another pid namespace gives numbers that mean somebody else here."""
        with suppress(OSError):
            if os.readlink(self._proc / "self") == str(os.getpid()):  # noqa: PTH115 - text is compared with text
                return
        raise Unsupported(
            "/proc shows the processes of another pid namespace",
            hint="Mount the right one: `mount -t proc proc /proc`.",
        )

    def _end(self, one: Member) -> None:
        with suppress(ProcessLookupError, OSError):
            pidfd = os.pidfd_open(one.pid)
            try:
                stat = self.stat(one.pid)
                if stat is not None and stat.started == one.started:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)

    @contextmanager
    def _folder(self, group: Group, *hierarchies: str) -> Iterator[int]:
        """The folder of the group in the first of these hierarchies that has it; TargetGone if none has."""
        for one in hierarchies:
            mount, place = self._mounts[one], group.places.get(one)
            if mount is None or not place:  # the root itself is no container: it is never touched
                continue
            try:
                folder = os.open(os.path.join(os.fsencode(mount), place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH118 - bytes
            except OSError:
                continue
            try:
                yield folder
            finally:
                os.close(folder)
            return
        raise TargetGone("The container has no such control group", got=_told(group.path))


def are_all(found: Sequence[Group]) -> bool:
    """Are these all that there are? Not, if as many were found as are looked at."""
    counts = Counter(one.names.user for one in found)
    of_users = [count for user, count in counts.items() if user is not None]
    return counts[None] < MAX_CONTAINERS and max(of_users, default=0) < MAX_OF_USER and len(of_users) <= MAX_USERS


def _add(found: dict[tuple[str, bytes], Group], names: GroupNames, text: bytes, member: Member) -> None:
    """Count a process to its container, unless that is one too many."""
    key = (names.hierarchy, names.group)
    if key in found or len(found) < (MAX_CONTAINERS if names.user is None else MAX_OF_USER):
        group = found.setdefault(key, Group(names, _places(text, names)))
        group.members.append(member)
        if len(group.inside) < _MOST_INSIDE:
            group.inside |= _below(text, group.places.get(V2))


def _places(text: bytes, names: GroupNames) -> dict[str, bytes]:
    """Where the same container is in the hierarchies that can hold it still."""
    groups = groups_of(text)
    found = {one: container_of(groups[one]) for one in (V2, FREEZER) if one in groups}
    return {one: place.group for one, place in found.items() if place.container == names.container}


def _below(text: bytes, above: bytes | None) -> set[bytes]:
    """The group of version 2 of a process; nothing if it is not in this one or below."""
    place = groups_of(text).get(V2)
    is_in = place is not None and above is not None and (place == above or place.startswith(above + b"/"))
    return {place} if place is not None and is_in else set()


def _content(folder: int, name: str) -> bytes:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(file, _SMALL)
    finally:
        os.close(file)


def _put(folder: int, name: str, content: bytes) -> None:
    file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(file, content)
    finally:
        os.close(file)


def _told(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
