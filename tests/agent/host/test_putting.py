"""Putting a file: whole and as ordered, or not at all; cancelled, failed or killed at any step, nothing is left."""

import asyncio
import errno
import grp
import hashlib
import os
import pwd
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from stanch.agent.host import putting
from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE
from stanch.agent.host.putting import put
from stanch.core.errors import (
    ActionFailed,
    Conflict,
    ForbiddenHere,
    Invalid,
    NotVerified,
    Protected,
    TargetGone,
    Unsupported,
    VerificationFailed,
)
from stanch.core.files import Placing
from stanch.core.types import EndpointPath
from tests.agent.host.vault_killing.program import killed_at
from tests.agent.host.vault_world import path_of, set_flags

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PIECE = 4096
"""So that there are three pieces."""

pytestmark = pytest.mark.root


class Content:
    """Bytes that are there, and what happens before a piece of them is read."""

    def __init__(self, data=CONTENT, *, before=None):
        self.data = data
        self.before = before

    @property
    def size(self):
        return len(self.data)

    async def read(self, offset, length):
        if self.before is not None:
            await self.before(offset)
        return self.data[offset : offset + length]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(putting, "PIECE", PIECE)


def open_descriptors():
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def memory():
    """A folder on a file system in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


async def putting_to(path, content=None, *, protected=lambda _path, _status: None, writable=lambda _path: None, **more):
    """Put the usual content somewhere."""
    placing = Placing(path=path_of(path), **{"sha256": SHA256, **more})
    return await put(placing, content or Content(), protected=protected, writable=writable)


def left(folder):
    """All names below a folder."""
    return sorted(str(one.relative_to(folder)) for one in folder.rglob("*"))


def numbers_of(path):
    """Mode, owner and group."""
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


# --- as ordered ------------------------------------------------------------------------------------------------------


async def test_a_file_is_there_as_it_was_ordered(tmp_path):
    """Content, mode and owner are right, and no other name is left."""
    nobody = pwd.getpwnam("nobody")
    info = await putting_to(tmp_path / "new", mode=0o4751, user="nobody")
    assert (tmp_path / "new").read_bytes() == CONTENT
    assert numbers_of(tmp_path / "new") == (0o4751, nobody.pw_uid, nobody.pw_gid)
    assert (info.size, info.mode, info.user, info.inode) == (
        len(CONTENT),
        0o4751,
        "nobody",
        (tmp_path / "new").stat().st_ino,
    )
    assert left(tmp_path) == ["new"]


async def test_root_gets_what_nobody_is_named_for(tmp_path):
    """Without account and group, it is root's and nobody else may read it."""
    await putting_to(tmp_path / "new")
    assert numbers_of(tmp_path / "new") == (0o600, 0, 0)


async def test_numbers_and_a_group_are_taken_as_they_are(tmp_path):
    """An account may be a number that no account has, if the group is named."""
    group = next(one for one in grp.getgrall() if one.gr_gid)
    await putting_to(tmp_path / "new", user="4000000001", group=group.gr_name)
    assert numbers_of(tmp_path / "new") == (0o600, 4_000_000_001, group.gr_gid)


async def test_an_empty_file_is_a_file(tmp_path):
    """No bytes are no reason for no file."""
    await putting_to(tmp_path / "new", Content(b""), sha256=hashlib.sha256().hexdigest())
    assert (tmp_path / "new").read_bytes() == b""


async def test_folders_are_made_for_root_only(tmp_path):
    """The folders that are missing are made, with mode 0700."""
    await putting_to(tmp_path / "a" / "b" / "new", make_folders=True)
    assert left(tmp_path) == ["a", "a/b", "a/b/new"]
    assert {numbers_of(tmp_path / one) for one in ("a", "a/b")} == {(0o700, 0, 0)}


