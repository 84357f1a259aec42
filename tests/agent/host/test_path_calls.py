"""System calls on paths: an exclusive rename, and a folder opened in the same way by old kernels and new ones."""

import errno
import os
from pathlib import Path

import pytest

from stanch.agent.host import path_calls
from stanch.agent.host.path_calls import (
    exchange,
    open_folder,
    path_of,
    pin_below,
    rename_exclusively,
    walk_below,
    walk_to_folder,
)


@pytest.fixture
def folder(tmp_path):
    """A folder with a file in it, by descriptor."""
    (tmp_path / "old").write_bytes(b"old")
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_rename_that_takes_no_name(tmp_path, folder):
    """A free name is given; one that is taken stays, and so does the file."""
    rename_exclusively(folder, b"old", b"new")
    (tmp_path / "old").write_bytes(b"second")
    with pytest.raises(FileExistsError):
        rename_exclusively(folder, b"old", b"new")
    assert (tmp_path / "new").read_bytes() == b"old"
    assert (tmp_path / "old").read_bytes() == b"second"


def test_an_unknown_machine_has_no_exclusive_rename(tmp_path, folder, monkeypatch):
    """Where the number of the system call is not known, none is guessed."""
    monkeypatch.setattr(path_calls.platform, "machine", lambda: "abacus")
    with pytest.raises(OSError, match="not implemented"):
        rename_exclusively(folder, b"old", b"new")
    assert (tmp_path / "old").exists()


def test_both_ways_to_a_folder_agree(tmp_path):
    """The walk for older kernels opens the same folder as openat2, through links, dots and the root."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a/../a/./b")
    (tmp_path / "absolute").symlink_to(tmp_path / "link")
    own = os.fsencode(tmp_path)
    for path in (b"/", b"/..", b"/proc/self/task", own + b"/link", own + b"/absolute/..", own + b"/a//b/../b/"):
        one, other = open_folder(path), walk_to_folder(path)
        assert os.path.sameopenfile(one, other)
        assert path_of(one) == path_of(other)
        assert os.get_inheritable(one) is os.get_inheritable(other) is False
        os.close(one)
        os.close(other)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("none", errno.ENOENT),
        ("none/..", errno.ENOENT),
        ("file", errno.ENOTDIR),
        ("file/..", errno.ENOTDIR),
        ("circle", errno.ELOOP),
        ("magic", errno.ELOOP),
        ("magic/etc", errno.ELOOP),
        ("dangling", errno.ENOENT),
        ("n" * 256, errno.ENAMETOOLONG),
    ],
)
def test_both_ways_fail_alike_and_keep_nothing_open(tmp_path, path, code):
    """What the kernel refuses, the walk refuses with the same number."""
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "magic").symlink_to("/proc/self/root")
    before = sorted(one.name for one in Path("/proc/self/fd").iterdir())
    for way in (open_folder, walk_to_folder):
        with pytest.raises(OSError) as caught:
            way(os.fsencode(tmp_path / path) if ".." not in path else os.fsencode(tmp_path) + b"/" + path.encode())
        assert caught.value.errno == code
    assert sorted(one.name for one in Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_without_openat2_it_is_walked(tmp_path, monkeypatch, code):
    """An old kernel does not know it, an old container's filter forbids it: the folder is opened all the same."""

    def refuse(*_arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(path_calls, "_call", refuse)
    opened = open_folder(os.fsencode(tmp_path))
    assert path_of(opened) == os.fsencode(tmp_path)
    os.close(opened)


def test_a_step_that_becomes_a_link_while_it_is_walked_is_not_followed(tmp_path, monkeypatch):
    """A folder was seen, a link is opened: the walk ends there instead of going where the link leads."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "step").mkdir()
    real = path_calls._link_target

    def swap(name, folder):
        found = real(name, folder)
        if name == b"step":
            (tmp_path / "step").rmdir()
            (tmp_path / "step").symlink_to("victim")
        return found

    monkeypatch.setattr(path_calls, "_link_target", swap)
    with pytest.raises(NotADirectoryError):
        walk_to_folder(os.fsencode(tmp_path / "step"))


# --- below a root ----------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """A folder that stands in for /, beside something that must not be reached."""
    (tmp_path / "secret").write_text("outside")
    folder = tmp_path / "root"
    (folder / "etc/sub").mkdir(parents=True)
    (folder / "etc/file").write_text("inside")
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    yield folder, opened
    os.close(opened)


@pytest.mark.parametrize("way", [pin_below, walk_below])
@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("/etc/file", "root/etc/file"),
        ("etc/file", "root/etc/file"),
        ("../../../etc/file", "root/etc/file"),
        ("/etc/sub/../file", "root/etc/file"),
        ("/", "root"),
        ("../secret", None),
        ("/../../secret", None),
        ("/etc/file/..", NotADirectoryError),
        ("/link", OSError),
        ("/etc/none/../file", None),
    ],
)
def test_no_link_leads_out_of_the_root(root, tmp_path, way, target, found):
    """Links are followed as somebody would whose root folder it is; `..` ends there; circles end."""
    folder, opened = root
    (folder / "link").symlink_to(target)
    if found is None or not isinstance(found, str):
        with pytest.raises(found or FileNotFoundError):
            way(opened, b"/link")
        return
    held = way(opened, b"link")
    assert path_of(held) == os.fsencode(tmp_path / found)
    os.close(held)


@pytest.mark.parametrize("way", [pin_below, walk_below])
def test_a_link_itself_can_be_held_below_a_root(root, way):
    """Not followed at the end, but on the way."""
    folder, opened = root
    (folder / "etc/link").symlink_to("/nowhere")
    (folder / "other").symlink_to("etc")
    held = way(opened, b"/other/link", follow=False)
    assert os.readlink(b"", dir_fd=held) == b"/nowhere"
    os.close(held)


@pytest.mark.parametrize("way", [pin_below, walk_below])
def test_the_view_of_another_process_is_not_below_a_root(way):
    """/proc/PID/root would lead anywhere."""
    opened = os.open("/", os.O_PATH | os.O_DIRECTORY)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError) as caught:
        way(opened, b"/proc/self/root/etc")
    assert caught.value.errno == errno.ELOOP
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(opened)


def test_without_openat2_it_is_walked_below_a_root(root, monkeypatch):
    """With the same answer."""
    folder, opened = root

    def refuse(*_arguments):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(path_calls, "_call", refuse)
    held = pin_below(opened, b"/etc/file")
    assert path_of(held) == os.fsencode(folder / "etc/file")
    os.close(held)


def test_two_names_are_exchanged(tmp_path, folder):
    """Each leads to what the other one did; nothing happens unless both are there."""
    (tmp_path / "new").write_bytes(b"new")
    exchange(folder, b"old", b"new")
    assert ((tmp_path / "old").read_bytes(), (tmp_path / "new").read_bytes()) == (b"new", b"old")
    with pytest.raises(FileNotFoundError):
        exchange(folder, b"old", b"none")
