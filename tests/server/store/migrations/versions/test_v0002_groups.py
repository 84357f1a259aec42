"""The migration that makes groups: what was there stays, and one group always is."""

from pathlib import Path

from alembic import command
from sqlalchemy import Engine, text

from stanch.server.store.database import open_engine
from stanch.server.store.migrate import alembic_config, upgrade

ENDPOINT = """
    INSERT INTO endpoints (id, hostname, certificate_sha256, revoked, enrolled, agent_version, inventory, actions,
                           capabilities, effects, policy_digest, search)
    VALUES ('end_a', 'a', 'x', 0, '2026-11-24 12:00:00', '1', '{}', '{}', '{}', '[]', '', 'a')
"""


def to_first(engine: Engine) -> None:
    """A database as it was before there were groups."""
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")


def test_endpoints_and_their_labels_stay(tmp_path: Path) -> None:
    """A table that is made anew would take the labels with it: they hang on it by a foreign key."""
    engine = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1)
    to_first(engine)
    with engine.begin() as connection:
        connection.execute(text(ENDPOINT))
        connection.execute(text("INSERT INTO endpoint_labels VALUES ('end_a', 'env', 'prod')"))
    upgrade(engine)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT id, policy_told FROM endpoints")).all() == [("end_a", 0)]
        assert connection.execute(text("SELECT key, value FROM endpoint_labels")).all() == [("env", "prod")]
        assert connection.execute(text("SELECT name, rank FROM groups")).all() == [("all", 1_000_000)]
    engine.dispose()


def test_the_way_back(tmp_path: Path) -> None:
    """What was made is removed, and nothing else."""
    engine = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1)
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(text(ENDPOINT))
        connection.execute(text("INSERT INTO endpoint_labels VALUES ('end_a', 'env', 'prod')"))
        command.downgrade(config, "0001")
        tables = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
        assert "groups" not in tables
        assert connection.execute(text("SELECT key, value FROM endpoint_labels")).all() == [("env", "prod")]
    engine.dispose()
