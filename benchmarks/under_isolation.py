"""What `benchmarks.isolation` measures besides the order itself.

Many exclusions, the price of allowed traffic, the window that a flush by others leaves open, and a whole fleet. Each
runs in namespaces of its own, against a floor or peer that is measured in turns with it. Needs root.
"""

import asyncio
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from benchmarks import harness, stand
from benchmarks.dispatch import check, order, simulated
from stanch import actions
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.keeper import Keeper, OneAtATime
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import IsolationRules, Peer
from tests.fakes.agent import Machine
from tests.netns import Netns, netns, wire

HOURS = timedelta(hours=5)
PORT = 5001
DEVICE = "wire1"
CHUNK = 1_048_576
SETTLED = 0.15
"""Seconds after a flush; a window that is longer would show as one of this length."""


def mixed_openings(count: int) -> tuple[Opening, ...]:
    """Exclusions as a large organisation has them: networks, services, ranges, both ways, IPv4 and IPv6."""
    made = []
    for n in range(count):
        four, six = ip_network(f"10.{n // 250}.{n % 250}.0/24"), ip_network(f"2001:db8:{n:x}::/48")
        made.append(
            (
                Opening(network=four),
                Opening(network=six),
                Opening(network=four, transport=Transport.TCP, direction=Direction.OUT, remote=Ports(443, 443)),
                Opening(network=six, transport=Transport.UDP, direction=Direction.OUT, remote=Ports(8000, 8100)),
                Opening(network=four, transport=Transport.TCP, direction=Direction.IN, local=Ports(22, 22)),
            )[n % 5]
        )
    return tuple(made)


def rules_for(server: str, openings: tuple[Opening, ...] = ()) -> IsolationRules:
    """A server, and what stays open besides."""
    return IsolationRules(servers=(Peer(address=ip_address(server), port=8443),), allow=openings)


# --- many exclusions -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Exclusions:
    """Seconds, in turns."""

    ours: list[float] = field(default_factory=list)
    program: list[float] = field(default_factory=list)


def many_exclusions(count: int, times: int) -> Exclusions:
    """Put a thousand exclusions in force; in turns, one `nft -f` of what the kernel then has, in another namespace."""
    found = Exclusions()
    with netns() as endpoint, netns() as world, netns() as peer, netns() as behind:
        wire(endpoint, world, 1)
        wire(peer, behind, 1)
        rules = rules_for("10.77.1.2", mixed_openings(count))

        async def measure() -> None:
            firewall = NftFirewall(Namespace.current("net"))
            for turn in range(times + 1):
                started = time.perf_counter()
                await firewall.isolate(rules, lift_after=HOURS)
                taken = time.perf_counter() - started
                text = listing()
                program = peer.call(program_seconds, text)
                await firewall.lift()
                if turn:  # the first one starts nft
                    found.ours.append(taken)
                    found.program.append(program)
            await firewall.close()

        endpoint.run(measure)
    return found


