"""A respawning tree of 200 processes ended and verified, against `pkill` in a loop; and the table of all processes.

The tree is one program. 200 processes of it live for half a second at most: each starts the next one and ends, so that
it is an orphan of an orphan, and whoever finds the first of all dead starts 200 anew at once. Measured is from the
order to its verified result: `kill_process --path` itself, on the real processes, its record on the disk each time,
without the time that it watches afterwards whether anything comes back (two seconds, unless the order says otherwise).
The peer is what a person would type, `pkill -KILL` by name, again and again until `pgrep` finds nobody, which is luck;
it is given up after a while. Both work in a pid namespace of their own, which ends with all that is in it, in turns.
Who is left is counted afterwards, by one who took no part.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import structlog

from benchmarks import harness, process_table, stand
from stanch.actions.kill_process import KillProcess, kill_process
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.pen import Groups, usual_groups
from stanch.agent.host.processes import LinuxProcesses
from stanch.core.action import Verdict
from stanch.core.errors import StanchError
from stanch.core.types import EndpointPath

if TYPE_CHECKING:
    from stanch.core.host import Host

PROCESSES = 200
TIMES = 9
GIVEN_UP_AFTER = 3.0
"""Seconds for the loop of the peer."""
SETTLE = 0.6
"""Seconds after which whoever is left has shown itself."""
NAME = "stanch-hydra"

HYDRA = """
import mmap, os, random, signal, struct, sys, time

COUNT, MOST = int(sys.argv[1]), 20_000
shared = mmap.mmap(-1, 16)  # of all that descend from here: the births so far, and who is the first of all
signal.signal(signal.SIGCHLD, signal.SIG_IGN)

def fork():
    births, first = struct.unpack("qq", shared[:])
    shared[:8] = struct.pack("q", births + 1)
    if births > MOST:
        os._exit(0)
    return os.fork()

def first_lives():
    try:
        os.kill(struct.unpack("qq", shared[:])[1], 0)
    except ProcessLookupError:
        return False
    return True

def chief():
    shared[8:] = struct.pack("q", os.getpid())
    for _ in range(COUNT - 1):
        if fork() == 0:
            return worker()
    while True:
        time.sleep(1)

def worker():
    while True:
        signal.alarm(60)
        time.sleep(random.random() / 2)
        if not first_lives():
            return chief()
        if fork():
            os._exit(0)

signal.alarm(60)
chief()
"""
"""Ends by itself after a minute, or so many births."""


@dataclass(slots=True)
class Measured:
    """Of each round."""

    seconds: list[float] = field(default_factory=list)
    survivors: list[int] = field(default_factory=list)
    after_one: list[int] = field(default_factory=list)
    """Who was left after one look at all and one signal to each."""


# --- inside a pid namespace of its own -------------------------------------------------------------------------------


@dataclass(slots=True)
class Journal:
    """A task's record in a file, synced."""

    path: Path

    async def record(self, record: Mapping[str, Any]) -> None:
        """Write it down, on the disk."""
        with self.path.open("w") as file:
            json.dump(dict(record), file)
            file.flush()
            os.fsync(file.fileno())

    def recorded(self) -> None:
        """It is a first run."""


@dataclass(slots=True)
class PartsOfAHost:
    """As much of a host as the action asks for."""

    processes: LinuxProcesses
    journal: Journal
    task: str = "tsk_benchmark"

    def progress(self, done: int, total: int | None, unit: str, text: str = "") -> None:
        """Nobody listens."""


