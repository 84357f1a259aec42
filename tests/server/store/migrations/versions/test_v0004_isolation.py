"""The migration for what endpoints tell about their isolation: endpoints stay, and have told nothing yet."""

from pathlib import Path

from alembic import command
from sqlalchemy import text

from stanch.server.store.database import open_engine
from stanch.server.store.migrate import alembic_config

ENDPOINT = """
    INSERT INTO endpoints (id, hostname, certificate_sha256, revoked, enrolled, agent_version, inventory, actions,
                           capabilities, effects, policy_digest, search)
    VALUES ('end_a', 'a', 'a', 0, '2026-11-24 12:00:00', '1', '{}', '{}', '{}', '[]', '', 'a')
"""


def test_endpoints_stay_on_the_way_and_on_the_way_back(tmp_path: Path) -> None:
    """An endpoint of before is there after, with nothing told."""
    engine, config = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        connection.execute(text(ENDPOINT))
        command.upgrade(config, "0004")
        assert connection.execute(text("SELECT id, isolation FROM endpoints")).all() == [("end_a", None)]
        command.downgrade(config, "0003")
        assert connection.execute(text("SELECT id FROM endpoints")).scalars().all() == ["end_a"]
    engine.dispose()