async def test_links_of_folders_are_followed_once(tmp_path):
    """The real path is what the owner of the machine is asked about."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    asked = []
    await putting_to(tmp_path / "link" / "new", writable=asked.append)
    assert asked == [path_of(tmp_path / "real" / "new")]
    assert left(tmp_path / "real") == ["new"]


async def test_an_acl_of_the_folder_lets_nobody_else_in(memory):
    """The mode that was ordered is all that decides: what the folder would add is removed."""
    acl = bytes.fromhex("02000000 0100 0700 ffffffff 0200 0700 e8030000 0400 0700 ffffffff 1000 0700 ffffffff")
    acl += bytes.fromhex("2000 0700 ffffffff")
    os.setxattr(memory, "system.posix_acl_default", acl)
    await putting_to(memory / "new", mode=0o640)
    assert "system.posix_acl_access" not in os.listxattr(memory / "new")
    assert numbers_of(memory / "new")[0] == 0o640


# --- refused, with nothing left --------------------------------------------------------------------------------------


async def test_what_is_there_stays(tmp_path):
    """Nothing is replaced, not even by a link that leads nowhere."""
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("old", "dangling"):
        with pytest.raises(Conflict):
            await putting_to(tmp_path / name)
    assert (tmp_path / "old").read_bytes() == b"old"
    assert left(tmp_path) == ["dangling", "old"]


async def test_what_came_meanwhile_stays(tmp_path):
    """A file that comes while the content is written is not replaced either."""

    async def come(_offset):
        (tmp_path / "new").write_bytes(b"other")

    with pytest.raises(Conflict):
        await putting_to(tmp_path / "new", Content(before=come))
    assert (tmp_path / "new").read_bytes() == b"other"
    assert left(tmp_path) == ["new"]


async def test_other_content_gets_no_name(tmp_path):
    """Bytes of another hash are refused; the folders that were made for them go too."""
    with pytest.raises(VerificationFailed) as caught:
        await putting_to(tmp_path / "made" / "new", Content(CONTENT[:-1] + b"x"), make_folders=True)
    assert caught.value.expected == SHA256
    assert left(tmp_path) == []


async def test_content_that_ends_early_gets_no_name(tmp_path):
    """A source that gives fewer bytes than it said is an error."""

    class Short(Content):
        async def read(self, offset, length):
            return (await super().read(offset, length))[:-1]

    with pytest.raises(ActionFailed):
        await putting_to(tmp_path / "new", Short())
    assert left(tmp_path) == []


async def test_the_owner_of_the_machine_forbids_before_anything_is_made(tmp_path):
    """What the local policy raises comes through, and not even a folder was made."""

    def forbid(_path):
        raise ForbiddenHere("not here")

    with pytest.raises(ForbiddenHere):
        await putting_to(tmp_path / "made" / "new", writable=forbid, make_folders=True)
    assert left(tmp_path) == []


@pytest.mark.parametrize("exists", [False, True])
async def test_a_place_that_the_machine_needs_is_protected(tmp_path, exists):
    """Asked with the real path, whether something is there or not."""
    if exists:
        (tmp_path / "new").write_bytes(b"needed")
    with pytest.raises(Protected) as caught:
        await putting_to(tmp_path / "new", protected=lambda path, _status: f"needed: {path}")
    assert caught.value.got == f"needed: {tmp_path / 'new'}"
    assert left(tmp_path) == (["new"] if exists else [])


@pytest.mark.parametrize(("user", "group"), [("no-such-account", None), (None, "no-such-group"), ("4000000001", None)])
async def test_an_unknown_owner_is_told(tmp_path, user, group):
    """An account or group that is not there is no reason to give the file to somebody else."""
    with pytest.raises(TargetGone) as caught:
        await putting_to(tmp_path / "new", user=user, group=group)
    assert caught.value.hint
    assert left(tmp_path) == []


@pytest.mark.parametrize("number", ["4294967295", "9" * 30])
async def test_numbers_that_nobody_can_have_are_invalid(tmp_path, number):
    """The largest number would mean `unchanged` to the kernel."""
    for owner in ({"user": number, "group": "0"}, {"group": number}):
        with pytest.raises(Invalid):
            await putting_to(tmp_path / "new", **owner)
    assert left(tmp_path) == []


@pytest.mark.parametrize("place", ["/proc/new", "/proc/self/new", "/sys/kernel/new", "/sys/fs/cgroup/new"])
async def test_file_systems_that_the_kernel_makes_up_take_nothing(place):
    """A file there would be an act, not a file."""
    with pytest.raises(Unsupported):
        await putting_to(Path(place))


async def test_another_view_of_the_files_is_no_way(tmp_path):
    """A path through /proc/PID/root is refused."""
    with pytest.raises(Unsupported):
        await putting_to(Path(f"/proc/self/root{tmp_path}/new"))
    assert left(tmp_path) == []


@pytest.mark.parametrize("end", ["", ".", ".."])
async def test_a_path_must_end_with_a_name(tmp_path, end):
    """A folder is no place for a file's content."""
    with pytest.raises(Invalid):
        await put(
            Placing(path=EndpointPath(f"{tmp_path}/{end}")),
            Content(),
            protected=lambda _path, _status: None,
            writable=lambda _path: None,
        )


