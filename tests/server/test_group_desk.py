"""Making, changing and deleting groups, and changing policies: rights, bounds, conflicts, the audit."""

import pytest
from sqlalchemy import select

from stanch.core.errors import Conflict, Denied, Invalid, NotFound, StanchError, TooLarge
from stanch.core.policy import Role
from stanch.core.rest import GroupChange, GroupCreate, LabelChange, PolicyChange
from stanch.core.settings import NewSettings
from stanch.server import audit
from stanch.server.audit import MAX_VALUE
from stanch.server.group_desk import MAX_SECTION_BYTES
from stanch.server.groups import EVERY, MAX_GROUPS
from stanch.server.store import tables
from tests.fakes.server_parts import principal

NOT_ADMINISTRATORS = [role for role in Role if role is not Role.ADMINISTRATOR]


def policy(based_on: int | None = None, **isolation) -> PolicyChange:
    """A policy for isolation."""
    return PolicyChange(settings=NewSettings.model_validate({"isolation": isolation}), based_on=based_on)


async def make(parts, name: str = "web", *labels: str, **more):
    """A new group."""
    return await parts.groups.create(principal(), GroupCreate(name=name, labels=labels or ("role=web",), **more))


async def entries(parts) -> list:
    """The audit, oldest first, whose chain holds."""

    def look(connection):
        audit.verify(connection)
        return connection.execute(select(tables.audit).order_by(tables.audit.c.n)).all()

    return await parts.database.read(look)


async def test_a_group_counts_those_who_carry_all_of_its_labels(parts):
    """Living endpoints only."""
    await parts.add_endpoints("a", "b", labels=["role=web", "env=prod"])
    await parts.add_endpoints("c", labels=["role=web"])
    await parts.fleet.revoke(principal(), "b")
    assert (await make(parts, "web", "role=web")).endpoints == 2
    assert (await make(parts, "web-prod", "role=web", "env=prod")).endpoints == 1
    assert [(one.name, one.endpoints) for one in await parts.groups.list()] == [("web", 2), ("web-prod", 1), (EVERY, 2)]


async def test_the_list_begins_with_the_one_that_decides_first(parts):
    """By rank, then by name; `all` is last."""
    await make(parts, "b", rank=5)
    await make(parts, "c", rank=1)
    await make(parts, "a", rank=5)
    assert [one.name for one in await parts.groups.list()] == ["c", "a", "b", EVERY]


async def test_a_name_is_given_once(parts):
    """Also that of the group which is always there."""
    await make(parts)
    for name in ("web", EVERY):
        with pytest.raises(Conflict, match="already"):
            await make(parts, name)


async def test_there_is_an_end_to_groups(parts, monkeypatch):
    """The number of groups is bounded."""
    monkeypatch.setattr("stanch.server.group_desk.MAX_GROUPS", 2)
    await make(parts, "one")
    with pytest.raises(Conflict, match="too many"):
        await make(parts, "two")
    assert MAX_GROUPS == 1000


async def test_two_values_of_one_key_make_no_group(parts):
    """No endpoint could belong to it."""
    with pytest.raises(Invalid, match="env=prod and env=test"):
        await make(parts, "web", "env=prod", "env=test")
    await make(parts)
    with pytest.raises(Invalid, match="env=prod and env=test"):
        await parts.groups.change(principal(), "web", GroupChange(labels=("env=prod", "env=test")))


async def test_a_group_is_changed_in_part(parts):
    """What is not named stays."""
    await make(parts, description="Shops")
    await parts.groups.change(principal(), "web", GroupChange(rank=7))
    found = await parts.groups.change(principal(), "web", GroupChange(labels=("role=web", "env=prod")))
    assert (found.labels, found.rank, found.description) == (("env=prod", "role=web"), 7, "Shops")
    last = (await entries(parts))[-1]
    assert (last.what, last.subject, last.who) == ("group-change", "web", "ada")
    assert last.detail == {"before": {"labels": ["role=web"]}, "after": {"labels": ["env=prod", "role=web"]}}


async def test_a_change_that_changes_nothing_is_not_audited(parts):
    """Neither of the group nor of its policy."""
    await make(parts)
    await parts.groups.change_policy(principal(), "web", policy(tell=True))
    before = len(await entries(parts))
    await parts.groups.change(principal(), "web", GroupChange(rank=1000, labels=("role=web",)))
    view = await parts.groups.change_policy(principal(), "web", policy(tell=True, duration="5h"))
    assert view.version == 1
    assert len(await entries(parts)) == before


@pytest.mark.parametrize("wanted", [GroupChange(labels=("a=b",)), GroupChange(rank=5)])
async def test_the_group_of_all_stays_what_it_is(parts, wanted):
    """No labels, no other rank, no deletion; a description it may have."""
    with pytest.raises(Conflict, match="every endpoint"):
        await parts.groups.change(principal(), EVERY, wanted)
    with pytest.raises(Conflict, match="cannot be deleted"):
        await parts.groups.delete(principal(), EVERY)
    assert (await parts.groups.change(principal(), EVERY, GroupChange(description="All"))).description == "All"


async def test_a_deleted_group_takes_its_policy_with_it(parts):
    """The audit keeps both; a group made anew has none."""
    await make(parts)
    await parts.groups.change_policy(principal(), "web", policy(duration="2h"))
    await parts.groups.delete(principal(), "web")
    last = (await entries(parts))[-1]
    assert (last.what, last.detail["policy"]) == ("group-delete", {"isolation": {"duration": "2h"}})
    with pytest.raises(NotFound):
        await parts.groups.get("web")
    assert (await make(parts)).sections == ()


