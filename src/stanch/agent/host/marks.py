"""Which processes a task's `run_process` has started: the marks that they carry, and who descends from them.

Three marks, the strongest first:

1. The *keeper* (`program_keeper.py`, `terminal_keeper.py`) is the subreaper of everything that it started: whoever
   forks twice, begins a session or clears its environment is still below it. It is known by its own command line, and
   runs as we do.
2. The control group of the task, where there is one: nobody but root leaves it. It goes on if the keeper was killed.
3. The variable STANCH_TASK in the environment that it was started with. A program can clear it, and any program can
   claim the one of another task. That gains it nothing: it only asks to be found, and so to be ended, itself. Nobody
   else is found through it, not even the children of the one that claims it, unless they carry it themselves.

Another account's control group or command line is no better than such a claim, and counts for itself alone, too.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from stanch.agent.host.procfs import PROC, pids, read_stat
from stanch.core.processes import ProcessId
from stanch.core.programs import TASK_VARIABLE

KEEPER_FILES = frozenset({b"program_keeper.py", b"terminal_keeper.py"})
GROUP_PREFIX = "stanch-run-"

MAX_ENVIRONMENT = 262_144
"""Bytes of an environment that are looked at: the mark is its first line when a program begins."""

_MAX_LINE = 16_384
_TASK = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True, slots=True)
class _Row:
    """A process, as it was seen."""

    one: ProcessId
    parent: int
    runs: bool
    """False for a zombie."""


def group_name(task: str) -> str:
    """What the control group of a task is called; ValueError for what is no task."""
    if not _TASK.fullmatch(task):
        raise ValueError(f"got {task[:100]!r}, expected the id of a task")
    return GROUP_PREFIX + task


def of_task(task: str) -> tuple[ProcessId, ...]:
    """What the task has started, and what descends from it, as far as it still runs; its keeper is not among them.

    Reads /proc once: call it in a thread.
    """
    if not _TASK.fullmatch(task):
        return ()
    rows = {row.one.pid: row for row in _rows()}
    keepers = [pid for pid in rows if is_keeper(pid, task)]
    below = set(_below(keepers, rows))
    found = below | {pid for pid in rows if _is_marked(pid, task)}
    # What a keeper has just forked looks like it, and is no keeper: it is below one.
    found -= set(keepers) - below
    return tuple(rows[pid].one for pid in sorted(found) if rows[pid].runs)


def _rows() -> Iterator[_Row]:
    for pid in pids():
        stat = read_stat(pid)
        if stat is not None and not stat.kernel_thread:
            runs = stat.state not in "ZX" or (stat.state == "Z" and stat.threads > 1)
            yield _Row(ProcessId(pid=pid, started=stat.started), stat.parent, runs)


def _below(roots: list[int], rows: dict[int, _Row]) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for pid, row in rows.items():
        children.setdefault(row.parent, []).append(pid)
    waiting, seen = list(roots), set[int]()
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in seen:
                seen.add(child)
                waiting.append(child)
                yield child


def is_keeper(pid: int, task: str) -> bool:
    """Is it the keeper of this task's programs? Only what runs in our own account is believed."""
    return kept_task(pid) == task


def kept_task(pid: int) -> str | None:
    """The task whose programs it keeps; None if it is no keeper."""
    words = _read(pid, "cmdline", _MAX_LINE).split(b"\0")[:-1]
    named = len(words) >= 2 and os.path.basename(words[-2]) in KEEPER_FILES  # noqa: PTH119, PLR2004 - the last two words
    return os.fsdecode(words[-1]) if named and _owner(pid) == os.geteuid() else None


def _is_marked(pid: int, task: str) -> bool:
    group = f"/{group_name(task)}".encode()
    if any(line.startswith(b"0::") and _has_part(line, group) for line in _read(pid, "cgroup", _MAX_LINE).split(b"\n")):
        return True
    return f"{TASK_VARIABLE}={task}".encode() in _read(pid, "environ", MAX_ENVIRONMENT).split(b"\0")


def _has_part(line: bytes, part: bytes) -> bool:
    return line.endswith(part) or part + b"/" in line


def _owner(pid: int) -> int:
    with suppress(OSError):
        return os.stat(f"{PROC}/{pid}").st_uid  # noqa: PTH116 - thousands of paths are waste
    return -1


def _read(pid: int, name: str, most: int) -> bytes:
    """The beginning of a file of a process; nothing if it has ended, or is not ours to read."""
    try:
        file = os.open(f"{PROC}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return b"".join(_pieces(file, most))
    except OSError:
        return b""
    finally:
        os.close(file)


def _pieces(file: int, most: int) -> Iterator[bytes]:
    """/proc gives a page at a time."""
    while most > 0 and (piece := os.read(file, most)):
        most -= len(piece)
        yield piece
