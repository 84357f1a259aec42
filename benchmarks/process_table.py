"""`list_processes` with the hash of every program on 300 processes, against `ps -ef` and `sha256sum` of the same files.

The peer is what a person would type to know the same: two real programs, one after the other, their start included,
and the list of files handed to the second for nothing. It reads each distinct file once, as we do. Both look at the
same processes, in turns, the one first in one round and the other in the next. What is missing to 300 processes is
started: each a copy of a small program with other bytes at its end, in a folder for temporary files.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmarks import harness, stand
from stanch.actions.list_processes import ListProcesses, ProcessTable, list_processes
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.processes import LinuxProcesses
from stanch.core.processes import Detail

if TYPE_CHECKING:
    from stanch.core.host import Host

PROCESSES = 300
FEWEST = 3
"""Processes that are started whatever there is, to check the hashes by."""
ROUNDS = 15
BAR = 1.2
PROGRAM = Path("/bin/sleep")


@dataclass(slots=True)
class OnlyProcesses:
    """As much of a host as the action asks for."""

    processes: LinuxProcesses

    def progress(self, done: int, total: int | None, unit: str, text: str = "") -> None:
        """Nobody listens."""


@dataclass(slots=True)
class Measured:
    """What there was, and the seconds of each round."""

    processes: int
    programs: Sequence[str]
    size: int
    """Bytes of all programs."""
    ours: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    ps: list[float] = field(default_factory=list)
    sha256sum: list[float] = field(default_factory=list)


@contextmanager
def company(folder: Path, count: int) -> Iterator[None]:
    """So many more processes, each of a program of its own, that sleep until it is over."""
    original = PROGRAM.read_bytes()
    with ExitStack() as started:
        for number in range(count):
            program = folder / f"program-{number}"
            program.write_bytes(original + os.urandom(64))
            program.chmod(0o755)
            started.enter_context(_running([str(program), "600"]))
        yield


@contextmanager
def _running(command: Sequence[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def listed(processes: LinuxProcesses, *details: Detail) -> tuple[ProcessTable, float]:
    """The action itself, and the seconds that it took, to the JSON of its result."""
    host = cast("Host", OnlyProcesses(processes))
    began = time.perf_counter()
    table = asyncio.run(_list(host, ListProcesses(details=details)))
    table.model_dump_json()
    return table, time.perf_counter() - began


async def _list(host: "Host", params: ListProcesses) -> ProcessTable:
    return await list_processes(host, params)


def by_hand(programs: Sequence[str]) -> tuple[float, float]:
    """`ps -ef`, then `sha256sum`; the seconds of each."""
    began = time.perf_counter()
    subprocess.run(["ps", "-ef"], stdout=subprocess.PIPE, check=True)
    middle = time.perf_counter()
    subprocess.run(["sha256sum", *programs], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return middle - began, time.perf_counter() - middle


def programs_of(table: ProcessTable) -> list[str]:
    """Each distinct program once, as somebody with the list of paths would do it."""
    paths = {one.executable.raw for one in table.processes if one.executable and not one.deleted and one.sha256}
    return [os.fsdecode(path) for path in sorted(paths) if Path(os.fsdecode(path)).is_file()]


def measure(count: int, rounds: int) -> Measured:
    """Both, in turns. RuntimeError if they do not say the same."""
    processes = LinuxProcesses(Namespace.current("pid"))
    there = len(listed(processes)[0].processes)
    with stand.folder() as folder, company(folder, max(FEWEST, count - there)):
        table, _ = listed(processes, Detail.HASH)
        programs = programs_of(table)
        check(table, programs)  # whatever is read is in memory from here on, for both
        found = Measured(len(table.processes), programs, sum(Path(one).stat().st_size for one in programs))
        for number in range(rounds):
            if number % 2:
                _peer(found, programs)
            found.ours.append(listed(processes, Detail.HASH)[1])
            found.plain.append(listed(processes)[1])
            if not number % 2:
                _peer(found, programs)
    return found


def check(table: ProcessTable, programs: Sequence[str]) -> None:
    """Do both find the same hashes? A process that ends meanwhile must not matter, so only our company is compared."""
    said = subprocess.run(["sha256sum", *programs], capture_output=True, text=True, check=False).stdout
    theirs = {path: digest for digest, _, path in (line.partition("  ") for line in said.splitlines())}
    ours = {str(one.executable): one.sha256 for one in table.processes if "stanch-bench-" in str(one.executable)}
    wrong = [path for path, digest in ours.items() if theirs.get(path) != digest]
    if wrong or not ours:
        raise RuntimeError(f"the hashes differ: {wrong[:3]}")


def _peer(found: Measured, programs: Sequence[str]) -> None:
    ps, sums = by_hand(programs)
    found.ps.append(ps)
    found.sha256sum.append(sums)


def figures(count: int = PROCESSES, rounds: int = ROUNDS) -> tuple[dict[str, harness.Figure], list[harness.Bar]]:
    """What was measured, and the bar."""
    found = measure(count, rounds)
    ours = harness.median(found.ours)
    peer = harness.median([sum(pair) for pair in zip(found.ps, found.sha256sum, strict=True)])
    harness.progress(f"list_processes {ours * 1000:.1f} ms, by hand {peer * 1000:.1f} ms")
    values: dict[str, harness.Figure] = {
        "table_processes": found.processes,
        "table_programs": len(found.programs),
        "table_mib_hashed": found.size / 2**20,
        "table_with_hashes_median_ms": ours * 1000,
        "table_alone_median_ms": harness.median(found.plain) * 1000,
        "ps_median_ms": harness.median(found.ps) * 1000,
        "sha256sum_median_ms": harness.median(found.sha256sum) * 1000,
    }
    what = f"list_processes with hashes on {found.processes} processes, against ps -ef + sha256sum"
    return values, [harness.Bar(what=what, value=ours / peer, bar=BAR)]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    if shutil.which("ps") is None:
        parser.error("ps is not installed: `apt-get install procps`")
    values, bars = figures(chosen.processes, chosen.rounds)
    harness.report("process_table", values, bars)


if __name__ == "__main__":
    main()
