"""A control group for each task that runs programs: its limits, its mark, and its end at one stroke.

Only version 2 is used. The groups lie below the group of the agent's own service; where the agent is in no group of
its own, it makes none, as the others belong to somebody. Limits need the controllers there: `memory`, `pids`, `cpu`.
No limit of a single process stands in for one of a group: RLIMIT_AS counts each process anew, and RLIMIT_NPROC all
processes of an account, root's not at all.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stanch.agent.host.cgroups import hierarchy
from stanch.agent.host.marks import GROUP_PREFIX, group_name
from stanch.core.errors import Unsupported
from stanch.core.programs import Resources

OWN = Path("/proc/self/cgroup")
_PERIOD = 100_000
"""Microseconds in which the share of a processor is counted."""

_MAX_LINES = 65_536
_HINT = (
    "systemd gives them to the agent's unit with Delegate=memory pids cpu and DelegateSubgroup=agent (systemd 254 or "
    "newer). Order it without limits to run it all the same."
)


def parent_group(own: Path = OWN, root: Path | None = None) -> Path | None:
    """Where the agent may make groups: its service's own; None if it is in none, or there is no version 2."""
    try:
        with own.open() as file:
            lines = file.read(_MAX_LINES).splitlines()
        top = hierarchy().root if root is None else root
    except (OSError, ValueError, Unsupported):
        return None
    path = next((Path(line[3:]) for line in lines if line.startswith("0::/")), Path("/"))
    service = next((one for one in (path, *path.parents) if one.name.endswith(".service")), path)
    if service == Path("/") or ".." in service.parts:
        return None
    return top / service.relative_to("/")


def make_group(parent: Path | None, task: str, resources: Resources) -> Path | None:
    """The group of a task, with these limits; None if there is to be none and no limit needs one.

    Unsupported if limits were ordered that cannot be set here.
    """
    if parent is None:
        if resources.limited:
            raise _cannot("the agent is in no control group of its own")
        return None
    group = parent / group_name(task)
    try:
        group.mkdir(exist_ok=True)
    except OSError as error:
        if resources.limited:
            raise _cannot(f"{parent}: {error.strerror}") from error
        return None
    try:
        _limit(parent, group, resources)
    except BaseException:
        remove_group(group)
        raise
    return group


def remove_group(group: Path | None) -> None:
    """Remove the group if nobody is in it any more."""
    if group is not None:
        with suppress(OSError):
            group.rmdir()


def sweep_groups(parent: Path | None) -> None:
    """Remove the groups of earlier tasks in which nobody is any more."""
    if parent is not None:
        with suppress(OSError):
            for one in sorted(parent.glob(f"{GROUP_PREFIX}*")):
                remove_group(one)


def _limit(parent: Path, group: Path, resources: Resources) -> None:
    for controller, settings in _settings(resources):
        _enable(parent, group, controller)
        for name, value, needed in settings:
            try:
                _write(group / name, value)
            except OSError as error:
                if needed:
                    raise _cannot(f"{name} = {value}: {error.strerror}") from error


def _settings(resources: Resources) -> Iterator[tuple[str, list[tuple[str, str, bool]]]]:
    """Controller to its files: name, value, and whether it must be set."""
    if resources.memory is not None:
        # Without the second, the limit would only move it to the disk; a kernel without swap has no such file.
        yield "memory", [("memory.max", str(resources.memory), True), ("memory.swap.max", "0", False)]
    if resources.processes is not None:
        yield "pids", [("pids.max", str(resources.processes), True)]
    if resources.cpu_percent is not None:
        yield "cpu", [("cpu.max", f"{resources.cpu_percent * _PERIOD // 100} {_PERIOD}", True)]


def _enable(parent: Path, group: Path, controller: str) -> None:
    if controller in _controllers(group):
        return
    with suppress(OSError):
        _write(parent / "cgroup.subtree_control", f"+{controller}")
    if controller not in _controllers(group):
        raise _cannot(f"no controller {controller} in {parent}")


def _controllers(group: Path) -> list[str]:
    with suppress(OSError):
        return (group / "cgroup.controllers").read_text().split()
    return []


def _write(path: Path, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _cannot(why: str) -> Unsupported:
    return Unsupported(
        "The resources of a program cannot be limited here",
        got=why,
        expected="a control group of version 2 with the controllers memory, pids and cpu",
        hint=_HINT,
    )
