"""Downloading evidence."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from sqlalchemy import select, update

from stanch.core.errors import VerificationFailed
from stanch.core.frames import EVIDENCE_PATH, PART_BYTES, PART_HASH_HEADER
from stanch.core.policy import Role
from stanch.server.store.tables import accounts, audit
from tests.fakes.waiting import eventually
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


async def in_audit(live: Live, what: str, number: str) -> list[str]:
    """Who did this to the evidence."""
    query = select(audit.c.who).where(audit.c.what == what, audit.c.subject == number)
    return await live.services.database.read(lambda connection: list(connection.execute(query).scalars()))


async def as_role(live: Live, role: Role) -> Person:
    """Somebody with this role."""
    person = live.person()
    await person.sign_in(f"a-{role}", PASSWORD)
    return person


async def test_a_preview(live: Live, admin: Person) -> None:
    """Rendered by a worker, as asked or by the first bytes; who looked stands in the audit."""
    number = await taken(live, "preview-01")
    found = (await admin.ask("GET", f"/evidence/{number}/preview?as=hex&offset=256&length=16")).json
    assert (found["kind"], found["offset"], found["length"], found["size"]) == ("hex", 256, 16, len(DATA))
    assert bytes.fromhex(found["hex"]["data"]) == DATA[256:272]
    assert found["text"] is None
    assert found["confined"]["no_new_privileges"] == "yes"
    assert (await admin.ask("GET", f"/evidence/{number}/preview")).json["kind"] == "hex"
    assert (await admin.ask("GET", f"/evidence/{number}/preview?as=strings")).json["strings"]["strings"]
    assert (await admin.ask("GET", f"/evidence/{number}/preview?as=elf")).json["elf"]["problems"]
    assert await in_audit(live, "preview", number) == ["admin"] * 4


@pytest.mark.parametrize(
    "query", ["as=magic", "offset=-1", "length=0", f"offset={len(DATA) + 1}", "as=hex&length=65537", "as=elf&offset=1"]
)
async def test_a_preview_that_is_asked_for_wrongly(live: Live, admin: Person, query: str) -> None:
    """422, whatever is out of bounds."""
    number = await taken(live, "wrong-preview")
    assert (await admin.ask("GET", f"/evidence/{number}/preview?{query}")).status == 422


async def test_who_may_look_into_verify_and_delete(live: Live, admin: Person) -> None:
    """Viewers neither; analysts and responders look and verify; incident leads and administrators delete."""
    number = await taken(live, "roles-01")
    for role, looks, deletes in (
        (Role.VIEWER, 403, 403),
        (Role.ANALYST, 200, 403),
        (Role.RESPONDER, 200, 403),
        (Role.INCIDENT_LEAD, 200, 200),
    ):
        person = await as_role(live, role)
        assert (await person.ask("GET", f"/evidence/{number}/preview")).status == looks
        assert (await person.ask("POST", f"/evidence/{number}/verify")).status == looks
        assert (await person.ask("DELETE", f"/evidence/{number}?reason=over")).status == deletes
    assert await in_audit(live, "evidence-deleted", number) == [f"a-{Role.INCIDENT_LEAD}"]


async def test_verified(live: Live, admin: Person) -> None:
    """The verdict, and the moment of it in the view."""
    number = await taken(live, "verify-01")
    verdict = (await admin.ask("POST", f"/evidence/{number}/verify")).json
    assert (verdict["intact"], verdict["found"]) == (True, hashlib.sha256(DATA).hexdigest())
    assert (await admin.ask("GET", f"/evidence/{number}")).json["verified"] == verdict["at"]
    assert await in_audit(live, "verify", number) == ["admin"]


async def test_deleted(live: Live, admin: Person) -> None:
    """A tombstone answers; its bytes are 404 in every way, and it is listed only where deleted ones are."""
    number = await taken(live, "delete-01")
    endpoint = (await admin.ask("GET", f"/evidence/{number}")).json["endpoint"]
    assert (await admin.ask("DELETE", f"/evidence/{number}")).status == 422
    gone = await admin.ask("DELETE", f"/evidence/{number}?reason=case+closed")
    assert (gone.status, gone.json["deleted_by"], gone.json["deleted_why"]) == (200, "admin", "case closed")
    for method, path in (("GET", "/content"), ("GET", "/preview"), ("POST", "/verify")):
        answer = await admin.ask(method, f"/evidence/{number}{path}")
        assert (answer.status, answer.code) == (404, "not-found")
    assert (await admin.ask("GET", f"/evidence?endpoint={endpoint}")).json["items"] == []
    [found] = (await admin.ask("GET", f"/evidence?endpoint={endpoint}&deleted=true")).json["items"]
    assert (found["id"], found["sha256"]) == (number, hashlib.sha256(DATA).hexdigest())
    assert (await admin.ask("GET", f"/evidence/{number}")).json["deleted"] is not None


async def test_what_still_arrives_is_neither_shown_verified_nor_deleted(live: Live, admin: Person) -> None:
    """409 while it is incomplete and its task runs."""
    number = await taken(live, "arriving-01", finish=False)
    for method, path in (("GET", "/preview"), ("POST", "/verify"), ("DELETE", "?reason=x")):
        answer = await admin.ask(method, f"/evidence/{number}{path}")
        assert (answer.status, answer.code) == (409, "conflict")


async def test_lists_by_endpoint_and_moment(live: Live, admin: Person) -> None:
    """By host name or id, and what was begun since."""
    number = await taken(live, "since-01")
    view = (await admin.ask("GET", f"/evidence/{number}")).json
    for query in ("endpoint=since-01", f"endpoint={view['endpoint']}", "endpoint=since-01&since=2020-01-01T00:00:00Z"):
        assert [one["id"] for one in (await admin.ask("GET", f"/evidence?{query}")).json["items"]] == [number]
    late = await admin.ask("GET", "/evidence?endpoint=since-01&since=2999-01-01T00:00:00Z")
    assert late.json["items"] == []
    assert (await admin.ask("GET", "/evidence?since=yesterday")).status == 422


async def test_labels_limit_whose_evidence_is_looked_into_verified_and_deleted(live: Live, admin: Person) -> None:
    """Of other endpoints, somebody who is limited sees, checks and removes nothing."""
    number = await taken(live, "limited-02")
    await live.services.accounts.create("limited-lead", PASSWORD, [Role.INCIDENT_LEAD])
    limit = update(accounts).where(accounts.c.name == "limited-lead").values(labels=["env=test"])
    await live.services.database.write(lambda connection: connection.execute(limit))
    person = live.person()
    await person.sign_in("limited-lead")
    for method, path in (("GET", "/preview"), ("POST", "/verify"), ("DELETE", "?reason=x")):
        answer = await person.ask(method, f"/evidence/{number}{path}")
        assert (answer.status, answer.code) == (403, "denied")
    for what in ("preview", "verify", "evidence-deleted"):
        assert await in_audit(live, what, number) == []


async def test_downloads_have_their_places(live: Live, admin: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends gives its place back; without a place nothing is sent, and nothing stands in the audit."""
    path = f"/evidence/{await taken(live, 'places-01')}/content"
    monkeypatch.setattr("stanch.server.downloads.OF_ONE", 1)
    for _ in range(3):
        assert (await admin.ask("GET", path)).body == DATA
    with live.services.downloads.place("admin"):
        refused = await admin.ask("GET", path)
        assert (refused.status, refused.code) == (503, "unavailable")
        other = await as_role(live, Role.ANALYST)
        assert (await other.ask("GET", path)).body == DATA
    assert len(await in_audit(live, "download", path.split("/")[2])) == 4


