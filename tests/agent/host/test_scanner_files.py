"""What scans know of files: who may have written it, what is kept, and what is removed."""

import os
import stat

import pytest

from stanch.agent.host.scanner_files import MOST_LEARNED, REMEMBERED, ScanFolder
from stanch.core.errors import Denied
from stanch.worker.scan.remembered import Known, Memory, Stamp

STAMP = Stamp(b"12345678", 7, 100, 1, 2)


def learn(descriptor: int, stamp: Stamp = STAMP) -> None:
    memory = Memory(None, descriptor)
    memory.add(stamp, Known({}, b"r" * 16))
    memory.flush()


@pytest.fixture
def folder(tmp_path) -> ScanFolder:
    return ScanFolder(path=tmp_path / "state" / "scans")


async def test_what_a_complete_scan_has_learned_is_known_to_the_next(folder):
    """It becomes part of what is remembered, and its own file is gone."""
    with folder.opened("tsk_1", cache=True) as known:
        assert known.remembered is None
        learn(known.learned)
    await folder.finish("tsk_1", cache=True)
    assert [one.name for one in folder.path.iterdir()] == [REMEMBERED]
    with folder.opened("tsk_2", cache=True) as known:
        assert Memory(known.remembered, None).get(STAMP) is not None
    with folder.opened("tsk_3", cache=False) as known:
        assert known.remembered is None


async def test_two_scans_are_both_remembered(folder):
    """The second adds to what the first has left."""
    stamps = [STAMP, Stamp(b"12345678", 8, 100, 1, 2)]
    for n, stamp in enumerate(stamps):
        with folder.opened(f"tsk_{n}", cache=True) as known:
            learn(known.learned, stamp)
        await folder.finish(f"tsk_{n}", cache=True)
    with folder.opened("tsk_9", cache=True) as known:
        assert all(Memory(known.remembered, None).get(one) is not None for one in stamps)


async def test_without_the_cache_nothing_is_kept(folder):
    """What it has learned is for itself."""
    with folder.opened("tsk_1", cache=False) as known:
        learn(known.learned)
    await folder.finish("tsk_1", cache=False)
    assert list(folder.path.iterdir()) == []


def test_a_scan_that_was_broken_off_finds_what_it_learned(folder):
    """The same task goes on; another one does not see it."""
    with folder.opened("tsk_1", cache=True) as known:
        learn(known.learned)
    with folder.opened("tsk_1", cache=True) as known:
        assert Memory(None, known.learned).get(STAMP) is not None
    with folder.opened("tsk_2", cache=True) as known:
        assert Memory(None, known.learned).get(STAMP) is None


def test_only_we_may_enter(folder):
    """The folder and the files are ours alone."""
    with folder.opened("tsk_1", cache=True):
        pass
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in folder.path.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o777, 0o720])
def test_a_folder_that_others_may_write_in_is_not_believed(folder, mode):
    """Whoever can change what is remembered could hide from every scan."""
    folder.path.mkdir(parents=True)
    folder.path.chmod(mode)
    with pytest.raises(Denied), folder.opened("tsk_1", cache=True):
        pass


def test_a_link_in_place_of_the_folder_is_not_followed(folder, tmp_path):
    """Nothing is kept then, and the scan is as good."""
    (tmp_path / "other").mkdir()
    folder.path.parent.mkdir()
    folder.path.symlink_to(tmp_path / "other")
    with folder.opened("tsk_1", cache=True) as known:
        learn(known.learned)
    assert list((tmp_path / "other").iterdir()) == []


def test_without_a_folder_it_is_known_as_long_as_the_scan_runs():
    """In memory: enough to go on after a file has killed the worker."""
    with ScanFolder(path=None).opened("tsk_1", cache=True) as known:
        learn(known.learned)
        assert Memory(None, known.learned).get(STAMP) is not None


def test_what_nobody_goes_on_with_is_removed(folder):
    """Old and many leftovers go; the newest stay."""
    folder.path.mkdir(parents=True, mode=0o700)
    for n in range(MOST_LEARNED + 5):
        one = folder.path / f"learned-tsk_{n}"
        one.write_bytes(b"")
        os.utime(one, (10**9 + n, 10**9 + n))
    os.utime(folder.path / f"learned-tsk_{MOST_LEARNED}", (1000, 1000))
    with folder.opened("mine", cache=True):
        left = {one.name for one in folder.path.iterdir()}
    assert "learned-mine" in left
    assert f"learned-tsk_{MOST_LEARNED}" not in left
    assert len(left) == MOST_LEARNED + 1


async def test_a_damaged_memory_is_no_hindrance(folder):
    """What is torn is left out."""
    folder.path.mkdir(parents=True, mode=0o700)
    (folder.path / REMEMBERED).write_bytes(os.urandom(1000))
    with folder.opened("tsk_1", cache=True) as known:
        learn(known.learned)
        os.write(known.learned, b"torn")
    await folder.finish("tsk_1", cache=True)
    with folder.opened("tsk_2", cache=True) as known:
        assert Memory(known.remembered, None).get(STAMP) is not None


def test_a_task_with_a_strange_name_writes_nothing(folder):
    """A name is never a path."""
    with folder.opened("../x", cache=True) as known:
        learn(known.learned)
    assert not folder.path.exists() or not list(folder.path.iterdir())
