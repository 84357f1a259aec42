"""Which endpoints an order is for, when it is addressed to a group."""

import pytest
from sqlalchemy import select

from stanch.core.errors import Denied, Invalid, NotFound
from stanch.core.policy import Role
from stanch.core.rest import GroupChange, GroupCreate, OrderCommon
from stanch.server.store import tables
from tests.fakes.server_parts import principal


async def addressed(parts, **common) -> list[str]:
    """The host names that an order is for."""
    view = await parts.orders.submit(principal(), "release", {}, OrderCommon(**common))
    return sorted(one.hostname for one in view.tasks)


@pytest.fixture
async def fleet(parts):
    """Two web servers, one of them in production; a database; a group of each."""
    await parts.add_endpoints("web-prod", labels=["role=web", "env=prod"])
    await parts.add_endpoints("web-test", labels=["role=web", "env=test"])
    await parts.add_endpoints("db-prod", labels=["role=db", "env=prod"])
    for name in ("web", "db"):
        await parts.groups.create(principal(), GroupCreate(name=name, labels=(f"role={name}",)))
    return parts


async def test_a_group_is_all_of_its_endpoints(fleet):
    """And `all` is every one that is not revoked."""
    assert await addressed(fleet, group="web") == ["web-prod", "web-test"]
    await fleet.fleet.revoke(principal(), "web-test")
    assert await addressed(fleet, group="all") == ["db-prod", "web-prod"]


async def test_labels_narrow_a_group(fleet):
    """Both must hold."""
    assert await addressed(fleet, group="web", labels=("env=prod",)) == ["web-prod"]
    with pytest.raises(NotFound, match="group db"):
        await addressed(fleet, group="db", labels=("env=test",))


async def test_names_must_belong_to_the_group(fleet):
    """A named endpoint outside of it is a mistake of whoever ordered, and nothing is ordered."""
    assert await addressed(fleet, group="web", endpoints=("web-prod", "end_web-test")) == ["web-prod", "web-test"]
    with pytest.raises(Invalid, match="db-prod"):
        await addressed(fleet, group="web", endpoints=("web-prod", "db-prod"))
    with pytest.raises(Invalid, match="web-test"):
        await addressed(fleet, group="web", labels=("env=prod",), endpoints=("web-test",))


async def test_a_group_that_is_not_there_says_which_are(fleet):
    """Before anything is ordered."""
    with pytest.raises(NotFound, match="db, web, all"):
        await addressed(fleet, group="wbe")


async def test_a_group_is_resolved_when_the_order_is_submitted(fleet):
    """What becomes of it afterwards changes nothing."""
    view = await fleet.orders.submit(principal(), "release", {}, OrderCommon(group="web"))
    await fleet.groups.change(principal(), "web", GroupChange(labels=("role=db",)))
    await fleet.groups.delete(principal(), "web")
    assert len((await fleet.orders.get(view.id)).tasks) == 2


# --- typed once more -------------------------------------------------------------------------------------------------


async def rebooted(parts, **common) -> list[str]:
    """The host names of endpoints whose restart was ordered."""
    view = await parts.orders.submit(principal(Role.ADMINISTRATOR), "reboot", {}, OrderCommon(**common))
    return sorted(one.hostname for one in view.tasks)


@pytest.mark.parametrize("confirm", ["web-prod", "end_web-prod"])
async def test_one_endpoint_is_confirmed_by_its_name(fleet, confirm):
    """Or its id, however it was addressed."""
    assert await rebooted(fleet, endpoints=("web-prod",), confirm=confirm) == ["web-prod"]
    assert await rebooted(fleet, group="web", labels=("env=prod",), confirm=confirm) == ["web-prod"]


@pytest.mark.parametrize("confirm", [None, "", "yes", "web-test", "1", "WEB-PROD", " web-prod"])
async def test_anything_else_is_refused_with_what_is_right(fleet, confirm):
    """And nothing is ordered."""
    with pytest.raises(Invalid, match="web-prod") as refused:
        await rebooted(fleet, endpoints=("web-prod",), confirm=confirm)
    assert refused.value.expected == "web-prod"
    assert await fleet.orders.list() == ([], None)


async def test_several_are_confirmed_by_their_number(fleet):
    """As the server counts them: a name that was meant to be the only one does not do."""
    assert await rebooted(fleet, group="web", confirm="2") == ["web-prod", "web-test"]
    assert await rebooted(fleet, endpoints=("web-prod", "end_web-prod", "db-prod"), confirm="2") == [
        "db-prod",
        "web-prod",
    ]
    for wrong in ("web-prod", "3", "02"):
        with pytest.raises(Invalid) as refused:
            await rebooted(fleet, group="web", confirm=wrong)
        assert refused.value.expected == "2"


async def test_a_dry_run_needs_no_confirmation(fleet):
    """It changes nothing."""
    assert await rebooted(fleet, group="web", dry_run=True) == ["web-prod", "web-test"]


async def test_it_is_compared_wherever_it_is_given(fleet):
    """Somebody who confirms an action that needs none must be right as well."""
    assert await addressed(fleet, group="web", confirm="2") == ["web-prod", "web-test"]
    with pytest.raises(Invalid, match="expected 2"):
        await addressed(fleet, group="web", confirm="3")


async def test_who_may_not_order_it_does_not_learn_what_to_type(fleet):
    """The rights come first."""
    with pytest.raises(Denied):
        await fleet.orders.submit(principal(Role.VIEWER), "reboot", {}, OrderCommon(endpoints=("web-prod",)))


async def test_the_audit_keeps_what_was_typed(fleet):
    """Beside the reason."""
    await rebooted(fleet, group="web", confirm="2", reason="Wiper")
    rows = await fleet.database.read(
        lambda connection: connection.execute(select(tables.audit.c.detail)).scalars().all()
    )
    assert [one["confirm"] for one in rows if "confirm" in one] == ["2"]
