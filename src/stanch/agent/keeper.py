"""Keeps what was put in force in force: the isolation and the blocks of this endpoint, against everybody else.

Somebody flushes the tables, a device appears, the server moves, a name gets another address, the machine was
restarted: whatever happens, the kernel has what is written down, within milliseconds of the change where the kernel
tells of it, and within half a minute in any case. Each change of the tables, the actions' too, passes one lock, so
that nothing is put back that was just released.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

import structlog

from stanch.actions.block_address import blocks_of, dropped
from stanch.actions.isolate import EFFECT, rules_for
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.host.tables_watch import Addresses, Change, Foreign, Groups
from stanch.agent.spool import Spool
from stanch.core.errors import Invalid, StanchError, TargetGone
from stanch.core.exclusion import Opening
from stanch.core.host import Effect, Server
from stanch.core.isolation import (
    IsolationStatus,
    Phase,
    Tampering,
    phase_of,
    readable_order,
    rules_json,
    rules_of,
    status,
)
from stanch.core.network import Block, Firewall, IsolationRules, IsolationState, KernelIsolation, Names, Peer, Socket
from stanch.core.types import AnyAddress, seconds

RETRY_AFTER = seconds(1)
"""Until the changes are watched again after the watch has ended; longer each time that it ends at once."""

FOLLOW_PAUSE = seconds(0.5)
"""Between two times that names are resolved: somebody may change addresses in a loop."""

_CUTS = 5
"""Times that connections are looked for: one may be born while others are destroyed."""

LOOK_EVERY = seconds(30)
"""Between two looks at the kernel that nothing asked for, while something is in force."""

RESOLVE_EVERY = seconds(60)
"""Between two looks at what names mean."""

TELL_EVERY = seconds(10)
"""Between two notices of tampering: somebody who flushes in a loop must not fill the spool."""

_RELEASED = KernelIsolation(state=IsolationState.RELEASED, rules=None, remaining=None)

log = structlog.get_logger(__name__)


class WatchedFirewall(Firewall, Protocol):
    """A firewall that tells when its tables, or what they depend on, have changed."""

    def watch(self) -> AsyncIterator[Change]:
        """What others change, for ever."""
        ...


class OneAtATime:
    """The firewall as actions get it: changes wait for each other and for the keeper's."""

    def __init__(self, firewall: Firewall) -> None:
        self.lock = asyncio.Lock()
        self._firewall = firewall

    async def isolate(self, rules: IsolationRules, *, lift_after: timedelta | None) -> None:
        """Put the rules in force."""
        async with self.lock:
            await self._firewall.isolate(rules, lift_after=lift_after)

    async def lift(self) -> bool:
        """Remove the isolation."""
        async with self.lock:
            return await self._firewall.lift()

    async def block(self, blocks: Sequence[Block], *, servers: Sequence[Peer]) -> None:
        """Let exactly these blocks be in force."""
        async with self.lock:
            await self._firewall.block(blocks, servers=servers)

    async def isolation(self) -> KernelIsolation:
        """What is in force."""
        return await self._firewall.isolation()

    def is_in_force(self, now: KernelIsolation, rules: IsolationRules) -> bool:
        """Does the kernel enforce these rules?"""
        return self._firewall.is_in_force(now, rules)

    async def forbidden_sockets(self, rules: IsolationRules) -> tuple[Socket, ...]:
        """Connected sockets that the rules do not allow."""
        return await self._firewall.forbidden_sockets(rules)

    async def destroy_sockets(self, rules: IsolationRules) -> int:
        """Destroy them."""
        return await self._firewall.destroy_sockets(rules)

    async def blocks(self) -> tuple[Block, ...]:
        """The blocks in force."""
        return await self._firewall.blocks()

    async def destroy_blocked(self, block: Block) -> int:
        """Destroy sockets to a blocked network."""
        return await self._firewall.destroy_blocked(block)

    async def own_addresses(self) -> frozenset[AnyAddress]:
        """Every address of this machine."""
        return await self._firewall.own_addresses()


