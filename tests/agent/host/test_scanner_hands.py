"""A real worker of a scan whose other processes die over files: they are named, and the scan goes on without them."""

import sys
from pathlib import Path

import pytest

from stanch.core.scanning import Area, Files, Finding, Skip, SkipReason, Tally
from stanch.core.types import EndpointPath
from tests.agent.host.scanner_bench import Bench, a_scan, material, run
from tests.worker.scan.driving import BEFORE

EVIL = b"rule a { strings: $a = { 45 56 49 4c } condition: $a }"
DIES = """
import ctypes, os, signal, time
from stanch.worker.scan import looking
worker, look = os.getpid(), looking.Looker.look
libc = ctypes.CDLL(None)
def instead(self, folder, name):
    if name.startswith(b'killer') and os.getpid() != worker and folder.of(name) not in self._skip:
        {}
    look(self, folder, name)
looking.Looker.look = instead
"""
HOW = {
    "a defect of an engine": ("ctypes.string_at(0)", "SIGSEGV"),
    "its own end": ("os._exit(9)", "exit status 70"),
}


def scanner(folder: Path, dies: str, **more: object) -> Bench:
    """A scanner whose worker has hands that die over some files."""
    command = (sys.executable, "-I", "-X", "utf8", "-c", BEFORE.format(f"exec({DIES.format(dies)!r})"))
    return Bench(folder, more={"command": command, **more})


@pytest.mark.parametrize(("dies", "_told"), HOW.values(), ids=HOW)
@pytest.mark.parametrize("killers", [1, 2])
async def test_a_hand_that_dies_over_a_file(tmp_path: Path, dies: str, _told: str, killers: int) -> None:
    """The file is named and left out; every other one is looked at, and told once."""
    place = tmp_path / "files"
    for n in range(300):
        path = place / f"{n % 5}" / (f"killer-{n}" if n in range(70, 70 + killers) else f"{n}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"EVIL")
    bench = scanner(tmp_path, dies)
    scan = a_scan(materials=(material(EVIL),), files=Files(area=Area.CUSTOM, paths=(EndpointPath.of(bytes(place)),)))
    told = await run(bench.scanner(), scan)
    crashed = [one.name for one in told if isinstance(one, Skip) and one.reason is SkipReason.CRASHED]
    found = [one.objects[0].name for one in told if isinstance(one, Finding)]
    assert {Path(one).name for one in crashed} >= {f"killer-{70 + n}" for n in range(killers)}
    assert len(crashed) <= 2 * killers  # what the other one was at is left out, too: nobody knows which it was
    assert sorted(found + crashed) == sorted(str(one) for one in place.rglob("*") if one.is_file())
    assert isinstance(told[-1], Tally)
    assert told[-1].complete


@pytest.mark.parametrize(("dies", "said"), HOW.values(), ids=HOW)
async def test_how_it_died_is_told(tmp_path: Path, dies: str, said: str) -> None:
    """If too many die, the last one's end is the reason."""
    place = tmp_path / "files"
    for n in range(40):
        path = place / f"{n}" / f"killer-{n}"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"EVIL")
    scan = a_scan(materials=(material(EVIL),), files=Files(area=Area.CUSTOM, paths=(EndpointPath.of(bytes(place)),)))
    told = await run(scanner(tmp_path, dies).scanner(), scan)
    assert not told[-1].complete
    assert said in told[-1].why_incomplete or "process that looks at files" in told[-1].why_incomplete
