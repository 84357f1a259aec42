"""The release code, typed at the endpoint: whoever has it lifts the isolation, without the server and without root.

Who types is hostile until the code is right. So attempts are counted, and each is on the disk before it is judged:
killing the agent, or pulling the plug, wins nobody another try.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any

import structlog
from pydantic import Field, ValidationError

from stanch.actions.isolate import EFFECT
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.journal import Journal
from stanch.agent.spool import Spool
from stanch.core.errors import Conflict, Denied, Invalid, NotFound, TooManyRequests, Unavailable
from stanch.core.host import Effect
from stanch.core.isolation import CODE_LENGTH, ReleaseCode, plain_code
from stanch.core.model import LooseModel
from stanch.core.types import seconds, show_duration

ENTRY = "release-attempts"
"""The journal's entry."""

PER_ACCOUNT = 5
IN_ALL = 20
WITHIN_SECONDS = 900.0

TELL_EVERY = 5
"""The server hears of the first wrong code, and of every fifth."""

MAX_TYPED = 100
NAME_WITHIN = 2.0

Lift = Callable[[str], Awaitable[bool]]
"""Lift the isolation, on behalf of this requester; did that change anything?"""

log = structlog.get_logger(__name__)


class Attempt(LooseModel):
    """One that counts: it was wrong, or was never judged."""

    uid: int
    """Who typed."""

    boot_seconds: Annotated[float, Field(ge=0)]
    """When, in boot time."""


class Kept(LooseModel):
    """What the journal holds."""

    boot_id: str
    """The boot that the times are of."""

    attempts: Annotated[tuple[Attempt, ...], Field(max_length=IN_ALL)] = ()
    """Oldest first."""


class Attempts:
    """Counts attempts in boot time. Root is limited like everybody: it need not guess."""

    def __init__(self, journal: Journal, clock: AgentClock) -> None:
        self._journal = journal
        self._clock = clock

    def recent(self) -> tuple[Attempt, ...]:
        """Those that count now, the oldest first."""
        oldest = self._clock.boot_seconds() - WITHIN_SECONDS
        return tuple(one for one in self._kept() if one.boot_seconds > oldest)

    def _kept(self) -> tuple[Attempt, ...]:
        try:
            kept = Kept.model_validate(self._journal.get(ENTRY) or {"boot_id": ""})
        except ValidationError:
            return ()
        if kept.boot_id == self._clock.boot_id:
            return kept.attempts
        # Of an earlier boot, and nobody knows how long ago: since this boot began is the least that is true.
        return tuple(one.model_copy(update={"boot_seconds": 0.0}) for one in kept.attempts)

    async def begin(self, uid: int) -> Attempt:
        """Write an attempt down, returning when it is on the disk; TooManyRequests if there were too many."""
        recent = self.recent()
        self._check([one for one in recent if one.uid == uid], PER_ACCOUNT)
        self._check(recent, IN_ALL)
        attempt = Attempt(uid=uid, boot_seconds=self._clock.boot_seconds())
        await self._keep((*recent, attempt))
        return attempt

    async def forgive(self, attempt: Attempt) -> None:
        """It was right: it does not count."""
        left = list(self.recent())
        if attempt in left:
            left.remove(attempt)
        await self._keep(tuple(left))

    def _check(self, counted: tuple[Attempt, ...] | list[Attempt], most: int) -> None:
        if len(counted) < most:
            return
        # Room is made by the oldest of the newest `most`.
        wait = counted[-most].boot_seconds + WITHIN_SECONDS - self._clock.boot_seconds()
        raise TooManyRequests(
            "Too many wrong release codes were typed",
            got=f"{len(counted)} in {show_duration(seconds(round(WITHIN_SECONDS)))}",
            expected=f"under {most}",
            hint=f"Wait {show_duration(seconds(max(1, round(wait))))}, then type it again. Root needs no code: "
            "stanch local isolation off",
        )

    async def _keep(self, attempts: tuple[Attempt, ...]) -> None:
        kept = Kept(boot_id=self._clock.boot_id, attempts=attempts)
        await self._journal.put({ENTRY: kept.model_dump(mode="json") if attempts else None})


