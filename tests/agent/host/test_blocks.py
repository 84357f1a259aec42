"""Blocks: cut into pieces without overlaps, in force both ways on a real kernel, and read back."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.blocks import MAX_BLOCKS, Piece, parse, pieces, tables
from stanch.core.errors import Invalid
from stanch.core.network import Block, IsolationState, Peer
from tests.agent.host.probes import passing, ping, tcp, udp
from tests.agent.host.test_exclusions import ALL, INWARD, OUTWARD, addresses, everything
from tests.agent.host.test_listing import junk
from tests.agent.host.world import MINUTE, SERVER_PORT, Tap, World, fence, new_world, packet, send_raw, send_udp

HOUR = timedelta(hours=1)


@pytest.fixture
def world() -> Iterator[World]:
    """An endpoint, the world outside, and a container behind the endpoint."""
    with new_world() as made:
        yield made


# --- pieces ----------------------------------------------------------------------------------------------------------

small_networks = st.builds(
    lambda first, length: ip_network((f"10.0.0.{first}", length), strict=False), st.integers(0, 15), st.integers(28, 32)
)
lengths = st.none() | st.integers(1, 4).map(lambda hours: timedelta(hours=hours))


@given(st.lists(st.builds(Piece, small_networks, lengths), max_size=8))
def test_each_address_is_blocked_as_long_as_its_longest_block(blocked):
    """Compared address by address: each is in exactly one piece, with the longest time of the blocks that cover it."""
    made = pieces(blocked, 4)
    for number in range(-1, 17):
        address = ip_address("10.0.0.0") + number
        over = [one.remaining for one in blocked if address in one.network]
        expected = [None if None in over else max(over)] if over else []
        assert [one.remaining for one in made if address in one.network] == expected


def test_versions_are_cut_apart():
    """IPv6 networks are pieces of their own sets, up to the last address there is."""
    blocked = [
        Piece(ip_network("::/0"), HOUR),
        Piece(ip_network("ffff::/16"), None),
        Piece(ip_network("0.0.0.0/0"), HOUR),
    ]
    assert pieces(blocked, 4) == [Piece(ip_network("0.0.0.0/0"), HOUR)]
    made = pieces(blocked, 6)
    assert made[-1] == Piece(ip_network("ffff::/16"), None)
    assert sum(one.network.num_addresses for one in made) == 2**128


def test_too_many_blocks_are_refused():
    """A bound protects the kernel."""
    with pytest.raises(Invalid, match="too many"):
        tables([Block(network=ip_network("10.0.0.0/8"))] * (MAX_BLOCKS + 1), [], [], egress=False)


# --- in force --------------------------------------------------------------------------------------------------------


def block(world: World, *blocks: Block, own: bool | None = None) -> tuple[Block, ...]:
    async def use(firewall):
        await firewall.block(blocks, servers=world.rules.servers)
        return await firewall.blocks()

    return world.firewall(use, own=own)


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("inward", "outward", "passes"),
    [(True, True, set()), (True, False, {"udp sent"}), (False, True, {"udp received"})],
)
def test_a_block_cuts_each_way_that_it_says(world, version, inward, outward, passes):
    """Packets one way pass only if they need not be answered the other; everything else of the network is cut."""
    here, there = addresses(world, version)
    block(world, Block(network=ip_network(there), inward=inward, outward=outward))
    endpoint, outside = world.endpoint, world.outside
    sent, received = udp("udp sent", endpoint, outside, there, 123), udp("udp received", outside, endpoint, here, 53)
    sent.answered = received.answered = lambda: True
    probes = [sent, received, tcp("tcp", endpoint, outside, there, 443), tcp("tcp in", outside, endpoint, here, 22),
              ping("ping", endpoint, there)]  # fmt: skip
    assert passing(world, probes) == passes


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
def test_a_block_leaves_everybody_else_alone(world, version):
    """A block of another network cuts nothing, and when it is taken away its tables are gone."""
    block(world, Block(network=ip_network("203.0.113.0/24")), Block(network=ip_network("2001:db8::/32")))
    assert passing(world, everything(world, version)) == ALL == OUTWARD | INWARD
    assert block(world) == ()
    assert world.endpoint.command("nft list ruleset") == ""


@pytest.mark.root
def test_forwarded_traffic_and_raw_frames_are_blocked_too(world):
    """A container behind the endpoint, and a raw socket, reach the network no more."""
    tap = Tap(world.outside, world.out.device)
    block(world, Block(network=ip_network(world.out.right4)), Block(network=ip_network(world.out.right6)))
    for address in (world.out.right4, world.out.right6):
        send_udp(world.container, address)
        send_udp(world.endpoint, address)
    send_raw(world.endpoint, world.out.device, packet(world.out.right4))
    fence(world)
    assert tap.leaks() == []


@pytest.mark.root
def test_the_server_is_never_blocked(world):
    """In a blocked network the server stays reachable at its port, and nothing else there; its socket lives on."""
    network = ip_network(world.out.right4).supernet(8)
    with world.outside.listen(world.out.right4, SERVER_PORT) as listener:
        call = world.endpoint.connect(world.out.right4, SERVER_PORT)
        answer = world.outside.accept(listener)
    with world.outside.listen(world.out.right4, 443) as listener:
        doomed = world.endpoint.connect(world.out.right4, 443)
        world.outside.accept(listener)

    async def use(firewall):
        one = Block(network=network)
        await firewall.block([one], servers=world.rules.servers)
        return await firewall.destroy_blocked(one)

    assert world.firewall(use) == 1
    with pytest.raises(ConnectionAbortedError):
        doomed.recv(1)
    call.sendall(b"still")
    assert answer.recv(5) == b"still"
    with pytest.raises(ConnectionRefusedError):
        world.endpoint.connect(world.out.right4, 443)


@pytest.mark.root
def test_loopback_and_own_addresses_are_not_blocked(world):
    """Programs of the endpoint still reach each other at an address in a blocked network."""
    block(world, Block(network=ip_network("10.0.0.0/8")), Block(network=ip_network("127.0.0.0/8")))
    for address in ("127.0.0.1", world.out.left4):
        with world.endpoint.listen(address, 9000) as listener:
            world.endpoint.connect(address, 9000)
            world.endpoint.accept(listener)


@pytest.mark.root
@pytest.mark.parametrize("own", [True, False])
def test_blocks_are_read_back_with_their_time(world, own):
    """Overlaps come back as pieces, each with its own time left; the isolation beside them is untouched."""
    world.isolate()
    ten, one = ip_network("10.0.0.0/31"), ip_network("10.0.0.1/32")
    found = block(
        world, Block(network=ten, remaining=HOUR), Block(network=one, inward=False, remaining=2 * HOUR), own=own
    )
    told = {(str(each.network), each.inward, each.outward): each.remaining for each in found}
    assert set(told) == {
        ("10.0.0.0/31", True, False), ("10.0.0.0/32", False, True), ("10.0.0.1/32", False, True)
    }  # fmt: skip
    assert HOUR - MINUTE < told["10.0.0.0/31", True, False] <= HOUR
    assert 2 * HOUR - MINUTE < told["10.0.0.1/32", False, True] <= 2 * HOUR
    assert world.state().state is IsolationState.ISOLATED
    assert block(world, Block(network=ten), own=own) == (Block(network=ten),)
    assert world.lift()
    assert world.firewall(lambda firewall: firewall.blocks()) == (Block(network=ten),)


@pytest.mark.root
def test_the_kernel_forgets_a_block_by_itself(world):
    """When its time is over the network is open again, whoever is still alive."""
    block(world, Block(network=ip_network(world.out.right4), remaining=timedelta(milliseconds=1)))
    probe = udp("udp", world.endpoint, world.outside, world.out.right4, 123)
    assert passing(world, [probe]) == {"udp"}
    assert world.firewall(lambda firewall: firewall.blocks()) == ()


# --- back ------------------------------------------------------------------------------------------------------------

LISTING = {
    "nftables": [
        {"table": {"family": "inet", "name": "stanch_block"}},
        {"rule": {"chain": "notes", "comment": "stanch blocks 1 b"}},
        {
            "set": {
                "name": "in4_b",
                "elem": [{"elem": {"val": {"prefix": {"addr": "10.0.0.0", "len": 8}}, "expires": 7}}],
            }
        },
        {"set": {"name": "out4_b", "elem": ["192.0.2.1"]}},
        {"set": {"name": "in6_b"}},
        {"set": {"name": "out6_b"}},
    ]
}


def test_a_listing_is_read():
    """Elements with and without a time-out are blocks, each in its direction."""
    assert parse(LISTING) == (
        Block(network=ip_network("10.0.0.0/8"), outward=False, remaining=timedelta(seconds=7)),
        Block(network=ip_network("192.0.2.1/32"), inward=False),
    )


@given(st.sampled_from(["in4_b", "out4_b", "in6_b", "out6_b"]), junk)
def test_a_listing_that_is_not_ours_is_invalid(name, elements):
    """Whatever a table of our name holds, reading it gives blocks or Invalid, never another error."""
    items = json.loads(json.dumps(LISTING["nftables"]))
    for one in items:
        if one.get("set", {}).get("name") == name:
            one["set"]["elem"] = elements
    with suppress(Invalid):
        assert all(one.inward or one.outward for one in parse({"nftables": items}))


@given(junk)
def test_a_listing_of_nothing_known_is_invalid(listing):
    """A listing without our sets is refused."""
    with pytest.raises(Invalid):
        parse({"nftables": listing})


def test_servers_are_in_the_sets_of_their_version():
    """Each server once, mapped addresses as IPv4."""
    servers = [Peer(address=ip_address("::ffff:192.0.2.1"), port=1), Peer(address=ip_address("192.0.2.1"), port=1)]
    (inet,) = tables([Block(network=ip_network("10.0.0.0/8"))], servers, [], egress=False)
    assert {one.name: list(one.elements) for one in inet.sets if one.name.startswith("server")} == {
        "server4": ["192.0.2.1 . 1"], "server6": []
    }  # fmt: skip