def listing() -> str:
    """Our tables as nft writes them, without what an older nft cannot read again."""
    done = subprocess.run(["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True)
    flags = re.compile(r"\tflags[^;{]*$")  # of the table, whose flag `persist` an older nft cannot read again
    return "\n".join(line for line in done.stdout.splitlines() if not flags.fullmatch(line))


def program_seconds(text: str) -> float:
    """How long one `nft -f` of a text takes, in place of what there was."""
    started = time.perf_counter()
    subprocess.run(["nft", "-f", "-"], input=f"flush ruleset\n{text}\n".encode(), check=True)
    return time.perf_counter() - started


# --- the price of allowed traffic ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Throughput:
    """Bytes a second, in turns."""

    free: list[float] = field(default_factory=list)
    isolated: list[float] = field(default_factory=list)


def throughput(rounds: int, seconds: float) -> Throughput:
    """One TCP connection to an exclusion among a thousand, with and without the isolation."""
    found = Throughput()
    with netns() as endpoint, netns() as world:
        at = wire(endpoint, world, 1)
        allowed = Opening(
            network=ip_network(at.right4), transport=Transport.TCP, direction=Direction.OUT, remote=Ports(PORT, PORT)
        )
        rules = rules_for("10.77.1.9", (*mixed_openings(1000), allowed))
        with swallowing(world, at.right4):

            async def measure() -> None:
                firewall = NftFirewall(Namespace.current("net"))
                for turn in range(rounds + 1):
                    # In turns, and neither always first: what the machine does besides must meet both.
                    for isolated in (False, True) if turn % 2 else (True, False):
                        if isolated:
                            await firewall.isolate(rules, lift_after=HOURS)
                        else:
                            await firewall.lift()
                        rate = sent_a_second(at.right4, seconds)
                        if turn:
                            (found.isolated if isolated else found.free).append(rate)
                await firewall.close()

            endpoint.run(measure)
    return found


@contextmanager
def swallowing(where: Netns, address: str) -> Iterator[None]:
    """Somebody outside who reads whatever is sent."""
    listener = where.listen(address, PORT)
    stop = threading.Event()

    def swallow() -> None:
        listener.settimeout(0.1)
        space = bytearray(CHUNK)
        while not stop.is_set():
            with suppress(TimeoutError), listener.accept()[0] as call:
                call.settimeout(5)
                while call.recv_into(space):
                    pass

    reader = threading.Thread(target=swallow)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        reader.join()


def sent_a_second(address: str, seconds: float) -> float:
    """Send as fast as it goes; bytes a second."""
    data, sent = memoryview(bytearray(CHUNK)), 0
    with socket.create_connection((address, PORT), timeout=5) as call:
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            call.sendall(data)
            sent += CHUNK
        return sent / (time.perf_counter() - started)


# --- the window after a flush ----------------------------------------------------------------------------------------


def windows(flushes: int) -> list[float]:
    """Seconds for which packets get out after `nft flush ruleset` by others, each time, seen from outside.

    The tables are plain ones, as on kernels that cannot protect them.
    """
    with netns() as endpoint, netns() as world, tempfile.TemporaryDirectory() as folder:
        at = wire(endpoint, world, 1)
        tap = world.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
        tap.bind((at.right4, PORT))
        tap.setblocking(False)
        tap.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
        stop = threading.Event()
        sender = threading.Thread(target=endpoint.call, args=(chatter, at.right4, stop))
        sender.start()
        try:
            return endpoint.run(lambda: flushed_again_and_again(Path(folder), at.right4, tap, flushes))
        finally:
            stop.set()
            sender.join()


def chatter(address: str, stop: threading.Event) -> None:
    """A packet every fifth of a millisecond, whatever happens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as call:
        while not stop.wait(0.0002):
            with suppress(OSError):
                call.sendto(b"x", (address, PORT))


async def flushed_again_and_again(folder: Path, address: str, tap: socket.socket, flushes: int) -> list[float]:
    """Flush while the keeper watches; how long each time something was heard outside."""
    found: list[float] = []
    async with kept(folder, address):
        for _ in range(flushes):
            heard(tap)
            child = await asyncio.create_subprocess_exec("nft", "flush", "ruleset")
            await child.wait()
            await asyncio.sleep(SETTLED)
            times = heard(tap)
            found.append(times[-1] - times[0] if times else 0.0)
    return found


def heard(tap: socket.socket) -> list[float]:
    """When packets arrived since the last call, by the kernel's clock."""
    times: list[float] = []
    with suppress(BlockingIOError):
        while True:
            _data, ancillary, _flags, _from = tap.recvmsg(64, 256)
            times.extend(_stamps(ancillary))
    return times


def _stamps(ancillary: list[tuple[int, int, bytes]]) -> Iterator[float]:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPNS):
            yield int.from_bytes(data[:8], "little") + int.from_bytes(data[8:16], "little") / 1e9


_TIMESTAMPNS = 35
"""SO_TIMESTAMPNS: the kernel notes when a packet came."""


@asynccontextmanager
async def kept(folder: Path, server: str) -> AsyncIterator[None]:
    """An isolated endpoint whose keeper watches over plain tables."""
    machine = Machine(folder, actions.load())
    firewall = NftFirewall(Namespace.current("net"), own=False)
    turn = OneAtATime(firewall)
    machine.endpoint.firewall = turn
    machine.endpoint.server.known = (Peer(address=ip_address(server), port=8443),)
    async with machine.agent() as agent:
        keeper = Keeper(
            firewall=firewall,
            turn=turn.lock,
            names=machine.endpoint.names,
            server=machine.endpoint.server,
            effects=agent.effects,
            spool=agent.spool,
            clock=agent.clock,
        )
        running = asyncio.create_task(keeper.run())
        await agent.executor.accept(machine.server.order("tsk_1", "isolate"))
        await agent.ended("tsk_1")
        try:
            yield
        finally:
            running.cancel()
            await firewall.close()


# --- a fleet ---------------------------------------------------------------------------------------------------------


def fleet(count: int) -> tuple[float, float]:
    """Isolate so many simulated endpoints by one order: seconds, and those of a process list."""
    with stand.folder() as at, stand.server(at) as server, simulated(server, count) as agents:
        order(server, agents)
        listed = harness.median([order(server, agents)["seconds"] for _ in range(3)])
        isolated = harness.median([order(server, agents, action="isolate")["seconds"] for _ in range(3)])
        check(server, 7, count)
    return isolated, listed


def bars(
    exclusions: Exclusions, price: Throughput, open_for: list[float], wave: tuple[float, float]
) -> tuple[dict[str, harness.Figure], list[harness.Bar]]:
    """The figures and the bars of all of them."""
    ours, program = harness.percentile(exclusions.ours, 95), harness.median(exclusions.program)
    free, isolated = harness.median(price.free), harness.median(price.isolated)
    window = harness.percentile(open_for, 95)
    figures: dict[str, harness.Figure] = {
        "thousand_exclusions_p95_ms": 1000 * ours,
        "thousand_exclusions_median_ms": 1000 * harness.median(exclusions.ours),
        "thousand_exclusions_nft_program_median_ms": 1000 * program,
        "allowed_traffic_gbit_free": 8e-9 * free,
        "allowed_traffic_gbit_isolated": 8e-9 * isolated,
        "flushes_by_others": len(open_for),
        "window_after_a_flush_median_ms": 1000 * harness.median(open_for),
        "window_after_a_flush_p95_ms": 1000 * window,
        "window_after_a_flush_longest_ms": 1000 * max(open_for),
        "fleet_isolated_s": wave[0],
        "fleet_processes_listed_s": wave[1],
    }
    return figures, [
        harness.Bar(
            what="1,000 exclusions, 95th percentile, against one `nft -f` of them", value=ours / program, bar=3.0
        ),
        harness.Bar(what="throughput of allowed traffic, against none", value=isolated / free, bar=0.97, better=">="),
        harness.Bar(what="window after a flush by others, 95th percentile, in ms", value=1000 * window, bar=50.0),
    ]
