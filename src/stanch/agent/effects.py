"""Lasting effects on this endpoint: on the disk before they are in force, lifted at their own deadline.

A deadline counts boot time, so that nobody can reach it sooner or later by setting a clock. What is left of it is
written down every minute and at each change; after a reboot the rest counts from the start of the new boot. The
deadline needs no server: at its time `due_loop` lets the effect's own lift action run. An agent that was dead at the
deadline lifts at its next start (what the kernel enforces, the kernel has lifted by itself).
"""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from stanch.actions.isolate import EFFECT, LIFT
from stanch.agent.clock import AgentClock
from stanch.agent.journal import Journal
from stanch.core.envelope import OrderBody
from stanch.core.errors import Conflict, Unavailable
from stanch.core.frames import MAX_EFFECTS
from stanch.core.host import Effect, Record
from stanch.core.isolation import shortened
from stanch.core.types import minutes, seconds

REMEMBER_EVERY = minutes(1)
LOOK_EVERY = seconds(15)
"""How often a deadline is looked at anew: the event loop's timers stand still while the machine is suspended."""

MOST = MAX_EFFECTS - 1
"""Effects that are no isolation: however many blocks there are, there is a place for that."""

RETRY_AFTER = seconds(60)
"""After a lift that failed."""

TOLD_ITEMS = 100
"""Of a list in the detail of an effect, as frames tell it."""

