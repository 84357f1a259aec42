"""Is an address blocked and opened truthfully, each way, for its time, beside other blocks and an isolation?"""

import asyncio
from datetime import timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.block_address import (
    PREFIX,
    BlockAddress,
    UnblockAddress,
    block_address,
    blocks_of,
    effect_names,
    unblock_address,
)
from stanch.actions.isolate import EFFECT, Isolate, Release, isolate, release
from stanch.core.action import Verdict
from stanch.core.errors import ActionFailed, Conflict, Invalid
from stanch.core.exclusion import Direction
from stanch.core.network import Peer
from stanch.core.types import hours, minutes, seconds
from tests.fakes.host import SERVER, FakeEndpoint, socket_to
from tests.fakes.killing import killed_at_every_step, killed_twice

EVIL, ELSEWHERE = socket_to("203.0.113.9:443"), socket_to("198.51.100.1:443")
TO_SERVER = socket_to("192.0.2.1:8443")
NETWORK = ip_network("203.0.113.0/24")
HOUR = BlockAddress(network=NETWORK, duration=hours(1))
OPEN = UnblockAddress(network=NETWORK)


async def fresh():
    """An endpoint with a connection into the network, and another one."""
    endpoint = FakeEndpoint()
    endpoint.firewall.sockets = [EVIL, ELSEWHERE]
    return endpoint


@pytest.fixture
async def endpoint():
    return await fresh()


async def blocked(params=HOUR):
    """An endpoint on which another task has blocked something ten minutes ago."""
    endpoint = await fresh()
    await block_address.run(endpoint.host, params)
    endpoint.clock.advance(minutes(10))
    endpoint.next_task("tsk_2")
    endpoint.life.restart()
    return endpoint


async def dropped(endpoint):
    """What the kernel drops: network, way and what is left of it."""
    return {
        (str(one.network), way, one.remaining)
        for one in await endpoint.firewall.blocks()
        for way, on in (("in", one.inward), ("out", one.outward))
        if on
    }


async def assert_open(endpoint):
    """Nothing is dropped, and nothing is written down."""
    assert await dropped(endpoint) == set()
    assert endpoint.effects.held == {}


# --- block -----------------------------------------------------------------------------------------------------------


async def test_it_drops_both_ways_for_its_time_and_cuts_connections(endpoint):
    """Kernel, disk and result agree; connections to elsewhere stay."""
    result = await block_address.run(endpoint.host, HOUR)
    assert (result.changed, result.direction, result.added) == (True, Direction.BOTH, Direction.BOTH)
    assert result.until == endpoint.clock.now() + hours(1)
    assert result.sockets_destroyed == 1
    assert endpoint.firewall.sockets == [ELSEWHERE]
    assert await dropped(endpoint) == {("203.0.113.0/24", "in", hours(1)), ("203.0.113.0/24", "out", hours(1))}
    assert {one.until for one in endpoint.effects.all()} == {result.until}
    assert (await block_address.verify(endpoint.host, HOUR, result)).verdict is Verdict.IN_PLACE


async def test_it_is_on_the_disk_before_the_kernel_is_told(endpoint):
    """The record, both effects, the kernel, and then the connections."""
    await block_address.run(endpoint.host, HOUR)
    expected = ["journal.record", "effects.hold", "effects.hold", "firewall.block", "firewall.destroy_blocked"]
    assert endpoint.life.steps == expected


@pytest.mark.parametrize(("direction", "ways"), [("in", {"in"}), ("out", {"out"}), ("both", {"in", "out"})])
async def test_each_way_is_its_own(endpoint, direction, ways):
    """One way leaves the other open; its effect says how it is lifted."""
    params = BlockAddress(network=NETWORK, direction=direction, duration=None)
    result = await block_address.run(endpoint.host, params)
    assert await dropped(endpoint) == {("203.0.113.0/24", way, None) for way in ways}
    assert result.until is None
    for effect in endpoint.effects.all():
        assert effect.lift_action == "unblock_address"
        assert effect.lift_params["direction"] in ways
        unblock_address.parse(effect.lift_params)


async def test_its_time_passes(endpoint):
    """The kernel stops dropping by itself, and verify says so."""
    result = await block_address.run(endpoint.host, HOUR)
    endpoint.clock.advance(hours(1))
    assert await dropped(endpoint) == set()
    assert (await block_address.verify(endpoint.host, HOUR, result)).verdict is Verdict.ABSENT


async def test_what_lifts_it_at_its_deadline_works():
    """Nothing of its time is left then, and the unblock that its effect asks for ends well."""
    endpoint = await blocked()
    endpoint.clock.advance(hours(1))
    opened = await unblock_address.run(endpoint.host, UnblockAddress(network=NETWORK))
    assert (opened.changed, opened.remaining) == (True, seconds(1))
    assert not endpoint.effects.held


