"""Scans without agent and server: their rules, their memory, and the real worker in one process with us."""

import asyncio
import os
import pwd
from pathlib import Path

import pytest

from stanch.agent.host.scanner_worker import Worker
from stanch.agent.scan_alone import _cache, base, materials, scan_alone
from stanch.core.content import ContentKind
from stanch.core.errors import Invalid
from stanch.core.scanning import Area, Engine, Files, Finding, Limits, Scan, Tally
from stanch.core.types import EndpointPath

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
    with pytest.raises(Invalid, match="yara"):
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
