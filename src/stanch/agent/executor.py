"""The executor: every change to this endpoint passes here, from the signed envelope to the report in the spool.

    accept: (1) authentic, ours, in time, new   (2) seen before?   (3) known action, right parameters
            (4) allowed by the machine's owner
    then, by carrier.py:
            (5) promised: on the disk           (6) still in time, begun: on the disk
            (7) run under its limit, verified   (8) finished, and its report in the spool: one transaction

Deliveries may come twice, late, or after the cancel that stops them; the journal decides. Orders of the agent itself
(a deadline that lifts an effect, `stanch local`) take the same way from step 5, and are told to the server as notices.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import structlog

from stanch.agent import attempt, recovery
from stanch.agent.carrier import Bounds, Carrier, HostFactory
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.gate import Admitted, Gate, Refusals
from stanch.agent.journal import DAMAGE, Journal
from stanch.agent.local_policy import LocalPolicy
from stanch.agent.policy_watch import PolicyWatch
from stanch.agent.spool import Spool
from stanch.agent.tasks import Known, Ledger, Outcome, Phase, Task
from stanch.agent.trust import TrustedKeys
from stanch.core.action import AnyAction, Params, Registry
from stanch.core.envelope import Body, CancelBody, Envelope, KeysBody, Kind, OrderBody
from stanch.core.errors import Expired, Invalid, Replayed, StanchError, Unavailable, Unsupported
from stanch.core.frames import ProgressFrame
from stanch.core.host import Effect
from stanch.core.policy import Origin
from stanch.core.task import State
from stanch.core.types import Id

Listener = Callable[[Any], Awaitable[None]]
"""Told the body of an envelope that replaces settings, after it is on the disk."""

log = structlog.get_logger(__name__)


class Executor:
    """Accepts orders and carries them out. `async with` it: leaving stops what runs, to go on at the next start."""

    def __init__(
        self,
        *,
        endpoint: Id,
        registry: Registry,
        host_for: HostFactory,
        journal: Journal,
        clock: AgentClock,
        spool: Spool,
        effects: Effects,
        policy: LocalPolicy,
        keys: TrustedKeys,
        on: Mapping[Kind, Listener] | None = None,
        progress: Callable[[ProgressFrame], None] = lambda _frame: None,
        bounds: Bounds | None = None,
    ) -> None:
        bounds = bounds or Bounds()
        self._registry = registry
        self._journal = journal
        self._clock = clock
        self._spool = spool
        self._effects = effects
        self._keys = keys
        self._on = dict(on or {})
        self._max_open = bounds.open_tasks
        self._gate = Gate(endpoint, keys=keys, clock=clock, journal=journal)
        self._refusals = Refusals(bounds.refusals_per_minute, clock.boot_seconds)
        self._turn = asyncio.Lock()
        self.policy = PolicyWatch(policy, registry=registry, journal=journal, spool=spool)
        self.ledger = Ledger(journal, clock, spool)
        self._carrier = Carrier(
            host_for=host_for,
            ledger=self.ledger,
            clock=clock,
            spool=spool,
            effects=effects,
            policy=self.policy,
            progress=progress,
            bounds=bounds,
        )

    async def __aenter__(self) -> Self:
        await self._carrier.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._carrier.__aexit__(kind, error, trace)

    def open_tasks(self) -> tuple[Id, ...]:
        """The server's tasks that have no final answer yet, as hello tells them."""
        return tuple(one.task.id for one in self._carrier.running.values() if not one.task.own)

    def content_in_use(self) -> frozenset[str]:
        """Names of the content that tasks which are under way, or wait, scan with."""
        every = (getattr(one.params, "content", ()) for one in self._carrier.running.values())
        return frozenset(name for names in every if isinstance(names, tuple) for name in names)

    # --- what arrives ---

    async def accept(self, token: str, *, nonce: str | None = None) -> None:
        """Obey an envelope, or say in a notice why not; never raises for what it says.

        Args:
            token: the compact JWS as delivered.
            nonce: what our hello on this link said.

        Returns when what it changes is on the disk; an order runs on by itself. Unavailable if the journal cannot be
        written: then it was not accepted, and must be delivered again.
        """
        try:
            # One at a time: two deliveries of one envelope must not both find that it is new.
            async with self._turn:
                await self._obey(self._gate.admit(token, nonce=nonce))
        except Unavailable:
            raise
        except StanchError as error:
            await self._refuse(error)

    async def _obey(self, admitted: Admitted) -> None:
        envelope = admitted.envelope
        if admitted.set_back:
            await self._spool.put(self._spool.notice("clock-changed", {"set_back_seconds": admitted.set_back}))
        if isinstance(envelope.body, OrderBody):
            await self._order(Task(order=envelope.body, iat=envelope.iat, exp=envelope.exp), admitted.late)
        elif isinstance(envelope.body, CancelBody):
            await self._cancel(envelope.body, envelope.iat)
        else:
            await self._replace(envelope)

    async def _order(self, task: Task, late: Expired | None) -> None:
        # (2) Seen before?
        if task.id in self._carrier.running:
            return
        known = await self.ledger.find(task.id)
        if known is not None:
            await self._answer_again(known)
            return
        if self.ledger.is_forgotten(task.iat):
            raise Replayed("The order may be one that was done long ago", got=task.id, hint="Order it anew.")
        await self.policy.look()
        try:
            if late is not None:
                raise late
            # (3) Can it be understood?
            action, params = self._understand(task)
            # (4) Does the owner of the machine allow it?
            self.policy.check(action, params)
            self._check_room()
        except StanchError as error:
            await self._carrier.end(task, Outcome.of(State.REFUSED, error))
            return
        await self._carrier.start(task, action, params)

    def _understand(self, task: Task) -> tuple[AnyAction, Params]:
        """The action and its parameters; UnknownAction, Unsupported or Invalid.

        Another version of the action is obeyed if its parameters are understood: what is new in it would be a field
        that is unknown here, and refused.
        """
        action = self._registry.find(task.order.action)
        try:
            return action, action.parse(task.order.params)
        except Invalid as error:
            if task.order.action_version <= action.version:
                raise
            raise Unsupported(
                f"This agent knows {action.command} only in an older version",
                got=f"version {task.order.action_version}: {error}",
                expected=f"at most version {action.version}",
                hint="Upgrade the agent.",
            ) from None

    def _check_room(self) -> None:
        if len(self._carrier.running) >= self._max_open:
            raise Unavailable(
                "Too many tasks wait on this endpoint", got=len(self._carrier.running), hint="Cancel some."
            )

    async def _answer_again(self, known: Known) -> None:
        """The server misses the outcome of a task that has ended: tell it again, unless that still waits to be sent."""
        if known.outcome is not None:
            await self._spool.put_once(self._carrier.report(known.task, known.outcome))

    async def _cancel(self, body: CancelBody, iat: int) -> None:
        running = self._carrier.running.get(body.task)
        if running is not None:
            await self.ledger.cancel(body.task)
            running.cancel()
        elif await self.ledger.find(body.task) is None:
            # It came before its order: remembered as ended, so that the order finds it so.
            order = OrderBody(
                task=body.task, order=body.task, action="unknown", action_version=1, params={}, origin=Origin.API,
                requested_by="unknown",
            )  # fmt: skip
            await self._carrier.end(Task(order=order, iat=iat), recovery.cancelled("it had not arrived"))

    async def _replace(self, envelope: Envelope) -> None:
        """Settings that replace earlier ones: on the disk with their version, then told to whom they concern."""
        body = envelope.body
        if isinstance(body, KeysBody):
            self._keys.rotate(body)
        self._gate.accepted(envelope)
        await self._journal.put({setting_entry(body): body.model_dump(mode="json")})
        listener = self._on.get(envelope.kind)
        if listener is not None:
            try:
                await listener(body)
            except Exception:
                log.exception("new settings were stored, but could not be applied", kind=envelope.kind)

    async def _refuse(self, error: StanchError) -> None:
        log.warning("an envelope was refused", code=error.code, error=str(error))
        suppressed = self._refusals.count()
        if suppressed is not None:
            detail = {"error": error.body().model_dump(exclude_none=True), "suppressed_before": suppressed}
            await self._spool.put(self._spool.notice("envelope-refused", detail))

    # --- the agent's own orders ---

    async def run_own(
        self, action: str, params: Mapping[str, Any], *, requested_by: str, lifts: str | None = None
    ) -> Outcome:
        """Carry out an order of this machine itself, and return how it ended; the server learns of it by a notice.

        It goes on if the caller is cancelled. The local policy does not bind it: who asks is root.
        """
        declared = self._registry.find(action)
        order = OrderBody(
            task=f"own_{secrets.token_hex(12)}",
            order="own",
            action=declared.name,
            action_version=declared.version,
            params=params,
            origin=Origin.LOCAL,
            requested_by=requested_by,
        )
        task = Task(order=order, iat=int(self._clock.stamp().timestamp()), own=True, lifts=lifts)
        running = await self._carrier.start(task, declared, declared.parse(params))
        return await asyncio.shield(running.ended)

    async def lift(self, effect: Effect) -> None:
        """Lift an effect at its deadline, through its own lift action; what `Effects.due_loop` asks for."""
        earlier = next((one for one in self._carrier.running.values() if one.task.lifts == effect.name), None)
        if earlier is not None:
            outcome = await asyncio.shield(earlier.ended)
        else:
            outcome = await self.run_own(
                effect.lift_action, effect.lift_params, requested_by="deadline", lifts=effect.name
            )
        if outcome.state is State.DONE and self._effects.is_due(effect.name):
            await self._effects.drop(effect.name)

    # --- start ---

    async def resume(self, known: Known) -> None:
        """Let a task of an earlier start of the agent go on."""
        begun = known.phase is Phase.BEGUN
        if known.cancelled and not begun:
            await self._carrier.end(known.task, recovery.cancelled("it had not begun"))
            return
        try:
            action, params = self._understand(known.task)
        except StanchError as error:
            outcome = attempt.interrupted(str(error)) if begun else Outcome.of(State.REFUSED, error)
            await self._carrier.end(known.task, outcome)
            return
        self._carrier.resume(known, action, params)

    async def tell_damage(self) -> None:
        """Tell the server, once, that the journal had to be started anew."""
        damage = self._journal.damage
        if damage is not None:
            # In one transaction with the notice.
            self._journal.stage(DAMAGE, None)
            try:
                await self._spool.put(self._spool.notice("journal-damaged", {"why": damage}))
            except BaseException:
                self._journal.stage(DAMAGE, damage)
                raise


def setting_entry(body: Body) -> str:
    """The journal's entry that holds the newest settings of this kind, as JSON of its body."""
    return str(body.kind)
