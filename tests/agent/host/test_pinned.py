"""A pinned name: whatever is done to the path meanwhile, only the pinned file is moved, removed or placed."""

import errno
import os
import socket
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import path_calls, pinned
from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE, change_flags, flags_of
from stanch.agent.host.path_calls import path_of
from stanch.agent.host.pinned import aside_name, beside, find_aside, pin, place
from stanch.core.errors import ActionFailed, NotVerified, StanchError, TargetGone, Unsupported
from stanch.core.files import Kind
from stanch.core.types import EndpointPath
from tests import mounts


def at(path):
    """As an endpoint calls it."""
    return EndpointPath.of(os.fsencode(path))


def names(folder):
    """What is in a folder."""
    return sorted(one.name for one in folder.iterdir())


@contextmanager
def folder_of(path):
    """A descriptor of a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def flagged(path, flags):
    """Something with inode flags, which it loses afterwards: nothing could remove it otherwise."""
    descriptor = os.open(path, os.O_RDONLY)
    before = flags_of(descriptor)
    try:
        if before is None:
            pytest.skip("this file system has no inode flags")
        change_flags(descriptor, before | flags)
        yield
    finally:
        change_flags(descriptor, before or 0)
        os.close(descriptor)


def swap_before_rename(monkeypatch, trick):
    """Do something at the last moment: after all has been checked, just before the name is moved."""
    real = pinned.rename_exclusively
    tricks = [trick]

    def rename(*arguments):
        if tricks:
            tricks.pop()()
        real(*arguments)

    monkeypatch.setattr(pinned, "rename_exclusively", rename)


@pytest.fixture
def evil(tmp_path):
    """A file to pin."""
    path = tmp_path / "evil"
    path.write_bytes(b"evil")
    return path


@pytest.fixture
def no_exclusive_rename(monkeypatch):
    """A file system that knows no exclusive rename, such as NFS."""

    def refuse(*_arguments):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(pinned, "rename_exclusively", refuse)


@pytest.fixture(params=["openat2", "walk"])
def way(request, monkeypatch):
    """Both ways to a folder: of a kernel that knows openat2, and of an older one."""
    if request.param == "walk":
        monkeypatch.setattr(path_calls, "_OPENAT2", 100_000)
    return request.param


# --- pin -------------------------------------------------------------------------------------------------------------


def test_links_on_the_way_are_followed_and_the_last_is_not(way, tmp_path, evil):
    """The real path is told, and a link at the end is itself what is pinned."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "link").symlink_to(evil)
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "second").symlink_to(tmp_path / "real" / ".." / "real")
    with pin(at(tmp_path / "first" / "link")) as held:
        assert held.path == at(tmp_path / "real" / "link")
        assert held.kind is Kind.LINK
        assert held.name == b"link"


@pytest.mark.parametrize("gone", ["none", "none/file", "evil/file", "dangling/file"])
def test_what_is_not_there_is_gone(way, tmp_path, evil, gone):
    """A missing name, a missing folder, a file in place of a folder, a link to nowhere: TargetGone each."""
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(TargetGone):
        pin(at(tmp_path / gone))


