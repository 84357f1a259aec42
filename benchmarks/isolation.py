"""From the arrival of an isolation order at the agent to its verified end, against one `nft -f` of the same rules.

The agent's executor, journal (with its fsyncs) and firewall are real and act in a network namespace made for this; the
order is signed and verified, connections are cut, and the confirmation is a new connection to a listener outside.
A beacon sends all the while, and a tap outside counts what still arrives after the agent has said that it is done.
Needs root.
"""

import argparse
import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import structlog

from benchmarks import harness, stand, under_isolation
from stanch import actions
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.links import links
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.ruleset import render
from stanch.core.network import IsolationRules, IsolationState, Peer
from stanch.core.task import State
from tests.fakes.agent import Agent, Machine
from tests.netns import Netns, Wire, netns, wire

SERVER_PORT, BEACON_PORT = 8443, 4444
WATCHED = 0.05
"""Seconds for which the tap counts after each isolation."""

CONNECTIONS = 5
"""Idle connections to the outside that each isolation has to cut."""


@dataclass(frozen=True, slots=True)
class OutsideServer:
    """The server, as far as isolation needs it: a listener that answers on a new connection."""

    address: str

    def peers(self) -> tuple[Peer, ...]:
        """Where it is."""
        return (Peer.model_validate({"address": self.address, "port": SERVER_PORT}),)

    def proxies(self) -> tuple[Peer, ...]:
        """There is none."""
        return ()

    async def confirm(self, *, within: timedelta) -> bool:
        """Ask over a new connection."""
        async with asyncio.timeout(within.total_seconds()):
            reader, writer = await asyncio.open_connection(self.address, SERVER_PORT)
            writer.write(b"?")
            answer = await reader.readexactly(1)
            writer.close()
            return answer == b"!"


@dataclass(slots=True)
class Outside:
    """The world: a server that answers, a listener that holds connections, and a tap that counts beacons."""

    where: Netns
    at: Wire
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answer the agent until the end."""
        answering = threading.Thread(target=self._answer, args=(self.where.listen(self.at.right4, SERVER_PORT),))
        answering.start()
        try:
            yield
        finally:
            self.stop.set()
            answering.join()

    def _answer(self, listener: socket.socket) -> None:
        listener.settimeout(0.1)
        while not self.stop.is_set():
            with suppress(TimeoutError), listener.accept()[0] as call:
                call.settimeout(5)
                if call.recv(1) == b"?":
                    call.sendall(b"!")

    def tap(self) -> socket.socket:
        """A socket that gets every beacon that arrives."""
        tap = self.where.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
        tap.bind((self.at.right4, BEACON_PORT))
        tap.setblocking(False)
        return tap


def arrived(tap: socket.socket) -> int:
    """How many beacons came since the last call."""
    count = 0
    with suppress(BlockingIOError):
        while tap.recv(64):
            count += 1
    return count


BEACON = """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        sender.sendto(b"beacon", (sys.argv[1], int(sys.argv[2])))
    except OSError:
        pass
    time.sleep(0.001)
