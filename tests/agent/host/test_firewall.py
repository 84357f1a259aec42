"""The firewall's own word: state, deadline, guard, and what happens when parts of it are missing."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_network

import pytest
from structlog.testing import capture_logs

from stanch.agent.host.firewall import NftFirewall, judge, xdp_sockets
from stanch.agent.host.links import Link
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.nft import Nft
from stanch.agent.host.ruleset import Device, Listed
from stanch.core.errors import Invalid, Protected, Unsupported
from stanch.core.host import IsolationRules, IsolationState, KernelIsolation
from tests.agent.host.world import FRAME, MINUTE, Tap, World, fence, new_world, packet, send_udp
from tests.netns import netns, wire


@pytest.fixture
def world() -> Iterator[World]:
    """An endpoint, the world outside, and a container behind the endpoint."""
    with new_world() as made:
        yield made


# --- the deadline, and what the kernel says --------------------------------------------------------------------------


@pytest.mark.root
def test_the_kernel_lifts_it_by_itself(world):
    """At the deadline traffic passes again though nobody is alive to lift it, and the state says released."""
    tap = Tap(world.outside, world.out.device)
    before = world.isolate(lift_after=timedelta(seconds=1))
    assert before.state is IsolationState.ISOLATED
    raw = world.endpoint.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((world.out.device, 0))
    for _ in range(1000):
        with suppress(OSError):  # ENOBUFS while it is dropped
            raw.send(FRAME + packet(world.out.right4))
        if seen := tap.frames():
            break
        threading.Event().wait(0.01)
    assert seen
    send_udp(world.endpoint, world.out.right4)
    assert len(tap.frames()) == 1
    after = world.state()
    assert (after.state, after.rules, after.remaining) == (IsolationState.RELEASED, None, None)
    assert world.isolate().state is IsolationState.ISOLATED


@pytest.mark.root
def test_the_kernel_tells_the_rules_and_the_time_left(world):
    """Another agent, started later, reads from the kernel what is in force and for how long."""
    allow = (ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16"), ip_network("2001:db8::/32"))
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow), lift_after=timedelta(hours=5))
    now = world.state()
    assert now.state is IsolationState.ISOLATED
    assert now.rules == IsolationRules(servers=world.rules.servers, allow=(allow[0], allow[2]))
    assert timedelta(hours=4, minutes=59) < now.remaining <= timedelta(hours=5)
    assert now.not_covered == ()


@pytest.mark.root
def test_an_isolation_without_deadline_has_none(world):
    """No deadline means that nothing remains to be counted."""
    now = world.isolate(lift_after=None)
    assert (now.state, now.remaining) == (IsolationState.ISOLATED, None)


@pytest.mark.root
def test_a_shorter_deadline_replaces_a_longer_one(world):
    """The last order decides."""
    world.isolate(lift_after=None)
    assert world.isolate(lift_after=MINUTE).remaining <= MINUTE


@pytest.mark.root
def test_lifting_twice_changes_nothing_the_second_time(world):
    """The first lift removes both tables, the second says that there were none."""
    world.isolate()
    assert world.lift() is True
    assert world.lift() is False
    assert world.endpoint.command("nft list ruleset") == ""
    assert world.state() == KernelIsolation(state=IsolationState.RELEASED, rules=None, remaining=None)


@pytest.mark.root
@pytest.mark.parametrize(
    "damage",
    [
        "delete table inet stanch",
        "delete table netdev stanch",
        "flush chain inet stanch input",
        "flush chain netdev stanch outbound",
        "flush set inet stanch armed",
        "flush set inet stanch server4",
        "add element netdev stanch allow4 { 1.1.1.1 }",
        "insert rule inet stanch output accept",
        "add chain inet stanch input { policy drop; }",
    ],
)
def test_damaged_tables_are_partial(world, damage):
    """Whoever takes a piece out of the tables, or adds one, is seen."""
    world.isolate()
    world.endpoint.command("nft -f -", stdin=damage)
    assert world.state().state is IsolationState.PARTIAL


@pytest.mark.root
def test_a_new_device_is_partial_until_isolated_again(world):
    """A device that appears later has no egress chain, and the state names it."""
    world.isolate()
    with netns() as other:
        added = wire(world.endpoint, other, 9)
        now = world.state()
        assert now.state is IsolationState.PARTIAL
        assert [line.partition(":")[0] for line in now.not_covered] == [added.device]
        assert world.isolate().state is IsolationState.ISOLATED


@pytest.mark.root
def test_a_device_with_an_impossible_name_is_told(world):
    """A name that nft cannot be told leaves the device bare; it is reported and breaks nothing."""
    world.endpoint.call(_add_device, 'a";drop"')
    now = world.isolate()
    assert now.state is IsolationState.PARTIAL
    assert any("nft cannot be told its name" in line for line in now.not_covered)
    fence(world)


def _add_device(name: str) -> None:
    import subprocess

    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "other"], check=True)


@pytest.mark.root
def test_a_foreign_table_of_our_name_is_partial_and_can_be_replaced(world):
    """A table that is called like ours but is not is not read as rules; isolation replaces it."""
    world.endpoint.command(
        "nft -f -", stdin="table inet stanch { set armed { type inet_service; elements = { 1 }; }; }"
    )
    now = world.state()
    assert (now.state, now.rules) == (IsolationState.PARTIAL, None)
    assert world.isolate().state is IsolationState.ISOLATED


# --- the guard -------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_another_namespace_is_refused_and_untouched(world):
    """A firewall made for one namespace refuses to act in another, whatever is asked."""

    async def use() -> None:
        firewall = NftFirewall(own)
        for call in (
            lambda: firewall.isolate(world.rules, lift_after=MINUTE),
            firewall.lift,
            firewall.isolation,
            lambda: firewall.forbidden_sockets(world.rules),
            lambda: firewall.destroy_sockets(world.rules),
        ):
            with pytest.raises(Protected):
                await call()

    own = world.outside.call(Namespace.current, "net")
    world.endpoint.run(use)
    assert world.endpoint.command("nft list ruleset") == ""


def test_a_firewall_needs_a_network_namespace():
    """A guard of another kind is a mistake that is found at the start."""
    with pytest.raises(Invalid):
        NftFirewall(Namespace.current("pid"))


# --- nft, when things go wrong ---------------------------------------------------------------------------------------


@pytest.mark.root
def test_a_dead_nft_is_replaced(world):
    """The loss of the nft child costs nothing but time."""

    async def use(firewall: NftFirewall) -> None:
        await firewall.isolate(world.rules, lift_after=MINUTE)
        await firewall._nft._child.close()
        assert (await firewall.isolation()).state is IsolationState.ISOLATED
        assert await firewall.lift()

    world.firewall(use)


@pytest.mark.root
def test_without_egress_hooks_the_rest_is_in_force(world):
    """On a kernel without egress hooks the host's own and forwarded traffic is cut, and the state is partial."""

    class OldKernel(Nft):
        async def apply(self, text: str) -> None:
            if "hook egress" in text:
                raise Unsupported("no egress here")
            await super().apply(text)

    async def use() -> KernelIsolation:
        firewall = NftFirewall(Namespace.current("net"), nft=OldKernel())
        with capture_logs():
            await firewall.isolate(world.rules, lift_after=MINUTE)
        state = await firewall.isolation()
        await firewall.close()
        return state

    tap = Tap(world.outside, world.out.device)
    now = world.endpoint.run(use)
    assert now.state is IsolationState.PARTIAL
    assert {line.partition(":")[0] for line in now.not_covered} == {world.out.device, world.inner.device}
    for source in (world.endpoint, world.container):
        send_udp(source, world.out.right4)
        send_udp(source, world.out.right6)
    fence(world)
    assert tap.leaks() == []


