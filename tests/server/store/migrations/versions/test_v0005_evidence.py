"""The migration for what became of evidence: the evidence that is there stays, with its parts."""

from pathlib import Path

from alembic import command
from sqlalchemy import text

from stanch.server.store.database import open_engine
from stanch.server.store.migrate import alembic_config

ROWS = (
    """INSERT INTO endpoints (id, hostname, certificate_sha256, revoked, enrolled, agent_version, inventory, actions,
                              capabilities, effects, policy_digest, search)
       VALUES ('end_a', 'a', 'a', 0, '2026-11-24 12:00:00', '1', '{}', '{}', '{}', '[]', '', 'a')""",
    """INSERT INTO orders (id, action, params, origin, requested_by, reason, dry_run, created, valid_until)
       VALUES ('ord_a', 'get_file', '{}', 'api', 'ada', '', 0, '2026-11-24 12:00:00', '2026-11-24 12:00:00')""",
    """INSERT INTO tasks (id, order_id, endpoint, state, cancel_requested, created, changed)
       VALUES ('tsk_a', 'ord_a', 'end_a', 'done', 0, '2026-11-24 12:00:00', '2026-11-24 12:00:00')""",
    """INSERT INTO evidence (id, task, endpoint, name, size, complete, received, created)
       VALUES ('evd_a', 'tsk_a', 'end_a', '/x', 1, 1, 1, '2026-11-24 12:00:00')""",
    "INSERT INTO evidence_parts VALUES ('evd_a', 0, 1, 'p')",
)


def test_evidence_stays_on_the_way_and_on_the_way_back(tmp_path: Path) -> None:
    """It is neither verified nor deleted, and its bytes are where they were."""
    engine, config = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        for row in ROWS:
            connection.execute(text(row))
        command.upgrade(config, "0005")
        new = connection.execute(text("SELECT verified, damage, deleted, deleted_by, deleted_why FROM evidence")).one()
        assert set(new) == {None}
        assert connection.execute(text("SELECT bytes_gone FROM evidence")).scalar() == 0
        command.downgrade(config, "0004")
        assert connection.execute(text("SELECT id, received FROM evidence")).all() == [("evd_a", 1)]
        assert connection.execute(text("SELECT evidence, sha256 FROM evidence_parts")).all() == [("evd_a", "p")]
    engine.dispose()
