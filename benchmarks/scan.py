"""Scans of files: against `yara -p 2` and `sha256sum`, a second time, and what the machine and the agent feel of it.

A sample of /usr/lib of at least 300 MB is copied, then scanned with the rules beside the checkout (or a generated set
where there are none) by the scanner of the agent, as an action would do it: the worker is started, the
rules compile, and each event is validated, all within the time. The peers have the same files, warm, and two threads;
`yara` compiles the same rules within its time. All take turns. A second set, whose rules ask nothing of how a file
begins, shows what the engine does where no rule can be left out (see `worker/scan/narrowing.py`).
"""

import argparse
import asyncio
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from benchmarks import harness
from benchmarks.stand import pss_bytes
from stanch.agent.scan_alone import CACHE_VARIABLE, materials, scan_alone
from stanch.core.content import ContentKind
from stanch.core.errors import StanchError
from stanch.core.scanning import Area, Event, Files, Limits, Material, Scan, Tally
from stanch.core.types import EndpointPath

SOURCE = Path("/usr/lib")
BYTES = 300 * 2**20
LARGEST = 40 * 2**20
"""Of one file of the sample: one that is larger would be a measure of itself."""
RULES = Path(__file__).parents[2] / "shared/data/yara"
GENERATED = 300
TIMES = 3
TICK = 0.001
LATENCIES = 150
"""Programs started and files opened for each measure of what others feel."""


@dataclass(slots=True)
class Measured:
    """Seconds of each round."""

    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How much faster than the peer."""
        return harness.median(self.peer) / harness.median(self.ours)


def sample(folder: Path) -> int:
    """Copy files from all over the source, the same on each run; bytes.

    Whole folders: of every seventh file alone there would come almost as many folders as files, like nowhere else, and
    a second scan would be a measure of how folders are opened.
    """
    total, step = 0, 7
    folders = sorted(path for path in SOURCE.rglob("*") if path.is_dir() and not path.is_symlink())
    chosen = (inner for begin in range(step) for inner in folders[begin::step])
    for path in (path for inner in chosen for path in sorted(inner.iterdir())):
        total += _copied(path, folder / path.relative_to("/"))
        if total >= BYTES:
            break
    return total


def _copied(path: Path, target: Path) -> int:
    """Its bytes; none if it is no file for the sample."""
    with suppress(OSError):
        size = path.stat().st_size
        if path.is_file() and not path.is_symlink() and 0 < size <= LARGEST:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            return size
    return 0


def generated(path: Path) -> Path:
    """Rules that ask nothing of how a file begins: none can be left out for any file."""
    rules = (
        f'rule Generated{n} {{ strings: $a = "no such text {n * 7919}" '
        f"$b = {{ DE AD {n % 256:02X} {n // 256:02X} BE EF 55 }} "
        f"$c = /never[0-9]{{4}}{n}x+/ condition: 2 of them and filesize < 50MB }}"
        for n in range(GENERATED)
    )
    path.write_text("\n".join(rules))
    return path


def rule_files(folder: Path) -> list[Path]:
    """The public rules, or generated ones."""
    return sorted(RULES.rglob("*.yar*")) if RULES.is_dir() else [generated(folder / "plain.yar")]


def scan_of(folder: Path, some: Sequence[Material], *, cache: bool = False, gentle: bool = False) -> Scan:
    """What an action would ask for."""
    files = Files(area=Area.CUSTOM, paths=(EndpointPath.of(os.fsencode(folder)),))
    limits = Limits(gentle=gentle, per_object=timedelta(seconds=60))
    return Scan(materials=tuple(some), files=files, cache=cache, limits=limits)


async def scanned(scan: Scan) -> tuple[float, Tally]:
    """Seconds from the order to the tally, and the tally."""
    tallies = list[Tally]()

    def take(batch: Sequence[Event]) -> None:
        tallies.extend(one for one in batch if isinstance(one, Tally))

    began = time.perf_counter()
    await scan_alone(scan, take)
    if not tallies or not tallies[-1].complete:
        raise StanchError(f"the scan is not complete: {tallies}")
    return time.perf_counter() - began, tallies[-1]


def timed(command: Sequence[str | Path]) -> float:
    """Seconds of a peer."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def against_yara(folder: Path, rules: Sequence[Path], some: Sequence[Material], times: int) -> Measured:
    """In turns."""
    measured = Measured()
    named = [f"{n}:{path}" for n, path in enumerate(rules)]
    for _ in range(times):
        measured.peer.append(timed(["yara", "-p", "2", "-r", *named, folder]))
        measured.ours.append(asyncio.run(scanned(scan_of(folder, some)))[0])
    return measured


