"""Tables that others cannot change, what becomes of them when their owner dies, and changes in place under load."""

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network

import pytest
from structlog.testing import capture_logs

from stanch.agent.host import tables as module
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.nft import Nft
from stanch.agent.host.owner import Owner
from stanch.agent.host.tables import can_own
from stanch.core.errors import ActionFailed, Conflict, StanchError, Unsupported
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import Block, IsolationRules, IsolationState
from tests.agent.host.world import BEACON_PORT, FRAME, MINUTE, Tap, World, fence, new_world, packet, send_udp
from tests.netns import netns

pytestmark = pytest.mark.root


@pytest.fixture
def world() -> Iterator[World]:
    """An endpoint, the world outside, and a container behind the endpoint."""
    with new_world() as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def _needs_ownership():
    async def ask() -> bool:
        nft = Nft()
        try:
            return await can_own(nft)
        finally:
            await nft.close()

    with netns() as namespace, capture_logs():
        if not namespace.run(ask):
            pytest.skip("this kernel keeps no owned tables")


def attack(world: World, command: str) -> str:
    """What somebody else tries, and the complaint that he gets."""
    done = world.endpoint.call(
        lambda: subprocess.run(["nft", "-f", "-"], input=command, capture_output=True, text=True, check=False)
    )
    return done.stderr


ATTACKS = [
    "flush ruleset",
    "delete table inet stanch",
    "delete table netdev stanch",
    "flush table inet stanch",
    "flush set inet stanch armed_a",
    "insert rule inet stanch output accept",
    "add element inet stanch allow4_a { 0.0.0.0/0 }",
    "delete table inet stanch_block",
]


def test_others_cannot_change_what_we_own(world):
    """Whatever root tries with nft while the agent lives: the traffic stays cut, and the state says isolated."""
    tap = Tap(world.outside, world.out.device)

    async def use(firewall: NftFirewall) -> None:
        await firewall.isolate(world.rules, lift_after=MINUTE)
        await firewall.block([Block(network=ip_network("203.0.113.0/24"))], servers=())
        for one in ATTACKS:
            complaint = await asyncio.to_thread(attack, world, one)
            assert one == "flush ruleset" or "not permitted" in complaint
            now = await firewall.isolation()
            assert (now.state, now.damaged) == (IsolationState.ISOLATED, False)
            assert len(await firewall.blocks()) == 1
            await asyncio.to_thread(send_udp, world.endpoint, world.out.right4)

    world.firewall(use, own=True)
    fence(world)
    assert tap.leaks() == []


def test_our_own_changes_pass(world):
    """The owner replaces and lifts its tables as often as it likes, and leaves nothing behind."""

    async def use(firewall: NftFirewall) -> None:
        for number in range(3):
            allow = (Opening(network=ip_network(f"10.{number}.0.0/16")),)
            rules = IsolationRules(servers=world.rules.servers, allow=allow)
            await firewall.isolate(rules, lift_after=MINUTE)
            assert firewall.is_in_force(await firewall.isolation(), rules)
        assert await firewall.lift()
        assert not await firewall.lift()

    world.firewall(use, own=True)
    assert world.endpoint.command("nft list ruleset") == ""


def test_another_process_is_told_who_owns_the_tables(world):
    """A second agent changes nothing, and the error says why."""

    async def use(firewall: NftFirewall) -> None:
        await firewall.isolate(world.rules, lift_after=MINUTE)
        other = NftFirewall(Namespace.current("net"))
        for call in (lambda: other.isolate(world.rules, lift_after=None), other.lift):
            with pytest.raises(Conflict, match="another process"):
                await call()
        now = await other.isolation()
        assert now.remaining is not None
        await other.close()

    world.firewall(use, own=True)