async def test_a_missing_folder_is_told(tmp_path):
    """Without an order to make folders, none is made; and none is made behind a step upwards."""
    with pytest.raises(TargetGone) as caught:
        await putting_to(tmp_path / "missing" / "new")
    assert "--make-folders" in str(caught.value.hint)
    with pytest.raises(Invalid):
        await putting_to(tmp_path / "missing" / ".." / "new", make_folders=True)
    assert left(tmp_path) == []


async def test_a_name_that_is_too_long_is_told(tmp_path):
    """It is seen before anything is written."""
    with pytest.raises(ActionFailed, match="longer than its file system allows"):
        await putting_to(tmp_path / ("x" * 256))
    assert left(tmp_path) == []


@pytest.mark.parametrize("flag", [IMMUTABLE, APPEND_ONLY])
async def test_a_folder_that_is_shut_is_told(memory, flag):
    """In an append-only folder a file could be made, but never get another name: so none is."""
    (memory / "shut").mkdir()
    set_flags(memory / "shut", flag)
    try:
        with pytest.raises(Unsupported, match="immutable or append-only"):
            await putting_to(memory / "shut" / "new")
        assert left(memory) == ["shut"]
    finally:
        set_flags(memory / "shut", 0)


async def test_no_room_is_seen_before_the_disk_is_full(tmp_path):
    """More than is free is not even begun."""

    class Huge(Content):
        @property
        def size(self):
            return 2**60

    with pytest.raises(ActionFailed, match="no room"):
        await putting_to(tmp_path / "new", Huge())
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("call", "code", "told"),
    [
        ("write", errno.ENOSPC, (ActionFailed, "no room")),
        ("write", errno.EDQUOT, (ActionFailed, "quota")),
        ("write", errno.EFBIG, (ActionFailed, "larger")),
        ("fsync", errno.EIO, (ActionFailed, "cannot be written")),
        ("fsync", errno.EROFS, (Unsupported, "read-only")),
        ("fchown", errno.EPERM, (ActionFailed, "may not put")),
        ("open", errno.EROFS, (Unsupported, "read-only")),
    ],
)
async def test_what_fails_is_told_and_leaves_nothing(tmp_path, monkeypatch, call, code, told):
    """Whatever the disk says in the middle, a person understands it, and no half a file stays."""
    real = getattr(os, call)

    def fail(*arguments, **more):
        if call == "open" and not (arguments[1] & os.O_CREAT):
            return real(*arguments, **more)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(putting.os, call, fail)
        with pytest.raises(told[0], match=told[1]):
            await putting_to(tmp_path / "new")
    assert left(tmp_path) == []


async def test_a_file_that_was_swapped_is_seen(tmp_path):
    """Who may write to the folder can put another file under the temporary name: that is not taken for ours."""

    async def swap(offset):
        if offset == 2 * PIECE:
            (temporary,) = tmp_path.iterdir()
            temporary.rename(tmp_path / "kept")
            temporary.write_bytes(b"evil")

    with pytest.raises(NotVerified):
        await putting_to(tmp_path / "new", Content(before=swap))


# --- again -----------------------------------------------------------------------------------------------------------


async def test_the_same_token_is_answered_the_same(tmp_path):
    """What an earlier run put is not a conflict; for another token it is."""
    first = await putting_to(tmp_path / "new", token="t1")
    assert await putting_to(tmp_path / "new", token="t1") == first
    with pytest.raises(Conflict):
        await putting_to(tmp_path / "new")
    assert left(tmp_path) == ["new"]


async def test_without_an_expected_hash_the_content_decides(tmp_path):
    """A repeat compares what is there with what would be put."""
    first = await putting_to(tmp_path / "new", token="t1", sha256="")
    assert await putting_to(tmp_path / "new", token="t1", sha256="") == first
    with pytest.raises(Conflict):
        await putting_to(tmp_path / "new", Content(CONTENT[::-1]), token="t1", sha256="")


