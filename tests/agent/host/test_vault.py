"""The vault: what was taken comes back, nothing is lost on the way, and what cannot be is refused with a reason."""

import asyncio
import hashlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyrage
import pytest

from stanch.core.errors import (
    ActionFailed,
    Conflict,
    ForbiddenHere,
    Protected,
    StanchError,
    TargetGone,
    TooLarge,
    Unsupported,
    VaultFull,
    VerificationFailed,
)
from stanch.core.files import Digests, Kind
from stanch.core.types import EndpointPath
from stanch.core.vault import Returning, Why, item_id
from tests.agent.host.vault_world import NOW, World, nothing_kept, path_of, portrait, returning, taking

ID = item_id("t1", 1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A vault."""
    return World(tmp_path)


# --- there and back --------------------------------------------------------------------------------------------------


async def test_takes_and_gives_back(world: World) -> None:
    """The file leaves its place, is told of truly, and comes back the same under its name."""
    path = world.file()
    before = portrait(path)
    item = await world.vault.take(taking(path, with_md5=True))
    assert world.left() == []
    assert (item.path, item.why, item.sha256, item.md5) == (
        path_of(path),
        Why.QUARANTINE,
        hashlib.sha256(b"evil bytes").hexdigest(),
        hashlib.md5(b"evil bytes", usedforsecurity=False).hexdigest(),
    )
    assert (item.order, item.by, item.reason, item.taken) == ("o1", "ann", "test", NOW)
    back = await world.vault.put_back(returning())
    assert (back.path, back.was, back.others, back.lost) == (path_of(path), path_of(path), (), ())
    assert portrait(path) == before
    assert world.left() == ["evil"]


async def test_what_is_in_the_vault_cannot_be_read_without_a_key(world: World) -> None:
    """Neither the content nor its beginning is in any file of the vault, and the folder is for root alone."""
    path = world.file(content=b"MALWARE-MARKER" * 1000)
    await world.vault.take(taking(path))
    assert all(b"MALWARE-MARKER" not in one.read_bytes() for one in world.folder.iterdir())
    assert stat.S_IMODE(world.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in world.folder.iterdir()} == {0o600}


async def test_the_server_can_open_it_too(world: World) -> None:
    """The content is an ordinary age file for the server's evidence key."""
    server = pyrage.x25519.Identity.generate()
    world.evidence_key = str(server.to_public())
    await world.vault.take(taking(world.file()))
    assert pyrage.decrypt((world.folder / f"{ID}.age").read_bytes(), [server]) == b"evil bytes"


async def test_a_copy_leaves_the_original(world: World) -> None:
    """The file stays, and the item says that it is a copy."""
    path = world.file()
    before = portrait(path)
    item = await world.vault.take(taking(path, keep_original=True))
    assert item.original_kept
    assert portrait(path) == before
    with pytest.raises(Conflict):
        await world.vault.put_back(returning())


async def test_hard_links_go_and_come_together(world: World) -> None:
    """Each name of the file is taken, and they are one file again afterwards."""
    path = world.file()
    (world.files / "below").mkdir()
    other = world.files / "below" / "other"
    other.hardlink_to(path)
    item = await world.vault.take(taking(path))
    assert item.others == (path_of(other),)
    assert world.left() == ["below"]
    back = await world.vault.put_back(returning())
    assert back.others == (path_of(other),)
    assert path.samefile(other)
    assert path.stat().st_nlink == 2


async def test_a_name_that_the_owner_forbids_is_left(world: World) -> None:
    """It stays where it is, and it is said that the content is still readable there."""
    path = world.file()
    (world.files / "kept").hardlink_to(path)

    def forbidden(name: EndpointPath) -> None:
        if name.endswith("kept"):
            raise ForbiddenHere("no")

    item = await world.of(forbidden=forbidden).take(taking(path))
    assert (item.others, item.names_left) == ((), 1)
    assert world.left() == ["kept"]
    back = await world.vault.put_back(returning())
    assert "no longer one file" in back.lost[0]


def make_fifo(path: Path) -> None:
    """A FIFO."""
    os.mkfifo(path, 0o640)


def make_socket(path: Path) -> None:
    """A socket that nobody listens on any more."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def make_device(path: Path) -> None:
    """The null device under another name."""
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def make_link(path: Path) -> None:
    """A link to nowhere."""
    path.symlink_to("nowhere/at all")


def make_folder(path: Path) -> None:
    """An empty folder."""
    path.mkdir(mode=0o2711)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (Kind.FIFO, make_fifo),
        (Kind.SOCKET, make_socket),
        (Kind.LINK, make_link),
        (Kind.FOLDER, make_folder),
        pytest.param(Kind.CHARACTER_DEVICE, make_device, marks=pytest.mark.root),
    ],
)
async def test_what_has_no_content_is_taken_where_asked_for(
    world: World, kind: Kind, make: Callable[[Path], None]
) -> None:
    """Other kinds are refused unless named, are never opened, and come back as they were."""
    path = world.files / "odd"
    make(path)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321), follow_symlinks=False)
    before = portrait(path)
    with pytest.raises(Unsupported):
        await world.vault.take(taking(path))
    item = await world.vault.take(taking(path, kinds=(kind,)))
    assert (item.info.kind, item.sha256) == (kind, None)
    assert world.left() == []
    with pytest.raises(Unsupported, match="no content"):
        async with world.vault.open(ID):
            pass
    await world.vault.put_back(returning())
    assert portrait(path) == before


async def test_a_folder_with_something_in_it_is_not_taken(world: World) -> None:
    """It stays, with what is in it, and nothing is kept."""
    (world.files / "full").mkdir()
    (world.files / "full" / "file").write_bytes(b"x")
    with pytest.raises(StanchError):
        await world.vault.take(taking(world.files / "full", kinds=(Kind.FOLDER,)))
    assert world.left() == ["full", "full/file"]
    assert list(await world.vault.items()) == []


async def test_a_tree_goes_and_comes_in_order(world: World) -> None:
    """Files before their folders on the way in, folders before their files on the way back."""
    (world.files / "a" / "b").mkdir(parents=True)
    path = world.file("a/b/evil")
    for n, one in enumerate((path, path.parent, path.parent.parent)):
        await world.vault.take(taking(one, n, kinds=(Kind.FILE, Kind.FOLDER)))
    assert world.left() == []
    for item in reversed(await world.vault.of_order("o1")):
        await world.vault.put_back(Returning(id=item.id))
    assert path.read_bytes() == b"evil bytes"


ODD_NAMES = [b"\xff\xfe", b"new\nline", b"x" * 255, b" ", b"-rf", "é".encode(), b"\\x41", b"a.json", b"%s"]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_names_of_any_bytes(world: World, name: bytes) -> None:
    """Whatever a file is called, it goes and comes under that very name."""
    path = world.file(name)
    item = await world.vault.take(taking(path))
    assert item.path.raw == os.fsencode(path)
    await world.vault.put_back(returning())
    assert [os.fsencode(one.name) for one in world.files.iterdir()] == [name]


async def test_a_path_through_links_is_resolved(world: World) -> None:
    """The item says where the file really was, and the link on the way stays."""
    path = world.file()
    (world.root / "way").symlink_to(world.files)
    item = await world.vault.take(taking(world.root / "way" / "evil"))
    assert item.path == path_of(path)
    assert (world.root / "way").is_symlink()


# --- refused ---------------------------------------------------------------------------------------------------------


async def refused(world: World, error: type[StanchError], **more: object) -> StanchError:
    """Taking the file fails with this; it is as before, and nothing is kept."""
    path = world.files / "evil"
    before = portrait(path)
    with pytest.raises(error) as found:
        await world.vault.take(taking(path, **more))
    assert portrait(path) == before
    assert list(await world.vault.items()) == []
    assert not world.folder.exists() or list(world.folder.iterdir()) == []
    return found.value


async def test_what_the_machine_needs_stays(world: World) -> None:
    """With the reason; what Stanch has put there itself may be taken again."""
    path = world.file()
    world.protected = lambda path, status: "it is the shell of root"
    assert "shell of root" in str(await refused(world, Protected))
    await world.vault.take(taking(path, critical_too=True))
    assert world.left() == []


async def test_a_second_name_is_no_way_to_take_what_must_stay(world: World) -> None:
    """What has to be at its place is not taken away through a hard link that somebody has made elsewhere."""
    (world.files / "shadow").write_bytes(b"root:x")
    (world.files / "link").hardlink_to(world.files / "shadow")
    world.protected = lambda path, status: "nobody could sign in without it" if path.name == "shadow" else None
    with pytest.raises(Protected, match="shadow"):
        await world.vault.take(taking(world.files / "link"))
    assert (world.files / "link").read_bytes() == (world.files / "shadow").read_bytes() == b"root:x"
    await nothing_kept(world)


async def test_what_the_owner_forbids_stays(world: World) -> None:
    """The real path is judged, whatever the file was called by."""
    path = world.file()
    (world.root / "way").symlink_to(world.files)

    def forbidden(name: EndpointPath) -> None:
        if name == path_of(path):
            raise ForbiddenHere("no")

    with pytest.raises(ForbiddenHere):
        await world.of(forbidden=forbidden).take(taking(world.root / "way" / "evil"))
    assert world.left() == ["evil"]


async def test_too_large_is_refused(world: World) -> None:
    """By the bytes that the order allows."""
    world.file(content=b"x" * 1001)
    await refused(world, TooLarge, most=1000)
    await world.vault.take(taking(world.files / "evil", most=1001))


async def test_another_file_than_the_expected_is_refused(world: World) -> None:
    """By any hash that was given."""
    world.file()
    await refused(world, VerificationFailed, expected=Digests(sha256="0" * 64))
    await refused(world, VerificationFailed, expected=Digests(md5="0" * 32))
    right = Digests(md5=hashlib.md5(b"evil bytes", usedforsecurity=False).hexdigest())
    await world.vault.take(taking(world.files / "evil", expected=right))


async def test_a_full_vault_refuses_and_says_so(world: World) -> None:
    """Over the limit nothing is taken, and the server hears of it; once something is removed there is room again."""
    await world.vault.take(taking(world.file(content=b"x" * 100_000), 2))
    world.file(content=b"x" * 100_000)
    world.limit = 200_000
    with pytest.raises(VaultFull):
        await world.vault.take(taking(world.files / "evil"))
    assert [kind for kind, _ in world.told] == ["vault-full"]
    assert world.left() == ["evil"]
    assert await world.vault.remove(item_id("t1", 2))
    await world.vault.take(taking(world.files / "evil"))


async def test_room_can_be_asked_for_before_the_first_is_taken(world: World) -> None:
    """So that many files are refused together; the server hears of it, and nothing is kept free."""
    world.limit = 200_000
    assert (await world.vault.usage()).free > 0
    await world.vault.expect_room(150_000, "3 files")
    await world.vault.expect_room(150_000, "3 files")
    assert world.told == []
    with pytest.raises(VaultFull, match="no room for 3 files"):
        await world.vault.expect_room(200_001, "3 files")
    assert [kind for kind, _ in world.told] == ["vault-full"]


async def test_two_that_fit_only_alone_do_not_both_go_in(world: World) -> None:
    """What is being copied counts already."""
    one, two = world.file("one", b"x" * 5_000_000), world.file("two", b"x" * 5_000_000)
    world.limit = 8_000_000
    done = await asyncio.gather(
        world.vault.take(taking(one, 1)), world.vault.take(taking(two, 2)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in done) == ["Item", "VaultFull"]


@pytest.mark.parametrize("path", ["/proc/self/status", "/sys/kernel/uevent_seqnum"])
async def test_what_the_kernel_makes_up_is_no_file(world: World, path: str) -> None:
    """It has no content to keep."""
    with pytest.raises(Unsupported):
        await world.vault.take(taking(Path(path)))


async def test_what_is_not_there_cannot_be_taken(world: World) -> None:
    """Neither a name that is missing nor one below a file."""
    world.file()
    for path in ("nothing", "evil/below", "no/folder"):
        with pytest.raises(TargetGone):
            await world.vault.take(taking(world.files / path))


async def test_the_vault_does_not_take_itself(world: World) -> None:
    """Neither its items nor its folder."""
    await world.vault.take(taking(world.file()))
    with pytest.raises(Protected):
        await world.vault.take(taking(world.folder / f"{ID}.age", 2))


# --- repeated, and at once -------------------------------------------------------------------------------------------


async def test_taking_twice_under_one_id_takes_once(world: World) -> None:
    """The second answers as the first, and a new file of that name is not touched."""
    path = world.file()
    first = await world.vault.take(taking(path))
    world.file(content=b"another")
    assert await world.vault.take(taking(path)) == first
    assert path.read_bytes() == b"another"


async def test_two_orders_for_one_file(world: World) -> None:
    """One gets it; the other hears that somebody works on it, or that it is gone."""
    path = world.file(content=b"x" * 3_000_000)
    done = await asyncio.gather(*(world.vault.take(taking(path, n)) for n in range(4)), return_exceptions=True)
    failed = [one for one in done if isinstance(one, BaseException)]
    assert len(failed) == 3
    assert all(isinstance(one, Conflict | TargetGone) for one in failed)
    assert len(await world.vault.items()) == 1


# --- reading, listing, removing --------------------------------------------------------------------------------------


async def test_content_is_read_as_it_was(world: World) -> None:
    """In order, by any steps, without a file of plain content anywhere."""
    content = os.urandom(3_000_000)
    path = world.file(content=content)
    await world.vault.take(taking(path))
    async with world.vault.open(ID) as reading:
        assert (reading.name, reading.size) == (path_of(path), len(content))
        parts = [await reading.read(at, min(700_000, len(content) - at)) for at in range(0, len(content), 700_000)]
    assert b"".join(parts) == content
    assert world.left() == []


async def test_items_are_listed_the_newest_first(world: World) -> None:
    """All of them, and those of one order in the order in which they were taken."""
    for n in range(4):
        await world.of(order=f"o{n % 2}").take(taking(world.file(str(n)), n))
    assert [one.path.name for one in await world.vault.items()] == ["3", "2", "1", "0"]
    world.restart()
    await world.linux.recover()
    await world.of(order="o1").take(taking(world.file("4"), 4))
    assert [one.path.name for one in await world.vault.of_order("o1")] == ["1", "3", "4"]
    usage = await world.vault.usage()
    assert (usage.items, usage.limit) == (5, world.limit)
    assert usage.size == sum(one.stat().st_size for one in world.folder.iterdir())


async def test_removed_is_gone(world: World) -> None:
    """Record and content go; the second time there is nothing."""
    await world.vault.take(taking(world.file()))
    assert await world.vault.remove(ID) is True
    assert list(world.folder.iterdir()) == []
    assert await world.vault.remove(ID) is False


# --- time ------------------------------------------------------------------------------------------------------------


async def test_items_go_when_their_time_is_over(world: World) -> None:
    """Not before, not while the time is unknown, and the server hears of it."""
    await world.vault.take(taking(world.file(), lasts=timedelta(hours=24)))
    await world.vault.take(taking(world.file("stays"), 2))
    await world.linux.expire()
    world.now = None
    await world.linux.expire()
    assert len(await world.vault.items()) == 2
    world.now = NOW + timedelta(hours=24)
    await world.linux.expire()
    assert [one.path.name for one in await world.vault.items()] == ["stays"]
    assert world.told == [("vault-expired", {"ids": [ID], "paths": [path_of(world.files / "evil")]})]


async def test_without_a_time_nothing_ends(world: World) -> None:
    """What is taken before the agent knows the time is kept until somebody removes it."""
    world.now = None
    item = await world.vault.take(taking(world.file(), lasts=timedelta(hours=1)))
    assert item.until is None


async def test_a_vault_that_cannot_be_used_stops_nobody(world: World) -> None:
    """The agent starts and goes on, the server hears of it, and whoever asks gets the reason."""
    world.folder.write_bytes(b"no folder")
    await world.linux.recover()
    await world.linux.expire()
    assert [kind for kind, _ in world.told] == ["vault-damaged"]
    with pytest.raises(ActionFailed, match="cannot be used"):
        await world.vault.items()
    with pytest.raises(ActionFailed):
        await world.vault.take(taking(world.file()))
    assert world.file().exists()


# --- cancelled -------------------------------------------------------------------------------------------------------


async def test_a_cancelled_take_leaves_everything(world: World) -> None:
    """Between two blocks: the original stays, nothing is kept, and it can be ordered again."""
    path = world.file(content=os.urandom(40_000_000))
    began = asyncio.Event()
    vault = world.of()
    vault._progress = lambda *_: began.set()  # type: ignore[assignment]
    job = asyncio.create_task(vault.take(taking(path)))
    await began.wait()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert world.left() == ["evil"]
    await world.vault.take(taking(path))
    assert world.left() == []


async def test_content_that_nobody_knows_of_goes_after_an_hour(world: World) -> None:
    """What a crash left without a record, and no sooner: a record may be damaged, and be repaired."""
    await world.vault.take(taking(world.file()))
    (world.folder / f"{item_id('t1', 8)}.age").write_bytes(b"x")
    await world.linux.expire()
    world.seconds += 1800
    (world.folder / f"{item_id('t1', 7)}.age").write_bytes(b"x")
    await world.linux.expire()
    assert len(list(world.folder.iterdir())) == 4
    world.seconds += 1800
    await world.linux.expire()
    assert sorted(one.name for one in world.folder.iterdir()) == sorted(
        [f"{ID}.age", f"{ID}.json", f"{item_id('t1', 7)}.age"]
    )


def test_an_idle_agent_does_not_carry_age() -> None:
    """The library is loaded by the first item, not by the agent's start."""
    program = "import sys, stanch.agent.host.vault; sys.exit('pyrage' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
