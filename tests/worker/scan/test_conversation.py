"""The conversation: nonsense ends it with an error, and so does an agent that is gone."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stanch.core.ioc.items import NOT_LOOKED_AT
from stanch.core.ioc.judging import Judge, Match
from stanch.worker.scan import confining, conversation
from stanch.worker.scan.conversation import Inbox
from stanch.worker.scan.crew import Gate
from stanch.worker.scan.telling import Telling, Wire
from tests.core.ioc import judged
from tests.core.ioc.test_stix import bundled, indicator
from tests.worker.scan.driving import FIND_EVIL, Done, worker

NOT_ROOT = 12_345


def put(path: Path, content: bytes = b"some E-V-I-L here") -> Path:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_hint_that_is_none_ends_the_scan() -> None:
    """With an error that says so."""
    with worker([], hint="(") as driver:
        assert "no regular expression" in driver.done.error


def test_it_ends_when_the_agent_is_gone() -> None:
    """Its input ends: nobody is left to tell anything."""
    with worker([("yara", "e", FIND_EVIL)]) as driver:
        assert driver.process.stdin is not None
        driver.process.stdin.close()
        assert driver.process.wait(timeout=30) == 3


def test_nonsense_ends_the_scan_and_is_told() -> None:
    """A message that nobody knows: the tally says that it is not complete."""
    with worker([("yara", "e", FIND_EVIL)]) as driver:
        driver.say(type="dance")
        done = driver.finish()
    assert not done.tally["complete"]
    assert "did not understand" in done.tally["why_incomplete"]


def test_lines_and_bytes_come_in_any_pieces() -> None:
    """A line may be torn anywhere; bytes may be missing."""
    reading, writing = os.pipe()
    inbox = Inbox(reading)
    os.write(writing, b'{"a":1}\n12345{"b"')
    assert inbox.message() == {"a": 1}
    assert inbox.content(5) == b"12345"
    os.write(writing, b":2}\n12")
    os.close(writing)
    assert inbox.message() == {"b": 2}
    with pytest.raises(ValueError, match="missing"):
        inbox.content(3)


NO_MARKER = "[process:name = 'p'] AND [file:name != 'marker']"
"""A process, and no file of that name."""
PROCESS = {"document": "ProcessItem", "name": "p (7)", "values": {"name": ["p"]}, "about": {"pid": 7}}
NOBODY = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""A worker without any right to read what is not its own."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up a right, and give files away")


def denied(folder: Path, *items: object, **more: Any) -> Done:
    """A scan of a folder, and of these items, by the indicator that denies a file."""
    with worker([("stix", "a.json", bundled(indicator(pattern=NO_MARKER)))], **more) as driver:
        driver.targets(folder)
        driver.say(type="items", items=[PROCESS, *items])
        return driver.finish()


def test_a_document_of_which_something_is_missing_denies_nothing(tmp_path: Path) -> None:
    """No file is called so, if all were seen; what stands for those that were not is no item that is counted.

    The folder itself is one, as its file is.
    """
    rest = {"document": "FileItem", "name": NOT_LOOKED_AT, "values": {}, "about": {}}
    (tmp_path / "a").touch()
    whole, partly = denied(tmp_path), denied(tmp_path, rest)
    assert (len(whole.findings), len(partly.findings)) == (1, 0)
    assert whole.tally["items"] == partly.tally["items"] == {"FileItem": 2, "ProcessItem": 1}


def test_a_file_over_which_an_earlier_worker_died_may_be_the_one(tmp_path: Path) -> None:
    """It is not looked at, and so nobody knows that no file is like that."""
    (tmp_path / "marker").touch()
    assert not denied(tmp_path).findings
    assert not denied(tmp_path, skip=[str(tmp_path / "marker")]).findings


@needs_root
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_cannot_be_read_may_hold_the_one(tmp_path: Path, mode: int) -> None:
    """Its names cannot be read, or nothing but its names."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "other").touch()
    os.chown(hidden, 12_345, 12_345)
    hidden.chmod(mode)
    done = denied(tmp_path, prefix=NOBODY)
    assert {reason for _, reason in done.skipped} == {"unreadable"}
    assert not done.findings
    hidden.chmod(0o755)
    assert len(denied(tmp_path, prefix=NOBODY).findings) == 1


@needs_root
def test_a_file_that_cannot_be_read_is_found_by_its_name(tmp_path: Path) -> None:
    """Also if another indicator asks for what is in it: it is skipped for that one only, and denies what it is not."""
    (tmp_path / "evil").write_bytes(b"x")
    (tmp_path / "evil").chmod(0)
    os.chown(tmp_path / "evil", 12_345, 12_345)
    named = indicator(id="indicator--2", pattern="[file:name = 'evil']")
    hashed = indicator(id="indicator--3", pattern=f"[file:hashes.MD5 = '{'0' * 32}']")
    also = indicator(id="indicator--4", pattern=NO_MARKER)
    with worker([("stix", "a.json", bundled(named, hashed, also))], prefix=NOBODY) as driver:
        driver.targets(tmp_path)
        driver.say(type="items", items=[PROCESS])
        done = driver.finish()
    assert {one["rule"] for one in done.findings} == {"indicator--2", "indicator--4"}
    assert done.skipped == {(str(tmp_path / "evil"), "unreadable")}


def combined(monkeypatch: pytest.MonkeyPatch, seconds: float) -> tuple[Telling, list[Match]]:
    """What comes of combining a file and a process, with so much time for it; and each step takes some."""
    monkeypatch.setattr(conversation, "COMBINING", seconds)
    monkeypatch.setattr(conversation, "EVERY", -1)
    judge = Judge([judged.indicator(judged.every(judged.name("a"), judged.process("p")))])
    judge.see(judged.file("a"))
    judge.see(judged.item("ProcessItem", "p", name="p"))
    found = list[Match]()
    telling = Telling(Wire(os.open(os.devnull, os.O_WRONLY)), most_findings=9, most_rules=0)
    loading = SimpleNamespace(limited=lambda: "the indicator" if judge.limited else "")
    scan = SimpleNamespace(_telling=telling, _job={"skip": []}, _gate=Gate(), _matched=found.extend, loading=loading)
    conversation.Scan._finish(scan, judge)
    return telling, found


def test_combining_ends_in_time_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not combined by then makes the scan incomplete."""
    telling, found = combined(monkeypatch, 60)
    assert (len(found), telling.incomplete) == (1, [])
    telling, found = combined(monkeypatch, 0)
    assert (found, telling.incomplete) == ([], ["the indicator"])


def test_its_memory_is_bounded_by_the_kernel() -> None:
    """Whatever a file makes of the rules: not more than a gigabyte."""
    with worker([("yara", "e", FIND_EVIL)]) as driver:
        limits = Path(f"/proc/{driver.process.pid}/limits").read_text()
    (line,) = [one for one in limits.splitlines() if one.startswith("Max data size")]
    assert int(line.split()[3]) <= confining.DATA <= 2**30
