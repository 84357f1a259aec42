"""The object graph."""

from datetime import UTC, datetime
from pathlib import Path

from stanch.server.authority import Authority
from stanch.server.settings import Settings
from stanch.server.store.database import Database
from stanch.server.wire import wire


async def test_one_of_each(tmp_path: Path, database: Database) -> None:
    """Every service shares the same database, clock and keys."""

    def now() -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC)

    settings = Settings(data=tmp_path, names=("10.0.0.1",))
    authority = Authority.open(tmp_path, clock=now)
    services = wire(settings, database=database, authority=authority, port=1, now=now)
    assert services.database is database
    assert services.signer.public_keys[0]["kid"] == authority.signing_key.kid
    assert services.addresses.urls == ("https://10.0.0.1:1",)
    assert {"isolate", "list_processes"} <= services.registry.keys()
    services.accounts.close()
    services.codes.close()
