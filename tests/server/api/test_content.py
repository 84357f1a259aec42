"""Content over the API: who may, what is refused, and what is told."""

import json
from typing import Any

import pytest

from stanch.core.policy import Role
from tests.fakes.packed import BAD, GOOD, pack
from tests.server.live import PASSWORD, Answer, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHOLE = pack({"bad.yar": BAD, "good.yar": GOOD})
ACCEPTED = ("import", "publish", "unpublish", "rollback", "get", "prune", "delete", "check")


async def bring(person: Person, name: str, data: bytes = WHOLE, **query: Any) -> Answer:
    return await person.ask("POST", "/content", data=data, params={"name": name, **query})


async def change(person: Person, what: str, name: str) -> Answer:
    """One of the changes."""
    match what:
        case "import":
            return await bring(person, name)
        case "check":
            return await person.ask("POST", "/content-check", data=WHOLE)
        case "get":
            return await person.ask("GET", f"/content/{name}/versions/1/pack")
        case "delete":
            return await person.ask("DELETE", f"/content/{name}/versions/1")
        case _:
            return await person.ask("POST", f"/content/{name}/{what}", json={"version": 1} if what == "publish" else {})


async def test_from_import_to_rollback(admin: Person) -> None:
    """A real worker looks through it; then it is published, rolled back and removed."""
    made = (await bring(admin, "way", note="first")).json
    assert (made["new"], made["version"]["rules"], made["version"]["problems"]) == (True, 1, 1)
    assert made["version"]["lint"]["problems"][0]["file"] == "bad.yar"
    assert (await bring(admin, "way")).json["new"] is False
    assert (await bring(admin, "way", pack({"good.yar": GOOD}))).json["version"]["version"] == 2
    for version in (1, 2):
        answer = await admin.ask("POST", "/content/way/publish", json={"version": version})
        assert answer.json["published"][0]["version"] == version
    assert (await admin.ask("DELETE", "/content/way/versions/2")).code == "conflict"
    back = (await admin.ask("POST", "/content/way/rollback", json={})).json
    assert [one["version"] for one in back["published"]] == [1]
    assert (await admin.ask("DELETE", "/content/way/versions/2")).status == 204
    assert [one["name"] for one in (await admin.ask("GET", "/content")).json if one["name"] == "way"] == ["way"]
    assert (await admin.ask("GET", "/content/way")).json["every"][0]["note"] == "first"
    assert (await admin.ask("GET", "/content/way/versions/1")).json["lint"]["files"][1]["rules"] == 1
    assert (await admin.ask("POST", "/content/way/unpublish", json={"groups": ["all"]})).json["published"] == []


@pytest.mark.parametrize("role", [Role.VIEWER, Role.RESPONDER, Role.INCIDENT_LEAD])
async def test_not_everybody_may(live: Live, admin: Person, role: Role) -> None:
    """Everybody looks; who leads an incident changes."""
    name = f"may-{role}"
    await bring(admin, name)
    person = live.person()
    await person.sign_in(f"a-{role}", PASSWORD)
    if person.token is None:
        await live.services.accounts.create(f"a-{role}", PASSWORD, [role])
        await person.sign_in(f"a-{role}", PASSWORD)
    assert (await person.ask("GET", f"/content/{name}")).status == 200
    denied = [what for what in ACCEPTED if (await change(person, what, name)).status == 403]
    assert denied == ([] if role is Role.INCIDENT_LEAD else list(ACCEPTED))


async def test_nobody_without_a_token(live: Live) -> None:
    """Neither looks nor changes."""
    stranger = live.person()
    for what in ACCEPTED:
        assert (await change(stranger, what, "x")).status == 401
    assert (await stranger.ask("GET", "/content")).status == 401


@pytest.mark.parametrize(
    ("name", "query", "data", "status"),
    [
        ("Upper", {}, WHOLE, 400),
        ("../x", {}, WHOLE, 400),
        ("stanch-base", {}, WHOLE, 400),
        ("fine", {"note": "x" * 2001}, WHOLE, 400),
        ("fine", {"sha256": "00"}, WHOLE, 400),
        ("fine", {}, b"nonsense", 400),
        ("fine", {}, WHOLE[:-1], 400),
        ("fine", {"strict": "true"}, WHOLE, 400),
    ],
)
async def test_a_wrong_import(admin: Person, name: str, query: dict[str, str], data: bytes, status: int) -> None:
    """Is refused with what was got and expected, and leaves nothing."""
    answer = await bring(admin, name, data, **query)
    assert answer.status in {status, 422}
    error = answer.json["error"]
    assert error.get("got")
    assert error.get("expected")
    assert "fine" not in {one["name"] for one in (await admin.ask("GET", "/content")).json}


async def test_wrong_requests(admin: Person) -> None:
    """No such content, version or group; no version; no groups at all."""
    await bring(admin, "wrong")
    for path, body, code in (
        ("/content/none/publish", {"version": 1}, "not-found"),
        ("/content/wrong/publish", {"version": 7}, "not-found"),
        ("/content/wrong/publish", {"version": 1, "groups": ["none"]}, "not-found"),
        ("/content/wrong/publish", {}, "invalid"),
        ("/content/wrong/publish", {"version": 1, "groups": []}, "invalid"),
        ("/content/wrong/rollback", {"group": "web"}, "invalid"),
        ("/content/wrong/rollback", {}, "conflict"),
        ("/content/wrong/unpublish", {}, "conflict"),
    ):
        answer = await admin.ask("POST", path, data=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.code == code, (path, body, answer.body)
    assert (await admin.ask("GET", "/content/wrong/versions/0")).code == "invalid"


async def test_a_pack_comes_back_as_it_was(live: Live, admin: Person) -> None:
    """Byte for byte, under a harmless name, and in the audit; one that is gone from the disk says so."""
    made = (await bring(admin, "back")).json["version"]
    answer = await admin.ask("GET", "/content/back/versions/1/pack")
    assert (answer.status, answer.body) == (200, WHOLE)
    assert 'filename="back-1.pack"' in answer.headers["content-disposition"]
    assert "content-download" in {one["what"] for one in (await admin.ask("GET", "/audit")).json["items"]}
    assert (await admin.ask("GET", "/content/back/versions/2/pack")).code == "not-found"
    live.services.content.packs.path(made["sha256"]).unlink()
    assert (await admin.ask("GET", "/content/back/versions/1/pack")).code == "not-found"


async def test_old_versions_are_pruned(admin: Person) -> None:
    """A dry run tells what goes; the room shows what is there and what may be."""
    for n in range(3):
        await bring(admin, "prune", pack({"a.yar": GOOD + b"//%d" % n}))
    looked = (await admin.ask("POST", "/content/prune/prune", json={"keep": 1, "dry_run": True})).json
    assert [one["version"] for one in looked["removed"]] == [2, 1]
    before = (await admin.ask("GET", "/content-room")).json
    assert (await admin.ask("POST", "/content/prune/prune", json={"keep": 1})).json["kept"][0]["version"] == 3
    after = (await admin.ask("GET", "/content-room")).json
    assert (before["versions"] - after["versions"], before["bytes"] - after["bytes"]) == (2, looked["freed"])
    assert (await admin.ask("POST", "/content/prune/prune", json={"keep": 0})).code == "invalid"
