"""Hard links: every name of a file is found, near ones first, within a bound, and never beyond its file system."""

import os
import stat
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import other_names as module
from stanch.agent.host.other_names import other_names
from stanch.agent.host.pinned import pin
from stanch.core.errors import Cancelled
from stanch.core.types import EndpointPath
from tests import mounts


def at(path):
    """As an endpoint calls it."""
    return EndpointPath.of(os.fsencode(path))


def names_of(path, **more):
    """Its other names."""
    with pin(at(path)) as held:
        return other_names(held, **more)


@pytest.fixture
def top(tmp_path, monkeypatch):
    """A folder that stands for the root of a mount, so that no test looks through the whole machine."""
    real = module.mount_points
    monkeypatch.setattr(module, "mount_points", lambda: real() | {os.fsencode(tmp_path)})
    return tmp_path


@pytest.fixture
def evil(top):
    """A file two folders deep."""
    (top / "a" / "b").mkdir(parents=True)
    file = top / "a" / "b" / "evil"
    file.write_bytes(b"evil")
    return file


def linked(file, *paths):
    """Make these other names."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, path)
    return [at(path) for path in paths]


def test_names_are_found_near_and_far_the_nearest_first(top, evil):
    """In its own folder, below it, beside it and far away: all, and none is left."""
    wanted = linked(evil, evil.with_name("near"), top / "a" / "c" / "d" / "mid", top / "z" / "far")
    assert names_of(evil) == (wanted, 0)


def test_a_single_name_needs_no_search(evil, monkeypatch):
    """Most files have one name: then nothing is looked through."""
    monkeypatch.setattr(module, "mount_points", lambda: pytest.fail("it searched"))
    assert names_of(evil) == ([], 0)


def test_a_folder_has_no_other_names(evil):
    """Its links are those of the folders in it."""
    assert names_of(evil.parent.parent) == ([], 0)


def test_odd_names_are_found(evil):
    """Names that are no UTF-8, with a newline, of 255 bytes."""
    names = [os.fsdecode(name) for name in (b"\xff", b"new\nline", b"n" * 255, b"\\x41")]
    wanted = linked(evil, *(evil.with_name(name) for name in names))
    found, left = names_of(evil)
    assert sorted(found) == sorted(wanted)
    assert left == 0


def test_links_are_not_followed(top, evil):
    """A symbolic link is no name of the file, and one to a folder leads the search nowhere."""
    (top / "loop").symlink_to(top)
    evil.with_name("soft").symlink_to(evil)
    wanted = linked(evil, top / "z" / "far")
    assert names_of(evil) == (wanted, 0)


def test_a_link_itself_can_have_other_names(top, evil):
    """Also symbolic links and FIFOs can have hard links."""
    os.mkfifo(top / "fifo")
    wanted = linked(top / "fifo", top / "x" / "other")
    assert names_of(top / "fifo") == (wanted, 0)


def test_the_search_ends_as_soon_as_all_names_are_known(top, evil, monkeypatch):
    """A folder with much in it is not looked through when its sibling had the last name."""
    wanted = linked(evil, evil.with_name("near"))
    looked = []
    real = module._held

    @contextmanager
    def held(path):
        looked.append(path)
        with real(path) as descriptor:
            yield descriptor

    monkeypatch.setattr(module, "_held", held)
    assert names_of(evil) == (wanted, 0)
    assert looked == [os.fsencode(evil.parent)]


def test_no_folder_is_looked_through_twice(top, evil, monkeypatch):
    """On the way up, what was searched below is left out."""
    linked(evil, top / "z" / "one")
    looked = []
    real = module._held

    @contextmanager
    def held(path):
        looked.append(path)
        with real(path) as descriptor:
            yield descriptor

    monkeypatch.setattr(module, "_held", held)
    names_of(evil)
    assert len(looked) == len(set(looked)) == 4


@pytest.mark.parametrize("most", [0, 1, 5, 20])
def test_it_looks_at_no_more_than_allowed_and_says_what_is_left(top, evil, most):
    """A folder with very many files: within the bound not all names are found, and it says how many are missing."""
    for n in range(50):
        evil.with_name(f"other{n}").touch()
    linked(evil, top / "z" / "far", top / "z" / "farther")
    assert names_of(evil, most_looked_at=most) == ([], 2)


def test_it_can_be_cancelled(evil):
    """A long search ends when nobody wants it any more."""
    for n in range(1100):
        evil.with_name(f"other{n}").touch()
    os.link(evil, evil.parent.parent / "far")
    with pytest.raises(Cancelled):
        names_of(evil, cancelled=lambda: True)


def test_a_folder_that_becomes_a_link_meanwhile_is_left_out(top, evil, monkeypatch, tmp_path_factory):
    """Between its name and its opening a folder is swapped for a link to another: what is there has another path."""
    wanted = linked(evil, top / "other" / "deep" / "name")
    linked(evil, tmp_path_factory.mktemp("outside") / "never found, so that the search goes on")
    (top / "swapped" / "deep").mkdir(parents=True)
    real = os.open

    def swap(path, *arguments, **more):
        if path == os.fsencode(top / "swapped" / "deep"):
            (top / "swapped" / "deep").rmdir()
            (top / "swapped").rmdir()
            (top / "swapped").symlink_to(top / "other")
            monkeypatch.setattr(os, "open", real)
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", swap)
    assert names_of(evil) == (wanted, 1)


def test_what_cannot_be_read_is_left_out(top, evil, monkeypatch):
    """A folder that vanishes or fails has no names; the rest is still searched, and the missing one is told."""
    wanted = linked(evil, top / "z" / "far")
    linked(evil, top / "y" / "unreadable")
    real = os.open

    def fail(path, *arguments, **more):
        if path == os.fsencode(top / "y"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", fail)
    assert names_of(evil) == (wanted, 1)


def test_a_path_too_long_to_be_named_is_left(top, evil):
    """A name whose path no system call takes cannot be acted upon: it counts as not found."""
    here = os.open(top, os.O_RDONLY)
    length = len(os.fsencode(top))
    while length < 4096:
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, length = below, length + 251
    os.link(evil, "far", dst_dir_fd=here)
    os.close(here)
    assert names_of(evil) == ([], 1)


def test_of_too_many_folders_some_are_left_out(top, evil, monkeypatch):
    """The memory is bounded: of a million folders side by side, not all wait to be looked through."""
    monkeypatch.setattr(module, "_MOST_WAITING", 3)
    for n in range(10):
        (top / f"d{n}").mkdir()
        os.link(evil, top / f"d{n}" / "name")
    found, left = names_of(evil)
    assert len(found) + left == 10
    assert found
    assert left


@pytest.mark.root
@mounts.inside
def test_other_file_systems_and_bind_mounts_are_not_entered(tmp_path):
    """Below a mount are other files, or the same ones a second time: neither is a further name."""
    files = mounts.tmpfs(tmp_path / "t")
    (files / "evil").write_bytes(b"evil")
    wanted = linked(files / "evil", files / "dir" / "name")
    (files / "bound").mkdir()
    mounts.bind(files / "dir", files / "bound")
    mounts.tmpfs(files / "foreign with space")
    (files / "foreign with space" / "file").touch()
    linked(files / "evil", files / "hidden" / "below a mount")
    mounts.tmpfs(files / "hidden")
    assert names_of(files / "evil") == (wanted, 1)


@pytest.mark.root
@mounts.inside
def test_names_outside_of_what_is_mounted_are_left(tmp_path):
    """Only a part of the file system is mounted here: what is outside of it cannot be found, and is counted."""
    files = mounts.tmpfs(tmp_path / "t")
    (files / "part").mkdir()
    (files / "part" / "evil").write_bytes(b"evil")
    linked(files / "part" / "evil", files / "outside")
    (tmp_path / "view").mkdir()
    mounts.bind(files / "part", tmp_path / "view")
    assert names_of(tmp_path / "view" / "evil") == ([], 1)


@pytest.mark.root
@pytest.mark.parametrize("options", ["index=on", "xino=off"])
@mounts.inside
def test_names_on_an_overlay_are_found_or_counted(tmp_path, options):
    """An overlay gives its files other numbers than its folders; all names that it shows are found."""
    lower = mounts.tmpfs(tmp_path / "lower")
    (lower / "a").mkdir()
    (lower / "evil").write_bytes(b"evil")
    os.link(lower / "evil", lower / "a" / "other")
    merged = mounts.overlay(tmp_path, lower, options)
    with pin(at(merged / "evil")) as held:
        expected = held.status.st_nlink - 1
        found, left = other_names(held)
    assert len(found) + left == expected
    assert found == [at(merged / "a" / "other")]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), min_size=1, max_size=8, unique_by=tuple))
def test_wherever_the_names_are_all_are_found_once(tmp_path_factory, places):
    """For every set of folders: each other name exactly once, and none left."""
    root = tmp_path_factory.mktemp("names")
    paths = []
    for n, place in enumerate(places):
        folder = root.joinpath(*place)
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"name{n}")
    paths[0].touch()
    wanted = linked(paths[0], *paths[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "mount_points", lambda: frozenset({os.fsencode(root)}))
        found, left = names_of(paths[0])
    assert sorted(found) == sorted(wanted)
    assert left == 0
    assert stat.S_ISREG(paths[0].stat().st_mode)
