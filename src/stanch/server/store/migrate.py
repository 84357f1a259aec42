"""Bring a database to the newest form of its tables, with Alembic, from the very first table on."""

from importlib import resources
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from stanch.core.errors import Conflict


def upgrade(engine: Engine) -> None:
    """Apply what is missing; Conflict if the database was written by a newer Stanch."""
    config = alembic_config()
    with engine.begin() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
        known = {one.revision for one in ScriptDirectory.from_config(config).walk_revisions()}
        if present is not None and present not in known:
            raise Conflict(
                "The database was written by a newer version of Stanch",
                got=f"revision {present}",
                expected=f"one of {', '.join(sorted(known))}",
                hint="Install that version again, or restore the backup from before the upgrade.",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's settings: only where the migrations are."""
    config = Config()
    config.set_main_option("script_location", str(Path(str(resources.files(__package__))) / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
