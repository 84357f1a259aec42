"""Putting back: to its place or another one, never over anything, never damaged, and nothing is left of a failure."""

import asyncio
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from pyrage import encrypt, x25519

from stanch.core.errors import (
    ActionFailed,
    Conflict,
    ForbiddenHere,
    NotFound,
    Protected,
    TargetGone,
    VaultFull,
    VerificationFailed,
)
from stanch.core.types import EndpointPath
from stanch.core.vault import OnConflict, item_id
from tests.agent.host.vault_world import NO_DUMP, World, path_of, returning, set_flags, taking
from tests.mounts import inside, tmpfs

ID = item_id("t1", 1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A vault."""
    return World(tmp_path)


def damage(path: Path, at: int) -> None:
    """Flip a bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# --- where it goes back to -------------------------------------------------------------------------------------------


async def test_something_in_its_place_is_never_replaced(world: World) -> None:
    """Refused, or put beside under a free name, as asked."""
    path = world.file()
    await world.vault.take(taking(path))
    world.file(content=b"new")
    world.file("evil.restored-1", b"older")
    with pytest.raises(Conflict):
        await world.vault.put_back(returning())
    back = await world.vault.put_back(returning(on_conflict=OnConflict.RENAME))
    assert back.path == path_of(world.files / "evil.restored-2")
    assert path.read_bytes() == b"new"
    assert world.left() == ["evil", "evil.restored-1", "evil.restored-2"]


async def test_a_long_name_is_cut_to_make_another(world: World) -> None:
    """A name of 255 bytes has no room for more."""
    path = world.file(b"x" * 255)
    await world.vault.take(taking(path))
    world.file(b"x" * 255, b"new")
    back = await world.vault.put_back(returning(on_conflict=OnConflict.RENAME))
    assert len(back.path.name) == 255
    assert back.path.name.endswith(".restored-1")


async def test_a_folder_that_is_gone(world: World) -> None:
    """Refused, or into the folder to fall back to, which is made."""
    (world.files / "gone").mkdir()
    path = world.file("gone/evil")
    await world.vault.take(taking(path))
    path.parent.rmdir()
    with pytest.raises(TargetGone):
        await world.vault.put_back(returning())
    back = await world.vault.put_back(returning(fallback=path_of(world.files / "new" / "deep")))
    assert back.path == path_of(world.files / "new" / "deep" / "evil")
    assert back.was == path_of(path)


async def test_the_owner_decides_where_files_are_put(world: World) -> None:
    """Back to its own place needs no leave to write; another place does."""
    path = world.file()
    await world.vault.take(taking(path))

    def unwritable(name: EndpointPath) -> None:
        raise ForbiddenHere("no")

    vault = world.of(unwritable=unwritable)
    with pytest.raises(ForbiddenHere):
        await vault.put_back(returning(to=path_of(world.files / "other")))
    await vault.put_back(returning())
    assert world.left() == ["evil"]


async def test_what_the_owner_forbids_is_not_read_by_way_of_the_vault(world: World) -> None:
    """Root may have quarantined it; whoever must not touch its place neither opens it nor brings it elsewhere."""
    path = world.file()
    await world.vault.take(taking(path))

    def forbidden(name: EndpointPath) -> None:
        if name == path_of(path):
            raise ForbiddenHere("no")

    vault = world.of(forbidden=forbidden)
    with pytest.raises(ForbiddenHere):
        await vault.put_back(returning(to=path_of(world.files / "other")))
    with pytest.raises(ForbiddenHere):
        async with vault.open(ID):
            pass
    assert world.left() == []


async def test_an_item_that_is_not_there(world: World) -> None:
    """Nothing can be done with it, and each way says so."""
    with pytest.raises(NotFound):
        await world.vault.put_back(returning())
    with pytest.raises(NotFound):
        async with world.vault.open(ID):
            pass
    assert await world.vault.find(ID) is None
    assert await world.vault.remove(ID) is False
    assert list(await world.vault.items()) == []
    assert (await world.vault.usage()).items == 0


# --- repeated ---


async def test_restoring_twice_answers_the_same(world: World) -> None:
    """Nothing changes the second time; and when the file is gone again, it comes back again."""
    path = world.file()
    await world.vault.take(taking(path))
    first = await world.vault.put_back(returning())
    inode = path.stat().st_ino
    assert await world.vault.put_back(returning()) == first
    assert path.stat().st_ino == inode
    path.unlink()
    await world.vault.put_back(returning())
    assert path.read_bytes() == b"evil bytes"


async def test_restoring_once_more_elsewhere_is_another_restore(world: World) -> None:
    """Each place that is asked for gets it."""
    path = world.file()
    await world.vault.take(taking(path))
    await world.vault.put_back(returning())
    await world.vault.put_back(returning(to=path_of(world.files / "copy")))
    assert world.left() == ["copy", "evil"]


# --- damaged ---------------------------------------------------------------------------------------------------------

REGIONS = [("age", 3), ("age", 60), ("age", 250), ("age", 70_000), ("age", -3)]
REGIONS += [("json", 0), ("json", 20), ("json", 78), ("json", 120), ("json", -20), ("json", -1)]


@pytest.mark.parametrize(("suffix", "at"), REGIONS)
async def test_a_damaged_item_is_never_put_back(world: World, suffix: str, at: int) -> None:
    """One bit anywhere in its content or record is noticed; nothing is put back, and the server hears of it."""
    await world.vault.take(taking(world.file(content=os.urandom(200_000))))
    damage(world.folder / f"{ID}.{suffix}", at)
    with pytest.raises(VerificationFailed):
        await world.vault.put_back(returning())
    with pytest.raises(VerificationFailed):
        async with world.vault.open(ID) as reading:
            await reading.read(0, reading.size)
    assert world.left() == []
    assert {kind for kind, _ in world.told} == {"vault-damaged"}
    assert [one.id for one in await world.vault.items()] == [ID]
    assert await world.vault.remove(ID) is True
    assert list(world.folder.iterdir()) == []


@pytest.mark.parametrize("suffix", ["age", "json"])
@pytest.mark.parametrize("left", [0, 100, -1])
async def test_a_cut_item_is_listed_as_damaged(world: World, suffix: str, left: int) -> None:
    """A list does not fail at it, and recovery tells of it."""
    await world.vault.take(taking(world.file(content=os.urandom(200_000))))
    file = world.folder / f"{ID}.{suffix}"
    file.write_bytes(file.read_bytes()[:left])
    (listed,) = await world.vault.items()
    assert listed.id == ID
    assert listed.damage
    with pytest.raises(VerificationFailed):
        await world.vault.put_back(returning())
    world.told.clear()
    world.restart()
    await world.linux.recover()
    assert [kind for kind, _ in world.told] == ["vault-damaged"]
    assert world.left() == []


async def test_another_whole_age_file_is_not_the_item(world: World) -> None:
    """Made for the right key and of the right size, but of other content: neither put back nor read to its end."""
    await world.vault.take(taking(world.file(content=b"a" * 100_000)))
    kept = world.folder / f"{ID}.age"
    own = x25519.Identity.from_str((world.root / "vault.key").read_text().strip())
    other = encrypt(b"b" * 100_000, [own.to_public()])
    while len(other) != kept.stat().st_size:  # age adds a line of random length to its header
        other = encrypt(b"b" * 100_000, [own.to_public()])
    kept.write_bytes(other)
    with pytest.raises(VerificationFailed):
        await world.vault.put_back(returning())
    with pytest.raises(VerificationFailed):
        async with world.vault.open(ID) as reading:
            await reading.read(0, reading.size)
    assert world.left() == []


async def test_content_that_is_gone_is_told(world: World) -> None:
    """The record alone is no item that can be put back."""
    await world.vault.take(taking(world.file()))
    (world.folder / f"{ID}.age").unlink()
    assert (await world.vault.items())[0].damage
    with pytest.raises(VerificationFailed):
        await world.vault.put_back(returning())
    assert world.left() == []


async def test_a_record_of_another_item_is_no_record(world: World) -> None:
    """Whole, but under another id."""
    await world.vault.take(taking(world.file()))
    other = item_id("t1", 9)
    (world.folder / f"{ID}.json").rename(world.folder / f"{other}.json")
    found = await world.vault.find(other)
    assert found is not None
    assert "another item" in str(found.damage)


async def test_a_cancelled_restore_leaves_the_item(world: World) -> None:
    """Nothing of it is left beside its place, and it can be ordered again."""
    path = world.file(content=os.urandom(40_000_000))
    await world.vault.take(taking(path))
    began = asyncio.Event()
    vault = world.of()
    vault._progress = lambda *_: began.set()  # type: ignore[assignment]
    job = asyncio.create_task(vault.put_back(returning()))
    await began.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert world.left() == []
    await world.vault.put_back(returning())
    assert path.stat().st_size == 40_000_000


# --- file systems ---


@pytest.mark.root
def test_a_full_disk_gets_nothing_back(tmp_path: Path) -> None:
    """Seen before it is filled: nothing is left there, and the item stays."""

    async def run() -> None:
        world = World(tmp_path)
        await world.vault.take(taking(world.file(content=os.urandom(5_000_000))))
        tmpfs(tmp_path / "small", "size=4m")
        with pytest.raises(ActionFailed, match="full"):
            await world.vault.put_back(returning(to=path_of(tmp_path / "small" / "evil")))
        assert list((tmp_path / "small").iterdir()) == []
        await world.vault.put_back(returning())
        assert world.left() == ["evil"]

    inside(lambda: asyncio.run(run()))()


@pytest.mark.root
def test_a_full_vault_can_still_be_emptied(tmp_path: Path) -> None:
    """Where no record can be written any more, an item can be removed, and another comes back afterwards."""

    async def run() -> None:
        world = World(tmp_path, place=tmpfs(tmp_path / "small", "size=4m") / "vault")
        for n in (1, 2):
            await world.vault.take(taking(world.file(str(n), os.urandom(1_000_000)), n))
        with (tmp_path / "small" / "others").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        with pytest.raises(VaultFull, match="disk of the vault"):
            await world.vault.put_back(returning(1))
        assert world.left() == []
        assert await world.vault.remove(item_id("t1", 2))
        await world.vault.put_back(returning(1))
        assert world.left() == ["1"]

    inside(lambda: asyncio.run(run()))()


@pytest.mark.root
def test_what_another_file_system_cannot_keep_is_told(tmp_path: Path) -> None:
    """The file comes back, and each thing that it lost has a line."""

    async def run() -> None:
        world = World(tmp_path)
        path = world.file()
        set_flags(path, NO_DUMP)
        (world.files / "other").hardlink_to(path)
        await world.vault.take(taking(path))
        (tmp_path / "plain").mkdir()
        subprocess.run(["mount", "-t", "ramfs", "none", tmp_path / "plain"], check=True)  # noqa: ASYNC221 - nothing else runs
        back = await world.vault.put_back(returning(to=path_of(tmp_path / "plain" / "evil")))
        assert (tmp_path / "plain" / "evil").read_bytes() == b"evil bytes"
        assert any("other name" in line for line in back.lost)
        assert any("flag" in line for line in back.lost)

    inside(lambda: asyncio.run(run()))()


# --- who would make root write elsewhere -----------------------------------------------------------------------------


async def test_a_folder_that_became_a_link_leads_nowhere(world: World) -> None:
    """Whoever owns the folder could have root put the file into a folder of root's; a fallback serves all the same."""
    folder, secret = world.files / "own", world.files / "secret"
    folder.mkdir()
    secret.mkdir()
    path = world.file("own/evil")
    await world.vault.take(taking(path))
    folder.rename(world.files / "away")
    folder.symlink_to(secret)
    with pytest.raises(TargetGone, match="link"):
        await world.vault.put_back(returning())
    assert not list(secret.iterdir())
    back = await world.vault.put_back(returning(fallback=path_of(world.files / "back")))
    assert back.path == path_of(world.files / "back" / "evil")


async def test_another_name_does_not_follow_a_link_either(world: World) -> None:
    """The file is back, its other name is said to be lost."""
    folder, secret = world.files / "own", world.files / "secret"
    folder.mkdir()
    secret.mkdir()
    path = world.file("evil")
    os.link(path, folder / "second")
    await world.vault.take(taking(path))
    folder.rmdir()
    folder.symlink_to(secret)
    back = await world.vault.put_back(returning())
    assert (path.exists(), back.others, list(secret.iterdir())) == (True, (), [])
    assert "second" in back.lost[0]


async def test_no_way_leads_through_the_view_of_another_process(world: World) -> None:
    """What is there may not be what its name says here."""
    await world.vault.take(taking(world.file()))
    to = path_of(Path(f"/proc/self/root{world.files}/evil"))
    with pytest.raises(ActionFailed):
        await world.vault.put_back(returning(to=to))
    assert world.left() == []


async def test_nothing_is_put_where_even_a_new_file_does_harm(world: World) -> None:
    """Such as among Stanch's own; its own place stays open to it."""
    await world.vault.take(taking(world.file()))
    world.protected = lambda path, status: "it belongs to Stanch itself"
    with pytest.raises(Protected, match="Stanch"):
        await world.vault.put_back(returning(to=path_of(world.files / "other")))
    await world.vault.put_back(returning())
    assert world.left() == ["evil"]


async def test_what_was_changed_since_it_came_back_is_not_the_item(world: World) -> None:
    """The item is then the only copy, and is put back whole, not said to be there."""
    path = world.file(content=b"original")
    await world.vault.take(taking(path))
    first = await world.vault.put_back(returning(on_conflict=OnConflict.RENAME))
    assert await world.vault.put_back(returning(on_conflict=OnConflict.RENAME)) == first
    status = path.stat()
    path.write_bytes(b"changed!")
    while path.stat().st_ctime_ns == status.st_ctime_ns:  # within a tick of the kernel's clock
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = await world.vault.put_back(returning(on_conflict=OnConflict.RENAME))
    assert second.path != first.path
    assert (world.files / "evil.restored-1").read_bytes() == b"original"
