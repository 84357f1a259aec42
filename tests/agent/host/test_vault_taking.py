"""Taking: races, odd files, odd file systems; nothing is lost, nothing done by half, and all that it had comes back."""

import asyncio
import hashlib
import os
import struct
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.host import vault_taking
from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE
from stanch.agent.host.vault_content import BLOCK, Watch
from stanch.agent.host.vault_parts import Work
from stanch.core.errors import ActionFailed, Conflict, Unsupported, VaultFull
from stanch.core.vault import Item, Taking, item_id
from tests.agent.host.vault_world import (
    NO_DUMP,
    World,
    flags,
    nothing_kept,
    path_of,
    portrait,
    returning,
    set_flags,
    taking,
)
from tests.mounts import bind, inside, overlay, read_only, tmpfs

pytestmark = pytest.mark.root

ID = item_id("t1", 1)
BIG = 3 * BLOCK


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A vault."""
    return World(tmp_path)


def taken_while(world: World, order: Taking, happens: Callable[[int], object]) -> Item:
    """Take it; something happens after each block that was copied, with the number of the block."""
    blocks = 0

    def told(_done: int, _total: int) -> None:
        nonlocal blocks
        blocks += 1
        happens(blocks)

    return vault_taking.take(world.linux.parts, Work(watch=Watch(told=told)), order)


def in_mounts(run: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run it where nobody else sees what is mounted."""
    inside(lambda: asyncio.run(run()))()


# --- it changes meanwhile --------------------------------------------------------------------------------------------


async def test_a_file_that_grows_once_is_taken_as_it_is_then(world: World) -> None:
    """The copy that missed the end is made again."""
    path = world.file(content=b"a" * BIG)

    def happens(block: int) -> None:
        if block == 1:
            with path.open("ab") as file:
                file.write(b"more")

    item = taken_while(world, taking(path), happens)
    assert item.sha256 == hashlib.sha256(b"a" * BIG + b"more").hexdigest()
    await world.vault.put_back(returning())
    assert path.read_bytes() == b"a" * BIG + b"more"


async def test_a_file_that_never_rests_stays(world: World) -> None:
    """After some copies it is left as it is, with the reason, and nothing is kept."""
    path = world.file(content=b"a" * BIG)
    set_flags(path, NO_DUMP)
    with path.open("ab", buffering=0) as file, pytest.raises(ActionFailed, match="being written to"):
        taken_while(world, taking(path), lambda _block: file.write(b"more"))
    assert world.left() == ["evil"]
    assert flags(path) == NO_DUMP
    await nothing_kept(world)


