"""An agent without its link: the real executor, journal, spool and effects on a fake endpoint, and a server that signs.

`Machine` is what outlives the agent: its folder, its endpoint, its boot clock. `Machine.agent()` starts an agent on it;
leaving stops it cleanly. `Deed` actions do what a test's `Script` says.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from joserfc.jwk import OKPKey
from pydantic import Field

from stanch.agent.carrier import Bounds
from stanch.agent.clock import AgentClock
from stanch.agent.effects import Effects
from stanch.agent.executor import Executor
from stanch.agent.journal import Journal
from stanch.agent.local_policy import LocalPolicy
from stanch.agent.recovery import recover
from stanch.agent.spool import Spool
from stanch.agent.tasks import TaskContext
from stanch.agent.trust import TrustedKeys
from stanch.core.action import (
    AfterCrash,
    Check,
    Concurrency,
    Irreversible,
    Params,
    Plan,
    Registry,
    Result,
    Risk,
    Step,
    action,
)
from stanch.core.envelope import Body, CancelBody, Envelope, OrderBody, sign
from stanch.core.frames import Notice, ProgressFrame, Report
from stanch.core.host import Host
from stanch.core.task import State
from stanch.core.types import EndpointPath, Name, seconds
from tests.fakes.host import FakeEndpoint
from tests.fakes.waiting import eventually

ENDPOINT = "ep_1"


def new_key(kid: str) -> OKPKey:
    """A signing key."""
    return OKPKey.generate_key("Ed25519", parameters={"kid": kid, "use": "sig"}, private=True)


def jwk(key: OKPKey) -> dict[str, str]:
    """Its public half, as an endpoint pins it."""
    public = {name: str(value) for name, value in key.as_dict(private=False).items() if isinstance(value, str)}
    return {**public, "kid": str(key.kid)}


KEY = new_key("k1")


def order_of(task: str, action: str = "isolate", **more: Any) -> OrderBody:
    """The order of a task, as its effects remember it."""
    body: dict[str, Any] = {"params": {}, "action_version": 1, "origin": "api", "requested_by": "alice"} | more
    return OrderBody(task=task, action=action, **{"order": "ord_1", **body})


@dataclass
class FakeSigner:
    """The server, as far as it signs envelopes."""

    now: Callable[[], datetime]
    key: OKPKey = field(default_factory=lambda: KEY)
    endpoint: str = ENDPOINT
    numbers: Any = field(default_factory=lambda: count(1))

    def order(self, task: str, action: str, *, valid_for: float | None = 3600, ago: float = 0, **more: Any) -> str:
        """An order, signed `ago` seconds ago."""
        return self.sign(order_of(task, action, **more), valid_for=valid_for, ago=ago)

    def cancel(self, task: str) -> str:
        """The cancel of a task."""
        return self.sign(CancelBody(task=task))

    def sign(
        self, body: Body, *, valid_for: float | None = None, ago: float = 0, version: int | None = None, **more: Any
    ) -> str:
        """Any envelope."""
        iat = int(self.now().timestamp() - ago)
        exp = None if valid_for is None else int(iat + valid_for)
        fields = {"endpoint": self.endpoint, "id": f"env_{next(self.numbers)}", "iat": iat, "exp": exp, **more}
        return sign(Envelope(body=body, version=version, **fields), self.key)


# --- actions that do what a test says --------------------------------------------------------------------------------


class Deed(Params):
    """What to do."""

    key: Name = "a"
    """Names the deed in the script."""

    path: EndpointPath | None = None
    """Some path."""

    content: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=10)] = ()
    """What it scans with."""


class Did(Result):
    """What was done."""

    key: Name
    """The deed."""


Behave = Callable[[Host], Awaitable[None]]


@dataclass
class Script:
    """What deeds do, and what they did. It is the world: it outlives the agent."""

    behave: dict[str, Behave] = field(default_factory=dict)
    """Key to what its deed does before it takes effect."""
    begun: list[str] = field(default_factory=list)
    """Tasks, each as often as its action began."""
    effects: list[str] = field(default_factory=list)
    """Keys, each as often as it took effect."""
    blind: set[str] = field(default_factory=set)
    """Keys of which `verify` cannot tell."""
    lost: set[str] = field(default_factory=set)
    """Keys whose effect goes away at once."""

    async def run(self, host: Host, params: Deed) -> Did:
        self.begun.append(host.task)
        await host.journal.record({"key": params.key})
        if params.key in self.behave:
            await self.behave[params.key](host)
        if params.key not in self.effects:
            self.effects.append(params.key)
        if params.key in self.lost:
            self.effects.remove(params.key)
        return Did(key=params.key)

    def check(self, params: Deed) -> Check:
        if params.key in self.blind:
            raise RuntimeError("the lights are out")
        return Check.of(params.key in self.effects, f"effects {self.effects}")


def scripted(script: Script) -> Registry:
    """One action of each kind, all of which follow the script."""

    async def plan(_host: Host, params: Deed) -> Plan:
        return Plan(changes=True, steps=(Step(what="Do", target=params.key),))

    async def verify(_host: Host, params: Deed, _result: Did | None) -> Check:
        return script.check(params)

    changing: Mapping[str, Any] = {
        "version": 1,
        "risk": Risk.DISRUPTIVE,
        "examples": ("web-01",),
        "plan": plan,
        "verify": verify,
        "undo": Irreversible("It is a test."),
        "concurrency": Concurrency.EXCLUSIVE,
        "time_limit": seconds(30),
    }
    reading: Mapping[str, Any] = {
        "version": 1,
        "risk": Risk.READ_ONLY,
        "after_crash": AfterCrash.RERUN,
        "examples": ("web-01",),
        "time_limit": seconds(30),
    }

    @action("act", after_crash=AfterCrash.VERIFY_THEN_FINISH, **changing)
    async def act(host: Host, params: Deed) -> Did:
        """Change something, safely repeatable."""
        return await script.run(host, params)

    @action("once", after_crash=AfterCrash.UNKNOWN, **changing)
    async def once(host: Host, params: Deed) -> Did:
        """Change something that must not be repeated."""
        return await script.run(host, params)

    @action("back", after_crash=AfterCrash.REVERT, **changing)
    async def back(host: Host, params: Deed) -> Did:
        """Change something that is taken back after a crash."""
        return await script.run(host, params)

    @action("quick", after_crash=AfterCrash.VERIFY_THEN_FINISH, **{**changing, "time_limit": seconds(0.05)})
    async def quick(host: Host, params: Deed) -> Did:
        """Change something at once or never."""
        return await script.run(host, params)

    @action("read", **reading)
    async def read(host: Host, params: Deed) -> Did:
        """Only look."""
        return await script.run(host, params)

    @action("bulk", concurrency=Concurrency.BACKGROUND, **reading)
    async def bulk(host: Host, params: Deed) -> Did:
        """Only look, for long."""
        return await script.run(host, params)

    return Registry([act, once, back, quick, read, bulk])


@dataclass
class Hold:
    """A deed that waits until it is let go."""

    free: asyncio.Event = field(default_factory=asyncio.Event)
    inside: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while it waits."""
    stubborn: bool = False
    """Does it ignore that it is cancelled?"""

    async def __call__(self, _host: Host) -> None:
        self.inside.set()
        try:
            while not self.free.is_set():
                await self._wait()
        finally:
            self.inside.clear()

    async def _wait(self) -> None:
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            if not self.stubborn:
                raise


