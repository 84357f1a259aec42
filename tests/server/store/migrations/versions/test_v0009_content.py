"""The migration for content: endpoints stay on the way and on the way back, with their labels."""

from pathlib import Path

from alembic import command
from sqlalchemy import inspect, text

from stanch.server.store.database import open_engine
from stanch.server.store.migrate import alembic_config

ENDPOINT = """
    INSERT INTO endpoints (id, hostname, certificate_sha256, revoked, enrolled, agent_version, inventory, actions,
                           capabilities, effects, policy_digest, search)
    VALUES ('end_a', 'a', 'aa', 0, '2026-11-24 12:00:00', '1', '{}', '{}', '{}', '[]', '', 'a')
"""
LABEL = "INSERT INTO endpoint_labels (endpoint, key, value) VALUES ('end_a', 'role', 'web')"
VERSION = """
    INSERT INTO content_versions (content, version, sha256, size, files, rules, problems, note, created, created_by,
                                  lint)
    VALUES ('apt', 1, 'aa', 1, 1, 1, 0, '', '2026-11-24 12:00:00', 'ada', '{}')
"""
PUBLICATION = """
    INSERT INTO content_publications (content, group_name, version, at, by)
    VALUES ('apt', 'web', 1, '2026-11-24 12:00:00', 'ada')
"""
GROUP = """
    INSERT INTO groups (name, labels, rank, description, settings, version, changed_by)
    VALUES ('web', '[]', 1, '', '{}', 0, '')
"""


def test_endpoints_stay_on_the_way_and_on_the_way_back(tmp_path: Path) -> None:
    """Nobody was told before; what was published to a group goes with it, and with the tables."""
    engine, config = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        for one in (ENDPOINT, LABEL, GROUP):
            connection.execute(text(one))
        command.upgrade(config, "0009")
        assert connection.execute(text("SELECT content_told FROM endpoints")).scalar() == 0
        connection.execute(text("INSERT INTO content (name, kind, newest) VALUES ('apt', 'yara', 1)"))
        connection.execute(text(VERSION))
        connection.execute(text(PUBLICATION))
        connection.execute(text("DELETE FROM groups WHERE name = 'web'"))
        assert connection.execute(text("SELECT * FROM content_publications")).all() == []
        command.downgrade(config, "0008")
        assert connection.execute(text("SELECT value FROM endpoint_labels")).scalars().all() == ["web"]
        assert not [one for one in inspect(connection).get_table_names() if one.startswith("content")]
    engine.dispose()
