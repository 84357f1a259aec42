"""The third act: root on the endpoint tampers with the isolation, with a running agent and without one."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from stanch.core.network import IsolationState
from stanch.core.rest import DetectionView
from stanch.demo.lab import C2_V4, C2_V6, Ran
from stanch.demo.questions import Span
from stanch.demo.report import expect
from stanch.demo.scene import BEACONS, FORBIDDEN, PINGS, QUIET_SECONDS, Chapter, Scene, counts, ms

TABLE = "inet stanch"
KIND = "isolation-tampered"
_FLUSH = ("nft", "flush", "ruleset")
_DELETE = ("nft", "delete", "table", *TABLE.split())
_REFUSED = "Operation not permitted"
JUST_AFTER = 1e-6
"""Seconds: a span that begins so much after a frame does not hold it."""


class Tampered:
    """Twice."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._stage = scene, scene.stage

    def chapters(self) -> Iterator[Chapter]:
        """In order."""
        yield "tamper-running-agent", self.tamper
        yield "tamper-killed-agent", self.tamper_after_kill

    # --- the agent runs ----------------------------------------------------------------------------------------------

    def tamper(self) -> str:
        """The kernel refuses it, or what was removed is back at once: the chapter tells which of both it saw."""
        at, endpoint = datetime.now(UTC), self._stage.lab.endpoint
        since, flushed = time.monotonic(), endpoint.run(*_FLUSH)
        expect(flushed.code == 0, "nft does not work", got=flushed.complained)
        deleted = endpoint.run(*_DELETE)
        return self._refused(since) if is_refusal(deleted) else self._repaired(since, at)

    def _refused(self, since: float) -> str:
        """Owned tables: nothing may be heard at all."""
        time.sleep(QUIET_SECONDS)
        self._scene.expect_silence(since)
        rules = self._stage.ruleset()
        expect(f"table {TABLE} " in rules, "The table is gone", got=rules[:300])
        return (
            f"refused: the tables are the agent's own in this kernel: `{' '.join(_FLUSH)}` by root passes them by, "
            f"`{' '.join(_DELETE)}` gets {_REFUSED!r}; 0 foreign frames"
        )

    def _repaired(self, since: float, at: datetime) -> str:
        """An older kernel: the keeper puts them back, and somebody is blamed."""
        end = self._scene.falls_silent(since) + JUST_AFTER
        open_for = window(self._scene.seen(since, end))
        found = self._blamed(at)
        expect(bool(found.detail.get("pid")), "The detection does not tell the process", got=found.detail)
        self._scene.expect_silence(end)
        self._scene.plot.silent = end
        return (
            f"repaired: this kernel has no owned tables, so `{' '.join(_FLUSH)}` and `{' '.join(_DELETE)}` by root "
            f"work; until the rules were back: {open_for}, then none; detected: {found.kind} by "
            f"{found.detail.get('who')}"
        )

    # --- the agent is killed first -----------------------------------------------------------------------------------

    def tamper_after_kill(self) -> str:
        """Without the agent the kernel goes on; flushed then, it is open until the agent is started again."""
        at, killed = datetime.now(UTC), time.monotonic()
        pids = self._stage.kill_agent()
        time.sleep(QUIET_SECONDS)
        self._scene.expect_silence(killed)
        flushed, opened = time.monotonic(), self._flush()
        started = time.monotonic()
        self._stage.start_agent()
        shut = self._scene.falls_silent(started)
        self._scene.plot.silent = shut + JUST_AFTER
        told, found = self._scene.told(IsolationState.ISOLATED, repaired=True), self._blamed(at)
        self._scene.expect_silence(self._scene.plot.silent)
        left = self._stage.lab.endpoint.connections(C2_V4, C2_V6)
        expect(not left, "A connection of the open moment lives on", got=left)
        escaped = self._scene.seen(flushed, self._scene.plot.silent).count(*BEACONS, *PINGS)
        killed_pids = " and ".join(map(str, pids))
        return (
            f"supervisor and agent (pids {killed_pids}) killed: still 0 frames; then flushed by root: open after "
            f"{ms(flushed, opened)}; shut again {ms(started, shut)} after the agent was started: {escaped} beacons and "
            f"pings got out in {ms(flushed, shut)}; state: {told.state}; detected: {found.kind} by "
            f"{found.detail.get('who')}: {found.detail.get('what')}"
        )

    def _flush(self) -> float:
        """Remove every rule while nobody guards them; when the first beacon came out."""
        since = time.monotonic()
        flushed = self._stage.lab.endpoint.run(*_FLUSH)
        expect(flushed.code == 0, "nft does not work", got=flushed.complained)
        kinds = (*BEACONS, *PINGS)
        opened = self._scene.flows(kinds, since)
        expect(opened, "The attack is still shut in, although nobody is there", got=counts(self._scene.seen(since)))
        return self._scene.seen(since).first(*kinds) or since

    def _blamed(self, at: datetime) -> DetectionView:
        return self._scene.detected(KIND, since=at)[KIND]


def is_refusal(deleted: Ran) -> bool:
    """Did the kernel refuse it to root? Only owned tables are refused so."""
    return deleted.code != 0 and _REFUSED in deleted.complained


def window(seen: Span) -> str:
    """How many frames came out, and in which time."""
    first, last = seen.first(*FORBIDDEN), seen.last(*FORBIDDEN)
    return "0 foreign frames" if first is None else f"{seen.count(*FORBIDDEN)} foreign frames in {ms(first, last)}"