@pytest.mark.parametrize("change", ["content", "mode", "owner", "kind"])
async def test_a_file_that_was_changed_since_is_another_one(tmp_path, change):
    """With the same token too, only what is exactly as ordered is taken for ours."""
    file = tmp_path / "new"
    await putting_to(file, token="t1")
    if change == "content":
        file.write_bytes(CONTENT[::-1])
    elif change == "mode":
        file.chmod(0o644)
    elif change == "owner":
        os.chown(file, 1, 0)
    else:
        file.rename(tmp_path / "moved")
        file.symlink_to("moved")
    with pytest.raises(Conflict):
        await putting_to(file, token="t1")


async def test_what_a_killed_run_left_is_removed(tmp_path):
    """Half a file of the same token goes; that of another one stays."""
    (tmp_path / ".stanch-put-t1").write_bytes(b"half")
    (tmp_path / ".stanch-put-t2").write_bytes(b"another's")
    await putting_to(tmp_path / "new", token="t1")
    assert left(tmp_path) == [".stanch-put-t2", "new"]


def _ticking():
    """Each write to the file counts as a step too: Python tells nobody of it by itself."""
    real = os.write

    def write(descriptor, data):
        sys.audit("os.truncate", descriptor, len(data))
        return real(descriptor, data)

    os.write = write


async def test_killed_at_any_step_a_repeat_finishes(memory):
    """Whatever the step, afterwards there is nothing or the whole file; after a repeat exactly the file, once."""
    step, seen_half, seen_whole = 0, False, False
    while True:
        step += 1
        folder = memory / f"{step}"
        folder.mkdir()
        file = folder / "made" / "new"

        async def run(file=file):
            _ticking()
            await putting_to(file, token="t1", mode=0o4755, user="nobody", make_folders=True)

        killed = killed_at(run, step)
        if file.exists():
            assert (file.read_bytes(), numbers_of(file)[0]) == (CONTENT, 0o4755)
        seen_half |= (folder / "made" / ".stanch-put-t1").exists()
        seen_whole |= killed and file.exists()
        await putting_to(file, token="t1", mode=0o4755, user="nobody", make_folders=True)
        assert left(folder) == ["made", "made/new"]
        assert (file.read_bytes(), *numbers_of(file)[:2]) == (CONTENT, 0o4755, pwd.getpwnam("nobody").pw_uid)
        if not killed:
            break
    assert seen_half
    assert seen_whole
    assert step > 10, "the folder, the file, three writes, its owner and mode, three syncs, the name"


# --- cancelled -------------------------------------------------------------------------------------------------------


async def test_cancelled_while_it_waits_for_content_nothing_is_left(tmp_path):
    """Neither the half file nor the folders that were made for it."""
    waiting = asyncio.Event()

    async def wait(offset):
        if offset:
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(putting_to(tmp_path / "made" / "new", Content(before=wait), make_folders=True))
    await waiting.wait()
    assert len(left(tmp_path)) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(tmp_path) == []


@pytest.mark.parametrize("during", ["_ask", "write", "_give_owner", "_give_name"])
async def test_cancelled_in_any_step_nothing_is_left(tmp_path, monkeypatch, during):
    """A step that is under way in its thread comes to its end, and is undone, even if the file had its name."""
    loop, tasks = asyncio.get_running_loop(), []
    real = getattr(putting._Putting, during)

    def cancelling(self, *arguments):
        result = real(self, *arguments)
        asyncio.run_coroutine_threadsafe(cancel(), loop).result(10)
        return result

    async def cancel():
        tasks[0].cancel()

    monkeypatch.setattr(putting._Putting, during, cancelling)
    tasks.append(asyncio.create_task(putting_to(tmp_path / "new")))
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert left(tmp_path) == []


async def test_no_descriptor_is_left_open(tmp_path):
    """After success, refusal and failure alike."""
    await putting_to(tmp_path / "warm")
    before = open_descriptors()
    await putting_to(tmp_path / "a" / "new", make_folders=True)
    with pytest.raises(Conflict):
        await putting_to(tmp_path / "a" / "new")
    with pytest.raises(VerificationFailed):
        await putting_to(tmp_path / "b" / "new", sha256="0" * 64, make_folders=True)
    assert open_descriptors() == before
