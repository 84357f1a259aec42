"""Killed at any step on the disk: the original or a whole item is there, the next start finishes, nothing is left."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from stanch.agent.host import vault_taking
from stanch.agent.host.inode_flags import IMMUTABLE
from stanch.agent.host.vault_content import Watch
from stanch.agent.host.vault_parts import Work
from stanch.core.files import Kind
from stanch.core.vault import OnConflict, Returning, Taking, item_id
from tests.agent.host.vault_killing.program import Step, killed_at, steps_of
from tests.agent.host.vault_world import World, path_of, portrait, set_flags, taking

ID = item_id("t1", 1)
CONTENT = b"evil bytes" * 50_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory, where a sync costs nothing: what is killed here are processes, not machines."""
    with TemporaryDirectory(prefix="stanch-killing-", dir="/dev/shm") as folder:
        probe = Path(folder) / "probe"
        probe.write_bytes(b"")
        try:
            os.setxattr(probe, "user.note", b"")
        except OSError:
            yield tmp_path
        else:
            yield Path(folder)


class Scene:
    """A file with another name and attributes, and a vault."""

    def __init__(self, root: Path, flag: int = 0) -> None:
        root.mkdir()
        self.world = World(root)
        self.path = self.world.file(content=CONTENT, mode=0o4750)
        os.setxattr(self.path, "user.note", b"kept")
        (self.world.files / "below").mkdir()
        self.other = self.world.files / "below" / "other"
        self.other.hardlink_to(self.path)
        set_flags(self.path, flag) if flag else None
        self.before = portrait(self.path)

    def close(self) -> None:
        """Let it be removed."""
        if self.path.exists():
            set_flags(self.path, 0)

    @property
    def names(self) -> list[str]:
        """What is there besides the folder."""
        return [one for one in self.world.left() if one != "below"]

    def is_whole(self) -> bool:
        """Is it under both of its names as it was?"""
        return (
            self.names == ["below/other", "evil"]
            and self.path.samefile(self.other)
            and portrait(self.path) == self.before
        )

    async def content_in_vault(self) -> bytes | None:
        """What the item holds, if there is one that is complete."""
        if await self.world.vault.find(ID) is None:
            return None
        async with self.world.vault.open(ID) as reading:
            return await reading.read(0, reading.size)

    async def after_a_kill(self) -> None:
        """A new agent starts; then never neither, never a half, nothing that is not known."""
        self.world.restart()
        await self.world.linux.recover()
        content = await self.content_in_vault()
        assert content in {None, CONTENT}
        if content is None:
            assert self.is_whole()
        assert not [one for one in self.names if ".stanch-" in one or one.endswith(".part")]

    @property
    def taking(self) -> Taking:
        """Take it."""
        return taking(self.path, lasts=None)


async def restored(scene: Scene, step: int) -> None:
    """Whatever happened, it is in the vault now, alone, and comes back as it was."""
    assert scene.names == [], step
    assert sorted(one.name for one in scene.world.folder.iterdir()) == [f"{ID}.age", f"{ID}.json"]
    await scene.world.vault.put_back(Returning(id=ID))
    assert scene.is_whole()


async def test_taking_is_killed_at_every_step(disk: Path) -> None:
    """After each kill and a new start, the same order ends as if nothing had happened."""
    for step in count(1):
        scene = Scene(disk / str(step))
        if not killed_at(lambda: scene.world.vault.take(scene.taking), step):  # noqa: B023 - called at once
            break
        await scene.after_a_kill()
        await scene.world.vault.take(scene.taking)
        await restored(scene, step)
    assert step > 12


async def test_recovery_is_killed_at_every_step(disk: Path) -> None:
    """Cut short again while it settles what was cut short, it is settled by the next one."""
    kills = 0
    for first in count(1):
        scene = Scene(disk / str(first))
        if not killed_at(lambda: scene.world.vault.take(scene.taking), first):  # noqa: B023 - called at once
            break
        for second in count(1):
            scene.world.restart()
            if not killed_at(scene.world.linux.recover, second):
                break
            kills += 1
        await scene.after_a_kill()
        await scene.world.vault.take(scene.taking)
        await restored(scene, first)
    assert kills > 5


