"""A server's inner parts on a real database."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.server.store.database import Database, open_engine
from stanch.server.store.migrate import upgrade
from tests.fakes.server_parts import Parts
from tests.memory import folder_in_memory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of this test's own; a server waits for its disk at every commit, so it is in memory."""
    with folder_in_memory("stanch-server-") as made:
        yield made


@pytest.fixture(scope="session")
def migrated() -> Iterator[Path]:
    """A SQLite database with nothing in it but the tables; tests begin with a copy."""
    with folder_in_memory("stanch-migrated-") as made:
        engine = open_engine(f"sqlite:///{made}/stanch.db", pool_size=1)
        upgrade(engine)
        engine.dispose()
        yield made / "stanch.db"


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Iterator[Database]:
    """A migrated SQLite database of this test's own."""
    shutil.copyfile(migrated, tmp_path / "stanch.db")
    with Database.in_file(tmp_path / "stanch.db") as opened:
        yield opened


@pytest.fixture
def parts(database: Database) -> Parts:
    """The server's parts on it."""
    return Parts(database)
