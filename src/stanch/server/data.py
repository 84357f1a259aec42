"""The server's data folder: made for it alone, used by one server at a time, and its database brought up to date."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, select

from stanch.core.errors import Conflict, Unavailable
from stanch.server.evidence_key import refuse_lost_key
from stanch.server.store.database import Database, open_engine
from stanch.server.store.migrate import upgrade
from stanch.server.store.tables import endpoints

OWNER_ONLY = 0o077


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder and hold it; Unavailable if it cannot be written, Conflict if another server holds it."""
    os.umask(OWNER_ONLY)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "evidence").mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(
            f"Cannot write to the data folder {folder}",
            got=error.strerror,
            hint="Choose another one with --data, or give this one to the user of the server.",
        ) from None
    try:
        _lock(lock, folder)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Conflict(f"Another server uses the data folder {folder}", hint="Stop that one first.") from None


def open_database(folder: Path) -> Database:
    """The database, with the newest form of its tables; Unavailable if keys that belong to it are missing."""
    path = folder / "stanch.db"
    engine = open_engine(f"sqlite:///{path}", pool_size=1)
    try:
        upgrade(engine)
        _refuse_lost_ca(engine, folder)
        refuse_lost_key(engine, folder)
    finally:
        engine.dispose()
    return Database.in_file(path)


def _refuse_lost_ca(engine: Engine, folder: Path) -> None:
    """With a new CA, every endpoint in the database would be locked out: never make one beside them."""
    path = folder / "ca.pem"
    with engine.connect() as connection:
        if path.exists() or connection.execute(select(endpoints.c.id).limit(1)).first() is None:
            return
    raise Unavailable(
        f"{path} is missing, and the database has endpoints that trust it",
        got="no file",
        expected="ca.pem, ca.key, signing.jwk, release.key and evidence.key, as they were",
        hint="Bring the keys back from a backup of the data folder. Without one, begin with an empty folder (--data), "
        "and enrol every endpoint again.",
    )
