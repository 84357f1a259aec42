"""The journal: what was written is there after any end of the process, and a damaged file is never passed over."""

import asyncio
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from stanch.agent import journal as module
from stanch.agent.journal import Journal
from stanch.core.errors import Unavailable
from tests.fakes.agent import Machine, Script, scripted


def put_effect(name: str) -> Callable[[sqlite3.Connection], None]:
    def unit(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO effects VALUES (?, '{}', NULL, NULL, 0, 'b')", (name,))

    return unit


def effects(db: sqlite3.Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM effects ORDER BY name")]


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}


def damaged(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.glob("*damaged*"))


async def test_entries_and_units_survive(tmp_path: Path) -> None:
    """What put or write returned from is there when the file is opened again; None removes an entry."""
    path = tmp_path / "journal.db"
    one = Journal(path)
    await one.put({"a": {"n": 1}, "b": 2})
    await one.put({"b": None})
    await one.write("effect", put_effect("isolation"))
    await one.close()
    again = Journal(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == ({"n": 1}, None, None)
    assert await again.read(effects) == ["isolation"]
    assert again.read_at_start(effects) == ["isolation"]
    await again.close()


async def test_it_syncs_every_commit(tmp_path: Path) -> None:
    """The journal is in WAL mode with synchronous FULL, and only its owner may read it."""
    path = tmp_path / "journal.db"
    journal = Journal(path)
    assert await journal.read(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
    assert await journal.read(lambda db: db.execute("PRAGMA synchronous").fetchone()[0]) == 2
    await journal.put({"a": 1})
    assert modes(tmp_path) == {0o600}
    await journal.close()


async def test_staged_entries_ride_with_the_next_transaction(tmp_path: Path) -> None:
    """A staged value costs no commit of its own, and is on the disk with whatever is written next."""
    commits: list[str] = []
    journal = Journal(tmp_path / "journal.db", step=commits.append)
    journal.stage("clock", 7)
    assert journal.get("clock") == 7
    assert commits == []
    await journal.write("effect", put_effect("a"))
    assert commits == ["before commit: effect", "after commit: effect"]
    stored = await journal.read(lambda db: db.execute("SELECT value FROM entries WHERE key = 'clock'").fetchone())
    assert stored == ("7",)
    await journal.close()


async def test_a_unit_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A unit is all or nothing, and a value staged with it goes with the next one instead."""
    journal = Journal(tmp_path / "journal.db")

    def half(db: sqlite3.Connection) -> None:
        put_effect("a")(db)
        raise ValueError("half way")

    journal.stage("clock", 7)
    with pytest.raises(ValueError, match="half way"):
        await journal.write("half", half)
    with pytest.raises(Unavailable, match="cannot be written"):
        await journal.write("broken", lambda db: db.execute("INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(Unavailable, match="cannot be read"):
        await journal.read(lambda db: db.execute("SELECT * FROM nowhere"))
    assert await journal.read(effects) == []
    await journal.close()
    again = Journal(tmp_path / "journal.db")
    assert again.get("clock") == 7
    await again.close()


async def test_a_cancelled_caller_still_has_its_unit_written(tmp_path: Path) -> None:
    """A unit that has begun ends before its cancelled caller goes on: memory and disk must not part."""
    begun, go_on = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(20)
        put_effect("a")(db)

    journal = Journal(tmp_path / "journal.db")
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(journal.write("slow", slow))
        await asyncio.to_thread(begun.wait, 20)
        writing.cancel()
        await asyncio.sleep(0)
        assert not writing.done()
        go_on.set()
    assert writing.cancelled()
    assert await journal.read(effects) == ["a"]
    await journal.close()


# --- damage ----------------------------------------------------------------------------------------------------------


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "rubbish": lambda path: path.write_bytes(b"rubbish" * 1000),
    "no header": lambda path: overwrite(path, 0, b"\0" * 100),
    "torn pages": lambda path: overwrite(path, 4096, b"\xff" * 4096 * 4),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
}


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_damaged_file_is_moved_aside_and_told(tmp_path: Path, how: str) -> None:
    """Whatever the damage, the agent starts on a new journal, keeps the old file, and tells the server once."""
    machine = Machine(tmp_path, scripted(Script()))
    path = tmp_path / "journal.db"
    async with machine.agent() as agent:
        await agent.executor.accept(machine.server.order("tsk_1", "act"))
        await agent.ended("tsk_1")
    DAMAGES[how](path)
    left = path.read_bytes()
    async with machine.agent() as agent:
        (notice,) = await agent.notices("journal-damaged")
        assert "journal.db.damaged-1" in notice.detail["why"]
        assert agent.journal.damage is None
    assert (tmp_path / "journal.db.damaged-1").read_bytes() == left
    async with machine.agent() as agent:
        assert len(await agent.notices("journal-damaged")) == 1


async def test_damage_is_told_even_if_the_first_start_after_it_is_cut_short(tmp_path: Path) -> None:
    """The reason is stored with the new tables, until a notice has said it."""
    path = tmp_path / "journal.db"
    path.write_bytes(b"rubbish" * 1000)
    await Journal(path).close()
    again = Journal(path)
    assert again.damage is not None
    assert "damaged-1" in again.damage
    await again.close()


async def test_only_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    """A disk that damages the journal again and again is not filled by that."""
    path = tmp_path / "journal.db"
    for n in range(6):
        path.write_bytes(b"rubbish %d" % n * 1000)
        await Journal(path).close()
    assert damaged(tmp_path) == ["journal.db.damaged-4", "journal.db.damaged-5", "journal.db.damaged-6"]


def test_a_file_that_cannot_be_opened_is_not_moved_aside(tmp_path: Path) -> None:
    """A disk that does not answer is no damage: nothing is thrown away for it."""
    path = tmp_path / "journal.db"
    path.mkdir()
    with pytest.raises(Unavailable):
        Journal(path)
    assert [one.name for one in tmp_path.iterdir()] == ["journal.db"]


# --- versions --------------------------------------------------------------------------------------------------------


async def test_an_older_schema_is_brought_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal of an earlier version keeps its content and gains what is new."""
    path = tmp_path / "journal.db"
    old = Journal(path)
    await old.write("effect", put_effect("isolation"))
    await old.close()
    newer = (*module.MIGRATIONS, ("ALTER TABLE effects ADD COLUMN colour TEXT",))
    monkeypatch.setattr(module, "MIGRATIONS", newer)
    journal = Journal(path)
    rows = await journal.read(lambda db: db.execute("SELECT name, colour FROM effects").fetchall())
    assert rows == [("isolation", None)]
    assert await journal.read(lambda db: db.execute("PRAGMA user_version").fetchone()[0]) == len(newer)
    await journal.close()


async def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    """An agent that was downgraded says so, and does not throw the newer journal away."""
    path = tmp_path / "journal.db"
    await Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Unavailable, match="newer agent"):
        Journal(path)
    assert damaged(tmp_path) == []


async def test_opening_what_is_up_to_date_writes_nothing(tmp_path: Path) -> None:
    """An agent starts, and keeps what is in force, on a disk that takes nothing more."""
    path = tmp_path / "journal.db"
    await Journal(path).close()
    with closing(sqlite3.connect(path)) as db:
        before = db.execute("PRAGMA data_version").fetchone()
        journal = Journal(path)
        assert db.execute("PRAGMA data_version").fetchone() == before
        await journal.close()
