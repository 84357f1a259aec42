"""Scans without agent and server: their rules, their memory, and the real worker in one process with us."""

import asyncio
import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.agent.host.scanner_worker import Worker
from stanch.agent.scan_alone import _cache, base, materials, scan_alone
from stanch.core.content import ContentKind
from stanch.core.errors import Invalid
from stanch.core.scanning import Area, Engine, Event, Files, Finding, Limits, Scan, Skip, SkipReason, Tally
from stanch.core.types import EndpointPath
from tests.mounts import inside, silent

YARA = frozenset({ContentKind.YARA})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STANCH_SCAN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def rule(tmp_path) -> Path:
    path = tmp_path / "r.yar"
    path.write_text('rule planted { strings: $a = "planted-MARK" condition: $a }')
    return path


def scan(rule: Path, folder: Path) -> Scan:
    files = Files(area=Area.CUSTOM, paths=(EndpointPath(str(folder)),))
    return Scan(
        materials=materials([rule], YARA), files=files, engines=frozenset({Engine.YARA}), limits=Limits(gentle=False)
    )


async def test_what_is_planted_is_found(tmp_path, rule):
    """The worker finds it, through all the layers, and nothing else."""
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "bad").write_text("planted-MARK")
    (tmp_path / "look" / "good").write_text("planted")
    told = []
    await scan_alone(scan(rule, tmp_path / "look"), told.extend)
    assert [one.objects[0].path for one in told if isinstance(one, Finding)] == [str(tmp_path / "look" / "bad")]
    assert isinstance(told[-1], Tally)
    assert told[-1].complete


async def test_cancelling_kills_the_worker_at_once(tmp_path, rule, monkeypatch):
    """Ctrl-C leaves nothing that runs."""
    started, begun = [], asyncio.Event()
    start = Worker.start

    async def noted(*args, **options):
        started.append(await start(*args, **options))
        begun.set()
        return started[-1]

    monkeypatch.setattr(Worker, "start", noted)
    task = asyncio.get_running_loop().create_task(scan_alone(scan(rule, Path("/usr/lib")), lambda _batch: None))
    async with asyncio.timeout(30):
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert "SIGKILL" in started[0].how


def test_files_of_another_kind_are_invalid(tmp_path, rule):
    """What was got and what was expected is told."""
    (tmp_path / "hashes.txt").write_text("0" * 64)
    with pytest.raises(Invalid, match="YARA rules"):
        materials([tmp_path / "hashes.txt"], YARA)
    assert [one.kind for one in materials([tmp_path], YARA)] == [ContentKind.YARA]


def test_the_rules_that_come_along_are_there():
    """Rules, and hashes."""
    assert {one.kind for one in base()} == {ContentKind.YARA, ContentKind.HASHES}


def test_the_home_folder_is_the_account_s_own(monkeypatch):
    """What HOME says does not count: root by sudo must not believe what another account has written."""
    monkeypatch.delenv("STANCH_SCAN_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody-else")
    assert _cache() == Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".cache" / "stanch" / "scans"


async def test_a_scan_that_is_broken_off_leaves_nothing_behind(tmp_path, rule):
    """What it has learned is removed: its name never comes again."""
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "bad").write_text("planted-MARK")

    def broken(_batch):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await scan_alone(scan(rule, tmp_path / "look"), broken)
    assert [one.name for one in (tmp_path / "cache").iterdir() if one.name.startswith("learned-")] == []


NOBODY_LISTENS = 2
"""Exit status of a worker that could not even tell its end."""
COMPILES = """
import asyncio, sys
from pathlib import Path
from stanch.agent.scan_alone import materials, scan_alone
from stanch.core.content import ContentKind
from stanch.core.scanning import Area, Engine, Files, Limits, Scan
from stanch.core.types import EndpointPath

asyncio.run(scan_alone(Scan(
    materials=materials([Path(sys.argv[1])], frozenset({ContentKind.YARA})),
    files=Files(area=Area.CUSTOM, paths=(EndpointPath("/nowhere"),)),
    engines=frozenset({Engine.YARA}),
    limits=Limits(gentle=False),
), lambda batch: print(batch, flush=True)))
"""
"""A scan by hand that says whatever comes."""


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_confined(pid: int) -> bool:
    return "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()


@pytest.fixture
def inherits():
    """Processes without a parent become ours: we hear how they end."""
    libc, subreaper = ctypes.CDLL(None), 36
    assert libc.prctl(subreaper, ctypes.c_ulong(1), 0, 0, 0) == 0
    yield
    libc.prctl(subreaper, ctypes.c_ulong(0), 0, 0, 0)


def until(what: Callable[[], bool]) -> None:
    """Wait for it, a minute at most."""
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_worker_that_compiles_ends_with_whoever_started_it(tmp_path, inherits):
    """Rules can take long, and until they are loaded it hears nothing: the kernel ends it, whatever it has given up."""
    heavy = "".join(
        f"rule r{n} {{ strings: $a = /a{n}[a-z]{{1,20}}(x|y|z){{1,9}}[0-9a-f]{{3,40}}q+/ condition: $a }}\n"
        for n in range(40_000)
    )
    (tmp_path / "heavy.yar").write_text(heavy)
    with subprocess.Popen([sys.executable, "-c", COMPILES, tmp_path / "heavy.yar"], stdout=subprocess.PIPE) as parent:
        until(lambda: bool(children(parent.pid)))
        [worker] = children(parent.pid)
        until(lambda: is_confined(worker))
        parent.kill()
        said = parent.communicate()[0]
    ended = []
    until(lambda: ended.append(os.waitpid(worker, os.WNOHANG)) or ended[-1][0] == worker)
    status = ended[-1][1]
    # On a busy machine the rules may be ready by then: then it has nobody to tell that.
    assert status == signal.SIGKILL or os.waitstatus_to_exitcode(status) == NOBODY_LISTENS
    assert b"Loaded" not in said


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for mounts")
def test_a_named_file_system_that_does_not_answer_is_told(tmp_path, rule, monkeypatch):
    """To ask where a name leads may take for ever: the scan ends all the same, looks at the rest, and names it."""
    monkeypatch.setattr("stanch.agent.host.scanner_parts.SECONDS", 0.5)
    told = list[Event]()

    @inside
    def work() -> None:
        (tmp_path / "look").mkdir()
        (tmp_path / "look" / "bad").write_text("planted-MARK")
        device = silent(tmp_path / "silent")
        paths = tuple(EndpointPath(str(tmp_path / one)) for one in ("silent", "look"))
        wanted = replace(scan(rule, tmp_path), files=Files(area=Area.CUSTOM, paths=paths))
        try:
            asyncio.run(scan_alone(wanted, told.extend))
        finally:
            os.close(device)

    work()
    skips = [one for one in told if isinstance(one, Skip)]
    assert [(one.name, one.reason) for one in skips] == [(str(tmp_path / "silent"), SkipReason.HANGS)]
    assert [one.rule for one in told if isinstance(one, Finding)] == ["planted"]
    assert told[-1].skipped == {SkipReason.HANGS: 1}
