"""Which endpoints an order is for, when it is addressed to a group."""

import pytest

from stanch.core.errors import Invalid, NotFound
from stanch.core.rest import GroupChange, GroupCreate, OrderCommon
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