async def test_a_renewal_lasts_anew_and_is_no_change():
    """Blocked again for another time: the new end counts; there is nothing that an undo may open."""
    endpoint = await blocked()
    params = BlockAddress(network=NETWORK, duration=hours(3))
    assert not (await block_address.plan(endpoint.host, params)).changes
    result = await block_address.run(endpoint.host, params)
    assert (result.changed, result.added) == (False, None)
    assert {left for _, _, left in await dropped(endpoint)} == {hours(3)}
    assert result.until == endpoint.clock.now() + hours(3)
    assert block_address.undo_params(params, result) is None


async def test_an_undo_opens_only_the_way_that_was_added():
    """What another order had blocked before stays blocked."""
    endpoint = await blocked(BlockAddress(network=NETWORK, direction="in", duration=None))
    result = await block_address.run(endpoint.host, HOUR)
    assert (result.changed, result.added) == (True, Direction.OUT)
    _, back = block_address.undo_params(HOUR, result)
    endpoint.next_task("tsk_3")
    await unblock_address.run(endpoint.host, back)
    assert {way for _, way, _ in await dropped(endpoint)} == {"in"}


async def test_a_block_that_is_over_is_none(endpoint):
    """Written down still, but past its deadline: to block again is a change."""
    await block_address.run(endpoint.host, HOUR)
    endpoint.clock.advance(hours(1))
    endpoint.next_task("tsk_2")
    assert (await block_address.plan(endpoint.host, HOUR)).changes
    result = await block_address.run(endpoint.host, HOUR)
    assert (result.changed, result.added) == (True, Direction.BOTH)
    assert {left for _, _, left in await dropped(endpoint)} == {hours(1)}


async def test_a_block_that_is_over_is_not_put_back_by_another(endpoint):
    """Between its deadline and its lift, another block goes into the kernel without it."""
    await block_address.run(endpoint.host, HOUR)
    endpoint.clock.advance(hours(1))
    endpoint.next_task("tsk_2")
    await block_address.run(endpoint.host, BlockAddress(network=ip_network("198.51.100.7"), duration=None))
    assert {network for network, _, _ in await dropped(endpoint)} == {"198.51.100.7/32"}


async def test_blocks_overlap():
    """A smaller block in a larger one has its own way and time, and stays when the larger one is opened."""
    endpoint = await blocked()
    inner = BlockAddress(network=ip_network("203.0.113.9"), direction="out", duration=None)
    await block_address.run(endpoint.host, inner)
    assert ("203.0.113.9/32", "out", None) in await dropped(endpoint)
    assert ("203.0.113.0/24", "in", minutes(50)) in await dropped(endpoint)
    endpoint.next_task("tsk_3")
    result = await unblock_address.run(endpoint.host, OPEN)
    assert result.still_blocked_by == (ip_network("203.0.113.9/32"),)
    assert await dropped(endpoint) == {("203.0.113.9/32", "out", None)}
    assert (await unblock_address.verify(endpoint.host, OPEN, result)).verdict is Verdict.IN_PLACE


async def test_it_stands_beside_an_isolation(endpoint):
    """Neither lifts nor changes the other."""
    await isolate.run(endpoint.host, Isolate())
    rules = endpoint.firewall.rules
    endpoint.next_task("tsk_2")
    await block_address.run(endpoint.host, HOUR)
    assert endpoint.firewall.rules == rules
    endpoint.next_task("tsk_3")
    await release.run(endpoint.host, Release())
    assert len(await dropped(endpoint)) == 2
    assert EFFECT not in endpoint.effects.held


@pytest.mark.parametrize(
    "network",
    [
        *("0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"),
        *("127.0.0.1", "127.0.0.0/8", "126.0.0.0/7", "0.0.0.0/1", "::1", "::/64", "::ffff:127.0.0.1"),
    ],
)
async def test_everything_and_the_loopback_are_refused(endpoint, network):
    """That would be an isolation, or break the endpoint itself; in any spelling, planned or not."""
    for ask in (block_address.run, block_address.plan):
        with pytest.raises(Invalid):
            await ask(endpoint.host, BlockAddress(network=network))
    await assert_open(endpoint)