_AGENT = """
import asyncio, sys
from datetime import timedelta
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.core.isolation import rules_of

async def main():
    firewall = NftFirewall(Namespace.current("net"), own=True)
    await firewall.isolate(rules_of({"servers": []}), lift_after=timedelta(minutes=1))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_killed_agent_leaves_its_tables_in_force_and_the_next_takes_them(world):
    """After kill -9 the traffic is still cut; a new agent takes the orphans over, and nobody can flush them again."""
    tap = Tap(world.outside, world.out.device)
    agent = world.endpoint.call(
        lambda: subprocess.Popen([sys.executable, "-c", _AGENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    )
    with agent:
        lines = iter(agent.stdout.readline, b"")
        assert any(line == b"ready\n" for line in lines)
        os.kill(agent.pid, signal.SIGKILL)
    send_udp(world.endpoint, world.out.right4)
    assert world.state().state is IsolationState.ISOLATED

    async def take_over(firewall: NftFirewall) -> None:
        await firewall.isolate(world.rules, lift_after=MINUTE)
        await asyncio.to_thread(attack, world, "flush ruleset")
        now = await firewall.isolation()
        assert firewall.is_in_force(now, world.rules)

    world.firewall(take_over, own=True)
    fence(world)
    assert tap.leaks() == []
    assert attack(world, "flush ruleset") == ""
    assert world.state().state is IsolationState.RELEASED


def test_a_kernel_without_owned_tables_is_known_by_one_try(monkeypatch):
    """Where the kernel refuses the flags, tables are plain, and no trial is left behind."""

    class OldKernel(Owner):
        def take(self, families):
            raise OSError(95, "Operation not supported")

    async def use() -> bool:
        nft = Nft()
        try:
            return await can_own(nft)
        finally:
            await nft.close()

    with netns() as namespace, capture_logs():
        assert namespace.run(use)
        assert namespace.command("nft list ruleset") == ""
        monkeypatch.setattr(module, "Owner", OldKernel)
        assert not namespace.run(use)


def test_an_nft_that_cannot_list_owned_tables_makes_them_plain():
    """The listing is our memory: an nft that stumbles over the flags gets tables without them."""

    class OldNft(Nft):
        async def table(self, family, name):
            raise ActionFailed("it crashed")

    with netns() as namespace, capture_logs():
        assert not namespace.run(lambda: can_own(OldNft()))
        assert namespace.command("nft list ruleset") == ""


@pytest.mark.parametrize("own", [True, False])
def test_a_refused_first_isolation_leaves_nothing(world, own):
    """If the very first transaction is refused, no empty table stays behind."""

    class Refusing(Nft):
        async def apply(self, text: str) -> None:
            if "hook" in text:
                raise Unsupported("no hooks here")
            await super().apply(text)

    async def use() -> None:
        firewall = NftFirewall(Namespace.current("net"), nft=Refusing(), own=own)
        with capture_logs(), pytest.raises(StanchError):
            await firewall.isolate(world.rules, lift_after=MINUTE)
        await firewall.close()

    world.endpoint.run(use)
    assert world.endpoint.command("nft list ruleset") == ""


# --- under load ------------------------------------------------------------------------------------------------------


async def _change_again_and_again(world: World, owning: Iterator[bool]) -> None:
    for number, own in enumerate(owning):
        firewall = NftFirewall(Namespace.current("net"), own=own)
        allow = (
            Opening(network=ip_network(f"10.200.{number}.0/24")),
            Opening(network=ip_network(f"{world.out.right4}/32"), transport=Transport.TCP, direction=Direction.OUT,
                    remote=Ports(443, 443 + number)),
            *(Opening(network=ip_network(f"10.201.{one}.0/24"), transport=Transport.TCP, direction=Direction.IN,
                      local=Ports(1, number + one + 1)) for one in range(number % 5)),
        )  # fmt: skip
        with capture_logs():
            await firewall.isolate(IsolationRules(servers=world.rules.servers, allow=allow), lift_after=MINUTE)
        await firewall.close()


WAYS = {"plain": [False] * 25, "owned": [True] * 25, "in turn": [True, False, False, True] * 5}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_gets_out_while_rules_are_replaced(world, way):
    """A busy sender, on the stack and below it, gets no packet out, even when plain tables become owned ones."""
    world.isolate()
    tap = Tap(world.outside, world.out.device)
    udp = world.endpoint.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw = world.endpoint.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((world.out.device, 0))
    stop, sent = threading.Event(), 0

    def beacon() -> None:
        nonlocal sent
        while not stop.is_set():
            for send in (
                lambda: udp.sendto(b"leak", (world.out.right4, BEACON_PORT)),
                lambda: raw.send(FRAME + packet(world.out.right4)),
            ):
                with suppress(OSError):
                    send()
                sent += 1

    sender = threading.Thread(target=beacon)
    sender.start()
    try:
        world.endpoint.run(lambda: _change_again_and_again(world, WAYS[way]))
    finally:
        stop.set()
        sender.join()
    fence(world)
    assert tap.leaks() == []
    assert sent > 100


@pytest.mark.parametrize("way", WAYS)
def test_no_allowed_packet_is_lost_while_rules_are_replaced(world, way):
    """A connection that an exclusion opens, by a set with ports, does not notice that the sets are replaced."""
    allow = (
        Opening(network=ip_network(world.out.right4), transport=Transport.TCP, direction=Direction.OUT,
                remote=Ports(443, 443)),
    )  # fmt: skip
    world.isolate(IsolationRules(servers=world.rules.servers, allow=allow))
    listener = world.outside.listen(world.out.right4, 443)
    call = world.endpoint.connect(world.out.right4, 443)
    answer = world.outside.accept(listener)
    stop = threading.Event()

    def echo() -> None:
        while not stop.is_set():
            call.sendall(b"x")
            answer.recv(1)
            answer.sendall(b"y")
            call.recv(1)

    worker = threading.Thread(target=echo)
    worker.start()
    try:
        world.endpoint.run(lambda: _change_again_and_again(world, WAYS[way]))
    finally:
        stop.set()
        worker.join()
    for one in (call, answer):
        lost = struct.unpack_from("=I", one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)[0]
        assert lost == 0  # tcpi_total_retrans


@pytest.mark.parametrize("own", [True, False])
def test_another_time_for_the_same_rules_is_one_element(world, own):
    """Nothing but the deadline is replaced, the tables stay ours, and what another rule asks for is put there."""
    rules = world.rules
    other = replace(rules, allow=(Opening(network=ip_network("10.0.0.0/8")),))

    async def use() -> list[str]:
        firewall = NftFirewall(Namespace.current("net"), own=own)
        try:
            with capture_logs() as logs:
                await firewall.isolate(rules, lift_after=MINUTE)
                await firewall.isolate(rules, lift_after=10 * MINUTE)
                now = await firewall.isolation()
                assert now.state is IsolationState.ISOLATED
                assert MINUTE < now.remaining <= 10 * MINUTE
                await firewall.isolate(other, lift_after=MINUTE)
                assert firewall.is_in_force(await firewall.isolation(), other)
                await firewall.isolate(other, lift_after=None)
                assert (await firewall.isolation()).remaining is None
            return [one["event"] for one in logs if one["event"].startswith("isolated")]
        finally:
            await firewall.close()

    again = "isolated-for-another-time"
    assert world.endpoint.run(use) == ["isolated", again, "isolated", again]


def test_what_somebody_else_has_changed_is_not_just_armed_again(world):
    """After a rule was removed from plain tables, the whole is put back, whatever the time."""
    rules = world.rules

    async def use() -> None:
        firewall = NftFirewall(Namespace.current("net"), own=False)
        try:
            await firewall.isolate(rules, lift_after=MINUTE)
            attack(world, "flush chain inet stanch output")
            assert (await firewall.isolation()).damaged
            await firewall.isolate(rules, lift_after=10 * MINUTE)
            assert firewall.is_in_force(await firewall.isolation(), rules)
        finally:
            await firewall.close()

    world.endpoint.run(use)
