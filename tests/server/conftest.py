"""A server's inner parts on a real database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.server.store.database import Database, open_engine
from stanch.server.store.migrate import upgrade
from tests.fakes.server_parts import Parts


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A migrated SQLite database of this test's own."""
    engine = open_engine(f"sqlite:///{tmp_path}/stanch.db", pool_size=1)
    upgrade(engine)
    engine.dispose()
    with Database.in_file(tmp_path / "stanch.db") as opened:
        yield opened


@pytest.fixture
def parts(database: Database) -> Parts:
    """The server's parts on it."""
    return Parts(database)
