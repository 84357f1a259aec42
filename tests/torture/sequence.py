"""One sequence: what is believed to be in force, the checks between its moves, and its end."""

import json
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from stanch.core.rest import TaskView
from stanch.core.task import State
from stanch.demo.program import wait_until
from tests.torture import lab as places
from tests.torture.ledger import GATEWAY_PORT, Held, Ledger
from tests.torture.world import World

OPEN_SECONDS = 60.0
"""After a release or the end of an outage, everything must work again within this time."""

DEADLINE_SECONDS = 30.0
"""What may pass after a deadline until the endpoint is free."""

FAILED = "ended as"
"""In the note about a task that did not end well."""

ANNOUNCED_SECONDS = 30.0
"""An agent that is linked knows a new address of the server by then."""

MOVED_SECONDS = 120.0
"""An agent whose server is gone from under its link notices it after 45 s, and tries each address for 10 s."""

RECOVERED_SECONDS = 20.0
SOON = 1.0
LOOK_SECONDS = 0.1


@dataclass(slots=True)
class Story:
    """The believed state, with the world that it is about."""

    world: World
    rng: Random
    ledger: Ledger
    server_up: bool = True
    supervisor_up: bool = True
    isolation: Held | None = None
    blocks: dict[str, Held] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    plugged: int = 0
    agent_deaths: int = 0
    """Under this supervisor, which waits longer after each before it starts another."""
    container_rules: bool = False
    container_rewritten: bool = False
    """Have there been rules that write container addresses anew? Then its streams may have another name."""

    @property
    def up(self) -> bool:
        """Do server and supervisor run?"""
        return self.server_up and self.supervisor_up

    # --- orders ------------------------------------------------------------------------------------------------------

    def order(self, action: str, params: Mapping[str, Any]) -> TaskView | None:
        """Order it and wait for its end; None, and a stranding, if it has none."""
        task = self.world.finished(self.world.submit(action, params))
        if task is None:
            self.ledger.strand(f"the task of {action} does not end")
        return task

    def is_done(self, task: TaskView | None) -> bool:
        """Did it end well? What did not is noted."""
        if task is not None and task.state is not State.DONE:
            self.ledger.note(f"  {task.action} {FAILED} {task.state}: {task.error.code if task.error else ''}")
        return task is not None and task.state is State.DONE

    # --- what is in force --------------------------------------------------------------------------------------------

    def begin_isolation(
        self, *, ordered: float, done: float, duration: float | None, allow: Sequence[dict[str, Any]]
    ) -> None:
        """It is confirmed; a span before it goes on until it was ordered."""
        earliest = None if duration is None else ordered + duration
        latest = None if duration is None else done + duration
        if self.isolation is not None:
            self._bridge_renewal(ordered, done, earliest, allow)
        span = self.ledger.isolated(done, earliest, allow)
        self.isolation = Held(done, earliest, latest, list(allow), span)

    def _bridge_renewal(
        self, ordered: float, done: float, earliest: float | None, allow: Sequence[dict[str, Any]]
    ) -> None:
        """Between order and confirmation of a renewal, either rule may hold already."""
        assert self.isolation is not None
        ends = [one for one in (done, earliest, self.isolation.earliest_end) if one is not None]
        self.ledger.end(self.isolation.span, ordered)
        self.ledger.isolated(ordered, min(ends), [*self.isolation.allow, *allow])

    def end_isolation(self, at: float) -> None:
        """It is to be lifted since then."""
        if self.isolation is not None:
            self.ledger.end(self.isolation.span, at)
        self.isolation = None

    def lose_time(self, seconds: float) -> None:
        """Deadlines may come earlier by this from now on."""
        for held in (self.isolation, *self.blocks.values()):
            if held is not None and held.earliest_end is not None:
                held.earliest_end -= seconds
                held.span["until"] -= seconds

    def keep_deadlines(self) -> None:
        """Wait for every deadline that is near, and look whether it was kept."""
        held = self.isolation
        if held is not None and _is_near(held):
            self.ledger.note("(the deadline of the isolation comes)")
            self.end_isolation(held.earliest_end or 0.0)
            limit = (held.latest_end or 0.0) + DEADLINE_SECONDS - time.monotonic()
            self.must_be_open("the deadline", since=time.monotonic(), within=limit)
        for network, block in list(self.blocks.items()):
            if _is_near(block):
                self.ledger.note(f"(the deadline of the block of {network} comes)")
                self._forget_block(network, block.earliest_end or 0.0)
                if self.isolation is None:
                    limit = (block.latest_end or 0.0) + DEADLINE_SECONDS - time.monotonic()
                    self.must_pass(_streams_to(network), "a block past its deadline", within=max(limit, SOON))

    def poke_devices(self) -> None:
        """A datagram and a frame by hand through each device that was plugged in."""
        if self.devices:
            self.world.lab.endpoint.call(_poke, list(self.world.lab.cables.items()))

    # --- checks ------------------------------------------------------------------------------------------------------

    def must_be_open(self, after: str, *, since: float, within: float | None = None) -> None:
        """Everybody must get out again: by what is seen outside."""
        within = OPEN_SECONDS if within is None else within
        missing: list[str] = []

        def is_open() -> bool:
            time.sleep(LOOK_SECONDS)  # sleep: between two looks
            streams = self.world.streams(since)
            missing[:] = [one for one in self._expected() if not streams.get(one)]
            return not missing

        begin = time.monotonic()
        if not wait_until(is_open, within=max(within, SOON)):
            self.ledger.strand(f"{after}: not seen in {within:.0f} s: {', '.join(missing[:6])}")
        self.ledger.note(f"  open after {time.monotonic() - begin:.2f} s")

    def _expected(self) -> list[str]:
        sources = [places.HOST, places.MACVLAN, *([] if self.container_rewritten else [places.CONTAINER])]
        ends = [(one[family], places.EVIL[family]) for one in sources for family in (0, 1)]
        return [*(f"{one} {kind} {evil}" for one, evil in ends for kind in ("udp", "tcp", "icmp")), "raw 0x88b5"]

    def must_pass(self, streams: Sequence[str], why: str, *, within: float = 15.0) -> None:
        """These must get out, though the endpoint is isolated."""
        since, missing = time.monotonic(), list(streams)

        def passes() -> bool:
            time.sleep(LOOK_SECONDS)  # sleep: between two looks
            seen = self.world.streams(since)
            missing[:] = [one for one in streams if not seen.get(one)]
            return not missing

        if not wait_until(passes, within=within):
            self.ledger.strand(f"{why}: not seen in {within:.0f} s: {', '.join(missing[:6])}")

    def must_be_reachable(self, after: str, *, within: float | None = None) -> None:
        """An order must come back from the endpoint."""
        begin, within = time.monotonic(), OPEN_SECONDS if within is None else within
        order = self.world.submit("list_processes", {"match": "nobody"})
        task = self.world.finished(order, within=within)
        if task is None or task.state is not State.DONE:
            self.ledger.strand(f"{after}: no answer in {within:.0f} s")
        self.ledger.note(f"  reachable after {time.monotonic() - begin:.2f} s")

    def agent_recovered(self) -> None:
        """Wait until an agent answers and has its isolation in force: from then on it repairs what others remove."""

        def back() -> bool:
            told = self.world.status()
            if told is not None and told.get("state") in self._wanted_states():
                return True
            time.sleep(LOOK_SECONDS)  # sleep: between two looks
            return False

        if not wait_until(back, within=RECOVERED_SECONDS):
            self.ledger.note(f"  the agent does not recover: {json.dumps(self.world.status())[:300]}")
        self.ledger.close_windows()

    def _wanted_states(self) -> set[str]:
        """What a recovered agent says of itself."""
        held = self.isolation
        if held is None or (held.earliest_end is not None and held.earliest_end < time.monotonic()):
            return {"released"}
        return {"isolated", "partial"}

    def learn(self, *, ordered: float, duration: float | None, allow: Sequence[dict[str, Any]]) -> None:
        """After something was cut short: believe what the agent says about itself."""
        told = self.world.status()
        if told is not None and told.get("state") in {"isolated", "partial"}:
            if self.isolation is None:
                self.begin_isolation(ordered=ordered, done=time.monotonic(), duration=duration, allow=allow)
        else:
            self.end_isolation(ordered)

    # --- the end -----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Undo every outage, look whether the server reaches the endpoint, release it, and look again."""
        self.keep_deadlines()
        if not self.server_up:
            self.world.start_server()
            self.server_up = True
        if not self.supervisor_up:
            self.start_supervisor()
        self.must_be_reachable("the end")
        if self.ledger.any_window_open:
            self.agent_recovered()
        self.keep_deadlines()
        for network in list(self.blocks):
            self.unblock(network)
        if self.isolation is not None:
            self.release()
        else:
            self.must_be_open("the end", since=time.monotonic())
        self.ledger.note("the end")

    def release(self) -> None:
        """By the server; everything must work again."""
        self.end_isolation(time.monotonic())
        if self.is_done(self.order("release", {})):
            self.must_be_open("a release", since=time.monotonic())
        else:
            self.ledger.strand("the release failed")

    def start_supervisor(self) -> None:
        """As systemd would."""
        self.world.start_supervisor()
        self.supervisor_up, self.agent_deaths = True, 0

    def announce(self, number: int) -> None:
        """The server announces other addresses; the agent must remember them, isolated or not."""
        self.ledger.servers.extend(places.SERVERS[number])
        if self.isolation is not None:
            gateways = [[address, GATEWAY_PORT] for address in places.SERVERS[number]]
            self.isolation.span["servers"] = [*self.isolation.span["servers"], *gateways]
        self.world.announce(number)
        if not wait_until(lambda: self.world.knows(number), within=ANNOUNCED_SECONDS):
            self.ledger.strand(f"the agent does not know {places.SERVERS[number][0]}, which was announced")

    def unblock(self, network: str) -> None:
        """By the server; it must be reached again, unless the endpoint is isolated."""
        self._forget_block(network, time.monotonic())
        if not self.is_done(self.order("unblock_address", {"network": network})):
            self.ledger.strand(f"{network} is not unblocked")
        if self.isolation is None:
            self.must_pass(_streams_to(network), "an unblocked address")

    def _forget_block(self, network: str, at: float) -> None:
        self.ledger.end(self.blocks.pop(network).span, at)


def _streams_to(address: str) -> list[str]:
    return [f"{places.HOST[':' in address]} {kind} {address}" for kind in ("udp", "tcp", "icmp")]


def _poke(cables: Sequence[tuple[str, str]]) -> None:
    frame = b"\xff" * 6 + b"\x02\0\0\0\0\2" + b"\x88\xb6" + b"leak" * 12
    for device, far in cables:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw, suppress(OSError):
            raw.sendto(frame, (device, 0x88B6))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, suppress(OSError):
            udp.sendto(b"leak", (f"10.99.{far.removeprefix(places.WIRES)}.1", 4000))


def _is_near(held: Held) -> bool:
    return held.earliest_end is not None and held.earliest_end < time.monotonic() + SOON
