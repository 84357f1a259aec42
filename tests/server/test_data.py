"""The data folder: one server's own."""

import stat
from pathlib import Path

import pytest
from sqlalchemy import inspect

from stanch.core.errors import Conflict, Unavailable
from stanch.server.data import held, open_database
from stanch.server.store.database import open_engine


def test_it_is_made_for_its_owner_only(tmp_path: Path) -> None:
    """With everything that will be in it."""
    with held(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "new").touch()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a" / "b").iterdir()}
    assert modes == {"evidence": 0o700, "lock": 0o600, "new": 0o600}


def test_one_server_at_a_time(tmp_path: Path) -> None:
    """The second one is told so; when the first has ended, the folder is free."""
    with held(tmp_path), pytest.raises(Conflict, match="Another server"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_a_folder_that_cannot_be_is_said(tmp_path: Path, name: str) -> None:
    """With what to do about it."""
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="Choose another"), held(tmp_path / name):
        pass


def test_the_database_has_its_tables(tmp_path: Path) -> None:
    """Made at the first start, found at the second."""
    for _ in range(2):
        open_database(tmp_path).close()
    engine = open_engine(f"sqlite:///{tmp_path}/stanch.db", pool_size=1)
    assert {"tasks", "audit", "alembic_version"} <= set(inspect(engine).get_table_names())
    engine.dispose()