def against_sha256sum(folder: Path, lists: Sequence[Material], times: int) -> Measured:
    """In turns."""
    measured = Measured()
    command: list[str | Path] = ["sh", "-c", 'find "$1" -type f -print0 | xargs -0 -P2 -n 100 sha256sum', "sh", folder]
    for _ in range(times):
        measured.peer.append(timed(command))
        measured.ours.append(asyncio.run(scanned(scan_of(folder, lists)))[0])
    return measured


def remembered(folder: Path, some: Sequence[Material], times: int) -> tuple[Measured, Tally]:
    """The first scan with a new cache, and the second."""
    measured, tally = Measured(), Tally()
    for _ in range(times):
        with tempfile.TemporaryDirectory() as cache:
            os.environ[CACHE_VARIABLE] = cache
            measured.ours.append(asyncio.run(scanned(scan_of(folder, some, cache=True)))[0])
            seconds, tally = asyncio.run(scanned(scan_of(folder, some, cache=True)))
            measured.second.append(seconds)
    return measured, tally


# --- what others feel ------------------------------------------------------------------------------------------------


async def stall(scan: Scan) -> float:
    """The longest time for which the event loop did not come to its turn, in ms."""
    longest, over = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest
        while not over.is_set():
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            longest = max(longest, time.perf_counter() - before - TICK)

    ticking = asyncio.create_task(tick())
    await scanned(scan)
    over.set()
    await ticking
    return longest * 1000


async def idle_stall(seconds: float) -> float:
    """The same of a loop in which nothing is done: what the machine itself does to it."""
    longest, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        before = time.perf_counter()
        await asyncio.sleep(TICK)
        longest = max(longest, time.perf_counter() - before - TICK)
    return longest * 1000


async def memory(scan: Scan) -> int:
    """The most memory (PSS) that workers had, in bytes."""
    most, over = 0, asyncio.Event()

    async def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, await asyncio.to_thread(_memory_of_workers))
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    await scanned(scan)
    over.set()
    await watching
    return most


def _memory_of_workers() -> int:
    """Of a worker and all its processes: they share most of it, so their parts can be added up."""
    return max((sum(map(_pss, _with_children(pid))) for pid in _children(os.getpid()) if _is_worker(pid)), default=0)


def _with_children(pid: int) -> list[int]:
    return [pid, *(one for child in _children(pid) for one in _with_children(child))]


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(one) for task in tasks for one in (task / "children").read_text().split()]
    return []


def _pss(pid: int) -> int:
    with suppress(OSError):
        return pss_bytes(pid)
    return 0


def _is_worker(pid: int) -> bool:
    with suppress(OSError):
        return b"stanch.worker.scan" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def latency(folder: Path, times: int = LATENCIES) -> float:
    """Milliseconds, as a median, in which a program is started and a file opened by somebody else."""
    taken = []
    for n in range(times):
        began = time.perf_counter()
        subprocess.run(["/bin/true"], check=True)
        (folder / f"opened-{n % 10}").write_bytes(b"x")
        (folder / f"opened-{n % 10}").read_bytes()
        taken.append(time.perf_counter() - began)
    return harness.median(taken) * 1000


