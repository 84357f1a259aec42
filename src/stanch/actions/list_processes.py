"""List the processes of an endpoint, as a tree."""

from itertools import accumulate
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Params, Result, Risk, action
from stanch.core.host import Host, Process
from stanch.core.types import MAX_PID, Text, minutes

MAX_ROWS = 100_000
MAX_BYTES = 3 * 1_048_576
"""Of all rows in JSON: a report must fit a frame of the link."""


class ListProcesses(Params):
    """Which processes to list."""

    match: Text = ""
    """Only processes whose name, program or command line contains this, and their ancestors; empty for all."""


class ProcessTable(Result):
    """The processes, parents before children."""

    total: Annotated[int, Field(ge=0, le=MAX_PID)]
    """How many processes the endpoint has."""

    processes: Annotated[tuple[Process, ...], Field(max_length=MAX_ROWS)]
    """In tree order; `depth` says how deep."""

    cut: bool = False
    """The table was too large to be sent whole; `--match` narrows it."""


@action(
    "list_processes",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    time_limit=minutes(1),
    examples=("web-01 --wait", "web-01 --match nginx --wait --json"),
)
async def list_processes(host: Host, params: ListProcesses) -> ProcessTable:
    """List the processes of an endpoint as a tree.

    The start time beside each process id names the process for good: pass both to end exactly this one.
    """
    everything = tuple(await host.processes.list())
    wanted = keep_matching(everything, params.match) if params.match else everything
    rows = as_many_as_fit(wanted)
    return ProcessTable(total=len(everything), processes=rows, cut=len(rows) < len(wanted))


def as_many_as_fit(processes: tuple[Process, ...]) -> tuple[Process, ...]:
    """The first rows, up to MAX_BYTES of JSON and MAX_ROWS."""
    sizes = accumulate(len(one.model_dump_json()) + 1 for one in processes)
    return tuple(one for one, size in zip(processes[:MAX_ROWS], sizes, strict=False) if size <= MAX_BYTES)


def keep_matching(processes: tuple[Process, ...], text: str) -> tuple[Process, ...]:
    """The processes that contain the text, with their ancestors, in the same order."""
    by_pid = {one.pid: one for one in processes}
    wanted: set[int] = set()
    for one in processes:
        if _contains(one, text.lower()):
            _add_with_ancestors(one, by_pid, wanted)
    return tuple(one for one in processes if one.pid in wanted)


def _contains(one: Process, text: str) -> bool:
    return any(text in field.lower() for field in (one.name, one.executable or "", one.arguments))


def _add_with_ancestors(one: Process | None, by_pid: dict[int, Process], wanted: set[int]) -> None:
    while one is not None and one.pid not in wanted:
        wanted.add(one.pid)
        one = by_pid.get(one.parent)
