"""Who a process is, for people who ask who changed the firewall: read at once, it may end any moment.

What a process chooses itself (its name, its path) is bounded and shown without control characters.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stanch.agent.host.configured import lines_of
from stanch.agent.host.procfs import PROC, parse_stat, readable
from stanch.core.errors import StanchError

PASSWD = Path("/etc/passwd")
MAX_PARENTS = 3
MAX_NAME = 200
_MAX_READ = 4096
_UNSET = 2**32 - 1


def describe(pid: int, proc: Path = PROC) -> str:
    """Program, pid, account, who logged in, and up to three parents; empty if the process is gone."""
    if pid <= 0:
        return ""
    return ", started by ".join(_chain(pid, proc))


def _chain(pid: int, proc: Path) -> Iterator[str]:
    for at in range(MAX_PARENTS + 1):
        # Nothing is learned from a process that is gone, nor from what the number means by then.
        with suppress(OSError, StanchError):
            line, pid = _one(pid, proc, whole=at == 0)
            yield line
            if pid > 0:
                continue
        return


def _one(pid: int, proc: Path, *, whole: bool) -> tuple[str, int]:
    folder = os.open(proc / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        stat = parse_stat(_read(folder, "stat"))
        facts = [f"pid {pid}"]
        if whole:
            facts += [_account(os.fstat(folder).st_uid), *_login(folder)]
        return f"{_program(folder) or plain(stat.name)} ({', '.join(facts)})", stat.parent
    finally:
        os.close(folder)


def _program(folder: int) -> str:
    try:
        return plain(os.fsencode(os.readlink("exe", dir_fd=folder)))
    except OSError:
        return ""  # it has ended, and only its name is left


def _login(folder: int) -> list[str]:
    """The account that logged in, whatever the process has become since."""
    try:
        uid = int(_read(folder, "loginuid"))
    except (OSError, ValueError):
        return []
    return [] if uid == _UNSET else [f"logged in as {_account(uid)}"]


def _account(uid: int) -> str:
    # Not by the system's library: it may ask a server that an isolated machine cannot reach, and the agent would stand
    # still meanwhile.
    for line in lines_of(PASSWD):
        name, _, rest = line.partition(":")
        if rest.split(":")[1:2] == [str(uid)]:
            return f"{plain(os.fsencode(name))} (uid {uid})"
    return f"uid {uid}"


def _read(folder: int, name: str) -> bytes:
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(file, _MAX_READ)
    finally:
        os.close(file)


def plain(raw: bytes) -> str:
    """What a process chose, in one bounded line."""
    text = readable(raw[: 2 * MAX_NAME])
    return "".join(one if one.isprintable() else "?" for one in text)[:MAX_NAME]
