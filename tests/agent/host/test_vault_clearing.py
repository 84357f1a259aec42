"""The original goes only if it is still what was copied; otherwise all of it stays, or comes back, as it was."""

from pathlib import Path

import pytest

from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE
from stanch.core.errors import ActionFailed, TargetGone, Unsupported, VerificationFailed
from stanch.core.files import Digests
from stanch.core.vault import item_id
from tests.agent.host.vault_world import World, flags, nothing_kept, returning, set_flags, taking

ID = item_id("t1", 1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A vault."""
    return World(tmp_path)


async def test_a_write_after_the_copy_stops_it(world: World) -> None:
    """Between the copy and the removal: the file stays with what was written, and nothing is kept."""
    path = world.file()

    def write() -> None:
        with path.open("ab") as file:
            file.write(b"more")

    world.at_record = write
    with pytest.raises(ActionFailed, match="being written to"):
        await world.vault.take(taking(path))
    assert path.read_bytes() == b"evil bytesmore"
    assert world.left() == ["evil"]
    await nothing_kept(world)


@pytest.mark.parametrize("by", ["file", "link"])
async def test_a_swap_takes_neither(world: World, by: str) -> None:
    """Another file, or a link to one, under that name at the last moment: both files are left, nothing is kept."""
    path, victim = world.file(), world.file("victim", b"dear")

    def swap() -> None:
        path.rename(world.files / "moved")
        if by == "file":
            path.write_bytes(b"other")
        else:
            path.symlink_to(victim)

    world.at_record = swap
    with pytest.raises(TargetGone):
        await world.vault.take(taking(path))
    assert world.left() == ["evil", "moved", "victim"]
    assert (world.files / "moved").read_bytes() == b"evil bytes"
    assert victim.read_bytes() == b"dear"
    await nothing_kept(world)


async def test_what_vanishes_meanwhile_is_in_the_vault(world: World) -> None:
    """Somebody else removes it after the copy: the copy is all there is, and is kept."""
    path = world.file()
    world.at_record = path.unlink
    item = await world.vault.take(taking(path))
    assert [one.id for one in await world.vault.items()] == [item.id]
    await world.vault.put_back(returning())
    assert path.read_bytes() == b"evil bytes"


async def test_a_name_that_is_made_meanwhile_stops_it(world: World) -> None:
    """A hard link made at the last moment was not looked for: all stays, and the next order finds it."""
    path = world.file()

    world.at_record = lambda: (world.files / "late").hardlink_to(path)
    with pytest.raises(ActionFailed):
        await world.vault.take(taking(path))
    assert world.left() == ["evil", "late"]
    await nothing_kept(world)
    item = await world.vault.take(taking(path))
    assert (item.names_left, world.left()) == (0, [])


async def test_one_name_that_cannot_be_moved_brings_all_back(world: World) -> None:
    """The first name was aside already: both are in their places again, and nothing is kept."""
    path, other = world.file(), world.files / "other"
    other.hardlink_to(path)
    blocked = world.files / f".stanch-{ID[4:]}-1"
    world.at_record = lambda: blocked.write_bytes(b"in the way")
    with pytest.raises(ActionFailed):
        await world.vault.take(taking(path))
    assert path.samefile(other)
    assert world.left() == [blocked.name, "evil", "other"]
    await nothing_kept(world)


@pytest.mark.parametrize("flag", [IMMUTABLE, APPEND_ONLY])
@pytest.mark.root
async def test_a_file_that_cannot_be_taken_keeps_its_flags(world: World, flag: int) -> None:
    """Whatever stopped it, before the flags were cleared or after."""
    path = world.file()
    set_flags(path, flag)
    try:
        with pytest.raises(VerificationFailed):
            await world.vault.take(taking(path, expected=Digests(sha256="0" * 64)))
        assert flags(path) == flag
        token = world.files / f".stanch-{ID[4:]}-0"
        token.write_bytes(b"in the way")
        with pytest.raises(ActionFailed):
            await world.vault.take(taking(path))
        assert flags(path) == flag
        assert token.read_bytes() == b"in the way"
    finally:
        set_flags(path, 0)
    assert path.read_bytes() == b"evil bytes"


@pytest.mark.root
async def test_an_immutable_folder_keeps_its_file(world: World) -> None:
    """It says why, before anything is copied."""
    path = world.file()
    set_flags(world.files, IMMUTABLE)
    try:
        with pytest.raises(Unsupported, match="immutable"):
            await world.vault.take(taking(path))
    finally:
        set_flags(world.files, 0)
    assert world.left() == ["evil"]