Lift = Callable[[Effect], Awaitable[None]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An effect with its deadline."""

    effect: Effect
    lasts: timedelta | None
    deadline: float | None
    """In boot seconds of this boot; None for never."""
    boot_id: str = ""
    """The boot during which it was put in force."""


class Effects:
    """All lasting effects of this endpoint; `of(task)` is what one task may do with them."""

    def __init__(self, journal: Journal, clock: AgentClock) -> None:
        self._journal = journal
        self._clock = clock
        self._held = journal.read_at_start(self._load)
        self._lifting: set[str] = set()
        self._changed = asyncio.Event()
        self.news = asyncio.Event()
        """Set when something else is in force than before; whoever tells it clears it."""
        self.listeners: list[Callable[[], None]] = []
        """Called after each change of what is written down."""

    def of(self, order: OrderBody) -> "TaskEffects":
        """The effects in the hands of one task."""
        return TaskEffects(self, order)

    def all(self) -> tuple[Effect, ...]:
        """Everything that is in force."""
        return tuple(map(self._told, self._held.values()))

    def active(self) -> tuple[Effect, ...]:
        """The same, as hello and heartbeats tell it: in brief, and without what is private."""
        return tuple(one.model_copy(update={"private": {}, "detail": _brief(one.detail)}) for one in self.all())

    def current(self, name: str) -> Effect | None:
        """The effect of this name that is in force."""
        held = self._held.get(name)
        return None if held is None else self._told(held)

    def _told(self, held: Held) -> Effect:
        """Its end, told by the time as it is known now: that may have been set since, or the machine was off."""
        if held.deadline is None:
            return held.effect
        until = self._clock.stamp() + timedelta(seconds=held.deadline - self._clock.boot_seconds())
        moved = held.effect.until is None or abs(until - held.effect.until) > seconds(1)
        return held.effect.model_copy(update={"until": until}) if moved else held.effect

    def remaining(self, name: str) -> timedelta | None:
        """How long until its deadline, 0 if that has passed; None if it has none, or is not in force."""
        held = self._held.get(name)
        if held is None or held.deadline is None:
            return None
        return timedelta(seconds=max(0.0, held.deadline - self._clock.boot_seconds()))

    def outlived_boot(self, name: str) -> bool:
        """Was it put in force before this boot, so that the kernel has forgotten it?"""
        held = self._held.get(name)
        return held is not None and held.boot_id != self._clock.boot_id

    def is_due(self, name: str) -> bool:
        """Is it in force, though its deadline has passed?"""
        held = self._held.get(name)
        return held is not None and held.deadline is not None and held.deadline <= self._clock.boot_seconds()

    async def hold(
        self,
        order: OrderBody,
        name: str,
        *,
        lift_action: str,
        lift_params: Record,
        detail: Record,
        private: Record | None = None,
        lasts: timedelta | None,
    ) -> Effect:
        """Write an effect down, or replace the one of its name; Conflict if too many are in force."""
        others = sum(one not in {name, EFFECT} for one in self._held)
        if name not in {*self._held, EFFECT} and others >= MOST:
            raise Conflict("Too many lasting effects are in force", got=others + 1, expected=MOST)
        effect = Effect(
            name=name,
            task=order.task,
            order=order.order,
            by=order.requested_by,
            origin=order.origin,
            reason=order.reason,
            since=self._since(name),
            until=None if lasts is None else self._clock.stamp() + lasts,
            lift_action=lift_action,
            lift_params=_plain(lift_params),
            detail=_plain(detail),
            private=_plain({**(private or {}), **_release_code(order)}),
        )
        before = self._held.get(name)
        if before is not None and not self.is_due(name) and _same(before, effect, lasts):
            # Said again, by a task that goes on after a crash: it must not last longer for that. What its names mean
            # may have changed meanwhile.
            await self.amend(name, private=effect.private)
            return self._told(self._held[name])
        deadline = None if lasts is None else self._clock.boot_seconds() + lasts.total_seconds()
        await self._replace(name, Held(effect=effect, lasts=lasts, deadline=deadline, boot_id=self._clock.boot_id))
        return effect

    async def amend(self, name: str, *, detail: Record | None = None, private: Record | None = None) -> None:
        """Replace these parts, and leave everything else, its deadline too, as it is; nothing if it is not in force."""
        held = self._held.get(name)
        if held is None:
            return
        parts = {
            "detail": _plain({**held.effect.detail, **(detail or {})}),
            "private": _plain({**held.effect.private, **(private or {})}),
        }
        amended = held.effect.model_copy(update=parts)
        if amended != held.effect:
            await self._replace(name, replace(held, effect=amended))

    async def drop(self, name: str) -> None:
        """Forget an effect that is no longer in force."""
        if name in self._held:
            await self._replace(name, None)

    def holds(self, task: str) -> bool:
        """Has this task put something in force?"""
        return any(held.effect.task == task for held in self._held.values())

    async def expire(self, task: str) -> None:
        """What this task has put in force is due now: the task was cancelled, and nothing of it may remain."""
        now = self._clock.boot_seconds()
        for name, held in list(self._held.items()):
            if held.effect.task == task:
                await self._replace(name, replace(held, deadline=now))

    async def _replace(self, name: str, held: Held | None) -> None:
        before = self._held.get(name)
        # In memory first: a caller that is cancelled while the journal writes must not leave memory behind.
        self._set(name, held)
        try:
            await self._journal.write(f"effect {name}", lambda db: self._store(db, name, held))
        except Exception:
            # Unless somebody has replaced it meanwhile: that has its own line on the disk.
            if self._held.get(name) is held:
                self._set(name, before)
            raise
        finally:
            self.news.set()
            for listener in self.listeners:
                listener()

    def _set(self, name: str, held: Held | None) -> None:
        if held is None:
            self._held.pop(name, None)
        else:
            self._held[name] = held
        self._changed.set()

    def _since(self, name: str) -> datetime:
        """An effect that is replaced while it is in force goes on; one whose deadline has passed begins anew."""
        before = self._held.get(name)
        return self._clock.stamp() if before is None or self.is_due(name) else before.effect.since

    # --- deadlines ---

    async def due_loop(self, lift: Lift) -> None:
        """Lift each effect at its deadline, for ever; one that cannot be lifted is tried again, the others go on."""
        remembered = self._clock.boot_seconds()
        async with asyncio.TaskGroup() as group:
            while True:
                for name in self._newly_due():
                    group.create_task(self._lift(name, lift))
                if self._clock.boot_seconds() - remembered >= REMEMBER_EVERY.total_seconds():
                    remembered = self._clock.boot_seconds()
                    await self.remember()
                await self._wait()

    async def remember(self) -> None:
        """Write down the time and what is left of each deadline."""
        self._clock.checkpoint()
        try:
            await self._journal.write("remaining times", self._store_all)
        except Unavailable:
            # A full disk must not end the loop that lifts isolations.
            log.exception("the remaining times cannot be written down")

    def _newly_due(self) -> list[str]:
        due = [name for name in self._held if name not in self._lifting and self.is_due(name)]
        self._lifting.update(due)
        return due

    async def _lift(self, name: str, lift: Lift) -> None:
        effect = self.current(name)
        try:
            if effect is not None:
                await lift(effect)
        except Exception:
            log.exception("an effect could not be lifted at its deadline", effect=name)
        if self.is_due(name):
            await asyncio.sleep(RETRY_AFTER.total_seconds())
        self._lifting.discard(name)
        self._changed.set()

    async def _wait(self) -> None:
        """Until something changes, or a deadline is near enough to look again."""
        now = self._clock.boot_seconds()
        deadlines = [held.deadline for name, held in self._held.items() if name not in self._lifting]
        left = [min(one - now, LOOK_EVERY.total_seconds()) for one in deadlines if one is not None]
        try:
            async with asyncio.timeout(max(0.0, min([REMEMBER_EVERY.total_seconds(), *left]))):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    # --- on the disk ---

    def _store_all(self, db: sqlite3.Connection) -> None:
        for name, held in list(self._held.items()):
            if held.deadline is not None:
                self._store(db, name, held)

    def _store(self, db: sqlite3.Connection, name: str, held: Held | None) -> None:
        if held is None:
            db.execute("DELETE FROM effects WHERE name = ?", (name,))
            return
        now = self._clock.boot_seconds()
        lasts = None if held.lasts is None else held.lasts.total_seconds()
        remaining = None if held.deadline is None else held.deadline - now
        db.execute(
            "INSERT OR REPLACE INTO effects VALUES (?, ?, ?, ?, ?, ?)",
            (name, held.effect.model_dump_json(), lasts, remaining, now, self._clock.boot_id),
        )

    def _load(self, db: sqlite3.Connection) -> dict[str, Held]:
        return load(db, self._clock.boot_id, instead=self._unread)

    def _unread(self, name: str, error: ValueError) -> Effect | None:
        """What stands for an effect of another version of the agent: it must neither end this one nor be lost."""
        log.error("an effect in the journal cannot be read", effect=name, error=str(error)[:500])
        if name != EFFECT:
            return None
        why = "What the journal holds of this isolation cannot be read"
        return Effect(name=name, task="unknown", since=self._clock.stamp(), until=None, lift_action=LIFT, reason=why)


Instead = Callable[[str, ValueError], Effect | None]


def load(db: sqlite3.Connection, boot_id: str, *, instead: Instead | None = None) -> dict[str, Held]:
    """Every effect that the journal holds, its deadline in boot seconds of this boot.

    `instead` says what to take for one that cannot be read, None to leave it out; without it, ValueError.
    """
    rows = db.execute("SELECT name, effect, lasts, remaining, boot_seconds, boot_id FROM effects")
    found = {}
    for name, text, *columns, written_in in rows:
        effect: Effect | None
        try:
            effect = Effect.model_validate_json(text)
        except ValueError as error:
            if instead is None:
                raise
            effect = instead(name, error)
        if effect is not None:
            found[name] = _read(effect, *columns, written_in=written_in, now_in=boot_id)
    return found


def _read(
    effect: Effect, lasts: float | None, remaining: float | None, boot_seconds: float, *, written_in: str, now_in: str
) -> Held:
    written = boot_seconds if written_in == now_in else 0.0
    return Held(
        effect=effect,
        lasts=None if lasts is None else timedelta(seconds=lasts),
        deadline=None if remaining is None else written + remaining,
        boot_id=written_in,
    )


def _brief(detail: Record) -> Record:
    """Long lists cut: an endpoint that says more than a frame holds could never connect again."""
    return {name: shortened(value, TOLD_ITEMS) if isinstance(value, list) else value for name, value in detail.items()}


def _release_code(order: OrderBody) -> Record:
    return {} if order.release_code is None else {"release_code": order.release_code.model_dump()}


def _plain(record: Record) -> Record:
    """A copy of plain JSON, the same now as after a restart."""
    copy: Record = json.loads(json.dumps(dict(record)))
    return copy


def _same(before: Held, effect: Effect, lasts: timedelta | None) -> bool:
    may_differ = {"since": effect.since, "until": effect.until, "private": effect.private}
    return before.lasts == lasts and before.effect.model_copy(update=may_differ) == effect


@dataclass(frozen=True, slots=True)
class TaskEffects:
    """The effects, in the hands of one task: `core.host.Effects`."""

    effects: Effects
    order: OrderBody

    async def hold(
        self,
        name: str,
        *,
        lift_action: str,
        lift_params: Record,
        detail: Record,
        private: Record | None = None,
        lasts: timedelta | None,
    ) -> Effect:
        """Write it down (or replace it), returning when it is on the disk."""
        return await self.effects.hold(
            self.order,
            name,
            lift_action=lift_action,
            lift_params=lift_params,
            detail=detail,
            private=private,
            lasts=lasts,
        )

    async def amend(self, name: str, *, detail: Record | None = None, private: Record | None = None) -> None:
        """Replace these parts, and leave everything else, its deadline too, as it is; nothing if it is not in force."""
        await self.effects.amend(name, detail=detail, private=private)

    async def drop(self, name: str) -> None:
        """It is no longer in force."""
        await self.effects.drop(name)

    def all(self) -> tuple[Effect, ...]:
        """Everything that is in force."""
        return self.effects.all()

    def remaining(self, name: str) -> timedelta | None:
        """How long until its deadline, 0 if that has passed; None if it has none, or is not in force."""
        return self.effects.remaining(name)

    def current(self, name: str) -> Effect | None:
        """The one in force."""
        return self.effects.current(name)