# --- what is said about the machine ----------------------------------------------------------------------------------

ETH0 = Device(2, "eth0")
WHOLE = Listed(rules=IsolationRules(servers=()), armed=True, remaining=None, whole=True, devices=frozenset({ETH0}))


def test_xdp_is_reported_in_every_state():
    """Programs and sockets that see packets before any firewall are named, isolated or not."""
    for tables in ((WHOLE, WHOLE), (None, None)):
        now = judge(*tables, [Link(ETH0, xdp=True)], 2)
        assert [line for line in now.not_covered if "eth0" in line]
        assert [line for line in now.not_covered if line.startswith("2 AF_XDP sockets")]


def test_a_renamed_device_is_not_taken_for_covered():
    """An egress chain counts only for the device that it was made for, by index and name."""
    assert judge(WHOLE, WHOLE, [Link(ETH0, xdp=False)], 0).state is IsolationState.ISOLATED
    assert judge(WHOLE, WHOLE, [Link(Device(2, "eth1"), xdp=False)], 0).state is IsolationState.PARTIAL
    assert judge(WHOLE, WHOLE, [Link(Device(3, "eth0"), xdp=False)], 0).state is IsolationState.PARTIAL


def test_af_xdp_sockets_are_counted_from_the_table(tmp_path):
    """The count comes from the kernel's table of protocols, and is 0 without one."""
    table = tmp_path / "protocols"
    table.write_text("protocol  size sockets  memory press maxhdr\nXDP       1024      3      -1   NI       0\n")
    assert xdp_sockets(table) == 3
    assert xdp_sockets(tmp_path / "absent") == 0
    assert xdp_sockets() >= 0