async def test_a_file_that_is_written_by_its_path_is_taken_aside(world: World) -> None:
    """Whoever opens it again and again by its name makes a new one, while the old one is copied and goes."""
    path = world.file(content=b"a" * BIG)

    def happens(_block: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    item = taken_while(world, taking(path), happens)
    assert item.info.size >= BIG + 3 * len(b"more")
    assert set(path.read_bytes()) == set(b"more")
    assert world.left() == ["evil"]
    await world.vault.put_back(returning(to=path_of(world.files / "back")))
    assert (world.files / "back").read_bytes().startswith(b"a" * BIG + b"more")


async def test_a_file_that_is_cut_is_taken_as_it_is_then(world: World) -> None:
    """What is shorter than it was is copied again."""
    path = world.file(content=b"a" * BIG)
    item = taken_while(world, taking(path), lambda block: os.truncate(path, 1000) if block == 1 else None)
    assert item.info.size == 1000
    await world.vault.put_back(returning())
    assert path.read_bytes() == b"a" * 1000


async def test_a_change_of_the_same_length_is_seen(world: World) -> None:
    """Content is judged by what the kernel notes, not by the size."""
    path = world.file(content=b"a" * BIG)

    def happens(block: int) -> None:
        if block == 1:
            with path.open("r+b") as file:
                file.write(b"b")

    item = taken_while(world, taking(path), happens)
    assert item.sha256 == hashlib.sha256(b"b" + b"a" * (BIG - 1)).hexdigest()


async def test_a_writer_that_does_not_write_does_not_matter(world: World) -> None:
    """A file that is open for writing is taken."""
    path = world.file()
    with path.open("ab"):
        await world.vault.take(taking(path))
    assert world.left() == []


# --- what a file may have --------------------------------------------------------------------------------------------


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as the kernel stores it: tag, permissions, id of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


NOBODY = 0xFFFF_FFFF
ACL = acl((1, 6, NOBODY), (2, 4, 1234), (4, 4, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY))
CAPABILITY = struct.pack("<IIIII", 0x0200_0001, 1 << 10, 0, 0, 0)


async def test_everything_comes_back(world: World) -> None:
    """Owner without an account, setuid, ACL, capability, label, own and trusted attributes, flags, old times."""
    path = world.file(mode=0o6755)
    os.chown(path, 54321, 54322)
    path.chmod(0o6755)
    os.setxattr(path, "system.posix_acl_access", ACL)
    for name, value in {
        "user.note": b"\0\xff",
        "trusted.own": b"",
        "security.selinux": b"system_u:object_r:bin_t:s0\0",
        "security.capability": CAPABILITY,
    }.items():
        os.setxattr(path, name, value)
    os.utime(path, ns=(-1_000_000_001, 4_000_000_000_123_456_789))
    set_flags(path, NO_DUMP)
    before = portrait(path)
    await world.vault.take(taking(path))
    back = await world.vault.put_back(returning())
    assert back.lost == ()
    assert portrait(path) == before


@pytest.mark.parametrize("flag", [IMMUTABLE, APPEND_ONLY, IMMUTABLE | APPEND_ONLY])
async def test_a_file_that_nobody_can_change_is_taken(world: World, flag: int) -> None:
    """Immutable or append-only does not save it, its other names neither, and it is so again when it is back."""
    path = world.file()
    (world.files / "other").hardlink_to(path)
    before = portrait(path)
    set_flags(path, flag)
    try:
        await world.vault.take(taking(path))
        assert world.left() == []
        await world.vault.put_back(returning())
        assert flags(path) == flag
        assert path.samefile(world.files / "other")
    finally:
        set_flags(path, 0)
    assert portrait(path) == before


async def sparse_there_and_back(world: World, size: int) -> None:
    """A huge file with a little data, at its beginning, in the middle and at its end."""
    path = world.files / "sparse"
    with path.open("wb") as file:
        for at in (0, size // 2, size - 5000):
            file.seek(at)
            file.write(os.urandom(5000))
    before, blocks = portrait(path), path.stat().st_blocks
    item = await world.vault.take(taking(path))
    assert item.stored < 200_000
    await world.vault.put_back(returning())
    assert portrait(path) == before
    assert path.stat().st_blocks <= blocks + 64


async def test_a_sparse_file_stays_sparse(world: World) -> None:
    """Its holes take no room in the vault, nor when it is back."""
    await sparse_there_and_back(world, 2**30)


@pytest.mark.slow
@pytest.mark.long
async def test_forty_gigabytes_of_holes(world: World) -> None:
    """Its size costs the time of a hash, and no room."""
    await sparse_there_and_back(world, 40 * 10**9)


@contextmanager
def running(world: World) -> Iterator[tuple[Path, Path]]:
    """A program that runs: its path, and what its process calls it."""
    path = world.file(content=Path("/bin/sleep").read_bytes(), mode=0o755)
    process = subprocess.Popen([path, "600"])
    try:
        yield path, Path(f"/proc/{process.pid}/exe")
    finally:
        process.kill()
        process.wait()


async def test_a_deleted_program_that_still_runs_is_taken(world: World) -> None:
    """By its old name or by its process; it has no name that could be removed."""
    with running(world) as (path, process):
        content = path.read_bytes()
        path.unlink()
        for n, name in enumerate((path, process)):
            item = await world.vault.take(taking(name, n))
            assert (item.path, item.info.links) == (path_of(path), 0)
            assert item.sha256 == hashlib.sha256(content).hexdigest()
    await world.vault.put_back(returning())
    assert path.read_bytes() == content


async def test_a_running_program_is_named_by_its_process(world: World) -> None:
    """The path in /proc stands for the file that it leads to."""
    with running(world) as (path, process):
        item = await world.vault.take(taking(process))
        assert item.path == path_of(path)
        assert world.left() == []


# --- file systems ----------------------------------------------------------------------------------------------------


def test_a_file_of_a_lower_layer_is_taken(tmp_path: Path) -> None:
    """On an overlay file system: it is gone there, the layer below keeps its own, and it comes back the same."""

    async def run() -> None:
        lower = tmpfs(tmp_path / "lower")
        (lower / "files").mkdir()
        (lower / "files" / "evil").write_bytes(b"evil bytes")
        world = World(overlay(tmp_path, lower))
        path = world.files / "evil"
        before = portrait(path)
        await world.vault.take(taking(path))
        assert world.left() == []
        await world.vault.put_back(returning())
        assert portrait(path) == before
        assert world.left() == ["evil"]

    in_mounts(run)


def test_a_read_only_file_system_keeps_its_file(tmp_path: Path) -> None:
    """Nothing can be taken from it or put back to it, which is said at once; a copy can be taken."""

    async def run() -> None:
        world = World(tmp_path)
        path = world.file()
        await world.vault.take(taking(world.file("other"), 2))
        bind(world.files, world.files)
        read_only(world.files)
        with pytest.raises(Unsupported, match="read-only"):
            await world.vault.take(taking(path))
        with pytest.raises(Unsupported, match="read-only"):
            await world.vault.put_back(returning(2))
        await world.vault.take(taking(path, keep_original=True))
        assert world.left() == ["evil"]

    in_mounts(run)


def test_a_mount_over_a_file_keeps_both(tmp_path: Path) -> None:
    """What is mounted over a file is no name that could be removed."""

    async def run() -> None:
        world = World(tmp_path)
        path, over = world.file(), world.file("over", b"over")
        bind(over, path)
        with pytest.raises(Unsupported, match="mount point"):
            await world.vault.take(taking(path))
        assert path.read_bytes() == b"over"
        assert list(await world.vault.items()) == []

    in_mounts(run)


def test_the_vault_may_be_on_another_file_system(tmp_path: Path) -> None:
    """What is moved between file systems keeps all it had."""

    async def run() -> None:
        world = World(tmp_path, place=tmpfs(tmp_path / "elsewhere") / "vault")
        path = world.file(mode=0o4711)
        os.setxattr(path, "user.note", b"kept")
        before = portrait(path)
        await world.vault.take(taking(path))
        await world.vault.put_back(returning())
        assert portrait(path) == before

    in_mounts(run)


def test_a_full_disk_of_the_vault_takes_nothing(tmp_path: Path) -> None:
    """Seen before, and also when others fill it meanwhile: the file stays, nothing is kept, the server hears of it."""

    async def run() -> None:
        world = World(tmp_path, place=tmpfs(tmp_path / "small", "size=4m") / "vault")
        path = world.file(content=os.urandom(5_000_000))
        with pytest.raises(VaultFull, match="disk"):
            await world.vault.take(taking(path))
        path.write_bytes(os.urandom(BIG))

        def others_fill_it(block: int) -> None:
            if block == 1:
                (tmp_path / "small" / "others").write_bytes(bytes(2_500_000))

        with pytest.raises(VaultFull):
            taken_while(world, taking(path), others_fill_it)
        assert world.left() == ["evil"]
        await nothing_kept(world)
        assert [kind for kind, _ in world.told] == ["vault-full"]

    in_mounts(run)


# --- any file --------------------------------------------------------------------------------------------------------

ATTRIBUTES = st.dictionaries(
    st.sampled_from(["user.a", "user.\xe9", "trusted.b", "security.selinux", "security.other"]),
    st.binary(max_size=200),
    max_size=4,
)
NAMES = st.binary(min_size=1, max_size=60).filter(lambda one: one not in {b".", b".."} and not set(one) & {0, 0x2F})


@st.composite
def files(draw: st.DrawFn) -> Callable[[Path], None]:
    """Gives a new, empty file all that a file may have."""
    pieces = draw(st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=9000)), max_size=5))
    tail, mode = draw(st.integers(0, 10_000_000)), draw(st.integers(0, 0o7777))
    owner = draw(st.tuples(*[st.integers(0, 2**32 - 2)] * 2))
    times = draw(st.tuples(*[st.integers(-(2**31) * 10**9, 2**33 * 10**9)] * 2))
    attributes = draw(ATTRIBUTES)
    flag = draw(st.sampled_from([0, IMMUTABLE, APPEND_ONLY, NO_DUMP]))

    def make(path: Path) -> None:
        with path.open("r+b") as file:
            for block, data in pieces:
                file.seek(block * 4096)
                file.write(data)
            file.truncate(max(tail, file.seek(0, os.SEEK_END)))
        os.chown(path, *owner)
        path.chmod(mode)
        for name, value in attributes.items():
            os.setxattr(path, name, value)
        os.utime(path, ns=times)
        set_flags(path, flag)

    return make


