"""Who is logged in, and with which processes: by logind and, where that is silent, by utmp.

logind's files are root's own. utmp may be written by a group of programs and is often stale, so it is only believed
where the kernel agrees: a terminal belongs to the account that it is owned by, and a leader must have to do with it.
Processes are counted by the control group that logind gave the session; otherwise by the controlling terminal and by
descent. A process that has left all three is found by its user id alone: `processes_of`.
"""

import os
import pwd
import re
import stat
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from stanch.agent.host.inventory import MAX_SESSIONS, SESSIONS, UTMP, parse_session, read_bounded
from stanch.agent.host.procfs import PROC, Stat, pids, read_stat
from stanch.core.accounts import Session
from stanch.core.errors import Protected
from stanch.core.processes import ProcessId

_USER_PROCESS = 7
_RECORD = struct.Struct("=hxxi32s4x32s256s8xI4x36x")  # type, pid, line, user, host, seconds
_TERMINAL = re.compile(r"pts/\d{1,7}|tty[A-Za-z0-9]{0,12}|console|hvc\d{1,4}|xvc\d{1,4}")
_ID = re.compile(r"[A-Za-z0-9_:/.-]{1,64}")
_NUMBER = re.compile(r"\d{1,18}")
_MAX_STATUS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What one source says of somebody who is logged in."""

    id: str
    user: str
    terminal: str = ""
    remote: str = ""
    service: str = ""
    since: int = 0
    """Microseconds since 1970; 0 if it does not say."""
    leader: int = 0
    """Pid; 0 if it does not say."""
    uid: int | None = None
    """User id, if it says."""
    trusted: bool = False
    """Can only root have written it?"""


@dataclass(frozen=True, slots=True)
class _Processes:
    """All processes at one moment."""

    table: Mapping[int, Stat]
    scopes: Mapping[int, str]
    """Pid to the session whose control group it is in."""

    def below(self, roots: Iterable[int]) -> set[int]:
        """These and their descendants."""
        children: dict[int, list[int]] = {}
        for one in self.table.values():
            children.setdefault(one.parent, []).append(one.pid)
        found: set[int] = set()
        waiting = list(roots)
        while waiting:
            pid = waiting.pop()
            if pid in self.table and pid not in found:
                found.add(pid)
                waiting += children.get(pid, [])
        return found

    def id(self, pid: int) -> ProcessId:
        return ProcessId(pid=pid, started=self.table[pid].started)

    def own(self) -> set[int]:
        """The agent, what started it and what it has started."""
        found, pid = self.below([os.getpid()]), os.getpid()
        while pid in self.table and self.table[pid].parent not in found:
            pid = self.table[pid].parent
            found.add(pid)
        return found


def user_id(user: str) -> int | None:
    """The user id of an account; None if there is none."""
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        return None


class Logins:
    """Looks at the running machine; where its files are is a parameter for tests alone."""

    def __init__(
        self,
        *,
        logind: Path = SESSIONS,
        utmp: Path = UTMP,
        devices: Path = Path("/dev"),
        uid_of: Callable[[str], int | None] = user_id,
    ) -> None:
        self._logind = logind
        self._utmp = utmp
        self._devices = devices
        self._uid_of = uid_of

    def sessions(self) -> list[Session]:
        """Everybody who is logged in, oldest first; what utmp says of somebody who has gone is left out."""
        logins = merged(self._of_logind(), parse_utmp(read_bounded(self._utmp)))
        now = _look(scoped=any(one.trusted for one in logins))
        found = [self._session(one, now) for one in logins]
        found.sort(key=lambda one: (one.since or datetime.fromtimestamp(0, UTC), one.id))
        return [one for one in found if one.processes or one.own]

    def processes(self, sessions: Sequence[Session]) -> list[list[ProcessId]]:
        """All processes of each session now, its leader first; without those of Stanch."""
        now = _look(scoped=True)
        logins = merged(self._of_logind(), parse_utmp(read_bounded(self._utmp)))
        return [self._processes(one, now, logins) for one in sessions]

    def _processes(self, session: Session, now: _Processes, logins: Iterable[Login]) -> list[ProcessId]:
        login = next((one for one in logins if _is(one, session)), None)
        if login is None:
            # It is no longer written down; what it was in the control group may be left all the same.
            login = Login(id=session.id, user=session.user)
            members = {pid for pid, scope in now.scopes.items() if scope == session.id}
        else:
            members = self._members(login, now)
        members -= now.own()
        return [now.id(pid) for pid in sorted(members, key=lambda pid: (pid != login.leader, pid))]

    def processes_of(self, uid: int) -> list[ProcessId]:
        """All processes that have the rights of a user id, but for those of a container that only uses its number.

        Protected for those that the machine or Stanch needs.
        """
        if uid in {0, os.geteuid()}:
            raise Protected(
                "The machine itself, or Stanch, runs with this user id",
                got=f"user id {uid}",
                hint="End its sessions by their ids, or single processes.",
            )
        now = _look(scoped=False)
        own = now.own()
        found = (pid for pid in sorted(now.table) if pid not in own and uid in _uids(pid))
        return [now.id(pid) for pid in found if not _in_container(pid, uid)]

    def _session(self, login: Login, now: _Processes) -> Session:
        members, own = self._members(login, now), now.own()
        return Session(
            id=login.id,
            user=login.user,
            terminal=login.terminal,
            remote=login.remote,
            service=login.service,
            since=_instant(login.since),
            leader=now.id(login.leader) if login.leader in members else None,
            processes=len(members - own),
            own=bool(members & own),
        )

    def _of_logind(self) -> Iterator[Login]:
        with suppress(OSError):
            for path in islice(self._logind.iterdir(), MAX_SESSIONS):
                if path.is_file() and _ID.fullmatch(path.name):  # beside each session lies a FIFO
                    text = read_bounded(path).decode("utf-8", "backslashreplace")
                    yield from parse_logind(path.name, text)

    # --- which processes ---------------------------------------------------------------------------------------------

    def _members(self, login: Login, now: _Processes) -> set[int]:
        if login.trusted:
            members = {pid for pid, scope in now.scopes.items() if scope == login.id}
            if members:
                return members
        # Only logind saves the question to a name service, which may be slow.
        uid = self._uid_of(login.user) if login.uid is None else login.uid
        on_terminal = set(self._on_terminal(login, now, uid))
        roots = on_terminal | ({login.leader} if self._leads(login, now, uid, on_terminal) else set())
        return now.below(roots - {0, 1})

    def _on_terminal(self, login: Login, now: _Processes, uid: int | None) -> Iterator[int]:
        """Who has this terminal, if it belongs to the account: another container numbers its own in the same way."""
        number = self._terminal(login.terminal, uid, trusted=login.trusted)
        for pid, one in now.table.items():
            if number and one.terminal & 0xFFFFFFFF == number and _same_pid_namespace(pid):
                yield pid

    def _terminal(self, line: str, uid: int | None, *, trusted: bool) -> int:
        """The number of a terminal's device; 0 if there is none, or it belongs to somebody else."""
        if not _TERMINAL.fullmatch(line):
            return 0
        try:
            found = (self._devices / line).lstat()
        except OSError:
            return 0
        if not stat.S_ISCHR(found.st_mode) or not (trusted or found.st_uid == uid):
            return 0
        major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)

    def _leads(self, login: Login, now: _Processes, uid: int | None, on_terminal: Collection[int]) -> bool:
        """May the process that a login names as its first one be believed to be that?"""
        leader = now.table.get(login.leader)
        if leader is None or leader.kernel_thread:
            return False
        if login.trusted or leader.pid in on_terminal:
            return True
        if uid is None or uid not in _uids(leader.pid):
            return False
        heads = [now.table[pid] for pid in on_terminal if now.table[pid].session == pid]
        # sshd has no terminal: its child has. For root, no other sign would tell it from any daemon.
        return any(one.parent == leader.pid for one in heads) or (uid != 0 and not on_terminal)