class ReleaseDoor:
    """Judges codes, one at a time, and lifts the isolation for the right one."""

    def __init__(
        self, *, attempts: Attempts, effects: Effects, spool: Spool, lift: Lift, account: Callable[[int], str]
    ) -> None:
        self._attempts = attempts
        self._effects = effects
        self._spool = spool
        self._lift = lift
        self._account = account
        self._turn = asyncio.Lock()

    async def enter(self, typed: str, uid: int) -> Mapping[str, Any]:
        """Lift the isolation if this is its code.

        NotFound if there is nothing to lift with a code; Invalid for what can be no code; TooManyRequests; Denied for a
        wrong one.
        """
        async with self._turn:
            effect, code = self._locked()
            check_form(typed)
            attempt = await self._attempts.begin(uid)
            # It takes milliseconds, or as long as the server chose: beside the event loop.
            if not await asyncio.to_thread(code.opens, typed):
                await self._refuse(effect, uid)
            self._check_same(effect)
            # A disk that takes nothing any more must not keep in who has the code, nor deny that it has worked.
            with suppress(Unavailable):
                await self._attempts.forgive(attempt)
            changed = await self._lift(f"release code of task {effect.task}")
            with suppress(Unavailable):
                await self._tell("release-code-used", effect, uid)
        return {"changed": changed, "task": effect.task}

    def _locked(self) -> tuple[Effect, ReleaseCode]:
        """What is in force, and what recognises its code."""
        effect = self._effects.current(EFFECT)
        if effect is None:
            raise NotFound("This machine is not isolated", hint="stanch local isolation status")
        try:
            return effect, ReleaseCode.model_validate(effect.private["release_code"])
        except (KeyError, ValidationError):
            raise NotFound(
                "This isolation has no release code",
                got=f"task {effect.task}",
                hint="Only an isolation that the server ordered has one. As root: stanch local isolation off",
            ) from None

    def _check_same(self, effect: Effect) -> None:
        """The code dies with its effect, even while it is being judged."""
        now = self._effects.current(EFFECT)
        if now is None or now.task != effect.task:
            raise Conflict("Meanwhile this isolation has ended", got=f"task {effect.task}")

    async def _refuse(self, effect: Effect, uid: int) -> None:
        recent = self._attempts.recent()
        if len(recent) == 1 or len(recent) % TELL_EVERY == 0:
            await self._tell("release-code-refused", effect, uid, attempts=len(recent))
        log.warning("release-code-refused", uid=uid, attempts=len(recent))
        left = min(PER_ACCOUNT - sum(one.uid == uid for one in recent), IN_ALL - len(recent))
        raise Denied(
            "This is not the release code of the isolation that is in force",
            expected=f"the code of task {effect.task}",
            hint=f"{left} more attempts, then a wait. `stanch release-code` shows which code belongs to which task.",
        )

    async def _tell(self, kind: str, effect: Effect, uid: int, **more: int) -> None:
        detail = {"task": effect.task, "uid": uid, "account": await self._name(uid), **more}
        await self._spool.put(self._spool.notice(kind, detail))

    async def _name(self, uid: int) -> str:
        """The account's name, if it is known soon: the name service may be where an isolated machine cannot ask."""
        try:
            async with asyncio.timeout(NAME_WITHIN):
                return await asyncio.to_thread(self._account, uid)
        except TimeoutError:
            return str(uid)


def check_form(typed: str) -> None:
    """Raise Invalid for what can be no code: a slip of the hand costs no attempt."""
    if len(typed) > MAX_TYPED or len(plain_code(typed)) != CODE_LENGTH:
        raise Invalid(
            "This is no release code",
            got=f"{min(len(plain_code(typed)), MAX_TYPED)} characters",
            expected=f"{CODE_LENGTH} letters and digits",
            hint="It was not counted as an attempt.",
        )
