"""The migration for uploads: two new tables, and orders stay on the way and on the way back."""

from pathlib import Path

from alembic import command
from sqlalchemy import inspect, text

from stanch.server.store.database import open_engine
from stanch.server.store.migrate import alembic_config

ORDER = """
    INSERT INTO orders (id, action, params, origin, requested_by, reason, dry_run, created, valid_until)
    VALUES ('ord_a', 'x', '{}', 'api', 'ada', '', 0, '2026-11-24 12:00:00', '2026-11-25 12:00:00')
"""
UPLOAD = """
    INSERT INTO uploads (id, name, size, sha256, created_by, created, used)
    VALUES ('upl_a', 'x', 1, 'aa', 'ada', '2026-11-24 12:00:00', '2026-11-24 12:00:00')
"""


def test_orders_stay_on_the_way_and_on_the_way_back(tmp_path: Path) -> None:
    """The uses of an upload go with it, and with the tables."""
    engine, config = open_engine(f"sqlite:///{tmp_path}/x.db", pool_size=1), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        connection.execute(text(ORDER))
        command.upgrade(config, "0006")
        connection.execute(text(UPLOAD))
        connection.execute(text("INSERT INTO upload_uses (upload, order_id) VALUES ('upl_a', 'ord_a')"))
        connection.execute(text("DELETE FROM uploads"))
        assert connection.execute(text("SELECT * FROM upload_uses")).all() == []
        command.downgrade(config, "0005")
        assert connection.execute(text("SELECT id FROM orders")).scalars().all() == ["ord_a"]
        assert not {"uploads", "upload_uses"} & set(inspect(connection).get_table_names())
    engine.dispose()
