"""Which files the worker meets: each once, none that it may not touch, however deep."""

import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stanch.worker.scan import walking
from stanch.worker.scan.listing import LISTED, Statuses, enter
from stanch.worker.scan.walking import BATCH, Choice, Folder, Walker
from tests.worker.scan.driving import scan

NOT_ROOT = 12_345


def put(path: Path, content: bytes = b"some E-V-I-L here") -> Path:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_place_itself_can_be_excluded(tmp_path: Path) -> None:
    """An area is several places: one of them is left out like anything below it."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evil").write_bytes(b"E-V-I-L")
    done = scan(tmp_path / "a", tmp_path / "b", exclude=[str(tmp_path / "a")])
    assert done.found == {("Evil", str(tmp_path / "b/evil"))}
    assert done.skipped == {(str(tmp_path / "a"), "excluded")}


def test_excluded_files_and_folders_are_left_out(tmp_path: Path) -> None:
    """A pattern takes whatever is below with it."""
    put(tmp_path / "cache/deep/evil")
    put(tmp_path / "x/evil.tmp")
    kept = put(tmp_path / "x/evil")
    done = scan(tmp_path, exclude=[f"{tmp_path}/cac*", f"{tmp_path}/**/*.tmp"])
    assert done.found == {("Evil", str(kept))}
    assert done.tally["skipped"] == {"excluded": 2}


def test_a_hint_keeps_to_paths_that_it_finds(tmp_path: Path) -> None:
    """Only files whose whole path the regular expression finds."""
    put(tmp_path / "a/evil")
    kept = put(tmp_path / "b/evil")
    assert scan(tmp_path, hint="/b/e.*l$").found == {("Evil", str(kept))}


def test_a_folder_that_is_named_twice_is_walked_once(tmp_path: Path) -> None:
    """By itself, by a link, and below another."""
    put(tmp_path / "a/b/evil")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    done = scan(tmp_path / "a/b", tmp_path / "a", tmp_path / "link")
    assert (done.tally["files"], len(done.findings)) == (1, 1)


def test_named_files_without_what_is_below(tmp_path: Path) -> None:
    """Without `below`, folders are not entered; a file is looked at once, however often it is named."""
    evil = put(tmp_path / "evil")
    put(tmp_path / "folder/evil")
    done = scan(evil, evil, tmp_path / "folder", tmp_path / "gone", below=False)
    assert done.found == {("Evil", str(evil))}
    assert (done.tally["files"], done.skipped) == (1, {(str(tmp_path / "gone"), "gone")})


def test_the_file_systems_of_the_kernel_are_left_out() -> None:
    """Not even a folder of it is entered."""
    assert scan("/proc/self", "/sys").skipped == {("/proc/self", "kernel"), ("/sys", "kernel")}


def test_a_deep_tree_ends_somewhere(tmp_path: Path) -> None:
    """Folders that are nested deeper than descriptors reach are told, not followed."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(420):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    done = scan(tmp_path)
    assert done.tally["skipped"] == {"other": 1}
    assert done.skips[0]["detail"] == "nested too deep"
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def choice() -> Choice:
    """Everything."""
    return Choice(excluded=None, hinted=None, network=False, one_file_system=False, mounts={})


def test_large_folders_are_listed_in_parts(tmp_path: Path) -> None:
    """Each file and each folder is met once, however many there are of both."""
    names = {f"{n}" for n in range(3 * LISTED + 1)}
    for name in names:
        put(tmp_path / f"file-{name}", b"")
        put(tmp_path / f"folder-{name}/inner", b"")
    batches: list[list[bytes]] = []
    walker = Walker(choice(), put=lambda batch: batches.append(list(batch[1])), skip=lambda *_: None)
    walker.add([os.fsencode(tmp_path)], below=True)
    walker.all_told()
    assert walker.run(threading.Event())
    met = [name for batch in batches for name in batch]
    assert sorted(met) == sorted([b"inner"] * len(names) + [f"file-{name}".encode() for name in names])
    assert walker.found == len(met)
    assert max(map(len, batches)) == BATCH


@pytest.mark.parametrize("hint", [None, lambda path: b"hidden" not in path])
def test_files_that_are_known_are_counted_and_not_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hint: Callable[[bytes], bool] | None
) -> None:
    """Only those of which nobody knows; what is not asked for is not even glanced at."""
    for name in ("known", "new", "hidden"):
        put(tmp_path / "a" / name)
    monkeypatch.setattr(Walker, "_place", lambda *_: b"place")
    glanced, met = list[bytes](), list[bytes]()

    def glance(folder: Folder, some: Statuses) -> list[bytes]:
        glanced.extend(folder.of(name) for name, status in some if status is not None)
        return [name for name, _ in some if name != b"known"]

    walker = Walker(
        replace(choice(), hinted=hint), put=lambda batch: met.extend(batch[1]), skip=lambda *_: None, glance=glance
    )
    walker.add([os.fsencode(tmp_path)], below=True)
    walker.all_told()
    assert walker.run(threading.Event())
    hidden = [] if hint else [b"hidden"]
    assert sorted(met) == sorted([*hidden, b"new"])
    assert sorted(one.rpartition(b"/")[2] for one in glanced) == sorted([*hidden, b"known", b"new"])
    assert walker.found == len(hidden) + 2


def test_a_folder_that_hangs_is_given_up_and_the_walk_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread goes on behind it; the first one does nothing more when it wakes up."""
    put(tmp_path / "a/one")
    put(tmp_path / "b/two")
    hangs, goes_on, met = threading.Event(), threading.Event(), list[bytes]()
    begun = enter

    def open_slowly(name: bytes, *more: Any) -> Any:
        if name == b"a":
            hangs.set()
            assert goes_on.wait(60)
        return begun(name, *more)

    monkeypatch.setattr(walking, "enter", open_slowly)
    walker = Walker(choice(), put=lambda batch: met.extend(batch[1]), skip=lambda *_: None)
    walker.add([os.fsencode(tmp_path)], below=True)
    walker.all_told()
    ends: list[bool] = []
    thread = threading.Thread(target=lambda: ends.append(walker.run(threading.Event())))
    thread.start()
    assert hangs.wait(60)
    since = walker.hangs_since()
    assert since is not None
    assert since[1] == os.fsencode(tmp_path / "a")
    assert walker.give_up(since[0])
    assert walker.run(threading.Event())
    goes_on.set()
    thread.join(60)
    assert (ends, met) == ([False], [b"two"])
