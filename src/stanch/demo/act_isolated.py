"""The second act: the endpoint is cut off, with and without an exclusion, cleaned, and let back on the network."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stanch.core.network import IsolationState
from stanch.core.rest import TaskView
from stanch.core.rest_evidence import EvidenceView
from stanch.core.types import minutes
from stanch.demo.act_attack import SHOP_OPEN
from stanch.demo.attack import BEACON_PORT
from stanch.demo.lab import C2_V4, C2_V6, HOSTNAME, SERVER_V4, SERVER_V6, SHOP_V4, SHOP_V6
from stanch.demo.program import wait_until
from stanch.demo.report import expect
from stanch.demo.responder import monotonic_of
from stanch.demo.scene import (
    BEACONS,
    CLIENT,
    FAMILIES,
    IPV4,
    IPV6,
    PINGS,
    QUIET_SECONDS,
    SHOP,
    WAIT_SECONDS,
    Chapter,
    Reference,
    Scene,
    counts,
    in_words,
    ms,
    offset,
)
from stanch.demo.stage import GATEWAY_PORT, STOLEN, each

REASON = "beacons to two addresses"
FOR_MINUTES = 30
RENEWED_MINUTES = 20
RETRY_SECONDS = 150.0
"""TCP sends what was not acknowledged again after two minutes at the latest."""

ROUGHLY = 60.0
"""Seconds that two clocks, or two readings of one, may differ for a deadline to be the same."""


class Isolated:
    """While the endpoint is isolated, and right after it."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._stage, self._responder = scene, scene.stage, scene.responder

    def chapters_before_tampering(self) -> Iterator[Chapter]:
        """In order."""
        yield "isolate", self.isolate
        yield "idle-connection-dead", self.idle_connection_dead
        yield "server-link-alive", self.server_link_alive
        yield "exclusion", self.exclusion
        yield "exclusion-ends", self.exclusion_ends

    def chapters_to_clean(self) -> Iterator[Chapter]:
        """In order."""
        yield "kill-tree", self.kill_tree
        yield "get-file", self.get_file

    def chapters_of_the_release(self) -> Iterator[Chapter]:
        """In order."""
        yield "release", self.release
        yield "idle-stays-dead", self.idle_stays_dead

    # --- isolated ----------------------------------------------------------------------------------------------------

    def isolate(self) -> str:
        """Nothing but the server's traffic leaves the endpoint any more, and everybody is told so."""
        task = self._isolate(FOR_MINUTES, REASON)
        isolated = self._scene.plot.isolated = Reference.of(task)
        cut = (task.result or {}).get("sockets_destroyed", 0)
        least = f"at least {len(FAMILIES)}, the idle ones"
        expect(cut >= len(FAMILIES), "The report counts fewer connections than were cut", got=cut, expected=least)
        time.sleep(QUIET_SECONDS)
        self._scene.expect_silence(isolated.silent)
        told = self._scene.told(IsolationState.ISOLATED)
        whole = (told.since is not None, told.until is not None, told.by, told.why)
        expected = (True, True, self._scene.plot.who, REASON)
        expect(whole == expected, "The state does not tell since, until, by and why", got=whole, expected=expected)
        seen = self._scene.seen(isolated.ordered - 1)
        beacon, ping = (offset(isolated.ordered, seen.last(*kinds)) for kinds in (BEACONS, PINGS))
        return (
            f"done {ms(isolated.ordered, isolated.done)} after the order, {cut} connections cut; last beacon {beacon}, "
            f"last raw ping {ping}, then 0 foreign frames on the cable; told everywhere: {told.state} since "
            f"{told.since:%H:%M:%S} until {told.until:%H:%M:%S}, by {told.by}: {told.why}"
        )

    def idle_connection_dead(self) -> str:
        """The connections that only receive are gone, on both sides, while their process still runs."""
        pids = self._scene.plot.pids
        expect(self._stage.lab.endpoint.alive(pids["idle"]), "Their process has ended", got=pids)
        left = self._stage.lab.endpoint.connections(C2_V4, C2_V6, SHOP_V4, SHOP_V6)
        expect(not left, "The endpoint's kernel still has connections", got=left)
        dead = wait_until(lambda: len(self._died()) == len(FAMILIES), within=WAIT_SECONDS)
        expect(dead, "The process was not told that its connections are dead", got=self._died())
        self._stage.world.push(IPV4)
        time.sleep(QUIET_SECONDS / 2)
        (idle,) = [one for one in self._scene.seen().idle if one["family"] == IPV4]
        expect(
            idle["state"] != "open" or idle["unacknowledged"] > 0,
            "Bytes from outside were acknowledged by the isolated endpoint",
            got=idle,
        )
        errors = ", ".join(sorted({str(one["error"]) for one in self._died()}))
        return f"both ended with {errors} at the endpoint; bytes pushed from outside stay unacknowledged"

    def server_link_alive(self) -> str:
        """The server still reaches its agent: it answers, and its frames are the only ones."""
        since = time.monotonic()
        self._responder.order("list-processes", HOSTNAME, "--match", "nobody")
        seen = self._scene.seen(since)
        expect(seen.count("server") > 0, "No frame to the server was seen", got=counts(seen))
        reached = self._stage.reached(GATEWAY_PORT, SERVER_V4, SERVER_V6)
        expect(reached == (SERVER_V4, SERVER_V6), "The server cannot be reached everywhere", got=reached)
        self._scene.expect_silence(self._scene.plot.isolated.silent)
        frames = seen.count("server")
        return (
            f"an order came back in {frames} frames, the server is reached by IPv4 and IPv6, 0 frames to anybody else"
        )

    # --- with an exclusion -------------------------------------------------------------------------------------------

    def exclusion(self) -> str:
        """A renewal lets the harmless client through again, and nobody else."""
        silent = self._scene.plot.isolated.silent
        task = self._isolate(RENEWED_MINUTES, "the shop must go on", *each("--allow", *SHOP_OPEN))
        renewed = Reference.of(task)
        back = self._scene.flows(CLIENT, renewed.ordered)
        expect(back, "The client does not get through", got=counts(self._scene.seen(renewed.ordered)))
        reached = self._stage.reached(BEACON_PORT, SHOP_V4, SHOP_V6)
        expect(not reached, "Another port of the same host is open", got=reached)
        time.sleep(QUIET_SECONDS)
        self._scene.expect_silence(silent, but=SHOP)
        told = self._scene.told(IsolationState.ISOLATED)
        lasts = 0.0 if told.until is None else monotonic_of(told.until) - renewed.done
        off = abs(lasts - minutes(RENEWED_MINUTES).total_seconds())
        expect(off < ROUGHLY, "The renewal has another deadline", got=f"in {lasts:.0f} s")
        seen = self._scene.seen(renewed.ordered)
        return (
            f"renewed in {ms(renewed.ordered, renewed.done)} for {RENEWED_MINUTES} min, open: {in_words(told.allow)}; "
            f"first question of the client {ms(renewed.ordered, seen.first(*CLIENT))} after the order, "
            f"{seen.count(*CLIENT)} by now; 0 beacons, and port {BEACON_PORT} of the same host is shut"
        )

    def exclusion_ends(self) -> str:
        """Another renewal, without it, shuts the client out again."""
        before = self._scene.plot.isolated.silent
        shut = Reference.of(self._isolate(FOR_MINUTES, REASON))
        time.sleep(QUIET_SECONDS)
        self._scene.expect_silence(before, but=SHOP)
        self._scene.expect_silence(shut.silent)
        self._scene.plot.silent = shut.silent
        last = self._scene.seen(shut.ordered - 1).last(*CLIENT)
        return f"last question of the client {offset(shut.ordered, last)}, then 0 foreign frames; no gap for the attack"

    # --- cleaned -----------------------------------------------------------------------------------------------------

    def kill_tree(self) -> str:
        """The whole tree is gone from the endpoint's process table."""
        pids, root = self._scene.plot.pids, self._scene.plot.root
        which = ("--pid", str(root["pid"]), "--started", str(root["started"]))
        task = self._responder.order("kill-process", HOSTNAME, *which)
        left = {role: pid for role, pid in pids.items() if self._stage.lab.endpoint.alive(pid)}
        expect(not left, "Some of the tree still run", got=left)
        said = len((task.result or {}).get("processes", ()))
        expect(said == len(pids), "The report counts otherwise", got=said, expected=len(pids))
        return f"{len(pids)} of {len(pids)} gone from /proc of the endpoint"

    def get_file(self) -> str:
        """The file arrives as it is: compared with a hash that was taken past the agent."""
        expected = _sha256(self._stage.lab.endpoint.path(STOLEN))
        task = self._responder.order("get-file", HOSTNAME, "--path", STOLEN)
        (view,) = self._responder.listed(EvidenceView, "evidence", "list", "--task", task.id)
        copy = self._stage.lab.folder / "fetched.bin"
        self._responder.stanch("evidence", "get", view.id, "--output", str(copy))
        got = _sha256(copy)
        expect(got == expected, "The file is another one", got=got, expected=expected)
        return f"{copy.stat().st_size} bytes fetched while isolated, SHA-256 {got[:16]}… as computed outside"

    # --- released ----------------------------------------------------------------------------------------------------

    def release(self) -> str:
        """The harmless client gets through again, and no rule is left."""
        since = Reference.of(self._responder.order("release", HOSTNAME, "--reason", "tree ended")).ordered
        back = self._scene.flows(CLIENT, since, at_least=1)
        expect(back, "The client does not get through", got=counts(self._scene.seen(since)))
        rules = self._stage.ruleset()
        expect(not rules, "The kernel still has rules", got=rules)
        first = self._scene.seen(since).first(*CLIENT)
        return f"first question of the client {ms(since, first)} after the order; no rule is left"

    def idle_stays_dead(self) -> str:
        """What was cut stays cut: the endpoint resets what the outside pushes, and no beacon comes back."""
        self._stage.world.push(IPV6)
        closed = wait_until(
            lambda: all(one["state"] != "open" for one in self._scene.seen().idle), within=RETRY_SECONDS
        )
        seen = self._scene.seen()
        expect(closed, "An idle connection lives", got=seen.idle)
        left = self._stage.lab.endpoint.connections(C2_V4, C2_V6)
        expect(not left, "The endpoint's kernel has connections again", got=left)
        again = self._scene.seen(self._scene.plot.silent).count(*BEACONS, *PINGS)
        expect(again == 0, "Beacons came back", got=again)
        states = ", ".join(sorted({str(one["state"]) for one in seen.idle}))
        return f"bytes pushed after the release are answered with {states}; 0 beacons since the last repair"

    # --- looking -----------------------------------------------------------------------------------------------------

    def _isolate(self, how_long: int, reason: str, *more: str) -> TaskView:
        return self._responder.order("isolate", HOSTNAME, "--duration", f"{how_long}m", "--reason", reason, *more)

    def _died(self) -> list[dict[str, Any]]:
        said = [json.loads(line) for line in self._stage.program("attack").said().splitlines()]
        return [one for one in said if one.get("idle") == "dead"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
