"""Owned tables at the level of netlink: taken, left as orphans, taken again, and seen with their parts."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from stanch.agent.host.owner import Owner, look
from tests.agent.host.world import MINUTE, World, new_world
from tests.netns import Netns, netns

pytestmark = pytest.mark.root


@pytest.fixture
def world() -> Iterator[World]:
    """An endpoint, the world outside, and a container behind the endpoint."""
    with new_world() as made:
        yield made


def holding(namespace: Netns) -> Owner:
    """An owner of one table; skips where the kernel keeps none."""
    owner = Owner("mine")
    try:
        namespace.call(owner.take, ["inet"])
    except OSError as error:
        pytest.skip(f"this kernel keeps no owned tables: {error}")
    return owner


def test_a_table_outlives_its_owner_and_is_taken_again(looking):
    """Let go, it is nobody's and stays; whoever takes it next owns the same table."""
    with netns() as namespace:
        first = holding(namespace)
        (one,) = namespace.call(look, ["mine"], looking).values()
        assert (one.owner, one.persists) == (first.port, True)
        first.release()
        assert first.port == 0
        (orphan,) = namespace.call(look, ["mine"], looking).values()
        assert (orphan.owner, orphan.persists) == (0, True)
        namespace.command("nft add chain inet mine kept")
        second = Owner("mine")
        namespace.call(second.take, ["inet"])
        (again,) = namespace.call(look, ["mine"], looking).values()
        assert (again.owner, again.parts.chains) == (second.port, {"kept"})
        second.release()


def test_only_the_owner_deletes_its_table(looking):
    """Another socket is refused, and has nothing afterwards; the owner's delete leaves nothing."""
    with netns() as namespace:
        owner = holding(namespace)
        other = Owner("mine")
        with pytest.raises(OSError, match="not permitted"):
            namespace.call(other.take, ["inet"])
        assert other.port == 0
        with suppress(OSError):
            namespace.call(other.delete, ["inet"])
        assert namespace.call(look, ["mine"], looking)
        namespace.call(owner.delete, ["inet"])
        owner.release()
        assert namespace.call(look, ["mine"], looking) == {}


def test_what_is_there_is_seen_without_a_listing(world, looking):
    """Flags, chains and sets of our tables come from netlink; tables of others are not among them."""
    world.endpoint.command("nft -f -", stdin="table inet other { set stanch { type mark; }; chain stanch { }; }")
    world.firewall(lambda firewall: firewall.isolate(world.rules, lift_after=MINUTE), own=False)
    plain = world.endpoint.call(look, ["stanch"], looking)
    assert set(plain) == {("inet", "stanch"), ("netdev", "stanch")}
    inet = plain["inet", "stanch"]
    assert not inet.persists
    assert inet.owner == 0
    assert {"input", "output", "forward", "notes"} <= inet.parts.chains
    assert {"armed_a", "server4_a", "talk6"} <= inet.parts.sets
    assert not any(one.startswith("__") for one in inet.parts.sets)
    world.firewall(lambda firewall: firewall.isolate(world.rules, lift_after=MINUTE), own=True)
    assert world.endpoint.call(look, ["stanch"], looking)["inet", "stanch"].persists
