"""The object graph, and where agents are told to go."""

from datetime import UTC, datetime
from pathlib import Path

from stanch.server.authority import Authority
from stanch.server.settings import Settings
from stanch.server.store.database import Database
from stanch.server.wire import addresses_of, wire


async def test_addresses_are_urls_and_what_is_behind_them(tmp_path: Path) -> None:
    """Literal addresses as they are, names as they resolve."""
    settings = Settings(data=tmp_path, names=("10.0.0.1", "2001:db8::1", "localhost"))
    found = await addresses_of(settings, port=8444)
    assert found.urls == ("https://10.0.0.1:8444", "https://[2001:db8::1]:8444", "https://localhost:8444")
    assert [str(one.address) for one in found.peers][:2] == ["10.0.0.1", "2001:db8::1"]
    assert "127.0.0.1" in [str(one.address) for one in found.peers]


async def test_a_name_that_does_not_resolve_here_is_no_error(tmp_path: Path) -> None:
    """Agents may know it; we need not."""
    found = await addresses_of(Settings(data=tmp_path, names=("does-not-exist.invalid",)), port=1)
    assert found.urls == ("https://does-not-exist.invalid:1",)
    assert found.peers == ()


async def test_one_of_each(tmp_path: Path, database: Database) -> None:
    """Every service shares the same database, clock and keys."""

    def now() -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC)

    settings = Settings(data=tmp_path, names=("10.0.0.1",))
    authority = Authority.open(tmp_path, clock=now)
    addresses = await addresses_of(settings, port=1)
    services = wire(settings, database=database, authority=authority, addresses=addresses, now=now)
    assert services.database is database
    assert services.signer.public_keys[0]["kid"] == authority.signing_key.kid
    assert {"isolate", "list_processes"} <= services.registry.keys()
    services.accounts.close()
