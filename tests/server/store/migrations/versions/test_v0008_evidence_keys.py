"""The migration for evidence keys: on the way, and on the way back."""

from pathlib import Path

from alembic import command
from sqlalchemy import inspect

from stanch.server.store.database import open_engine
from stanch.server.store.migrate import alembic_config


def test_the_table_comes_and_goes(tmp_path: Path) -> None:
    """Empty after the upgrade, and no more after the way back."""
    engine, config = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        assert inspect(connection).has_table("evidence_keys")
        command.downgrade(config, "0007")
        assert not inspect(connection).has_table("evidence_keys")
    engine.dispose()
