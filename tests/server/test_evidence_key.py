"""The evidence key and its database: a lost key is said, never replaced unnoticed."""

import hashlib
from pathlib import Path

import pytest
from pyrage import x25519
from sqlalchemy import text

from stanch.core.errors import Unavailable
from stanch.core.frames import EVIDENCE_PATH, PART_HASH_HEADER
from stanch.server import audit
from stanch.server.clock import utc_now
from stanch.server.custody import KEY_FILE
from stanch.server.data import open_database
from stanch.server.evidence_key import note_key
from stanch.server.store.database import open_engine
from tests.server.live import live_server


async def start(folder: Path) -> tuple[str, list[str]]:
    """Start a server and stop it: its key, and what it said."""
    async with live_server(folder) as live:
        return live.services.evidence.recipient, live.said


async def test_a_lost_key_is_not_replaced(tmp_path: Path) -> None:
    """The server does not start, names the key that it wants, and makes none; with the old one it goes on."""
    folder = tmp_path / "data"
    recipient, _ = await start(folder)
    kept = (folder / KEY_FILE).rename(tmp_path / "backup")
    with pytest.raises(Unavailable, match="is missing") as error:
        await start(folder)
    assert recipient in str(error.value.expected)
    assert "backup" in str(error.value.hint)
    assert not (folder / KEY_FILE).exists()
    kept.rename(folder / KEY_FILE)
    assert (await start(folder))[0] == recipient


async def test_another_key_is_said_loudly_and_once(tmp_path: Path) -> None:
    """At the start that meets it, and in the audit, whose chain stays whole; the old one back is a change again."""
    folder = tmp_path / "data"
    before, first = await start(folder)
    assert not any("WARNING" in line for line in first)
    kept = (folder / KEY_FILE).read_bytes()
    (folder / KEY_FILE).write_text(str(x25519.Identity.generate()))
    now, said = await start(folder)
    assert now != before
    assert any("WARNING" in line for line in said)
    assert any(before in line for line in said)
    assert not any("WARNING" in line for line in (await start(folder))[1])
    (folder / KEY_FILE).write_bytes(kept)
    assert any(now in line for line in (await start(folder))[1])
    with open_database(folder) as database:
        found = await database.read(
            lambda connection: connection.execute(text("SELECT what FROM audit")).scalars().all()
        )
        assert found.count("evidence-key") == 2
        await database.read(audit.verify)


async def test_a_key_that_is_used_is_noted_once(tmp_path: Path) -> None:
    """Nothing is said of the first one, nor of the same again."""
    (tmp_path / KEY_FILE).touch()
    with open_database(tmp_path) as database:
        assert await note_key(database, "age1one", utc_now) is None
        assert await note_key(database, "age1one", utc_now) is None
        assert await note_key(database, "age1two", utc_now) == "age1one"


async def test_sealed_evidence_alone_shows_that_a_key_is_lost(tmp_path: Path) -> None:
    """In a database from before keys were noted; once that evidence is deleted, a new key may be made."""
    folder = tmp_path / "data"
    async with live_server(folder) as live:
        agent = await live.enrol()
        async with agent.linked() as wire:
            order = (await (await live.admin()).order("list_processes", endpoints=[agent.endpoint])).json
            await wire.hear_order()
            body = {"task": order["tasks"][0]["id"], "name": "x", "size": 3}
            number = (await agent.ask("POST", EVIDENCE_PATH, json=body)).json["evidence"]
            headers = {PART_HASH_HEADER: hashlib.sha256(b"abc").hexdigest()}
            await agent.ask("PUT", f"{EVIDENCE_PATH}/{number}/parts/0", data=b"abc", headers=headers)
    (folder / KEY_FILE).unlink()
    await run(folder, "DELETE FROM evidence_keys")
    with pytest.raises(Unavailable, match="is missing"):
        await start(folder)
    await run(folder, "UPDATE evidence SET deleted = '2026-11-24 12:00:00', bytes_gone = true")
    await start(folder)


async def test_a_lost_ca_is_not_replaced_while_endpoints_trust_it(tmp_path: Path) -> None:
    """A database without its keys does not start, and nothing is made beside it."""
    folder = tmp_path / "data"
    async with live_server(folder) as live:
        await live.enrol()
    names = ("ca.pem", "ca.key", "signing.jwk", "release.key", KEY_FILE)
    for name in names:
        (folder / name).rename(tmp_path / name)
    with pytest.raises(Unavailable, match=r"ca\.pem is missing"):
        await start(folder)
    assert not any((folder / name).exists() for name in names)
    for name in names:
        (tmp_path / name).rename(folder / name)
    await start(folder)


async def run(folder: Path, statement: str) -> None:
    engine = open_engine(f"sqlite:///{folder}/stanch.db", pool_size=1)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