def test_links_in_a_circle_are_an_error(way, tmp_path):
    """A way that never ends is refused, and does not hang."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Unsupported, match="circle"):
        pin(at(tmp_path / "a" / "file"))


@pytest.mark.parametrize("link", ["root", "cwd", "fd/0"])
def test_the_way_through_another_process_is_refused(way, tmp_path, evil, link, monkeypatch):
    """A magic link of /proc may lead into another mount namespace or out of a container: it is not followed."""
    with pytest.raises(Unsupported, match="/proc/PID/root"):
        pin(EndpointPath(f"/proc/{os.getpid()}/{link}/etc/passwd"))


def test_a_hidden_magic_link_is_refused_too(way, tmp_path):
    """It does not help to hide it behind a plain link, or behind the plain link /proc/self."""
    (tmp_path / "way").symlink_to("/proc/self/root")
    with pytest.raises(Unsupported):
        pin(at(tmp_path / "way" / "etc" / "passwd"))


@pytest.mark.parametrize("path", ["/", "/.", "/etc/..", "/etc/.", "//"])
def test_what_is_no_name_in_a_folder_is_refused(path):
    """Neither the root nor a path that ends with dots is a name that can be taken away."""
    with pytest.raises(Unsupported, match="no name"):
        pin(EndpointPath(path))


def test_a_slash_at_the_end_asks_for_a_folder(tmp_path, evil):
    """It is dropped for a folder; a file of that name is not what was meant."""
    (tmp_path / "folder").mkdir()
    with pin(EndpointPath(f"{tmp_path}/folder//")) as held:
        assert held.path == at(tmp_path / "folder")
    with pytest.raises(TargetGone, match="no folder"):
        pin(EndpointPath(f"{evil}/"))


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b" ", b"\\x41", b"n" * 255, b"-rf", b"x (deleted)"])
def test_odd_names_are_pinned_moved_and_brought_back(way, tmp_path, name):
    """Names that are not UTF-8, with a newline, of 255 bytes: all are only bytes."""
    path = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).write_bytes(b"x")
    with pin(EndpointPath.of(path)) as held:
        assert held.path.raw == path
        held.aside("t1").back()
        held.aside("t2").remove()
    assert names(tmp_path) == []


def test_a_name_of_256_bytes_is_an_error(tmp_path):
    """No file system has it, and the kernel's answer becomes a sentence."""
    with pytest.raises(ActionFailed, match="longer"):
        pin(at(tmp_path / ("n" * 256)))