def _instant(microseconds: int) -> datetime | None:
    # Whole seconds, far enough: what it is told as must be the same after a way through JSON.
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC) if 0 < microseconds < 2**52 else None


def _is(login: Login, session: Session) -> bool:
    """Is it this very session, and not a later one on the same terminal?"""
    return (login.id, login.user, _instant(login.since)) == (session.id, session.user, session.since)


def _look(*, scoped: bool) -> _Processes:
    found = ((pid, read_stat(pid)) for pid in pids())
    # A main thread that has ended while others go on looks like a zombie, and is none.
    table = {pid: one for pid, one in found if one is not None and (one.state not in "ZX" or one.threads > 1)}
    scopes = {pid: scope for pid in table if (scope := scope_of(_read(pid, "cgroup")))} if scoped else {}
    return _Processes(table, scopes)


# --- logind ----------------------------------------------------------------------------------------------------------


def parse_logind(name: str, text: str) -> Iterator[Login]:
    """A session in a file of /run/systemd/sessions, unless it is a greeter or a background service."""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    for user in parse_session(text)[:1]:
        yield Login(
            id=name,
            user=user,
            terminal=fields.get("TTY", "")[:200],
            remote=fields.get("REMOTE_HOST", "")[:300],
            service=fields.get("SERVICE", "")[:200],
            since=_number(fields.get("REALTIME", "")),
            leader=_number(fields.get("LEADER", "")),
            uid=int(fields["UID"]) if _NUMBER.fullmatch(fields.get("UID", "")) else None,
            trusted=True,
        )


