"""What a scan may take of the machine: a control group of its own, low priority, and it goes first if memory is short.

Each measure stands on its own and is best effort; what was done is told with the scan. They are set while the worker
has one thread and waits for its job: threads that it makes later inherit them.
"""

import ctypes
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

DONE: Final = "yes"
PREFIX: Final = "stanch-scan-"
NICE: Final = 10
OOM_SCORE: Final = 800
"""Added to it: nearly everything else is kept before it."""
MEMORY_HIGH: Final = 384 * 2**20
"""Beyond this, what was read of files is thrown away first."""
MEMORY_MAX: Final = 512 * 2**20
WEIGHT: Final = "10"
"""Of 100 that every other group beside it has. Those are the agent's own: against other services its whole service has
one share, in which the scan is, whatever its weight, nice value or session. What stays back for them is the pausing by
pressure (`scanner_pressure`); that `yes` is told says only that the weight is set."""
PIDS: Final = "64"

_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "i686": 289, "ppc64le": 273, "s390x": 282}
PROC: Final = Path("/proc")
AUTOGROUP: Final = "sys/kernel/sched_autogroup_enabled"
_IOPRIO_PROCESS: Final = 1
_IOPRIO_LOWEST: Final = 2 << 13 | 7
"""Best effort, the last of eight. Not idle: on a busy disk, a scan would never end then."""

_SETTINGS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "memory": (("memory.high", str(MEMORY_HIGH)), ("memory.swap.max", "0"), ("memory.max", str(MEMORY_MAX))),
    "pids": (("pids.max", PIDS),),
    "cpu": (("cpu.weight", WEIGHT),),
    "io": (("io.weight", f"default {WEIGHT}"),),
}
_ONLY_GENTLE: Final = frozenset({"cpu", "io"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of one worker."""

    group: Path | None
    """Its control group; None for none."""
    told: Mapping[str, str]
    """Measure to `yes`, or why not."""

    def end(self) -> None:
        """Kill whoever is still in the group, and remove it. Blocks."""
        if self.group is not None:
            with suppress(OSError):
                _write(self.group / "cgroup.kill", "1")
            with suppress(OSError):
                self.group.rmdir()


def bound(pid: int, *, parent: Path | None, name: str, gentle: bool) -> Bounds:
    """Bound a worker that has just been started; `parent` is the group below which it gets its own. Blocks."""
    told: dict[str, str] = {}
    group = _group(pid, parent, name, told, gentle=gentle)
    told["oom"] = _tried(lambda: _write(Path(f"/proc/{pid}/oom_score_adj"), str(OOM_SCORE)))
    if gentle:
        told["nice"] = _tried(lambda: os.setpriority(os.PRIO_PROCESS, pid, NICE))
        told["autogroup"] = _tried(lambda: session_behind(pid))
        told["ionice"] = _tried(lambda: _ionice(pid))
        told["processors"] = _tried(lambda: _leave_one(pid))
    return Bounds(group=group, told=told)


def sweep(parent: Path | None) -> None:
    """Remove groups of earlier scans, with whoever is still in them. Blocks."""
    if parent is not None:
        with suppress(OSError):
            for one in sorted(parent.glob(f"{PREFIX}*")):
                Bounds(group=one, told={}).end()


def _group(pid: int, parent: Path | None, name: str, told: dict[str, str], *, gentle: bool) -> Path | None:
    if parent is None:
        told["cgroup"] = "none of version 2 that is ours"
        return None
    group = parent / f"{PREFIX}{name}"
    told["cgroup"] = _tried(lambda: _enter(group, pid))
    if told["cgroup"] != DONE:
        with suppress(OSError):
            group.rmdir()
        return None
    told.update(_set(parent, group, gentle=gentle))
    return group


def _enter(group: Path, pid: int) -> None:
    group.mkdir(mode=0o755, exist_ok=True)
    _write(group / "cgroup.procs", str(pid))


def _set(parent: Path, group: Path, *, gentle: bool) -> Iterator[tuple[str, str]]:
    for controller, settings in _SETTINGS.items():
        if controller in _ONLY_GENTLE and not gentle:
            continue
        yield f"cgroup_{controller}", _controlled(parent, group, controller, settings)


def _controlled(parent: Path, group: Path, controller: str, settings: tuple[tuple[str, str], ...]) -> str:
    if controller not in _controllers(group):
        with suppress(OSError):
            _write(parent / "cgroup.subtree_control", f"+{controller}")
    if controller not in _controllers(group):
        return f"no controller {controller} in the agent's group"
    said = {file: _tried(partial(_write, group / file, value)) for file, value in settings}
    return said[settings[-1][0]]  # the others are of newer kernels, or of those with swap, only


def _controllers(group: Path) -> list[str]:
    with suppress(OSError):
        return (group / "cgroup.controllers").read_text().split()
    return []


def session_behind(pid: int, *, proc: Path = PROC) -> None:
    """Where the kernel shares the processor between sessions first, niceness counts only within one.

    Not SCHED_IDLE besides: across sessions others gain nothing by it (measured), and where there is no weight of a
    group, a scan would never end on a busy machine.
    """
    if (proc / AUTOGROUP).read_text().strip() != "1":
        raise ValueError("the kernel makes no groups of sessions")
    group = _session_group(proc, pid)
    if not group:
        raise ValueError("its session has no group")
    if group == _session_group(proc, os.getpid()):
        raise ValueError("it is in the agent's own session")
    _write(proc / str(pid) / "autogroup", str(NICE))


def _session_group(proc: Path, pid: int) -> str:
    """Its name; empty for a session older than the setting (the file is empty then, as in some containers)."""
    return (proc / str(pid) / "autogroup").read_text().partition(" ")[0]


def _leave_one(pid: int) -> None:
    """All processors but one. Its processes wake one another, wherever there is room: others would feel that.

    Measured with two processors: to start a program took 1.2 times as long beside a scan, and so it is 1.03.
    """
    allowed = os.sched_getaffinity(pid)
    if len(allowed) == 1:
        raise ValueError("it may use one processor only")
    os.sched_setaffinity(pid, allowed - {min(allowed)})


def _ionice(pid: int) -> None:
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        raise ValueError(f"not known how on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), _IOPRIO_PROCESS, pid, _IOPRIO_LOWEST) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _write(path: Path, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _tried(measure: Callable[[], object]) -> str:
    try:
        measure()
    except (OSError, ValueError) as error:
        return (getattr(error, "strerror", None) or str(error))[:200] or type(error).__name__
    return DONE