def test_the_longest_path_works_and_a_longer_one_is_refused(way, tmp_path):
    """4095 bytes can be named; what a link makes longer than that cannot be told to anybody, and is not touched."""
    deep = os.fsencode(tmp_path)
    with folder_of(tmp_path) as root:
        here = os.dup(root)
        while len(deep) < 4095 - 202:
            os.mkdir(b"d" * 200, dir_fd=here)
            there = os.open(b"d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here, deep = there, deep + b"/" + b"d" * 200
        name = b"f" * (4095 - len(deep) - 1)
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.mkdir(b"e", dir_fd=here)
        below = os.open(b"e", os.O_RDONLY, dir_fd=here)
        os.close(os.open(b"f" * 250, os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(below)
        os.close(here)
    with pin(EndpointPath.of(deep + b"/" + name)) as held:
        assert len(held.path.raw) == 4095
        held.aside("t").remove()
    half = deep[: len(deep) // 2].rpartition(b"/")[0]
    (tmp_path / "short").symlink_to(os.fsdecode(half))
    rest = deep[len(half) :] + b"/e/" + b"f" * 250
    with pytest.raises(Unsupported, match="too long"):
        pin(EndpointPath.of(os.fsencode(tmp_path / "short") + rest))


def test_a_folder_that_was_removed_is_gone(tmp_path, monkeypatch):
    """Between the folder and the name lies a moment: a folder that vanishes in it is gone, whatever it is called."""
    (tmp_path / "folder").mkdir()
    real = pinned.path_of

    def late(descriptor):
        (tmp_path / "folder" / "f").unlink()
        (tmp_path / "folder").rmdir()
        return real(descriptor)

    (tmp_path / "folder" / "f").touch()
    monkeypatch.setattr(pinned, "path_of", late)
    with pytest.raises(TargetGone, match="removed"):
        pin(at(tmp_path / "folder" / "f"))


def test_no_descriptor_is_left_behind(tmp_path, evil):
    """Neither a pin that was closed nor one that failed keeps anything open."""
    before = names(Path("/proc/self/fd"))
    for path in (evil, tmp_path / "none", tmp_path / "evil" / "x", f"{evil}/"):
        try:
            pin(at(path)).close()
        except StanchError:
            continue
    assert names(Path("/proc/self/fd")) == before


# --- reading ---------------------------------------------------------------------------------------------------------


def test_reading_leaves_the_access_time(evil):
    """The pinned file is opened through its descriptor, and nobody sees that it was read."""
    os.utime(evil, ns=(1, 2))
    with pin(at(evil)) as held:
        evil.rename(evil.with_name("elsewhere"))
        evil.write_bytes(b"good")
        opened = held.reopen()
        assert os.read(opened, 10) == b"evil"
        os.close(opened)
        assert held.status.st_atime_ns == 1


def test_only_a_regular_file_is_opened(tmp_path):
    """Opening a FIFO would wait and a device would act: both can be pinned, neither is read."""
    os.mkfifo(tmp_path / "fifo")
    with pin(at(tmp_path / "fifo")) as held, pytest.raises(Unsupported, match="cannot be read"):
        held.reopen()


def test_every_kind_is_told(tmp_path):
    """What is pinned says what it is, without being opened."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    for name, kind in {"folder": Kind.FOLDER, "fifo": Kind.FIFO, "s": Kind.SOCKET}.items():
        with pin(at(tmp_path / name)) as held:
            assert held.kind is kind
    with pin(EndpointPath("/dev/null")) as held:
        assert held.kind is Kind.CHARACTER_DEVICE


# --- aside -----------------------------------------------------------------------------------------------------------


def test_aside_and_removed(tmp_path, evil):
    """It first gets a hidden name in its folder, then it is gone, and no name of it is left."""
    with pin(at(evil)) as held:
        aside = held.aside("tok")
        assert names(tmp_path) == [".stanch-tok"]
        assert aside.remove() == 0
        assert held.status.st_nlink == 0
    assert names(tmp_path) == []


def test_aside_and_back(tmp_path, evil):
    """It is exactly where it was, the same inode."""
    inode = evil.stat().st_ino
    with pin(at(evil)) as held:
        held.aside("tok").back()
        assert held.still_there()
    assert names(tmp_path) == ["evil"]
    assert evil.stat().st_ino == inode


def test_a_hard_link_is_counted_as_left(tmp_path, evil):
    """Removing one of three names says that two are left: the content is still there."""
    os.link(evil, tmp_path / "two")
    os.link(evil, tmp_path / "three")
    with pin(at(evil)) as held:
        assert held.aside("tok").remove() == 2


@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "socket", "device"])
def test_anything_can_be_taken_away(tmp_path, kind):
    """Empty folders, links, FIFOs, sockets and devices are moved, brought back and removed like files."""
    path = tmp_path / "thing"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("devices need root")
    with pin(at(path)) as held:
        held.aside("one").back()
        held.aside("two").remove()
    assert names(tmp_path) == []


def test_a_folder_with_something_in_it_stays(tmp_path):
    """Nothing is removed recursively: a folder that is not empty says so, and can go back."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with pin(at(tmp_path / "folder")) as held:
        aside = held.aside("tok")
        with pytest.raises(OSError, match="not empty"):
            aside.remove()
        aside.back()
    assert (tmp_path / "folder" / "file").exists()


def test_a_link_swapped_in_before_is_not_followed(tmp_path, evil):
    """The classic: the file becomes a link to another one. The link and what it leads to stay."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"good")
    with pin(at(evil)) as held:
        evil.unlink()
        evil.symlink_to(victim)
        assert not held.still_there()
        with pytest.raises(TargetGone, match="Another file"):
            held.aside("tok")
    assert evil.is_symlink()
    assert victim.read_bytes() == b"good"


def test_a_file_swapped_in_at_the_last_moment_goes_back(tmp_path, evil, monkeypatch):
    """Between the check and the rename somebody puts another file there: it is moved, recognised and moved back."""

    def swap():
        evil.rename(tmp_path / "hidden")
        evil.write_bytes(b"good")

    swap_before_rename(monkeypatch, swap)
    with pin(at(evil)) as held, pytest.raises(TargetGone, match="Another file"):
        held.aside("tok")
    assert evil.read_bytes() == b"good"
    assert names(tmp_path) == ["evil", "hidden"]


def test_if_its_name_is_taken_too_it_gets_one_beside_it(tmp_path, evil, monkeypatch):
    """Whoever swaps twice loses nothing either: the error tells where the second file is."""
    real, count = pinned.rename_exclusively, []

    def rename(*arguments):
        count.append(1)
        if len(count) == 1:
            evil.rename(tmp_path / "hidden")
            evil.write_bytes(b"first")
        real(*arguments)
        if len(count) == 1:
            evil.write_bytes(b"second")

    monkeypatch.setattr(pinned, "rename_exclusively", rename)
    with pin(at(evil)) as held, pytest.raises(TargetGone, match="now at") as caught:
        held.aside("tok")
    assert evil.read_bytes() == b"second"
    assert (tmp_path / "evil.moved-1").read_bytes() == b"first"
    assert "evil.moved-1" in str(caught.value)


def test_a_file_that_vanishes_at_the_last_moment_is_gone(tmp_path, evil, monkeypatch):
    """Then there is nothing to move, and nothing is left aside."""
    swap_before_rename(monkeypatch, evil.unlink)
    with pin(at(evil)) as held, pytest.raises(TargetGone):
        held.aside("tok")
    assert names(tmp_path) == []


def test_a_folder_that_is_renamed_meanwhile_is_still_the_one(tmp_path):
    """The folder is held: its new name changes nothing, and an impostor at its old name is not touched."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "f").write_bytes(b"evil")
    with pin(at(folder / "f")) as held:
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        (folder / "f").write_bytes(b"good")
        held.aside("tok").remove()
    assert (folder / "f").read_bytes() == b"good"
    assert names(tmp_path / "moved") == []


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path):
    """The folder part of the path is a link to /elsewhere by now: what is there stays."""
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (folder / "f").write_bytes(b"evil")
    (other / "f").write_bytes(b"good")
    with pin(at(folder / "f")) as held:
        folder.rename(tmp_path / "was")
        folder.symlink_to(other)
        held.aside("tok").remove()
    assert (other / "f").read_bytes() == b"good"
    assert not (tmp_path / "was" / "f").exists()


def test_an_older_thing_of_that_token_is_not_overwritten(tmp_path, evil):
    """What an earlier run left, or somebody made, stays as it is; the file stays too."""
    (tmp_path / ".stanch-tok").write_bytes(b"older")
    with pin(at(evil)) as held, pytest.raises(ActionFailed, match="already"):
        held.aside("tok")
    assert evil.exists()
    assert (tmp_path / ".stanch-tok").read_bytes() == b"older"


def test_back_does_not_overwrite(tmp_path, evil):
    """Somebody made a new file of the old name meanwhile: both stay."""
    with pin(at(evil)) as held:
        aside = held.aside("tok")
        evil.write_bytes(b"new")
        with pytest.raises(FileExistsError):
            aside.back()
    assert evil.read_bytes() == b"new"
    assert (tmp_path / ".stanch-tok").read_bytes() == b"evil"


@pytest.mark.parametrize("what", ["remove", "back"])
def test_what_was_swapped_while_aside_stays(tmp_path, evil, what):
    """The hidden name can be guessed: another file that somebody puts there is neither removed nor moved."""
    with pin(at(evil)) as held:
        aside = held.aside("tok")
        (tmp_path / ".stanch-tok").rename(tmp_path / "hidden")
        (tmp_path / ".stanch-tok").write_bytes(b"good")
        with pytest.raises(TargetGone, match="moved away"):
            getattr(aside, what)()
    assert (tmp_path / ".stanch-tok").read_bytes() == b"good"


def test_a_name_that_is_given_while_it_is_removed_is_noticed(tmp_path, evil, monkeypatch):
    """A hard link made at the last moment keeps the file: then it is not said to be removed."""
    with pin(at(evil)) as held:
        aside = held.aside("tok")
        real = os.unlink

        def late(path, **more):
            os.link(tmp_path / ".stanch-tok", tmp_path / "hidden")
            real(path, **more)

        monkeypatch.setattr(os, "unlink", late)
        with pytest.raises(NotVerified, match="another name"):
            aside.remove()


def test_a_token_is_a_plain_word():
    """It becomes part of a name: a slash or nothing at all is refused."""
    assert aside_name("0a-Z_9") == b".stanch-0a-Z_9"
    for token in ("", "a/b", "..", "a\n", "x" * 101):
        with pytest.raises(ValueError, match="letters"):
            aside_name(token)


def test_the_folder_is_on_the_disk_after_each_change(tmp_path, evil, monkeypatch):
    """What was removed, brought back or placed is fsynced: a power cut must not bring the old name back."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((path_of(descriptor), names(tmp_path))))
    with pin(at(evil)) as held:
        held.aside("one").back()
        place(held.folder, "evil", b"new")
    with pin(at(tmp_path / "new")) as held:
        held.aside("two").remove()
    own = os.fsencode(tmp_path)
    assert synced == [(own, ["evil"]), (own, ["new"]), (own, [])]


# --- after a crash ---------------------------------------------------------------------------------------------------


def test_what_was_left_aside_is_found(tmp_path, evil):
    """After a crash the hidden name is all there is: it leads to the same inode, and goes back or is removed."""
    inode = evil.stat().st_ino
    with pin(at(evil)) as held:
        held.aside("tok")
    with folder_of(tmp_path) as folder:
        with find_aside(folder, "tok", b"evil") as aside:
            assert aside.status.st_ino == inode
            aside.back()
        assert evil.exists()
        with find_aside(folder, "tok", b"evil") as aside:
            assert aside is None


# --- place -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exclusive", [True, False])
def test_place_gives_a_name_but_never_takes_one(tmp_path, request, exclusive):
    """A name that is taken, by a dangling link too, stays what it is, on each kind of file system."""
    if not exclusive:
        request.getfixturevalue("no_exclusive_rename")
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "dangling").symlink_to("nowhere")
    with folder_of(tmp_path) as folder:
        with pytest.raises(FileExistsError):
            place(folder, b"new", b"dangling")
        place(folder, b"new", b"name")
    assert names(tmp_path) == ["dangling", "name"]


def test_without_exclusive_rename_and_links_it_is_refused(tmp_path, no_exclusive_rename):
    """A folder cannot have a second name: rather than risk another's, nothing is moved."""
    (tmp_path / "folder").mkdir()
    with folder_of(tmp_path) as folder, pytest.raises(Unsupported, match="safely"):
        place(folder, b"folder", b"name")
    assert names(tmp_path) == ["folder"]


def test_without_exclusive_rename_a_file_is_still_taken_away(tmp_path, evil, no_exclusive_rename):
    """There the file gets its hidden name first and loses its own afterwards."""
    with pin(at(evil)) as held:
        held.aside("one").back()
        assert held.aside("two").remove() == 0
    assert names(tmp_path) == []


@given(st.binary(min_size=1, max_size=255), st.integers(1, 99))
def test_a_name_beside_another_is_a_name_and_another(name, n):
    """It fits into 255 bytes and differs, also of a name that is as long as it may be."""
    assert len(beside(name, n)) <= 255
    assert beside(name, n) != name


# --- what shuts a name -----------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize(("flag", "word"), [(IMMUTABLE, "immutable"), (APPEND_ONLY, "append-only")])
def test_flags_of_file_and_folder_are_told(tmp_path, evil, flag, word):
    """Nobody can move what is immutable or append-only, or is in such a folder: the error says which it is."""
    with pin(at(evil)) as held:
        with flagged(evil, flag), pytest.raises(Unsupported, match="lsattr"):
            held.aside("tok")
        with flagged(tmp_path, flag):
            with pytest.raises(Unsupported, match=f"folder is {word}"):
                held.aside("tok")
            with pytest.raises(Unsupported, match=f"folder is {word}"):
                held.refuse_unmovable()
        with flagged(evil, flag), pytest.raises(Unsupported):
            place(held.folder, b"evil", b"new")
        held.refuse_unmovable()
    assert evil.exists()


@pytest.mark.root
@mounts.inside
def test_a_mount_over_the_file_is_refused_and_explained(tmp_path):
    """A file that is mounted over another cannot be taken away, neither found out by trying nor before."""
    files = mounts.tmpfs(tmp_path / "t")
    for name in ("evil", "over"):
        (files / name).write_bytes(name.encode())
    mounts.bind(files / "over", files / "evil")
    with pin(at(files / "evil")) as held:
        with pytest.raises(Unsupported, match="mount point") as caught:
            held.aside("tok")
        assert "unmounted first" in str(caught.value)
        with pytest.raises(Unsupported, match="mount point"):
            held.refuse_unmovable()


@pytest.mark.root
@mounts.inside
def test_a_mount_that_comes_meanwhile_hides_the_file(tmp_path):
    """Mounted over after it was pinned: the name leads to another file, and nothing is moved."""
    files = mounts.tmpfs(tmp_path / "t")
    for name in ("evil", "over"):
        (files / name).write_bytes(name.encode())
    with pin(at(files / "evil")) as held:
        mounts.bind(files / "over", files / "evil")
        with pytest.raises(TargetGone):
            held.aside("tok")


@pytest.mark.root
@mounts.inside
def test_a_read_only_mount_is_refused_and_explained(tmp_path):
    """The error says that it is mounted read-only, and what would help."""
    files = mounts.tmpfs(tmp_path / "t")
    (files / "evil").touch()
    mounts.read_only(files)
    with pin(at(files / "evil")) as held:
        for refused in (lambda: held.aside("tok"), held.refuse_unmovable, lambda: place(held.folder, b"evil", b"n")):
            with pytest.raises(Unsupported, match="read-only") as caught:
                refused()
            assert "mounted writable" in str(caught.value)


@pytest.mark.root
@pytest.mark.parametrize("options", ["", "xino=off", "index=on", "metacopy=on,redirect_dir=on"])
@mounts.inside
def test_a_file_of_a_lower_layer_is_still_the_same_after_it_was_copied_up(tmp_path, options):
    """On an overlay, moving a file copies it up and gives it another number: it is the pinned file all the same."""
    lower = mounts.tmpfs(tmp_path / "lower")
    (lower / "evil").write_bytes(b"evil")
    os.link(lower / "evil", lower / "other")
    merged = mounts.overlay(tmp_path, lower, options)
    with pin(at(merged / "evil")) as held:
        held.refuse_unmovable()
        held.aside("one").back()
        assert held.still_there()
        held.aside("two").remove()
    assert not (merged / "evil").exists()
    assert (lower / "evil").read_bytes() == b"evil"


@pytest.mark.root
@mounts.inside
def test_a_swap_on_an_overlay_is_seen(tmp_path):
    """Also there another file of the same content is another file."""
    lower = mounts.tmpfs(tmp_path / "lower")
    (lower / "evil").write_bytes(b"evil")
    merged = mounts.overlay(tmp_path, lower, "xino=off")
    with pin(at(merged / "evil")) as held:
        (merged / "evil").rename(merged / "hidden")
        (merged / "evil").write_bytes(b"evil")
        with pytest.raises(TargetGone):
            held.aside("tok")
    assert (merged / "evil").exists()


@pytest.mark.root
@mounts.inside
def test_a_folder_of_a_lower_layer_is_removed_in_its_place(tmp_path):
    """An overlay cannot rename it; as nothing but an empty folder can be removed, its name may stay until then."""
    lower = mounts.tmpfs(tmp_path / "lower")
    (lower / "folder").mkdir()
    merged = mounts.overlay(tmp_path, lower, "redirect_dir=off")
    with pin(at(merged / "folder")) as held:
        held.aside("one").back()
        held.aside("two").remove()
    assert names(merged) == []


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@mounts.inside
def test_on_file_systems_of_a_disk(tmp_path, kind):
    """Moving, bringing back, removing and placing on the file systems that servers have."""
    files = mounts.image(tmp_path / "disk", kind)
    (files / "evil").write_bytes(b"evil")
    with pin(at(files / "evil")) as held:
        held.aside("one").back()
        place(held.folder, b"evil", b"name")
        assert not held.still_there()
    with pin(at(files / "name")) as held:
        assert held.aside("two").remove() == 0