@pytest.mark.parametrize("network", ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.80/32", "10.0.0.5"])
async def test_the_way_to_the_server_and_the_endpoint_itself_are_refused(endpoint, network):
    """The server, a proxy on the way to it, and own addresses."""
    endpoint.server.through = (Peer(address=ip_address("192.0.2.80"), port=3128),)
    with pytest.raises(Conflict):
        await block_address.run(endpoint.host, BlockAddress(network=network))
    await assert_open(endpoint)


async def test_the_server_in_a_blocked_network_stays_reachable(endpoint):
    """The kernel is told to keep the way open, proxies included, and plan and result name it."""
    endpoint.server.through = (Peer(address=ip_address("192.0.2.80"), port=3128),)
    endpoint.firewall.sockets = [TO_SERVER, socket_to("192.0.2.1:22")]
    params = BlockAddress(network="192.0.2.0/24")
    plan = await block_address.plan(endpoint.host, params)
    result = await block_address.run(endpoint.host, params)
    assert result.kept_open == ("192.0.2.1 port 8443", "192.0.2.80 port 3128")
    assert [line.removeprefix("The server stays reachable at ") for line in plan.warnings] == [*result.kept_open]
    assert endpoint.firewall.exempt == (SERVER, *endpoint.server.through)
    assert endpoint.firewall.sockets == [TO_SERVER]


@pytest.mark.parametrize("network", ["fe80::1%eth0", "10.0.0.0/33", "example.com", ""])
def test_what_is_no_network_is_refused(network):
    """Zone ids, names and nonsense do not pass the parameters."""
    with pytest.raises(Invalid, match="network"):
        block_address.parse({"network": network})


async def test_a_plan_touches_nothing(endpoint):
    """It says what would be dropped, and how long."""
    plan = await block_address.plan(endpoint.host, HOUR)
    assert plan.changes
    assert [(step.what, step.target) for step in plan.steps] == [("Drop traffic from and to for 1h", "203.0.113.0/24")]
    assert endpoint.life.steps == []


# --- when it fails ---------------------------------------------------------------------------------------------------


async def test_a_kernel_that_cannot_leaves_nothing_written_down(endpoint):
    """What could not be put in force is not told as being in force."""
    endpoint.firewall.fails = ActionFailed("nft is broken")
    with pytest.raises(ActionFailed):
        await block_address.run(endpoint.host, HOUR)
    await assert_open(endpoint)


async def test_a_kernel_that_cannot_renew_leaves_the_block():
    """The earlier block is still written down, and still in the kernel."""
    endpoint = await blocked()
    endpoint.firewall.fails = ActionFailed("nft is broken")
    with pytest.raises(ActionFailed):
        await block_address.run(endpoint.host, BlockAddress(network=NETWORK, duration=hours(9)))
    assert {way for _, way, _ in await dropped(endpoint)} == {"in", "out"}
    assert {*endpoint.effects.held} == {*effect_names(NETWORK, Direction.BOTH)}


async def test_one_effect_too_many_leaves_neither(endpoint, monkeypatch):
    """Both ways or none: the first is taken back when the second finds no room."""
    hold = endpoint.effects.hold

    async def only_one(name, **rest):
        if endpoint.effects.held:
            raise Conflict("Too many lasting effects are in force")
        return await hold(name, **rest)

    monkeypatch.setattr(endpoint.effects, "hold", only_one)
    with pytest.raises(Conflict):
        await block_address.run(endpoint.host, HOUR)
    await assert_open(endpoint)


async def test_verify_sees_a_hole(endpoint):
    """Gone from the kernel, one way only, or not written down: absent."""
    result = await block_address.run(endpoint.host, HOUR)
    both = endpoint.firewall.blocked
    endpoint.firewall.blocked = tuple(one for one in both if one[0].inward)
    assert (await block_address.verify(endpoint.host, HOUR, result)).verdict is Verdict.ABSENT
    endpoint.firewall.blocked = both
    endpoint.effects.held.popitem()
    assert (await block_address.verify(endpoint.host, HOUR, result)).verdict is Verdict.ABSENT


async def test_a_block_in_pieces_is_in_place(endpoint):
    """The kernel may cut a network: its halves together are the whole."""
    result = await block_address.run(endpoint.host, HOUR)
    endpoint.firewall.blocked = tuple(
        (type(one)(network=half, inward=one.inward, outward=one.outward), end)
        for one, end in endpoint.firewall.blocked
        for half in one.network.subnets()
    )
    assert (await block_address.verify(endpoint.host, HOUR, result)).verdict is Verdict.IN_PLACE


# --- unblock ---------------------------------------------------------------------------------------------------------


async def test_it_opens_and_tells_what_was():
    """The result holds what is needed to block again."""
    endpoint = await blocked()
    assert (await unblock_address.plan(endpoint.host, OPEN)).changes
    result = await unblock_address.run(endpoint.host, OPEN)
    assert (result.changed, result.direction, result.remaining) == (True, Direction.BOTH, minutes(50))
    await assert_open(endpoint)
    assert (await unblock_address.verify(endpoint.host, OPEN, result)).verdict is Verdict.IN_PLACE


async def test_what_was_not_blocked_is_no_change(endpoint):
    """There is nothing to take back, and a plan says so."""
    plan = await unblock_address.plan(endpoint.host, OPEN)
    assert (plan.changes, plan.steps) == (False, ())
    result = await unblock_address.run(endpoint.host, OPEN)
    assert (result.changed, result.remaining) == (False, None)
    assert unblock_address.undo_params(OPEN, result) is None


async def test_one_way_is_opened():
    """The other stays; of what was blocked one way only, that way is told."""
    endpoint = await blocked()
    result = await unblock_address.run(endpoint.host, UnblockAddress(network=NETWORK, direction="in"))
    assert (result.direction, result.still_blocked_by) == (Direction.IN, ())
    assert {way for _, way, _ in await dropped(endpoint)} == {"out"}
    endpoint.next_task("tsk_3")
    assert (await unblock_address.run(endpoint.host, OPEN)).direction is Direction.OUT
    await assert_open(endpoint)


async def test_a_kernel_that_still_drops_is_not_open():
    """Not written down, but in force: that is not done. What another block explains is."""
    endpoint = await blocked()
    still = endpoint.firewall.blocked
    result = await unblock_address.run(endpoint.host, OPEN)
    endpoint.firewall.blocked = still
    assert (await unblock_address.verify(endpoint.host, OPEN, result)).verdict is Verdict.ABSENT
    await endpoint.effects.hold(
        "block:203.0.0.0/16:in", lift_action="unblock_address", lift_params={}, detail={}, lasts=None
    )
    assert (await unblock_address.verify(endpoint.host, OPEN, result)).verdict is Verdict.ABSENT
    one_way = UnblockAddress(network=NETWORK, direction="in")
    assert (await unblock_address.verify(endpoint.host, one_way, result)).verdict is Verdict.IN_PLACE


async def test_an_unblock_that_fails_can_be_ordered_again():
    """The kernel drops on, and the next order opens it."""
    endpoint = await blocked()
    endpoint.firewall.fails = ActionFailed("nft is broken")
    with pytest.raises(ActionFailed):
        await unblock_address.run(endpoint.host, OPEN)
    endpoint.firewall.fails = None
    endpoint.next_task("tsk_3")
    await unblock_address.run(endpoint.host, OPEN)
    await assert_open(endpoint)


# --- kill -9 and cancels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [killed_at_every_step, killed_twice])
async def test_killed_anywhere_it_ends_blocked(kill):
    """At any step, and at any step of going on: kernel, disk and result agree, and it was a change."""
    for endpoint in await kill(fresh, block_address, HOUR):
        endpoint.clock.advance(minutes(1))
        held = bool(endpoint.effects.held)
        result = await block_address.run(endpoint.host, HOUR)
        assert (result.changed, result.added) == (True, Direction.BOTH)
        assert {way for _, way, _ in await dropped(endpoint)} == {"in", "out"}
        assert {left for _, _, left in await dropped(endpoint)} <= {hours(1), minutes(59) if held else hours(1)}
        assert endpoint.firewall.sockets == [ELSEWHERE]


@pytest.mark.parametrize("kill", [killed_at_every_step, killed_twice])
async def test_unblock_killed_anywhere_ends_open(kill):
    """Run again, it opens the rest, and tells of the block that there was."""
    for endpoint in await kill(blocked, unblock_address, OPEN):
        result = await unblock_address.run(endpoint.host, OPEN)
        await assert_open(endpoint)
        assert (result.changed, result.direction, result.remaining) == (True, Direction.BOTH, minutes(50))


async def test_a_renewal_that_was_killed_is_in_place():
    """Whoever cancels it then must not open what another order has blocked: it is finished."""

    async def one_way():
        return await blocked(BlockAddress(network=NETWORK, direction="in", duration=None))

    for endpoint in (await killed_at_every_step(one_way, block_address, HOUR))[1:]:
        assert (await block_address.verify(endpoint.host, HOUR, None)).verdict is Verdict.IN_PLACE
        await block_address.run(endpoint.host, HOUR)
        assert {way for _, way, _ in await dropped(endpoint)} == {"in", "out"}


async def test_a_new_block_that_was_killed_early_is_absent():
    """A cancel then leaves nothing: what is written down is lifted."""
    for endpoint in (await killed_at_every_step(fresh, block_address, HOUR))[:4]:
        assert (await block_address.verify(endpoint.host, HOUR, None)).verdict is Verdict.ABSENT


async def test_half_an_unblock_is_in_place():
    """One way is open already: a cancel cannot shut it again, so it is finished. Before that, nothing was done."""
    verdicts = [
        (await unblock_address.verify(endpoint.host, OPEN, None)).verdict
        for endpoint in await killed_at_every_step(blocked, unblock_address, OPEN)
    ]
    assert verdicts == [Verdict.ABSENT, Verdict.ABSENT, Verdict.IN_PLACE, Verdict.IN_PLACE]


# --- undo(do(x)) == x, and every sequence ----------------------------------------------------------------------------

NETWORKS = [ip_network(one) for one in ("203.0.113.0/24", "203.0.113.9", "203.0.0.0/16", "2001:db8::/32")]
durations = st.none() | st.integers(3600, 9999 * 3600).map(lambda n: timedelta(seconds=n))
params = st.builds(
    BlockAddress, network=st.sampled_from(NETWORKS), direction=st.sampled_from(Direction), duration=durations
)


@given(st.lists(params, max_size=3), params)
def test_undo_of_a_block_leaves_what_was(before, one):
    """Whatever was blocked before, each way of it: what was open is open again, and nothing else is."""

    async def check():
        endpoint = FakeEndpoint()
        for n, earlier in enumerate(before):
            endpoint.next_task(f"tsk_{n}")
            await block_address.run(endpoint.host, earlier)
        were = {*endpoint.effects.held}
        endpoint.next_task("tsk_a")
        result = await block_address.run(endpoint.host, one)
        back = block_address.undo_params(one, result)
        assert (back is not None) is result.changed
        if back is not None:
            endpoint.next_task("tsk_b")
            await unblock_address.run(endpoint.host, unblock_address.parse(back[1].model_dump(mode="json")))
        assert {*endpoint.effects.held} == were

    asyncio.run(check())


@given(params)
def test_undo_of_an_unblock_blocks_again(one):
    """The same network, the same way, until the same moment."""

    async def check():
        endpoint = FakeEndpoint()
        await block_address.run(endpoint.host, one)
        endpoint.clock.advance(minutes(30))
        before = await dropped(endpoint)
        endpoint.next_task("tsk_2")
        opening = UnblockAddress(network=one.network)
        result = await unblock_address.run(endpoint.host, opening)
        _, again = unblock_address.undo_params(opening, result)
        endpoint.next_task("tsk_3")
        await block_address.run(endpoint.host, block_address.parse(again.model_dump(mode="json")))
        assert await dropped(endpoint) == before

    asyncio.run(check())


@given(st.lists(st.tuples(st.booleans(), params), max_size=8))
def test_the_kernel_drops_what_the_last_word_on_each_way_says(words):
    """After any sequence of blocks and unblocks, of networks that overlap, the kernel has exactly what is held."""

    async def check():
        endpoint, wanted = FakeEndpoint(), {}
        for n, (on, one) in enumerate(words):
            endpoint.next_task(f"tsk_{n}")
            for name in effect_names(one.network, one.direction):
                wanted.pop(name, None)
                if on:
                    wanted[name] = one.duration
            undo = UnblockAddress(network=one.network, direction=one.direction)
            action, said = (block_address, one) if on else (unblock_address, undo)
            result = await action.run(endpoint.host, said)
            assert (await action.verify(endpoint.host, said, result)).verdict is Verdict.IN_PLACE
        expected = {(*name.removeprefix(PREFIX).rpartition(":")[::2], left) for name, left in wanted.items()}
        assert await dropped(endpoint) == expected

    asyncio.run(check())


def test_blocks_come_from_their_names_alone():
    """Other effects are none; one whose time is over is none; IPv6 has colons of its own."""
    endpoint = FakeEndpoint()

    async def hold(*names):
        for name in names:
            await endpoint.effects.hold(name, lift_action="x", lift_params={}, detail={}, lasts=None)

    asyncio.run(hold("isolation", "block:2001:db8::/32:in", "block:10.0.0.0/8:out"))
    left = {"isolation": None, "block:2001:db8::/32:in": hours(1), "block:10.0.0.0/8:out": timedelta(0)}
    (one,) = blocks_of(endpoint.effects.all(), left)
    assert (str(one.network), one.inward, one.outward, one.remaining) == ("2001:db8::/32", True, False, hours(1))


def test_names_of_blocks_fit():
    """The longest network makes a name that an effect may have."""
    longest = ip_network("2001:db8:ffff:ffff:ffff:ffff:ffff:0/112")
    assert max(map(len, effect_names(longest, Direction.BOTH))) <= 64