@settings(max_examples=40, deadline=None)
@given(make=files(), names=st.lists(NAMES, min_size=1, max_size=4, unique=True))
async def test_any_file_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, make: Callable[[Path], None], names: list[bytes]
) -> None:
    """restore(quarantine(x)) == x: content, holes, owner, mode, times, attributes, flags, and every hard link."""
    world = World(tmp_path_factory.mktemp("any"))
    path = world.file(names[0], b"")
    others = [world.files / os.fsdecode(one) for one in names[1:]]
    for other in others:
        other.hardlink_to(path)
    make(path)
    try:
        before, blocks = portrait(path), path.stat().st_blocks
        item = await world.vault.take(taking(path))
        assert world.left() == []
        assert {path_of(one) for one in others} == set(item.others)
        back = await world.vault.put_back(returning())
        assert back.lost == ()
        assert portrait(path) == before
        assert path.stat().st_blocks <= blocks + 8
        assert all(path.samefile(one) for one in others)
    finally:
        if path.exists():
            set_flags(path, 0)


async def test_a_name_that_is_aside_is_no_other_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with two names that changes under every copy is copied aside: that name is not taken twice."""
    path = world.file(content=b"it never rests")
    second = world.files / "elsewhere" / "second"  # its own folder is looked through first
    second.parent.mkdir()
    second.hardlink_to(path)
    real, moments = vault_taking.same, iter([False] * vault_taking.COPIES)
    monkeypatch.setattr(vault_taking, "same", lambda before, now: next(moments, True) and real(before, now))
    item = await world.vault.take(taking(path))
    assert (item.others, item.names_left, world.left()) == ((path_of(second),), 0, ["elsewhere"])
    await world.vault.put_back(returning())
    assert world.left() == ["elsewhere", "elsewhere/second", "evil"]
    assert path.samefile(second)


async def test_what_a_link_leads_to_by_now_is_not_taken(world: World) -> None:
    """A folder that became a link after its path was resolved: another file of the same name stays where it is."""
    innocent = world.root / "innocent" / "x"
    innocent.parent.mkdir()
    innocent.write_bytes(b"same")
    (world.files / "mine").symlink_to(innocent.parent)
    order = taking(world.files / "mine" / "x", direct=True)
    with pytest.raises(Conflict, match="A link leads from"):
        await world.vault.take(order)
    assert innocent.read_bytes() == b"same"