# --- the agent -------------------------------------------------------------------------------------------------------


@dataclass
class Agent:
    """A running agent, from the inside."""

    executor: Executor
    journal: Journal
    clock: AgentClock
    spool: Spool
    effects: Effects
    progress: list[ProgressFrame]

    async def reports(self, task: str | None = None) -> list[Report]:
        """The reports that wait for the server."""
        frames = await self.spool.pending(10_000)
        return [one for one in frames if isinstance(one, Report) and task in {None, one.task}]

    async def notices(self, kind: str | None = None) -> list[Notice]:
        """The notices that wait for the server."""
        frames = await self.spool.pending(10_000)
        return [one for one in frames if isinstance(one, Notice) and kind in {None, one.kind}]

    async def ended(self, task: str) -> Report:
        """Wait for the final report of a task; the only one."""
        await eventually(lambda: task not in self.executor.open_tasks())
        (report,) = [one for one in await self.reports(task) if one.state.final]
        return report

    async def state(self, task: str) -> State:
        """Its final state."""
        return (await self.ended(task)).state


@dataclass
class Machine:
    """What outlives the agent."""

    folder: Path
    registry: Registry
    endpoint: FakeEndpoint = field(default_factory=FakeEndpoint)
    boot_id: str = "boot_1"
    boot_at: datetime | None = None
    policy: str | None = None
    """The local policy's text."""

    def __post_init__(self) -> None:
        self.booted = self.boot_at or self.endpoint.clock.time - timedelta(seconds=1000)
        self.server = FakeSigner(self.endpoint.clock.now)

    def boot_seconds(self) -> float:
        """CLOCK_BOOTTIME."""
        return (self.endpoint.clock.time - self.booted).total_seconds()

    def reboot(self) -> None:
        """Start the machine again; its boot clock starts at zero."""
        self.booted = self.endpoint.clock.time
        self.boot_id += "+"

    @property
    def policy_file(self) -> Path:
        """Where the local policy is."""
        return self.folder / "agent.toml"

    def host(self, context: TaskContext) -> Host:
        """The endpoint in the hands of a task."""
        one = self.endpoint
        return Host(
            task=context.task,
            order=context.order.order or context.task,
            origin=context.order.origin,
            settings=one.settings,
            firewall=one.firewall,
            names=one.names,
            users=one.users,
            processes=one.processes,
            programs=one.programs,
            accounts=one.accounts,
            autoruns=one.autoruns,
            containers=one.containers,
            machine=one.machine,
            terminals=one.terminals,
            scanner=one.scanner,
            content=one.content,
            files=one.files,
            vault=one.vault.in_hands_of(context.order.order or context.task),
            evidence=one.evidence,
            uploads=one.uploads,
            server=one.server,
            journal=context.journal,
            effects=context.effects,
            detections=one.detections,
            progress=context.progress,
        )

    @asynccontextmanager
    async def agent(
        self, *, bounds: Bounds | None = None, recovers: bool = True, **options: Any
    ) -> AsyncIterator[Agent]:
        """Start an agent, let it recover, and stop it cleanly at the end."""
        journal = Journal(self.folder / "journal.db", **options.pop("journal", {}))
        try:
            clock = AgentClock(journal, self.boot_seconds, self.boot_id)
            spool, effects, progress = Spool(journal, clock), Effects(journal, clock), list[ProgressFrame]()
            executor = Executor(
                endpoint=ENDPOINT,
                registry=self.registry,
                host_for=self.host,
                journal=journal,
                clock=clock,
                spool=spool,
                effects=effects,
                policy=LocalPolicy(self.policy_file),
                keys=TrustedKeys(journal, [jwk(KEY)]),
                progress=progress.append,
                bounds=bounds or Bounds(grace=seconds(0.05)),
                **options,
            )
            async with executor:
                if recovers:
                    await recover(executor)
                yield Agent(executor, journal, clock, spool, effects, progress)
        finally:
            await journal.close()