async def test_without_an_order_a_cut_take_is_undone_or_done(disk: Path) -> None:
    """If nobody orders it again: all names are there and the vault is empty, or none is and the item is whole."""
    ended = set()
    for step in count(1):
        scene = Scene(disk / str(step))
        if not killed_at(lambda: scene.world.vault.take(scene.taking), step):  # noqa: B023 - called at once
            break
        await scene.after_a_kill()
        done = await scene.content_in_vault() is not None
        assert scene.names == [] if done else scene.is_whole()
        assert done or not list(scene.world.folder.glob("*.json"))
        ended.add(done)
    assert ended == {True, False}


@pytest.mark.parametrize("conflict", OnConflict)
async def test_putting_back_is_killed_at_every_step(disk: Path, conflict: OnConflict) -> None:
    """The item stays whole, the name is given once and never to a half; repeated, it ends as if nothing had been."""
    for step in count(1):
        scene = Scene(disk / str(step))
        await scene.world.vault.take(scene.taking)
        back = Returning(id=ID, on_conflict=conflict)
        if not killed_at(lambda: scene.world.vault.put_back(back), step):  # noqa: B023 - called at once
            break
        await scene.after_a_kill()
        assert await scene.content_in_vault() == CONTENT
        assert scene.names == [] or scene.is_whole()
        done = await scene.world.vault.put_back(back)
        assert (done.path, done.others, done.lost) == (path_of(scene.path), (path_of(scene.other),), ())
        assert scene.is_whole()
        assert await scene.world.vault.put_back(back) == done
    assert step > 12


async def test_removing_is_killed_at_every_step(disk: Path) -> None:
    """It is there or gone, and a new start leaves nothing of one that was to go."""
    for step in count(1):
        scene = Scene(disk / str(step))
        await scene.world.vault.take(scene.taking)
        if not killed_at(lambda: scene.world.vault.remove(ID), step):  # noqa: B023 - called at once
            break
        scene.world.restart()
        await scene.world.linux.recover()
        if await scene.world.vault.find(ID) is not None:
            assert await scene.content_in_vault() == CONTENT
            assert await scene.world.vault.remove(ID)
        assert list(scene.world.folder.iterdir()) == []
    assert step > 3


@pytest.mark.parametrize("kind", [Kind.FOLDER, Kind.LINK, Kind.FIFO])
async def test_what_has_no_content_is_killed_at_every_step(disk: Path, kind: Kind) -> None:
    """There and back, each step of it."""
    for step in count(1):
        world, path = _odd(disk / str(step), kind)
        before, order = portrait(path), taking(path, kinds=(kind,))
        if not killed_at(lambda: world.vault.take(order), step):  # noqa: B023 - called at once
            break
        world.restart()
        await world.linux.recover()
        assert (await world.vault.find(ID) is None) == (world.left() == ["odd"])
        await world.vault.take(order)
        assert world.left() == []
    await _back_killed_at_every_step(world, path, before)


async def _back_killed_at_every_step(world: World, path: Path, before: object) -> None:
    for step in count(1):
        if not killed_at(lambda: world.vault.put_back(Returning(id=ID)), step):
            break
        world.restart()
        await world.linux.recover()
        assert world.left() in ([], ["odd"])
    assert portrait(path) == before


def _odd(root: Path, kind: Kind) -> tuple[World, Path]:
    root.mkdir()
    world = World(root)
    path = world.files / "odd"
    match kind:
        case Kind.FOLDER:
            path.mkdir()
        case Kind.LINK:
            path.symlink_to("nowhere")
        case _:
            os.mkfifo(path)
    return world, path


