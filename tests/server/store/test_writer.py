"""The group-commit writer: grouped, isolated, and only answering after the commit."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from stanch.server.store.database import Database, open_engine
from stanch.server.store.migrate import upgrade
from stanch.server.store.tables import counters


def put(name: str, value: int = 1):
    """A unit that inserts one row and returns its name."""

    def unit(connection) -> str:
        connection.execute(insert(counters), {"name": name, "value": value})
        return name

    return unit


def names(connection) -> list[str]:
    """Every name that is committed."""
    return list(connection.execute(select(counters.c.name).order_by(counters.c.name)).scalars())


async def test_answers_after_the_commit(database):
    """What a unit wrote is visible to another connection when its answer arrives."""
    assert await database.write(put("a")) == "a"
    assert await database.read(names) == ["a"]


async def test_a_failing_unit_goes_alone(database):
    """A unit that fails in the middle of a group is undone, and the others of the group are committed."""

    def half(connection):
        put("half")(connection)
        raise ValueError("no")

    answers = await asyncio.gather(
        database.write(put("a")), database.write(half), database.write(put("b")), return_exceptions=True
    )
    assert answers[0] == "a"
    assert isinstance(answers[1], ValueError)
    assert answers[2] == "b"
    assert await database.read(names) == ["a", "b"]


async def test_a_constraint_fails_only_its_unit(database):
    """A unit that breaks a constraint gets the database's error; its neighbours do not."""
    answers = await asyncio.gather(*(database.write(put(n)) for n in "aab"), return_exceptions=True)
    assert [isinstance(one, IntegrityError) for one in answers] == [False, True, False]


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_every_caller_gets_its_own_answer(tmp_path_factory, outcomes):
    """Whatever mix of good and bad units is queued, each caller learns the fate of its own unit, and only that."""
    path = tmp_path_factory.mktemp("db") / "x.db"
    engine = open_engine(f"sqlite:///{path}", pool_size=1)
    upgrade(engine)
    engine.dispose()

    async def run() -> None:
        def unit(index: int, *, good: bool):
            def do(connection):
                put(f"{index:03}")(connection)
                if not good:
                    raise ValueError(index)
                return index

            return do

        with Database.in_file(path) as database:
            jobs = [database.write(unit(i, good=good)) for i, good in enumerate(outcomes)]
            answers = await asyncio.gather(*jobs, return_exceptions=True)
            for index, (good, answer) in enumerate(zip(outcomes, answers, strict=True)):
                assert (answer == index) if good else (answer.args == (index,))
            assert await database.read(names) == [f"{i:03}" for i, good in enumerate(outcomes) if good]

    asyncio.run(run())


async def test_a_caller_that_went_away_harms_nobody(database):
    """A cancelled caller's unit may be committed, and the writer goes on."""
    gone = asyncio.get_running_loop().create_task(database.write(put("gone")))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await database.write(put("next")) == "next"


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from sqlalchemy import insert
from stanch.server.store.database import Database
from stanch.server.store.tables import counters

async def main():
    database = Database.in_file(Path(sys.argv[1]))
    for i in range(1000):
        def unit(connection):
            connection.execute(insert(counters), {"name": f"{i:04}", "value": i})
            if i == 37:
                os.kill(os.getpid(), signal.SIGKILL)
        await database.write(unit)
        print(i, flush=True)

asyncio.run(main())
"""


def test_killed_in_the_middle_keeps_what_was_answered(tmp_path: Path):
    """After SIGKILL inside a unit, every answered unit is in the database and the unanswered one is not."""
    path = tmp_path / "x.db"
    engine = open_engine(f"sqlite:///{path}", pool_size=1)
    upgrade(engine)
    child = subprocess.run([sys.executable, "-c", KILLED, os.fspath(path)], capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL
    answered = [f"{int(line):04}" for line in child.stdout.split()]
    with engine.connect() as connection:
        assert names(connection) == answered
    engine.dispose()
    assert len(answered) == 37
