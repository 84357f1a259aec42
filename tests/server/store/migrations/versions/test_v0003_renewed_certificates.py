"""The migration for renewed certificates: what was there stays, and no two endpoints share a certificate."""

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from stanch.server.store.database import open_engine
from stanch.server.store.migrate import alembic_config

ENDPOINT = """
    INSERT INTO endpoints (id, hostname, certificate_sha256, revoked, enrolled, agent_version, inventory, actions,
                           capabilities, effects, policy_digest, search)
    VALUES ('end_{0}', '{0}', '{0}', 0, '2026-11-24 12:00:00', '1', '{{}}', '{{}}', '{{}}', '[]', '', '{0}')
"""


def test_endpoints_stay_on_the_way_and_on_the_way_back(tmp_path: Path) -> None:
    """With their labels and certificates; several may have no next certificate, and none may share one."""
    engine, config = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for name in "ab":
            connection.execute(text(ENDPOINT.format(name)))
            connection.execute(text(f"INSERT INTO endpoint_labels VALUES ('end_{name}', 'env', 'prod')"))
        command.upgrade(config, "0003")
        connection.execute(text("UPDATE endpoints SET next_certificate_sha256 = 'n' WHERE id = 'end_a'"))
        with pytest.raises(IntegrityError):
            connection.execute(text("UPDATE endpoints SET next_certificate_sha256 = 'n'"))
        command.downgrade(config, "0002")
        kept = connection.execute(text("SELECT id, certificate_sha256 FROM endpoints ORDER BY id")).all()
        assert kept == [("end_a", "a"), ("end_b", "b")]
        assert connection.execute(text("SELECT count(*) FROM endpoint_labels")).scalar() == 2
    engine.dispose()