def latency_elsewhere(folder: Path) -> float:
    """Measured in another process: this one has work of its own."""
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.scan", "--latency", folder]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def latency_during(scan: Scan, folder: Path) -> float:
    """The same while scans run, one after another, gently."""

    async def both() -> float:
        measuring = asyncio.create_task(asyncio.to_thread(latency_elsewhere, folder))
        while not measuring.done():
            running = asyncio.create_task(scanned(scan))
            await asyncio.wait({running, measuring}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        return measuring.result()

    return asyncio.run(both())


def felt_by_others(scan: Scan, folder: Path, times: int) -> tuple[float, float]:
    """The latency without scans and with them, in turns: what else the machine does must not count for one side."""
    idle, busy = list[float](), list[float]()
    for _ in range(times):
        idle.append(latency_elsewhere(folder))
        busy.append(latency_during(scan, folder))
    return harness.median(idle), harness.median(busy)


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=TIMES, help="rounds of each")
    parser.add_argument("--latency", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.latency is not None:
        print(latency(chosen.latency))
        return
    if shutil.which("yara") is None or not SOURCE.is_dir():
        raise SystemExit("yara is not installed, or there is no /usr/lib to take a sample of")
    with tempfile.TemporaryDirectory() as base:
        run(Path(base), chosen.times)


def run(base: Path, times: int) -> None:
    """In this folder."""
    folder, others = base / "sample", base / "others"
    folder.mkdir()
    others.mkdir()
    os.environ[CACHE_VARIABLE] = str(base / "cache")
    size = sample(folder)
    mega = size / 1e6
    count = sum(1 for path in folder.rglob("*") if path.is_file())
    os.sync()
    time.sleep(2.5)  # young files are not remembered
    rules = rule_files(base)
    some = materials(rules, frozenset({ContentKind.YARA}))
    (base / "hashes.txt").write_text("".join(f"{n:064x}\n" for n in range(1, 1001)))
    lists = materials([base / "hashes.txt"], frozenset({ContentKind.HASHES}))
    plain = generated(base / "generated.yar")
    plain_material = materials([plain], frozenset({ContentKind.YARA}))

    harness.progress(f"{count} files, {mega:.0f} MB, {len(rules)} files of rules")
    yara = against_yara(folder, rules, some, times)
    unguarded = against_yara(folder, [plain], plain_material, times)
    sums = against_sha256sum(folder, lists, times)
    harness.progress("a second time")
    twice, tally = remembered(folder, some, times)
    harness.progress("memory, stalls, and what others feel")
    pss = asyncio.run(memory(scan_of(folder, some)))
    gc.collect()
    gc.freeze()  # as the agent does at its start: what is imported here is no work of a scan
    stalls = [asyncio.run(stall(scan_of(folder, some, gentle=True))) for _ in range(times)]
    quiet = asyncio.run(idle_stall(2))
    idle, busy = felt_by_others(scan_of(folder, plain_material, gentle=True), others, times)

    figures = {
        "files": count,
        "megabytes": mega,
        "remembered_files": tally.remembered,
        "stall_of_an_idle_loop_ms": quiet,
        "exec_and_open_idle_ms": idle,
        "exec_and_open_during_ms": busy,
    }
    felt = [
        harness.Bar(what="memory of the worker, PSS in MB", value=pss / 2**20, bar=250),
        harness.Bar(what="longest stall of the agent's event loop in ms", value=max(stalls), bar=20),
        harness.Bar(what="exec and open of others, against idle", value=busy / idle, bar=1.15),
    ]
    speed, bars = speeds(mega, yara, unguarded, sums, twice)
    harness.report("scan", {**figures, **speed}, [*bars, *felt])


def speeds(
    mega: float, yara: Measured, unguarded: Measured, sums: Measured, twice: Measured
) -> tuple[dict[str, harness.Figure], list[harness.Bar]]:
    """Figures and bars of how fast it is."""
    second = harness.median(twice.ours) / harness.median(twice.second)
    figures: dict[str, harness.Figure] = {
        "rules_mb_s": mega / harness.median(yara.ours),
        "yara_mb_s": mega / harness.median(yara.peer),
        "unguarded_rules_mb_s": mega / harness.median(unguarded.ours),
        "yara_unguarded_mb_s": mega / harness.median(unguarded.peer),
        "sha256_mb_s": mega / harness.median(sums.ours),
        "sha256sum_mb_s": mega / harness.median(sums.peer),
        "first_scan_s": harness.median(twice.ours),
        "second_scan_s": harness.median(twice.second),
    }
    return figures, [
        harness.Bar(what="MB/s against `yara -p 2`, same rules", value=yara.ratio, bar=1, better=">="),
        harness.Bar(what="with rules of which none can be left out", value=unguarded.ratio, bar=1, better=">="),
        harness.Bar(what="sha256 of all against `xargs -P2 sha256sum`", value=sums.ratio, bar=0.9, better=">="),
        harness.Bar(what="second scan of unchanged files, times the first", value=second, bar=10, better=">="),
    ]


if __name__ == "__main__":
    main()