"""


@contextmanager
def beacons(endpoint: Netns, address: str) -> Iterator[None]:
    """A process that sends without pause, whatever happens."""
    command = [sys.executable, "-c", BEACON, address, str(BEACON_PORT)]
    sender = endpoint.call(subprocess.Popen, command)
    try:
        yield
    finally:
        sender.kill()
        sender.wait()


async def done(agent: Agent, machine: Machine, task: str, action: str) -> float:
    """Deliver an order and wait for its final report; seconds."""
    token = machine.server.order(task, action)
    started = time.perf_counter()
    await agent.executor.accept(token)
    while agent.executor.open_tasks():
        agent.spool.changed.clear()
        await agent.spool.changed.wait()
        await asyncio.sleep(0)  # the report is on the disk; the task takes itself off the list next
    taken = time.perf_counter() - started
    reports = [one for one in await agent.reports(task) if one.state.final]
    if [one.state for one in reports] != [State.DONE]:
        raise RuntimeError(f"{action} ended as {reports}")
    await agent.spool.ack(one.seq for one in await agent.reports())
    return taken


@dataclass(slots=True)
class Measured:
    """Seconds and counts of one run."""

    orders: list[float] = field(default_factory=list)
    programs: list[float] = field(default_factory=list)
    transactions: list[float] = field(default_factory=list)
    leaked: int = 0
    heard: int = 0
    cut: int = 0


async def measure(machine: Machine, outside: Outside, endpoint: Netns, peer: Netns, times: int) -> Measured:
    """Isolate and release again and again; in between, one `nft -f` of the same rules, in `peer`, and one of ours."""
    firewall, result, tap = NftFirewall(Namespace.current("net")), Measured(), outside.tap()
    machine.endpoint.firewall, machine.endpoint.server = firewall, OutsideServer(outside.at.right4)
    rules = IsolationRules(servers=machine.endpoint.server.peers())
    text = render(rules, [one.device for one in links()], lift_after=timedelta(hours=5))
    idle = outside.where.listen(outside.at.right4, BEACON_PORT)
    async with machine.agent() as agent:
        for number in range(times + 1):
            with idle_connections(endpoint, outside, idle):
                taken = await done(agent, machine, f"tsk_i{number}", "isolate")
                arrived(tap)
                await asyncio.sleep(WATCHED)
                result.leaked += arrived(tap)
            if (await firewall.isolation()).state is not IsolationState.ISOLATED:
                raise RuntimeError("the kernel does not say that the endpoint is isolated")
            program = peer.call(program_seconds, text)
            transaction = await transaction_seconds(firewall, rules)
            await done(agent, machine, f"tsk_r{number}", "release")
            await asyncio.sleep(WATCHED / 5)
            result.heard += arrived(tap)
            if number:  # the first one starts nft and fills caches
                result.orders.append(taken)
                result.programs.append(program)
                result.transactions.append(transaction)
            if number % 20 == 0:
                harness.progress(f"{number} of {times}")
    await firewall.close()
    return result


@contextmanager
def idle_connections(endpoint: Netns, outside: Outside, listener: socket.socket) -> Iterator[None]:
    """Some connections to the outside, which have to be dead at the end."""
    pairs = []
    for _ in range(CONNECTIONS):
        call = endpoint.connect(outside.at.right4, BEACON_PORT)
        pairs.append((call, listener.accept()[0]))
    yield
    for call, answer in pairs:
        try:
            call.send(b"x")
            raise RuntimeError("a connection survived the isolation")
        except OSError:
            call.close()
            answer.close()


def program_seconds(text: str) -> float:
    """How long one `nft -f` takes."""
    started = time.perf_counter()
    subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)
    return time.perf_counter() - started


async def transaction_seconds(firewall: NftFirewall, rules: IsolationRules) -> float:
    """How long the same takes through the nft that stays."""
    started = time.perf_counter()
    await firewall.isolate(rules, lift_after=timedelta(hours=5))
    return time.perf_counter() - started


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--exclusions", type=int, default=1000)
    parser.add_argument("--flushes", type=int, default=60)
    parser.add_argument("--fleet", type=int, default=1000)
    chosen = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with stand.folder() as folder, netns() as endpoint, netns() as world, netns() as peer, netns() as behind:
        outside = Outside(world, wire(endpoint, world, 1))
        wire(peer, behind, 1)
        machine = Machine(Path(folder), actions.load())
        with outside.running(), beacons(endpoint, outside.at.right4):
            found = endpoint.run(lambda: measure(machine, outside, endpoint, peer, chosen.times))
    exclusions = under_isolation.many_exclusions(chosen.exclusions, max(3, chosen.times // 8))
    harness.progress("exclusions")
    price = under_isolation.throughput(max(2, chosen.times // 8), 0.5)
    harness.progress("throughput")
    open_for = under_isolation.windows(chosen.flushes)
    harness.progress("flushes")
    wave = under_isolation.fleet(chosen.fleet)
    more, more_bars = under_isolation.bars(exclusions, price, open_for, wave)
    report(found, more, more_bars)


def report(found: Measured, more: Mapping[str, harness.Figure], more_bars: Sequence[harness.Bar]) -> None:
    """The figures and the bars."""
    peer, p95 = harness.median(found.programs), harness.percentile(found.orders, 95)
    figures = {
        "orders": len(found.orders),
        "order_to_verified_median_ms": 1000 * harness.median(found.orders),
        "order_to_verified_p95_ms": 1000 * p95,
        "order_to_verified_p99_ms": 1000 * harness.percentile(found.orders, 99),
        "nft_program_median_ms": 1000 * peer,
        "nft_child_median_ms": 1000 * harness.median(found.transactions),
        "connections_cut_each_time": CONNECTIONS,
        "beacons_heard_between": found.heard,
        "beacons_heard_while_isolated": found.leaked,
        **more,
    }
    bars = [
        harness.Bar(what="95th percentile, against one `nft -f` of the same rules", value=p95 / peer, bar=3.0),
        harness.Bar(what="packets that the outside sees afterwards", value=found.leaked, bar=0.0),
        harness.Bar(what="packets that it sees in between", value=found.heard, bar=1.0, better=">="),
        *more_bars,
    ]
    harness.report("isolation", figures, bars)


if __name__ == "__main__":
    main()
