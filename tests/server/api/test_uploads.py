"""Uploads over REST: streamed in, bounded, deduplicated, audited."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO

import pytest
from sqlalchemy import select

from stanch.core.policy import Role
from stanch.core.types import Upload
from stanch.server.store.tables import audit
from stanch.server.uploads import use
from tests.fakes.waiting import eventually
from tests.server.live import PASSWORD, SOON, Answer, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = b"#!/bin/sh\n" * 200_000
"""More than any other body may have."""

SHA256 = hashlib.sha256(DATA).hexdigest()


async def bring(person: Person, data: object = DATA, **query: str) -> Answer:
    body = BytesIO(data) if isinstance(data, bytes) else data
    return await person.ask("POST", "/uploads", data=body, params={"name": "tool.sh", **query})


async def signed_in(live: Live, role: Role) -> Person:
    person = live.person()
    await person.sign_in(f"a-{role}", PASSWORD)
    return person


def files(live: Live) -> list[str]:
    return sorted(one.name for one in (live.settings.data / "uploads").iterdir())


async def test_a_file_comes_in(live: Live, admin: Person) -> None:
    """It is kept as it came, and the answer says how an order names it; the audit says who brought it from where."""
    answer = await bring(admin, name="comes-in", sha256=SHA256)
    assert answer.status == 201, answer.body
    view = answer.json
    told = {name: view[name] for name in ("name", "size", "sha256", "by", "orders")}
    assert told == {"name": "comes-in", "size": len(DATA), "sha256": SHA256, "by": "admin", "orders": 0}
    assert (live.settings.data / "uploads" / view["id"]).read_bytes() == DATA
    query = select(audit.c.who, audit.c.detail).where(audit.c.subject == view["id"], audit.c.what == "upload")
    ((who, detail),) = await live.services.database.read(lambda connection: connection.execute(query).all())
    assert (who, detail["address"], detail["sha256"], detail["origin"]) == ("admin", "127.0.0.1", SHA256, "api")


async def test_without_an_announced_length(live: Live, admin: Person) -> None:
    """A body in chunks is bounded as it comes."""

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(DATA), 100_000):
            yield DATA[at : at + 100_000]

    assert (await bring(admin, chunks(), name="chunks")).json["sha256"] == SHA256


async def test_the_same_twice_is_the_same(live: Live, admin: Person) -> None:
    """And stands in the list once."""
    first, second = await bring(admin, name="twice"), await bring(admin, name="twice")
    assert first.json["id"] == second.json["id"]
    page = (await admin.ask("GET", "/uploads", params={"sha256": SHA256, "mine": "true"})).json
    assert [one["id"] for one in page["items"] if one["name"] == "twice"] == [first.json["id"]]
    assert page["max_size"] == live.services.uploads.most


async def test_not_everybody_may(live: Live, admin: Person) -> None:
    """Whoever may order nothing sees uploads, and neither brings nor deletes any."""
    person, before = await signed_in(live, Role.VIEWER), files(live)
    answer = await bring(person, name="of-viewer")
    assert (answer.status, answer.code) == (403, "denied")
    assert (await person.ask("DELETE", "/uploads/upl_1")).status == 403
    assert (await person.ask("GET", "/uploads")).status == 200
    assert (await bring(live.person())).status == 401
    assert files(live) == before


async def test_an_analyst_leaves_what_others_brought(live: Live, admin: Person) -> None:
    """Who may scan brings rules of their own; those of others are not theirs to remove."""
    person = await signed_in(live, Role.ANALYST)
    theirs, mine = (await bring(admin, name="rules")).json["id"], (await bring(person, name="rules")).json["id"]
    assert (await person.ask("DELETE", f"/uploads/{theirs}")).status == 403
    assert (await person.ask("DELETE", f"/uploads/{mine}")).status == 204


async def test_an_incident_lead_may(live: Live, admin: Person) -> None:
    """Bring one, look at it, and delete it."""
    person = await signed_in(live, Role.INCIDENT_LEAD)
    number = (await bring(person, b"", name="empty")).json["id"]
    assert (await person.ask("GET", f"/uploads/{number}")).json["size"] == 0
    assert (await person.ask("DELETE", f"/uploads/{number}")).status == 204
    assert (await person.ask("GET", f"/uploads/{number}")).code == "not-found"
    assert number not in files(live)


async def test_what_is_too_large_is_refused(live: Live, admin: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Announced or not; nothing stays."""
    monkeypatch.setattr(live.services.uploads, "most", 1000)
    before = files(live)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 1001

    for body in (b"x" * 1001, chunks()):
        answer = await bring(admin, body, name="large")
        assert (answer.status, answer.code) == (413, "too-large")
    assert files(live) == before


async def test_other_content_than_announced_is_refused(live: Live, admin: Person) -> None:
    """Damaged on the way, or changed at its place meanwhile."""
    before = files(live)
    answer = await bring(admin, name="damaged", sha256="0" * 64)
    assert (answer.status, answer.code) == (400, "verification-failed")
    assert files(live) == before


@pytest.mark.parametrize(
    "query",
    [{"name": ""}, {"name": "a/b"}, {"name": "a\nb"}, {"name": "x" * 256}, {"sha256": "0" * 63}, {"sha256": "z" * 64}],
)
async def test_wrong_names_and_hashes(live: Live, admin: Person, query: dict[str, str]) -> None:
    """422, before anything is read."""
    answer = await bring(admin, **query)
    assert (answer.status, answer.code) == (422, "invalid")


async def test_an_upload_that_is_cut_leaves_nothing(live: Live, admin: Person) -> None:
    """The connection breaks in the middle: the half that came is removed."""
    before, begun = files(live), asyncio.Event()

    async def cut() -> AsyncIterator[bytes]:
        yield DATA
        begun.set()
        await asyncio.Event().wait()

    sending = asyncio.create_task(bring(admin, cut(), name="cut"))
    async with asyncio.timeout(SOON):
        await begun.wait()
    sending.cancel()
    await eventually(lambda: files(live) == before)


async def test_one_that_an_open_order_needs_stays(live: Live, admin: Person) -> None:
    """409, and which order."""
    view = (await bring(admin, name="needed")).json
    agent = await live.enrol("needs-01")
    order = (await admin.order("list_processes", endpoints=[agent.endpoint])).json["id"]
    named = Upload.model_validate({key: view[key] for key in ("id", "name", "size", "sha256")})
    now = live.services.now()
    await live.services.database.write(lambda connection: use(connection, order, [named], now))
    answer = await admin.ask("DELETE", f"/uploads/{view['id']}")
    assert (answer.status, answer.code) == (409, "conflict")
    assert order in answer.json["error"]["got"]
    assert (await admin.ask("POST", f"/orders/{order}/cancel")).status == 200
    assert (await admin.ask("DELETE", f"/uploads/{view['id']}")).status == 204


async def test_settings_reach_the_store(live: Live) -> None:
    """What the administrator allows is what is taken."""
    assert live.services.uploads.most == live.settings.max_upload == replace(live.settings).max_upload
