"""List the processes of an endpoint, as a tree."""

from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Params, Result, Risk, action
from stanch.core.host import Host
from stanch.core.processes import Detail, Process
from stanch.core.types import MAX_PID, Pid, Text, minutes

MAX_ROWS = 100_000
MAX_BYTES = 3 * 1_048_576
"""Of all rows in JSON: a report must fit a frame of the link."""

_LISTENS = {"LISTEN", "UNCONN"}

Test = Callable[[Process], bool]
Rows = tuple[Process, ...]


class ListProcesses(Params):
    """Which processes to list, and what to tell of them. Those that fit all of it are listed with their ancestors."""

    match: Text = ""
    """Only processes whose name, program or command line contains this, whatever its case; empty for all."""

    user: Text = ""
    """Only processes of this account: its name, or its numeric id where it has no name."""

    pid: Pid | None = None
    """Only this process and what descends from it."""

    container: Annotated[str, Field(max_length=200)] = ""
    """Only processes of this container: its runtime's id, or the beginning of it, or its name."""

    unit: Text = ""
    """Only processes of this systemd unit; `.service` may be left out."""

    deleted: bool = False
    """Only processes whose program is no longer where it was started from."""

    listening: bool = False
    """Only processes that wait for connections or packets from the network; tells their sockets."""

    details: Annotated[tuple[Detail, ...], Field(max_length=len(Detail))] = ()
    """What to tell beside: the hash of each program, the open network sockets, the package of each program."""


class ProcessTable(Result):
    """The processes, parents before children."""

    total: Annotated[int, Field(ge=0, le=MAX_PID)]
    """How many processes the endpoint has."""

    processes: Annotated[tuple[Process, ...], Field(max_length=MAX_ROWS)]
    """In tree order; `depth` says how deep."""

    cut: bool = False
    """The table was too large to be sent whole; a filter narrows it."""


@action(
    "list_processes",
    version=2,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    time_limit=minutes(10),
    examples=(
        "web-01 --wait",
        "web-01 --match nginx --wait --json",
        "web-01 --deleted --details hash --details package --wait",
        "web-01 --listening --wait",
    ),
)
async def list_processes(host: Host, params: ListProcesses) -> ProcessTable:
    """List the processes of an endpoint as a tree.

    The start time beside each process id names the process for good: pass both to end exactly this one. The hash is of
    the program that runs, whatever lies at its path by now.
    """
    everything = tuple(await host.processes.list())
    tests = _tests(params, everything, await _container(host, params.container, everything))
    wanted = keep(everything, tests)
    if params.listening:
        wanted = await _detailed(host, wanted, {Detail.SOCKETS})
        wanted = keep(wanted, [*tests, _listens])
    # The sockets are there by then: looking again could show others than those by which they were chosen.
    wanted = await _detailed(host, wanted, set(params.details) - ({Detail.SOCKETS} if params.listening else set()))
    rows = as_many_as_fit(wanted)
    return ProcessTable(total=len(everything), processes=rows, cut=len(rows) < len(wanted))


async def _detailed(host: Host, rows: Rows, details: Collection[Detail]) -> Rows:
    if not details:
        return rows

    def told(done: int, total: int) -> None:
        host.progress(done, total, "programs", "hashing")

    return tuple(await host.processes.detailed(rows, details, told=told))


def as_many_as_fit(processes: Rows) -> Rows:
    """The first rows, up to MAX_BYTES of JSON and MAX_ROWS."""
    sizes = accumulate(len(one.model_dump_json().encode()) + 1 for one in processes)
    return tuple(one for one, size in zip(processes[:MAX_ROWS], sizes, strict=False) if size <= MAX_BYTES)


# --- filters ---------------------------------------------------------------------------------------------------------


async def _container(host: Host, said: str, everything: Rows) -> str:
    """The id, or its beginning, that is meant: of a name, which processes do not bear, the runtime tells it."""
    if not said or any(one.container.startswith(said) for one in everything):
        return said
    one = await host.containers.find(said)
    return said if one is None else one.id


def _tests(params: ListProcesses, everything: Rows, container: str) -> list[Test]:
    """What each process that is listed for its own sake must pass."""
    text, units = params.match.lower(), {params.unit, f"{params.unit}.service"}
    family = set() if params.pid is None else descendants(everything, params.pid)
    tests: tuple[tuple[bool, Test], ...] = (
        (bool(text), lambda one: contains(one, text)),
        (bool(params.user), lambda one: one.user == params.user),
        (params.pid is not None, lambda one: one.pid in family),
        (bool(container), lambda one: one.container.startswith(container)),
        (bool(params.unit), lambda one: one.unit in units),
        (params.deleted, lambda one: one.deleted),
    )
    return [test for asked, test in tests if asked]


def contains(one: Process, text: str) -> bool:
    """Is this text (in lower case) in its name, program or command line?"""
    return any(text in field.lower() for field in (one.name, one.executable or "", one.arguments))


def _listens(one: Process) -> bool:
    return any(socket.state in _LISTENS for socket in one.sockets)


def descendants(processes: Rows, pid: int) -> set[int]:
    """This pid and those of all that descend from it. The rows may stand in any order, and in a circle."""
    children: dict[int, list[int]] = {}
    for one in processes:
        children.setdefault(one.parent, []).append(one.pid)
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        one_pid = waiting.pop()
        if one_pid not in found:
            found.add(one_pid)
            waiting += children.get(one_pid, [])
    return found


def keep(processes: Rows, tests: Sequence[Test]) -> Rows:
    """The processes that pass all tests, with their ancestors, in the same order; all of them without a test."""
    if not tests:
        return processes
    by_pid = {one.pid: one for one in processes}
    wanted: set[int] = set()
    for one in processes:
        if all(test(one) for test in tests):
            _add_with_ancestors(one, by_pid, wanted)
    return tuple(one for one in processes if one.pid in wanted)


def _add_with_ancestors(one: Process | None, by_pid: dict[int, Process], wanted: set[int]) -> None:
    while one is not None and one.pid not in wanted:
        wanted.add(one.pid)
        one = by_pid.get(one.parent)
