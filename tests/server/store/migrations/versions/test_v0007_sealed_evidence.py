"""The migration for sealed evidence: the parts of before stay, as plain ones."""

from pathlib import Path

from alembic import command
from sqlalchemy import text

from stanch.server.store.database import open_engine
from stanch.server.store.migrate import alembic_config

PART = f"INSERT INTO evidence_parts (evidence, n, size, sha256) VALUES ('evd_1', 0, 5, '{'a' * 64}')"
SHOWN = text("SELECT n, size, encoding, stored_size, stored_sha256 FROM evidence_parts")


def test_parts_stay_on_the_way_and_on_the_way_back(tmp_path: Path) -> None:
    """A part of before is there after, plain, and with no other file than it had."""
    engine, config = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        connection.execute(text(PART))
        command.upgrade(config, "0007")
        assert connection.execute(SHOWN).all() == [(0, 5, "plain", None, None)]
        command.downgrade(config, "0006")
        assert connection.execute(text("SELECT n, size FROM evidence_parts")).all() == [(0, 5)]
        connection.execute(text("DELETE FROM evidence_parts"))
    engine.dispose()
