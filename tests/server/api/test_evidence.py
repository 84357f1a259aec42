"""Downloading evidence."""

import hashlib

import pytest
from sqlalchemy import select, update

from stanch.core.frames import EVIDENCE_PATH, PART_HASH_HEADER
from stanch.core.policy import Role
from stanch.server.store.tables import accounts, audit
from tests.server.live import PASSWORD, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = bytes(range(256)) * 40


async def taken(live: Live, hostname: str, *, finish: bool = True) -> str:
    """Evidence of a task of a new endpoint."""
    agent = await live.enrol(hostname)
    async with agent.linked() as wire:
        order = (await (await live.admin()).order("list_processes", endpoints=[agent.endpoint])).json
        await wire.hear_order()
        task = order["tasks"][0]["id"]
        body = {"task": task, "name": '/tmp/a "b"\r\nX: y', "size": len(DATA)}
        number = (await agent.ask("POST", EVIDENCE_PATH, json=body)).json["evidence"]
        if finish:
            digest = hashlib.sha256(DATA).hexdigest()
            path = f"{EVIDENCE_PATH}/{number}"
            await agent.ask("PUT", f"{path}/parts/0", data=DATA, headers={PART_HASH_HEADER: digest})
            done = await agent.ask("POST", f"{path}/finish", json={"sha256": digest, "size": len(DATA)})
            assert done.status == 200, done.body
    return str(number)


async def test_the_whole(live: Live, admin: Person) -> None:
    """With its hash as tag, and a name that cannot break the header."""
    number = await taken(live, "whole-01")
    answer = await admin.ask("GET", f"/evidence/{number}/content")
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.headers["ETag"] == f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert "X" not in answer.headers
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="a__b___X__y"')
    assert answer.headers["Content-Type"] == "application/octet-stream"


async def test_a_range(live: Live, admin: Person) -> None:
    """206, the part, and where it belongs; 416 beyond the end; the whole if the content is another by now."""
    path = f"/evidence/{await taken(live, 'range-01')}/content"
    part = await admin.ask("GET", path, headers={"Range": "bytes=100-199"})
    assert (part.status, part.body) == (206, DATA[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(DATA)}"
    beyond = await admin.ask("GET", path, headers={"Range": f"bytes={len(DATA)}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
    other = await admin.ask("GET", path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (other.status, other.body) == (200, DATA)


async def test_what_is_not_complete_cannot_be_downloaded(live: Live, admin: Person) -> None:
    """409, with how far it is."""
    number = await taken(live, "half-01", finish=False)
    answer = await admin.ask("GET", f"/evidence/{number}/content")
    assert (answer.status, answer.code) == (409, "conflict")
    assert (await admin.ask("GET", f"/evidence/{number}")).json["complete"] is False


async def test_downloads_need_a_role_and_stand_in_the_audit(live: Live, admin: Person) -> None:
    """A viewer sees that it is there; an analyst takes it, and leaves a trace."""
    number = await taken(live, "audit-01")
    viewer, analyst = live.person(), live.person()
    await viewer.sign_in(f"a-{Role.VIEWER}", PASSWORD)
    await analyst.sign_in(f"a-{Role.ANALYST}", PASSWORD)
    assert (await viewer.ask("GET", f"/evidence/{number}")).status == 200
    assert (await viewer.ask("GET", f"/evidence/{number}/content")).status == 403
    assert (await analyst.ask("GET", f"/evidence/{number}/content")).status == 200
    query = select(audit.c.who).where(audit.c.what == "download", audit.c.subject == number)
    assert await live.services.database.read(lambda c: list(c.execute(query).scalars())) == ["a-analyst"]


async def test_lists(live: Live, admin: Person) -> None:
    """By order and by task; what is not there is 404."""
    number = await taken(live, "list-01")
    view = (await admin.ask("GET", f"/evidence/{number}")).json
    order = (await admin.ask("GET", f"/tasks/{view['task']}")).json["order"]
    for query in (f"order={order}", f"task={view['task']}"):
        assert [one["id"] for one in (await admin.ask("GET", f"/evidence?{query}")).json["items"]] == [number]
    assert (await admin.ask("GET", "/evidence?task=tsk_none")).json == {"items": [], "next": None}
    assert (await admin.ask("GET", "/evidence/evd_none")).code == "not-found"
    assert (await admin.ask("GET", "/evidence/evd_none/content")).code == "not-found"


async def test_labels_limit_whose_evidence_is_seen(live: Live, admin: Person) -> None:
    """Somebody who is limited to some endpoints neither downloads nor finds what was taken from others."""
    number = await taken(live, "limited-01")
    await live.services.accounts.create("limited", PASSWORD, [Role.RESPONDER])
    limit = update(accounts).where(accounts.c.name == "limited").values(labels=["env=test"])
    await live.services.database.write(lambda connection: connection.execute(limit))
    person = live.person()
    await person.sign_in("limited")
    for path in (f"/evidence/{number}/content", f"/evidence/{number}"):
        answer = await person.ask("GET", path)
        assert (answer.status, answer.code) == (403, "denied")
    assert (await person.ask("GET", "/evidence")).json["items"] == []
    view = await live.services.evidence.get(number)
    change = {"add": ["env=test"], "remove": []}
    assert (await admin.ask("PATCH", f"/endpoints/{view.endpoint}/labels", json=change)).status == 200
    assert (await person.ask("GET", f"/evidence/{number}/content")).body == DATA
    assert [one["id"] for one in (await person.ask("GET", "/evidence")).json["items"]] == [number]