async def test_nobody_waits_so_nothing_is_verified(live: Live, admin: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terabytes of holes that an endpoint tells of in one line hold no place for those who went away."""
    monkeypatch.setattr("stanch.server.api.evidence.LOOK_SECONDS", 0.01)
    agent, size = await live.enrol("holes-01"), 2**42
    async with agent.linked() as wire:
        order = (await admin.order("list_processes", endpoints=[agent.endpoint])).json
        await wire.hear_order()
        body = {"task": order["tasks"][0]["id"], "name": "x", "size": size, "data": 0}
        path = f"{EVIDENCE_PATH}/{(await agent.ask('POST', EVIDENCE_PATH, json=body)).json['evidence']}"
        runs = {"runs": [{"first": 0, "count": size // PART_BYTES}]}
        assert (await agent.ask("POST", f"{path}/holes", json=runs)).status == 200
        assert (await agent.ask("POST", f"{path}/finish", json={"sha256": "0" * 64, "size": size})).status == 200
    asking = asyncio.create_task(admin.ask("POST", f"/evidence/{path.rsplit('/', 1)[-1]}/verify"))
    await eventually(lambda: live.services.keeping._verifying == 1)
    asking.cancel()
    await eventually(lambda: live.services.keeping._verifying == 0)


async def test_damage_is_said_before_a_byte_is_sent(live: Live, admin: Person) -> None:
    """Not as a cut connection, over which a client would try again and again; later on, there is no other way."""
    number = await taken(live, "damaged-01")
    [part] = (live.settings.data / "evidence" / number).iterdir()
    part.write_bytes(b"x" * part.stat().st_size)
    answer = await admin.ask("GET", f"/evidence/{number}/content")
    assert (answer.status, answer.code) == (400, "verification-failed")


async def test_damage_behind_good_parts_cuts_the_download(
    live: Live, admin: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives its place back."""
    number = await taken(live, "damaged-02")

    async def damaged(*_: object) -> AsyncIterator[bytes]:
        yield DATA[:100]
        raise VerificationFailed("Part 1 of the evidence is damaged")

    monkeypatch.setattr("stanch.server.evidence.stream", damaged)
    with pytest.raises(aiohttp.ClientPayloadError):
        await admin.ask("GET", f"/evidence/{number}/content")
    await eventually(lambda: not live.services.downloads._of)
