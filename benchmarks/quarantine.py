"""A large file into the vault and out again, against `cp`, fsync and `sha256sum` of the same file in the same run.

The vault reads, hashes, encrypts to two keys, writes and syncs; on the way back it decrypts, verifies, writes and
syncs. The peer is what a person would do by hand to have a copy whose hash is known: three real programs, one after
the other, their start (milliseconds) included. Both work in one folder, on one disk, in turns; the vault first in one
round, the peer first in the next.
"""

import argparse
import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from benchmarks import harness, stand
from stanch.agent.host.vault import LinuxVault, TaskVault
from stanch.agent.host.vault_parts import Orderer
from stanch.core.types import EndpointPath
from stanch.core.vault import Returning, Taking, Why, item_id

MEBIBYTE = 2**20
BAR = 2.0
FLAT = 64.0
"""MiB that ten times the size may cost in memory: some blocks and the library, and nothing that grows."""


@dataclass(slots=True)
class Measured:
    """Seconds of each round."""

    into: list[float] = field(default_factory=list)
    out: list[float] = field(default_factory=list)
    copied: list[float] = field(default_factory=list)


async def _told(kind: str, detail: Mapping[str, object]) -> None:
    raise RuntimeError(f"the vault told of {kind}: {detail}")


def vault_in(folder: Path) -> TaskVault:
    """A vault as the agent has it, encrypted to a server's key too."""
    from pyrage import x25519

    server = str(x25519.Identity.generate().to_public())
    vault = LinuxVault(
        folder / "vault",
        key=folder / "vault.key",
        evidence_key=lambda: server,
        limit=lambda: 2**50,
        why_protected=lambda _path, _status: None,
        clock=lambda: datetime.now(UTC),
        tell=_told,
    )
    return TaskVault(vault, Orderer(order="o1", by="benchmark"))


def written(path: Path, size: int) -> str:
    """Incompressible content, on the disk; its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(0, size, MEBIBYTE):
            block = os.urandom(MEBIBYTE)
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


async def there_and_back(vault: TaskVault, path: Path, n: int, digest: str) -> tuple[float, float]:
    """Take it and put it back; seconds of each. RuntimeError if what came back is another file."""
    id_, began = item_id("benchmark", n), time.perf_counter()
    item = await vault.take(Taking(id=id_, path=EndpointPath.of(os.fsencode(path)), why=Why.QUARANTINE))
    taken = time.perf_counter()
    if item.sha256 != digest or os.path.lexists(path):  # noqa: ASYNC240 - nothing else runs
        raise RuntimeError(f"it was not taken: {item}")
    middle = time.perf_counter()
    await vault.put_back(Returning(id=id_))
    back = time.perf_counter()
    await vault.remove(id_)
    return taken - began, back - middle


def by_hand(path: Path, digest: str) -> float:
    """cp, fsync, sha256sum; seconds."""
    copy, began = path.with_suffix(".copy"), time.perf_counter()
    subprocess.run(["cp", path, copy], check=True)
    subprocess.run(["sync", copy], check=True)
    found = subprocess.run(["sha256sum", copy], check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - began
    copy.unlink()
    if found.split()[0] != digest:
        raise RuntimeError("the copy is another file")
    return seconds


def measure(vault: TaskVault, path: Path, size: int, times: int) -> Measured:
    """Both, in turns."""
    found, digest = Measured(), written(path, size)
    for n in range(times):
        if n % 2:
            found.copied.append(by_hand(path, digest))
        into, out = asyncio.run(there_and_back(vault, path, n, digest))
        found.into.append(into)
        found.out.append(out)
        if not n % 2:
            found.copied.append(by_hand(path, digest))
        harness.progress(f"{into:.2f} s in, {out:.2f} s out, {found.copied[-1]:.2f} s by hand")
    return found


def peak_growth(vault: TaskVault, path: Path, size: int) -> float:
    """MiB of memory that this process has needed at most, beyond what it had, for one file there and back."""
    digest = written(path, size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    asyncio.run(there_and_back(vault, path, 10_000 + size, digest))
    return max(0.0, (_status("VmHWM") - before) / 1024)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure; the one for temporary files")
    chosen = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with stand.folder() as made:
        folder = (chosen.folder or made).resolve()
        vault, path = vault_in(made), folder / "stanch-benchmark-file"
        try:
            small = peak_growth(vault, path, chosen.size * MEBIBYTE // 10)
            large = peak_growth(vault, path, chosen.size * MEBIBYTE)
            harness.progress(f"memory: {small:.1f} and {large:.1f} MiB")
            found = measure(vault, path, chosen.size * MEBIBYTE, chosen.times)
        finally:
            path.unlink(missing_ok=True)
    report(found, chosen.size, (small, large))


def report(found: Measured, size: int, memory: Sequence[float]) -> None:
    """The figures and the bars."""
    into, out, copied = (harness.median(one) for one in (found.into, found.out, found.copied))
    small, large = memory
    figures = {
        "size_mib": size,
        "rounds": len(found.copied),
        "in_median_s": into,
        "out_median_s": out,
        "cp_fsync_sha256sum_median_s": copied,
        "in_mib_per_s": size / into,
        "out_mib_per_s": size / out,
        "peak_memory_growth_mib": large,
        "peak_memory_growth_of_a_tenth_mib": small,
    }
    bars = [
        harness.Bar(what="into the vault, against cp + fsync + sha256sum", value=into / copied, bar=BAR),
        harness.Bar(what="out of the vault, against cp + fsync + sha256sum", value=out / copied, bar=BAR),
        harness.Bar(what="memory that ten times the size costs, MiB", value=max(0.0, large - small), bar=FLAT),
    ]
    harness.report("quarantine", figures, bars)


if __name__ == "__main__":
    main()
