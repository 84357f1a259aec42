"""The firewall's own word: state, deadline, guard, and what happens when parts of it are missing."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_network

import pytest
from structlog.testing import capture_logs

from stanch.agent.host import remembered
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.nft import Listing, Nft
from stanch.agent.host.tablespec import Family
from stanch.core.errors import ActionFailed, Invalid, Protected, Unsupported
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import IsolationRules, IsolationState, KernelIsolation
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
    allow = tuple(Opening(network=ip_network(one)) for one in ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"))
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
        "flush set inet stanch armed_a",
        "flush set inet stanch server4_a",
        "add element netdev stanch allow4_a { 1.1.1.1 }",
        "insert rule inet stanch output accept",
        "add chain inet stanch input { policy drop; }",
    ],
)
def test_damaged_tables_are_seen_and_repaired(world, damage):
    """Whoever takes a piece out of the tables, or adds one, is seen; and isolating again is the repair."""
    assert not world.isolate().damaged
    world.endpoint.command("nft -f -", stdin=damage)
    now = world.state()
    assert now.damaged
    assert not world.firewall(lambda firewall: _said(firewall.is_in_force(now, world.rules)))
    again = world.isolate()
    assert (again.state, again.damaged) == (IsolationState.ISOLATED, False)
    assert world.firewall(lambda firewall: _said(firewall.is_in_force(again, world.rules)))


async def _said(value):
    return value


@pytest.mark.root
@pytest.mark.parametrize(
    "replacement",
    [
        "delete set inet stanch talk4; add set inet stanch talk4 { type mark; };",
        "delete chain inet stanch input; add chain inet stanch input { type nat hook input priority 0; };",
        "add chain inet stanch more { type filter hook output priority 5; }; add rule inet stanch more drop;",
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_what_was_replaced_by_another_kind_is_made_anew(world, replacement, own):
    """Where the tables cannot be repaired in place they are made from nothing, with nothing left of the other."""
    world.firewall(lambda firewall: firewall.isolate(world.rules, lift_after=MINUTE), own=own)
    world.endpoint.command("nft -f -", stdin=f"flush table inet stanch; {replacement}")
    assert world.state().damaged
    world.firewall(lambda firewall: firewall.isolate(world.rules, lift_after=MINUTE), own=own)
    assert world.state().state is IsolationState.ISOLATED
    listed = world.endpoint.command("nft list ruleset")
    assert "more" not in listed
    assert "bridge" not in listed
    fence(world)


@pytest.mark.root
@pytest.mark.parametrize("own", [True, False])
def test_a_change_that_was_cut_short_is_completed_by_the_next(world, own):
    """Sets under every name, and a bridge, left by an agent that was killed: the next isolation leaves neither."""
    world.firewall(lambda firewall: firewall.isolate(world.rules, lift_after=MINUTE), own=own)
    left = "".join(f"add set inet stanch allow4_{one} {{ type ipv4_addr; flags interval; }};" for one in "bc")
    bridge = (
        "add table inet stanch_bridge; add chain inet stanch_bridge output { type filter hook output priority 0; };"
    )
    world.endpoint.command("nft -f -", stdin=left + bridge)
    assert not world.state().damaged
    world.firewall(lambda firewall: firewall.isolate(world.rules, lift_after=MINUTE), own=own)
    assert world.state().state is IsolationState.ISOLATED
    listed = world.endpoint.command("nft list ruleset")
    assert "bridge" not in listed
    assert len({line.split()[1][-1] for line in listed.splitlines() if line.strip().startswith("set allow4_")}) == 1
    fence(world)


@pytest.mark.root
def test_what_is_in_force_is_known_however_it_is_written(world):
    """Order, repetition and cut networks make no other rules; a missing or additional opening does."""
    halves = tuple(Opening(network=ip_network(one)) for one in ("10.0.0.0/9", "10.128.0.0/9"))
    ssh = Opening(
        network=ip_network("192.0.2.0/24"), transport=Transport.TCP, direction=Direction.IN, local=Ports(22, 22)
    )
    rules = IsolationRules(servers=world.rules.servers, allow=(*halves, ssh))
    same = IsolationRules(
        servers=world.rules.servers[::-1], allow=(ssh, Opening(network=ip_network("10.0.0.0/8")), ssh)
    )
    now = world.isolate(rules)

    async def ask(firewall: NftFirewall) -> list[bool]:
        others = (world.rules, IsolationRules(servers=rules.servers, allow=rules.allow, dhcp=False))
        too_many = IsolationRules(servers=rules.servers, allow=rules.allow * 10_000)
        return [firewall.is_in_force(now, one) for one in (rules, same, *others, too_many)]

    assert world.firewall(ask) == [True, True, False, False, False]


@pytest.mark.root
def test_a_missing_control_group_is_named(world):
    """Rules for a unit that does not run change nothing, and the error says which group is missing."""
    world.isolate()
    rules = IsolationRules(servers=(), allow=(Opening(network=ip_network("10.0.0.0/8"), cgroup="no/such/unit"),))
    with pytest.raises(ActionFailed, match="control group") as raised:
        world.isolate(rules)
    assert raised.value.got == "no/such/unit"
    assert world.state().rules.servers == world.rules.servers


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
    assert (now.state, now.rules, now.damaged) == (IsolationState.PARTIAL, None, True)
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
            lambda: firewall.block([], servers=()),
            firewall.blocks,
            firewall.own_addresses,
            lambda: anext(firewall.watch()),
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
    assert (now.state, now.damaged) == (IsolationState.PARTIAL, False)
    assert {line.partition(":")[0] for line in now.not_covered} == {world.out.device, world.inner.device}
    assert all("cannot filter" in line for line in now.not_covered)
    for source in (world.endpoint, world.container):
        send_udp(source, world.out.right4)
        send_udp(source, world.out.right6)
    fence(world)
    assert tap.leaks() == []


# --- many openings, and kernels that can less -------------------------------------------------------------------------

MANY = tuple(Opening(network=ip_network(f"10.{2 * number}.0.0/16")) for number in range(1, 100))


class Recorded(Nft):
    """An nft that notes its transactions, and refuses those with a certain word."""

    def __init__(self, refuses: str = "\0") -> None:
        super().__init__()
        self.texts: list[str] = []
        self.refuses = refuses

    async def apply(self, text: str) -> None:
        if self.refuses in text:
            raise ActionFailed("nft refused the transaction; nothing was changed", got="No such file or directory")
        self.texts.append(text)
        await super().apply(text)


@pytest.mark.root
@pytest.mark.parametrize("flush", ["flush ruleset", "flush table inet stanch", "flush chain netdev stanch inbound"])
def test_what_others_flushed_is_closed_before_it_is_whole(world, flush):
    """First all but the server, in an instant and without a reset; then everything, which takes longer."""
    nft = Recorded()
    rules = IsolationRules(servers=world.rules.servers, allow=MANY)

    async def session() -> KernelIsolation:
        firewall = NftFirewall(Namespace.current("net"), nft=nft, own=False)
        await firewall.isolate(rules, lift_after=MINUTE)
        assert "10.8.0.0/16" in "".join(nft.texts)
        await Nft(keep_child=False).apply(flush)
        nft.texts.clear()
        await firewall.isolate(rules, lift_after=MINUTE)
        now = await firewall.isolation()
        await firewall.close()
        return now

    now = world.endpoint.run(session)
    assert (now.state, now.rules) == (IsolationState.ISOLATED, rules)
    first, *later = [text for text in nft.texts if "add rule" in text]
    assert ("hook output" in first, "reject" in first) == (True, False)
    assert "10.8.0.0/16" not in "".join(nft.texts[: nft.texts.index(first)])
    assert ["reject" in text for text in later] == [True]


@pytest.mark.root
def test_a_kernel_that_cannot_ask_whose_address_it_is_does_without(world):
    """The same is in force; large datagrams in pieces come in to the port that is open, and to no other."""
    allow = tuple(
        Opening(network=ip_network(one), transport=Transport.UDP, direction=Direction.IN, local=Ports(6000, 6000))
        for one in (world.out.right4, world.out.right6)
    )

    async def session() -> KernelIsolation:
        firewall = NftFirewall(Namespace.current("net"), nft=Recorded("fib daddr"))
        await firewall.isolate(IsolationRules(servers=world.rules.servers, allow=allow), lift_after=MINUTE)
        now = await firewall.isolation()
        await firewall.close()
        return now

    assert (now := world.endpoint.run(session)).state is IsolationState.ISOLATED, now
    for family, address in ((socket.AF_INET, world.out.left4), (socket.AF_INET6, world.out.left6)):
        with (
            world.endpoint.open_socket(family, socket.SOCK_DGRAM) as there,
            world.endpoint.open_socket(family, socket.SOCK_DGRAM) as closed,
            world.outside.open_socket(family, socket.SOCK_DGRAM) as here,
        ):
            for ear, port in ((closed, 6001), (there, 6000)):
                ear.bind((address, port))
                here.sendto(bytes(4000), (address, port))
            assert len(there.recv(5000)) == 4000
            closed.setblocking(False)
            with pytest.raises(BlockingIOError):
                closed.recv(5000)


@pytest.mark.root
def test_the_state_is_true_whether_the_tables_are_listed_or_remembered(world, monkeypatch):
    """A second look lists nothing, and what others do, or a device that goes, is seen all the same."""
    monkeypatch.setattr(remembered, "SETTLED", 0)
    listed = []

    class Counted(Nft):
        async def tables(self, *wanted: tuple[Family, str]) -> list[Listing | None]:
            listed.append(wanted)
            return await super().tables(*wanted)

    async def session() -> list[tuple[IsolationState, bool, bool]]:
        seen = []
        firewall = NftFirewall(Namespace.current("net"), nft=Counted(), own=False)

        async def look() -> None:
            before = len(listed)
            now = await firewall.isolation()
            seen.append((now.state, now.damaged, len(listed) > before))

        await firewall.isolate(world.rules, lift_after=MINUTE)
        for change in ("", "flush chain inet stanch input", "flush ruleset"):
            if change:
                await Nft(keep_child=False).apply(change)
            await look()
            await look()
        await firewall.isolate(world.rules, lift_after=MINUTE)
        await look()
        world.endpoint.command(f"ip link delete {world.inner.device}")
        await look()
        await firewall.close()
        return seen

    seen = world.endpoint.run(session)
    whole, torn, gone = IsolationState.ISOLATED, IsolationState.PARTIAL, IsolationState.RELEASED
    assert seen[:6] == [
        (whole, False, True),
        (whole, False, False),
        (torn, True, True),
        (torn, True, False),
        (gone, False, False),  # that there is no table is known without a listing
        (gone, False, False),
    ]
    assert [state for state, _damaged, _listed in seen[6:]] == [whole, whole]