def _number(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0


_SCOPE = re.compile(
    rb"^\d+:[^:\n]*:/user\.slice/user-\d+\.slice/session-([A-Za-z0-9_]{1,64})\.scope(?:/|$)", re.MULTILINE
)
"""Where logind puts a session; anybody may make a group of that name, but not in that place."""


def scope_of(cgroups: bytes) -> str:
    """The session that a process belongs to, by what /proc/PID/cgroup says; empty for none."""
    found = _SCOPE.search(cgroups)
    return found[1].decode() if found else ""


# --- utmp ------------------------------------------------------------------------------------------------------------


def parse_utmp(raw: bytes) -> Iterator[Login]:
    """Each login in a file of the form utmp(5), at most a thousand; a record that is cut off is left out."""
    whole = len(raw) - len(raw) % _RECORD.size
    records = (one for one in _RECORD.iter_unpack(raw[:whole]) if one[0] == _USER_PROCESS)
    for _type, pid, line, user, host, since in islice(records, MAX_SESSIONS):
        terminal, account = _c_string(line), _c_string(user)
        name = terminal or f"utmp-{pid}"
        if account and _ID.fullmatch(name):
            yield Login(
                id=name,
                user=account[:200],
                terminal=terminal,
                remote=_c_string(host),
                since=since * 1_000_000,
                leader=max(0, pid),
            )


def _c_string(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def merged(of_logind: Iterable[Login], of_utmp: Iterable[Login]) -> list[Login]:
    """Each session once: what logind says goes before what utmp says of the same terminal or leader."""
    found = list(of_logind)
    terminals = {one.terminal for one in found if one.terminal}
    leaders = {one.leader for one in found if one.leader}
    names = {one.id for one in found}
    for one in of_utmp:
        if one.terminal not in terminals and one.leader not in leaders and one.id not in names:
            found.append(one)
            names.add(one.id)
    return found[:MAX_SESSIONS]


# --- /proc -----------------------------------------------------------------------------------------------------------

_UIDS = re.compile(rb"^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)$", re.MULTILINE)


def _uids(pid: int) -> frozenset[int]:
    """The real, effective, saved and file system user ids of a process; nothing if it is gone."""
    found = _UIDS.search(_read(pid, "status"))
    return frozenset(map(int, found.groups())) if found else frozenset()


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError), (PROC / str(pid) / name).open("rb") as file:
        return file.read(_MAX_STATUS)
    return b""


def _same_pid_namespace(pid: int) -> bool:
    return _same_namespace(pid, "pid")


def _same_namespace(pid: int, kind: str) -> bool:
    with suppress(OSError):
        return (PROC / str(pid) / "ns" / kind).readlink() == (PROC / "self" / "ns" / kind).readlink()
    return False


def _in_container(pid: int, uid: int) -> bool:
    """Was it put where it is by root, as a container is, whose user ids are its own affair though the kernel has one?

    An account by itself gets a pid namespace only in a user namespace of its own, and what a program with root's rights
    makes for it (firejail, say) stays in the control groups of the account.
    """
    if _same_pid_namespace(pid) or not _same_namespace(pid, "user"):
        return False
    return not re.search(rb"^\d+:[^:\n]*:/user\.slice/user-%d\.slice(?:/|$)" % uid, _read(pid, "cgroup"), re.MULTILINE)