async def test_a_restless_file_is_killed_at_every_step(disk: Path) -> None:
    """Moved aside before there is a copy: it is never without a name or a complete item, and no odd name is left."""
    for step in count(1):
        (disk / str(step)).mkdir()
        world = World(disk / str(step))
        path = world.file(content=CONTENT)
        if not killed_at(lambda: _restless(world, path), step):  # noqa: B023 - called at once
            break
        world.restart()
        await world.linux.recover()
        kept = [one for one in world.files.iterdir() if one.read_bytes().startswith(CONTENT)]
        item = await world.vault.find(ID)
        assert kept or (item is not None and item.damage is None and item.info.size > len(CONTENT))
        assert not [one for one in world.left() if ".stanch-" in one or one.endswith(".part")]
    assert step > 15


async def _restless(world: World, path: Path) -> None:
    """Take it while somebody opens it by its name again and again to write more."""

    def told(_done: int, _total: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    vault_taking.take(world.linux.parts, Work(watch=Watch(told=told)), taking(path))


@pytest.mark.root
async def test_an_immutable_file_is_killed_at_every_step(tmp_path: Path) -> None:
    """It is as immutable as before at the end, there and back, wherever it was cut short: the flag comes last."""
    for step in count(1):
        scene = Scene(tmp_path / str(step), IMMUTABLE)
        try:
            killed = killed_at(lambda: scene.world.vault.take(scene.taking), step)  # noqa: B023 - called at once
            if killed:
                await scene.after_a_kill()
            await scene.world.vault.take(scene.taking)
            back = killed_at(lambda: scene.world.vault.put_back(Returning(id=ID)), step)  # noqa: B023 - called at once
            if back:
                await scene.after_a_kill()
            await scene.world.vault.put_back(Returning(id=ID))
            assert scene.is_whole()
        finally:
            scene.close()
        if not (killed or back):
            break
    assert step > 12


# --- the order of the steps, which is what a power cut shows ---------------------------------------------------------


def _next(steps: list[Step], after: int, *wanted: str) -> int:
    """When the first step came, after another one, that has all of these in it."""
    for n, step in enumerate(steps):
        if n > after and all(any(one in part for part in step) for one in wanted):
            return n
    raise AssertionError(f"no {wanted} after step {after} of {steps}")


async def test_the_original_goes_after_the_copy_is_on_the_disk(disk: Path) -> None:
    """Content, its name, then the record, each synced before the next; only then a name of the original is touched."""
    scene = Scene(disk / "scene")
    steps = steps_of(lambda: scene.world.vault.take(scene.taking), disk / "notes")
    at = -1
    for wanted in (
        ("fsync", f"{ID}.part"),
        ("os.rename", f"{ID}.part", f"{ID}.age"),
        ("fsync", "/vault"),
        ("fsync", "/vault/.stanch-"),
        ("os.rename", f"{ID}.json"),
        ("fsync", "/vault"),
    ):
        at = _next(steps, at, *wanted)
    changes = {"os.remove", "os.rename", "rename_without_replacing", "fcntl.ioctl"}
    touched = [n for n, step in enumerate(steps) if step[0] in changes and any("/files" in part for part in step)]
    assert at < touched[0]
    assert [steps[n][0] for n in touched].count("os.remove") == 2


async def test_the_name_is_given_after_all_of_it_is_on_the_disk(disk: Path) -> None:
    """Content and metadata are synced and the record knows the inode; then comes the name, then its folder's sync."""
    scene = Scene(disk / "scene")
    await scene.world.vault.take(scene.taking)
    steps = steps_of(lambda: scene.world.vault.put_back(Returning(id=ID)), disk / "notes")
    named = _next(steps, -1, "rename_without_replacing", "evil")
    filled = max(n for n, step in enumerate(steps[:named]) if step[0] == "fsync" and "/files/.stanch-" in step[1])
    _next(steps[:named], filled, "os.rename", f"{ID}.json")
    _next(steps, named, "fsync", "/files")
    kinds = {"os.chown", "os.chmod", "os.utime", "os.setxattr"}
    changed = [n for n, step in enumerate(steps) if step[0] in kinds and "/files/" in step[1]]
    assert changed
    assert max(changed) < filled