async def test_a_policy_grows_in_version_and_says_who(parts):
    """Its change is audited with what was before and after, and only that."""
    await make(parts)
    assert (await parts.groups.policy("web")).version == 0
    await parts.groups.change_policy(principal(), "web", policy(duration="2h", tell=True))
    view = await parts.groups.change_policy(principal(name="bob"), "web", policy(duration=None, tell=True))
    assert (view.version, view.changed_by, view.changed) == (2, "bob", parts.clock.now)
    assert view.settings.isolation.duration is None
    last = (await entries(parts))[-1]
    assert (last.what, last.subject) == ("policy", "web")
    assert last.detail == {
        "version": 2,
        "before": {"isolation": {"duration": "2h"}},
        "after": {"isolation": {"duration": None}},
    }


async def test_setting_and_leaving_a_section_are_audited(parts):
    """Null stands for a section that is not set."""
    await make(parts)
    await parts.groups.change_policy(principal(), "web", policy())
    assert (await entries(parts))[-1].detail == {
        "version": 1,
        "before": {"isolation": None},
        "after": {"isolation": {}},
    }
    await parts.groups.change_policy(principal(), "web", PolicyChange(settings=NewSettings()))
    assert (await entries(parts))[-1].detail == {
        "version": 2,
        "before": {"isolation": {}},
        "after": {"isolation": None},
    }
    assert (await parts.groups.get("web")).sections == ()


async def test_the_audit_stays_small(parts):
    """Of a large value it keeps the hash."""
    await make(parts)
    await parts.groups.change_policy(principal(), "web", policy(allow=[f"10.0.{n}.1" for n in range(250)]))
    detail = (await entries(parts))[-1].detail
    assert set(detail["after"]["isolation"]["allow"]) == {"bytes", "sha256"}
    assert len(str(detail)) < MAX_VALUE


async def test_a_change_of_an_older_version_is_refused(parts):
    """Two who edit at once do not overwrite each other; who wants to overwrites."""
    await make(parts)
    await parts.groups.change_policy(principal(name="bob"), "web", policy(0, duration="1h"))
    with pytest.raises(Conflict, match="version 1 by bob"):
        await parts.groups.change_policy(principal(), "web", policy(0, duration="2h"))
    assert (await parts.groups.change_policy(principal(), "web", policy(None, duration="2h"))).version == 2
    with pytest.raises(Conflict):
        await parts.groups.change_policy(principal(), "web", policy(3))


async def test_what_no_envelope_holds_is_refused(parts):
    """Before anything is stored."""
    await make(parts)
    large = [f"out tcp {'x' * 60}.{n}.{'y' * 60}.{'z' * 60} remote 1" for n in range(5000)]
    with pytest.raises(TooLarge, match=str(MAX_SECTION_BYTES)):
        await parts.groups.change_policy(principal(), "web", policy(allow=large))
    assert (await parts.groups.policy("web")).version == 0


async def every_change(parts, who) -> list[type[Exception] | None]:
    """What comes of each way to change the group web."""
    ended: list[type[Exception] | None] = []
    for change in (
        lambda: parts.groups.create(who, GroupCreate(name="new", labels=("role=web",))),
        lambda: parts.groups.change(who, "web", GroupChange(rank=1)),
        lambda: parts.groups.change_policy(who, "web", policy(tell=True)),
        lambda: parts.groups.delete(who, "web"),
    ):
        try:
            await change()
            ended.append(None)
        except StanchError as error:
            ended.append(type(error))
    return ended


@pytest.mark.parametrize("role", NOT_ADMINISTRATORS)
async def test_only_who_may_configure_changes_groups(parts, role):
    """Nobody else, in whatever way."""
    await make(parts)
    assert await every_change(parts, principal(role)) == [Denied] * 4


async def test_labels_of_a_principal_bound_its_groups(parts):
    """A group must hold only endpoints that the principal may act on, before the change and after it."""
    await make(parts, "web", "role=web")
    bound = principal(labels=("env=prod",))
    assert await every_change(parts, bound) == [Denied] * 4
    own = await parts.groups.create(bound, GroupCreate(name="own", labels=("env=prod", "role=web")))
    assert own.labels == ("env=prod", "role=web")
    await parts.groups.change_policy(bound, "own", policy(tell=True))
    with pytest.raises(Denied, match="env=prod"):
        await parts.groups.change(bound, "own", GroupChange(labels=("role=web",)))
    with pytest.raises(Denied, match="env=prod"):
        await parts.groups.change_policy(bound, EVERY, policy(tell=True))
    await parts.groups.delete(bound, "own")


async def test_what_an_endpoint_follows_and_why(parts):
    """The smallest rank decides, and a changed label changes it."""
    await parts.add_endpoints("a", labels=["role=web"])
    await make(parts, rank=10)
    await parts.groups.change_policy(principal(), "web", policy(duration="1h"))
    await parts.groups.change_policy(principal(), EVERY, policy(duration="9h"))
    found = await parts.groups.effective("a")
    assert (found.endpoint, found.hostname, found.groups) == ("end_a", "a", ("web", EVERY))
    assert found.decided_by == {"isolation": "web"}
    assert found.settings.isolation.duration.total_seconds() == 3600
    await parts.fleet.label(principal(), "a", LabelChange(remove=("role",)))
    found = await parts.groups.effective("end_a")
    assert (found.groups, found.decided_by) == ((EVERY,), {"isolation": EVERY})
    with pytest.raises(NotFound):
        await parts.groups.effective("nobody")


async def test_nothing_is_decided_where_nothing_is_set(parts):
    """An empty policy is shown as one."""
    await parts.add_endpoints("a")
    found = await parts.groups.effective("a")
    assert (found.settings.isolation, found.decided_by, found.groups) == (None, {}, (EVERY,))
