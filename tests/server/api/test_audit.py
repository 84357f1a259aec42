"""The audit over HTTP."""

import pytest
from sqlalchemy import update

from stanch.core.policy import Role
from stanch.server.store.tables import audit
from tests.server.live import PASSWORD, Live, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_what_was_done_is_listed(live: Live, admin: Person) -> None:
    """The newest first, with who did it and the hash that ties it to the entry before."""
    made = (await admin.ask("POST", "/tokens", json={"uses": 7})).json
    page = (await admin.ask("GET", "/audit?limit=2")).json
    newest, before = page["items"]
    assert (newest["who"], newest["what"], newest["subject"]) == ("admin", "token", made["id"])
    assert newest["detail"]["uses"] == 7
    assert newest["previous"] == before["hash"]
    assert made["token"] not in str(page)


async def test_pages_go_on_to_the_first_entry(live: Live, admin: Person) -> None:
    """Every entry once; the last page names no next one."""
    numbers, after = [], ""
    while after is not None:
        page = (await admin.ask("GET", f"/audit?limit=3{after and '&after=' + after}")).json
        numbers += [one["n"] for one in page["items"]]
        after = page["next"]
    assert numbers == list(range(len(numbers), 0, -1))
    assert len(numbers) == (await admin.ask("GET", "/audit/verify")).json["entries"]


async def test_the_newest_hash_is_told(live: Live, admin: Person) -> None:
    """It is the hash of the entry that the list begins with."""
    whole = (await admin.ask("GET", "/audit/verify")).json
    listed = (await admin.ask("GET", "/audit?limit=1")).json["items"]
    assert whole["newest"] == listed[0]["hash"]


async def test_a_changed_entry_is_named(live: Live, admin: Person) -> None:
    """400 and its number, until it is as it was."""
    (one,) = (await admin.ask("GET", "/audit?limit=1")).json["items"]

    async def change(who: str) -> None:
        query = update(audit).where(audit.c.n == one["n"]).values(who=who)
        await live.services.database.write(lambda connection: connection.execute(query))

    await change("eve")
    answer = await admin.ask("GET", "/audit/verify")
    await change(one["who"])
    assert (answer.status, answer.code) == (400, "verification-failed")
    assert f"entry {one['n']} " in answer.json["error"]["message"]
    assert (await admin.ask("GET", "/audit/verify")).status == 200


@pytest.mark.parametrize("role", [one for one in Role if one is not Role.ADMINISTRATOR])
@pytest.mark.parametrize("path", ["/audit", "/audit/verify"])
async def test_only_administrators_read_it(live: Live, role: Role, path: str) -> None:
    """It tells what everybody does: every other role is denied."""
    person = live.person()
    assert (await person.ask("GET", path)).code == "not-authenticated"
    await person.sign_in(f"a-{role}", PASSWORD)
    assert (await person.ask("GET", path)).code == "denied"


@pytest.mark.parametrize("query", ["after=x", "after=0", f"after={2**63}", "limit=0", "limit=1001"])
async def test_bounds(live: Live, admin: Person, query: str) -> None:
    """A place that cannot be, and a page that is too large, are invalid."""
    assert (await admin.ask("GET", f"/audit?{query}")).code == "invalid"