def heads(program: Path) -> int:
    """How many run the program now."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found += (folder / "exe").readlink() == program
    return found


def hatch(program: Path, count: int) -> None:
    """Start the tree, and come back when all of it lives."""
    env = {"PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}", "PATH": os.environ["PATH"]}
    subprocess.Popen([program, "-S", "-c", HYDRA, str(count)], env=env, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while heads(program) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {heads(program)} of {count} live")
        time.sleep(0.05)


async def by_action(program: Path, groups: Groups | None) -> float:
    """The order; seconds to its verified result."""
    processes = LinuxProcesses(Namespace.current("pid"), groups=lambda: groups)
    host = cast("Host", PartsOfAHost(processes, Journal(program.parent / "record")))
    order = KillProcess(path=EndpointPath.of(os.fsencode(program)), watch=None, most=5000)
    began = time.perf_counter()
    try:
        result = await kill_process(host, order)
    except StanchError as error:
        harness.progress(f"the action failed: {error}")
        return time.perf_counter() - began
    check = await kill_process.verify(host, order, result) if kill_process.verify else None
    seconds = time.perf_counter() - began
    if check is None or check.verdict is not Verdict.IN_PLACE:
        harness.progress(f"not verified: {check}")
    return seconds


def by_hand() -> tuple[float, int]:
    """`pkill` until `pgrep` finds nobody, or it is given up; seconds, and who was left after the first."""
    began, after_one = time.perf_counter(), -1
    while time.perf_counter() - began < GIVEN_UP_AFTER:
        subprocess.run(["pkill", "-KILL", "-x", NAME], check=False)
        left = subprocess.run(["pgrep", "-c", "-x", NAME], stdout=subprocess.PIPE, check=False).stdout
        after_one = int(left) if after_one < 0 else after_one
        if not int(left):
            break
    return time.perf_counter() - began, after_one


def inside(way: str, folder: Path, count: int, groups: Groups | None) -> None:
    """One round, as the first process of a namespace; its last line is what came of it."""
    if os.getpid() != 1:
        raise RuntimeError("not in a pid namespace of its own: nothing was done")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans are ours, and are not to stay as zombies
    program = folder / NAME
    hatch(program, count)
    after_one = 0
    if way == "stanch":
        seconds = asyncio.run(by_action(program, groups))
    else:
        seconds, after_one = by_hand()
    time.sleep(SETTLE)
    print(json.dumps({"seconds": seconds, "survivors": heads(program), "after_one": after_one}))


# --- outside ---------------------------------------------------------------------------------------------------------


@contextmanager
def own_group() -> Iterator[Path | None]:
    """A control group for the pens of this benchmark; None where there can be none."""
    groups = usual_groups()
    group = None if groups is None else groups.parent / f"stanch-test-bench-{os.getpid()}"
    try:
        if group is not None:
            group.mkdir()
    except OSError:
        group = None
    try:
        yield group
    finally:
        with suppress(OSError):
            if group is not None:
                group.rmdir()


def one_round(way: str, folder: Path, count: int, group: Path | None, into: Measured) -> None:
    """In a namespace of its own, which ends with the first process in it."""
    command = [
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        sys.executable,
        "-m",
        "benchmarks.processes",
    ]
    options = ["--inside", way, "--folder", str(folder), "--processes", str(count)]
    options += [] if group is None else ["--group", str(group)]
    ended = subprocess.run([*command, *options], stdout=subprocess.PIPE, check=True, timeout=120)
    found = json.loads(ended.stdout.splitlines()[-1])
    into.seconds.append(found["seconds"])
    into.survivors.append(found["survivors"])
    into.after_one.append(found["after_one"])
    harness.progress(f"{way}: {found['seconds'] * 1000:.0f} ms, {found['survivors']} left")


def measure(count: int, times: int) -> tuple[Measured, Measured, Measured]:
    """The action in a frozen group, the action by signals, and the peer, in turns."""
    ours, signals, theirs = Measured(), Measured(), Measured()
    with stand.folder() as folder, own_group() as group:
        shutil.copy(Path(sys.executable).resolve(), folder / NAME)
        rounds = [("stanch", group, ours), ("stanch", None, signals), ("walk", None, theirs)]
        for number in range(times):
            for way, where, into in rounds[number % 3 :] + rounds[: number % 3]:
                one_round(way, folder, count, where, into)
    return ours, signals, theirs


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--times", type=int, default=TIMES)
    parser.add_argument("--table-processes", type=int, default=process_table.PROCESSES)
    parser.add_argument("--table-rounds", type=int, default=process_table.ROUNDS)
    parser.add_argument("--inside", choices=["stanch", "walk"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--group", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    if chosen.inside:
        usual = usual_groups()
        groups = None if usual is None or chosen.group is None else Groups(root=usual.root, parent=chosen.group)
        inside(chosen.inside, chosen.folder, chosen.processes, groups)
        return
    found = measure(chosen.processes, chosen.times)
    report(chosen.processes, *found, process_table.figures(chosen.table_processes, chosen.table_rounds))


def report(
    count: int,
    ours: Measured,
    signals: Measured,
    theirs: Measured,
    table: tuple[dict[str, harness.Figure], list[harness.Bar]],
) -> None:
    """The figures and the bars."""
    times = len(ours.seconds)
    figures: dict[str, harness.Figure] = {
        "processes": count,
        "rounds": times,
        "dead_and_verified_median_ms": harness.median(ours.seconds) * 1000,
        "dead_and_verified_slowest_ms": max(ours.seconds) * 1000,
        "without_a_control_group_median_ms": harness.median(signals.seconds) * 1000,
        "without_a_control_group_survived": sum(map(bool, signals.survivors)),
        "pkill_loop_median_ms": harness.median(theirs.seconds) * 1000,
        "pkill_loop_survived": sum(map(bool, theirs.survivors)),
        "pkill_loop_survivors_median": harness.median(theirs.survivors),
        "against_the_pkill_loop": harness.median(ours.seconds) / harness.median(theirs.seconds),
        "one_pkill_survivors_median": harness.median(theirs.after_one),
        **table[0],
    }
    bars = [
        harness.Bar(what=f"of {times} trees, those that survived", value=sum(map(bool, ours.survivors)), bar=0),
        harness.Bar(
            what=f"of {times} trees, those that survived one pkill",
            value=sum(map(bool, theirs.after_one)),
            bar=1,
            better=">=",
        ),
        *table[1],
    ]
    harness.report("processes", figures, bars)


if __name__ == "__main__":
    main()