class Keeper:
    """Compares what is written down with what the kernel has, and repairs the kernel."""

    def __init__(
        self,
        *,
        firewall: WatchedFirewall,
        turn: asyncio.Lock,
        names: Names,
        server: Server,
        effects: Effects,
        spool: Spool,
        clock: AgentClock,
        mark: Callable[[bool], None] = lambda _isolated: None,
        moved: asyncio.Event | None = None,
    ) -> None:
        self._firewall = firewall
        self._turn = turn
        self._names = names
        self._server = server
        self._effects = effects
        self._spool = spool
        self._clock = clock
        self._mark = mark
        self._kernel = _RELEASED
        self._read: tuple[Mapping[str, Any], IsolationRules] | None = None
        """What was written down when it was last read, and what it means."""
        self._not_open: tuple[str, ...] = ()
        self._tampered: Tampering | None = None
        self._told_at = float("-inf")
        self._untold = 0
        self._short = False
        """Is less open, for now, than what is written down? Then that is no sign of tampering."""
        self.moved = moved or asyncio.Event()
        """Set by whoever knows that the server, or a name, has another address."""
        effects.listeners.append(self._note)

    # --- what is told ---

    async def status(self) -> IsolationStatus:
        """The isolation, as everybody is told it. Asks the kernel only if something is, or just was, in force."""
        effect = self._effects.current(EFFECT)
        if effect is not None or self._kernel.state is not IsolationState.RELEASED:
            self._kernel = await self._seen()
        due = effect is not None and self._effects.is_due(EFFECT)
        return status(effect, self._kernel, due=due, not_open=self._not_open, tampered=self._tampered)

    async def _seen(self) -> KernelIsolation:
        """What the kernel has; if it cannot be asked, that nobody knows, rather than what was true once."""
        try:
            return await self._firewall.isolation()
        except (StanchError, OSError) as error:
            line = f"Nobody knows what is in force: the firewall cannot be looked at ({error})"
            return KernelIsolation(state=IsolationState.PARTIAL, rules=None, remaining=None, not_covered=(line,))

    # --- for ever ---

    async def run(self) -> None:
        """Keep it, until cancelled."""
        await self.look_again(at_start=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._look_now_and_then())
            group.create_task(self._follow_names())

    async def _watch(self) -> None:
        pause = RETRY_AFTER
        while True:
            with _going_on("changes of the firewall cannot be watched"):
                async with aclosing(self._firewall.watch()) as changes:  # type: ignore[type-var]  # it is a generator
                    async for change in changes:
                        pause = RETRY_AFTER
                        await self._take(change)
            await asyncio.sleep(pause.total_seconds())
            pause = min(2 * pause, LOOK_EVERY)

    async def _take(self, change: Change) -> None:
        if isinstance(change, Addresses):
            self.moved.set()
            return
        if isinstance(change, Groups):
            self.moved.set()
        if not self._anything_in_force():
            return
        # Nothing is asked first: what was flushed is open until it is back.
        foreign = change if isinstance(change, Foreign) else None
        await self._put_back(foreign, was_open=foreign is not None)

    async def _look_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            if self._anything_in_force():
                await self.look_again()

    async def _follow_names(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RESOLVE_EVERY.total_seconds()):
                    await self.moved.wait()
            self.moved.clear()
            with _going_on("what the exclusions mean cannot be found out"):
                await self.follow()
            await asyncio.sleep(FOLLOW_PAUSE.total_seconds())

    # --- repair ---

    async def look_again(self, *, at_start: bool = False) -> None:
        """Compare, and put back what is missing; at the start of the agent, take over what the kernel has."""
        effect = self._in_force()
        self._note()
        with _going_on("the firewall cannot be looked at"):
            self._kernel = await self._firewall.isolation()
            missing = effect is not None and not self._is_whole(self._kernel, effect)
            if missing or (at_start and self._anything_in_force()) or not await self._blocks_are_whole():
                # After a restart of the machine nobody has tampered: its tables are gone by themselves.
                blamed = missing and not self._short and not (at_start and self._effects.outlived_boot(EFFECT))
                gone = Foreign(what=_what(self._kernel), pid=0, name="", who="") if blamed else None
                await self._put_back(gone, was_open=missing)

    async def _put_back(self, foreign: Foreign | None, *, was_open: bool) -> None:
        """Put what is written down into the kernel, under the lock; tell of it if somebody else was the reason."""
        async with self._turn:
            if not self._anything_in_force():
                return
            try:
                await self._apply()
                repaired = True
            except Exception:
                repaired = False
                log.exception("what is written down cannot be put into the kernel")
            if was_open and repaired:
                # Under the lock: what a release has let pass again must not be cut.
                with _going_on("connections that came about meanwhile cannot be cut"):
                    await self._cut()
        if foreign is not None:
            await self._tell(foreign, repaired=repaired)

    async def _cut(self) -> None:
        """Destroy what came about while it was open: an idle connection must not outlive the isolation."""
        effect = self._in_force()
        if effect is not None:
            rules = self._rules_of(effect)
            for _ in range(_CUTS):
                if not await self._firewall.destroy_sockets(rules):
                    break
        for block in self._blocks():
            await self._firewall.destroy_blocked(block)

    async def _apply(self) -> None:
        effect = self._in_force()
        try:
            if effect is not None:
                await self._isolate_by(effect)
        finally:  # one that cannot be put back must not keep the other from it
            if self._blocks():
                await self._block()

    async def _isolate_by(self, effect: Effect) -> None:
        rules = self._rules_of(effect)
        try:
            await self._isolate(rules)
        except Invalid as error:  # they will never fit: cut off is the safe side
            log.warning("the exclusions cannot be put in force", error=str(error))
            await self._isolate(replace(rules, allow=()))
            self._short = True

    def _rules_of(self, effect: Effect) -> IsolationRules:
        """What is written down; of another version of the agent it may say nothing: then the server alone, at first."""
        written = effect.private.get("rules", {})
        if self._read is not None and self._read[0] == written:  # to read a thousand takes longer than to close a gap
            return self._read[1]
        try:
            self._read = (written, rules_of(written))
            return self._read[1]
        except Invalid as error:
            log.warning("the isolation's rules cannot be read", error=str(error))
            self.moved.set()
            return IsolationRules(servers=self._server.peers(), proxies=self._server.proxies())

    async def _isolate(self, rules: IsolationRules) -> None:
        """Put them in force; without its units, if one of them has ended meanwhile."""
        lasts = self._effects.remaining(EFFECT)
        try:
            await self._firewall.isolate(rules, lift_after=lasts)
            self._short = False
        except TargetGone:
            fixed = replace(rules, allow=tuple(one for one in rules.allow if one.cgroup is None))
            await self._firewall.isolate(fixed, lift_after=lasts)
            self._short = True
            self.moved.set()

    async def _block(self) -> None:
        await self._firewall.block(self._blocks(), servers=(*self._server.peers(), *self._server.proxies()))

    async def follow(self) -> None:
        """Find out what the exclusions of the isolation mean now, and enforce that."""
        effect = self._in_force()
        if effect is None:
            self._not_open = ()
            return
        allow, profiles, lost = readable_order(effect.detail)
        before = _openings(effect)
        rules, not_open = await rules_for(self._names, self._server, allow, profiles or (), open_before=before)
        self._not_open = (*lost, *not_open)
        async with self._turn:
            held = self._in_force()
            if held is None or held.task != effect.task:
                return
            if rules_json(rules) == held.private.get("rules") and not self._short:
                return
            await self._replace(rules, held)
            await self._firewall.destroy_sockets(rules)
            if self._blocks():
                await self._block()
        log.info("isolation-follows", servers=len(rules.servers), openings=len(rules.allow))

    async def _replace(self, rules: IsolationRules, held: Effect) -> None:
        """On the disk, then in the kernel. What that refuses does not stay written: it could never be put back."""
        plain = rules_json(rules)
        await self._effects.amend(EFFECT, private={"rules": plain})
        try:
            await self._isolate(rules)
        except BaseException as error:
            self._not_open = (f"What names mean now is not in force: {error}"[:1000], *self._not_open)
            now = self._effects.current(EFFECT)
            if now is not None and now.private.get("rules") == plain:
                earlier = held.private.get("rules", {})
                await asyncio.shield(self._effects.amend(EFFECT, private={"rules": earlier}))
            raise

    def _note(self) -> None:
        """Leave the mark by which boot knows that it must fail closed, should the journal be lost."""
        try:
            self._mark(self._in_force() is not None)
        except OSError as error:
            log.warning("the mark of the isolation cannot be set", error=str(error))

    # --- what is written down, and what there is ---

    def _in_force(self) -> Effect | None:
        """The isolation that is to be in force now."""
        effect = self._effects.current(EFFECT)
        wanted = effect is not None and phase_of(effect) is Phase.IN_FORCE
        return effect if wanted and not self._effects.is_due(EFFECT) else None

    def _blocks(self) -> list[Block]:
        effects = self._effects.all()
        return blocks_of(effects, {one.name: self._effects.remaining(one.name) for one in effects})

    def _anything_in_force(self) -> bool:
        return self._in_force() is not None or bool(self._blocks())

    def _is_whole(self, kernel: KernelIsolation, effect: Effect) -> bool:
        try:
            return not kernel.damaged and self._firewall.is_in_force(kernel, rules_of(effect.private.get("rules", {})))
        except Invalid:
            return False

    async def _blocks_are_whole(self) -> bool:
        """Does the kernel drop all that is written down?"""
        wanted = self._blocks()
        there = await self._firewall.blocks() if wanted else ()
        return all(all(dropped(there, one)) for one in wanted)

    # --- tampering ---

    async def _tell(self, foreign: Foreign, *, repaired: bool) -> None:
        now = self._clock.stamp()
        who = foreign.who or (f"process {foreign.pid} ({foreign.name})" if foreign.pid else "unknown")
        self._tampered = Tampering(at=now, what=foreign.what[:1000], who=who[:1000], repaired=repaired)
        self._effects.news.set()
        log.warning("isolation-tampered", what=foreign.what, who=who, repaired=repaired)
        since = self._clock.boot_seconds() - self._told_at
        if since < TELL_EVERY.total_seconds():
            self._untold += 1
            return
        detail: Mapping[str, Any] = {
            **self._tampered.model_dump(mode="json"),
            "pid": foreign.pid,
            "process": foreign.name,
            "more_before": self._untold,
        }
        self._told_at, self._untold = self._clock.boot_seconds(), 0
        try:
            await self._spool.put(self._spool.notice("isolation-tampered", detail))
        except StanchError as error:
            log.warning("tampering could not be told", error=str(error))


@contextmanager
def _going_on(failed: str) -> Iterator[None]:
    """Whatever happens in it, the keeper goes on, and the agent with it; the next look may do better."""
    try:
        yield
    except (StanchError, OSError) as error:
        log.warning(failed, error=str(error))
    except Exception:
        log.exception(failed)


def _openings(effect: Effect) -> tuple[Opening, ...]:
    try:
        return rules_of(effect.private.get("rules", {})).allow
    except Invalid:
        return ()


def _what(kernel: KernelIsolation) -> str:
    if kernel.state is IsolationState.RELEASED:
        return "the tables of the isolation are gone"
    return "the tables of the isolation are not what was put there"
