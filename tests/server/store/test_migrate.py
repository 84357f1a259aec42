"""Migrations and tables say the same, and a newer database is refused."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from stanch.core.errors import Conflict
from stanch.server.store.database import open_engine
from stanch.server.store.migrate import upgrade
from stanch.server.store.tables import metadata


@pytest.fixture
def engine(tmp_path: Path):
    """An empty database."""
    opened = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1)
    yield opened
    opened.dispose()


def test_migrations_build_the_tables(engine):
    """After all migrations nothing is missing from, or beyond, the declared tables."""
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_upgrading_twice_changes_nothing(engine):
    """A second start finds everything in place."""
    upgrade(engine)
    upgrade(engine)


def test_a_newer_database_is_refused(engine):
    """A database of a later version is not touched, and the message says what to do."""
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="newer version"):
        upgrade(engine)
