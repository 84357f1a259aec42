"""An endpoint in memory: a fake for every protocol of `stanch.core.host`, and `fake_host()` that puts them together.

Each fake keeps its state in plain attributes that a test may set and read, and does what the real one promises.
`Life` is what they share: it counts every step that changes something and can end at any of them, as `kill -9` does.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

from stanch.core.evidence import Source
from stanch.core.exclusion import Exclusion, Opening, Profile, fixed_networks, openings
from stanch.core.host import Effect, Host, Record
from stanch.core.model import Model
from stanch.core.network import Block, IsolationRules, IsolationState, KernelIsolation, Peer, Resolved, Socket
from stanch.core.settings import GroupSettings
from stanch.core.types import AnyAddress, EvidenceRef
from tests.fakes.accounts import FakeAccounts
from tests.fakes.autoruns import FakeAutoruns
from tests.fakes.containers import FakeContainers
from tests.fakes.content import FakeContent
from tests.fakes.files import FakeFiles, FakeUploads
from tests.fakes.life import AgentKilled, FakeClock, Life  # noqa: F401 - tests take AgentKilled from here
from tests.fakes.machine import FakeMachine
from tests.fakes.processes import FakeProcesses
from tests.fakes.scanner import FakeDetections, FakeScanner
from tests.fakes.started_programs import FakePrograms
from tests.fakes.terminals import FakeTerminals
from tests.fakes.vault import FakeVault

SERVER = Peer(address=ip_address("192.0.2.1"), port=8443)


# --- network ---------------------------------------------------------------------------------------------------------


def socket_to(remote: str, *, protocol: str = "tcp") -> Socket:
    """A connected socket to `address:port` or `[address]:port`."""
    return Socket(protocol=protocol, local="10.0.0.5:40000", remote=remote, state="ESTAB")


def allows(rules: IsolationRules, socket: Socket) -> bool:
    """May this socket stay under the rules? (Of an opening only its network and its remote ports count here.)"""
    host, _, port = socket.remote.rpartition(":")
    address = ip_address(host.strip("[]"))
    if address.is_loopback or any(_opens(one, address, int(port)) for one in rules.allow):
        return True
    return any(address == one.address and int(port) == one.port for one in (*rules.servers, *rules.proxies))


def _opens(one: Opening, address: AnyAddress, port: int) -> bool:
    return address in one.network and (one.remote is None or one.remote.first <= port <= one.remote.last)


def as_the_kernel_tells(rules: IsolationRules) -> IsolationRules:
    """Its sets have no order and no duplicates."""
    servers = sorted(set(rules.servers), key=lambda one: (one.address.version, int(one.address), one.port))
    return replace(rules, servers=tuple(servers), allow=tuple(sorted(set(rules.allow), key=repr)))


@dataclass
class FakeFirewall:
    """A firewall whose kernel is these attributes. The deadline passes when `clock` does, whoever is alive."""

    life: Life = field(default_factory=Life)
    clock: FakeClock = field(default_factory=FakeClock)
    sockets: list[Socket] = field(default_factory=list)
    rules: IsolationRules | None = None
    until: datetime | None = None
    partial: bool = False
    """Can this machine not do all of it?"""
    damaged: bool = False
    """Has somebody else taken a part of it away?"""
    addresses: tuple[AnyAddress, ...] = (ip_address("10.0.0.5"), ip_address("127.0.0.1"))
    blocked: tuple[tuple[Block, datetime | None], ...] = ()
    """Blocks in force, each with its end."""
    not_covered: tuple[str, ...] = ()
    fails: Exception | None = None
    """What `isolate` raises instead of changing anything."""
    undying: list[Socket] = field(default_factory=list)
    """Sockets that the kernel will not destroy."""
    exempt: tuple[Peer, ...] = ()
    """What blocks never stop."""
    born: list[Socket] = field(default_factory=list)
    """Sockets that appear one by one, each while the earlier ones are being destroyed."""

    async def isolate(self, rules: IsolationRules, *, lift_after: timedelta | None) -> None:
        self.life.step("firewall.isolate")
        if self.fails is not None:
            raise self.fails
        self.rules, self.damaged = as_the_kernel_tells(rules), False
        self.until = None if lift_after is None else self.clock.now() + lift_after

    async def lift(self) -> bool:
        self.life.step("firewall.lift")
        was = self.in_force
        self.rules = self.until = None
        return was

    @property
    def in_force(self) -> bool:
        """Does the kernel drop anything?"""
        return self.rules is not None and (self.until is None or self.clock.now() < self.until)

    async def isolation(self) -> KernelIsolation:
        if not self.in_force:
            return KernelIsolation(
                state=IsolationState.RELEASED, rules=None, remaining=None, not_covered=self.not_covered
            )
        return KernelIsolation(
            state=IsolationState.PARTIAL if self.partial else IsolationState.ISOLATED,
            rules=self.rules,
            remaining=None if self.until is None else self.until - self.clock.now(),
            damaged=self.damaged,
            not_covered=self.not_covered,
        )

    def is_in_force(self, now: KernelIsolation, rules: IsolationRules) -> bool:
        return now.rules is not None and not now.damaged and now.rules == as_the_kernel_tells(rules)

    async def block(self, blocks: Sequence[Block], *, servers: Sequence[Peer]) -> None:
        self.life.step("firewall.block")
        if self.fails is not None:
            raise self.fails
        now = self.clock.now()
        self.blocked = tuple((one, None if one.remaining is None else now + one.remaining) for one in blocks)
        self.exempt = tuple(servers)

    async def blocks(self) -> tuple[Block, ...]:
        now = self.clock.now()
        return tuple(
            replace(one, remaining=None if end is None else end - now)
            for one, end in self.blocked
            if end is None or now < end
        )

    async def destroy_blocked(self, block: Block) -> int:
        self.life.step("firewall.destroy_blocked")
        doomed = [one for one in self.sockets if self._is_blocked(one, block)]
        self.sockets = [one for one in self.sockets if one not in doomed]
        return len(doomed)

    def _is_blocked(self, socket: Socket, block: Block) -> bool:
        host, _, port = socket.remote.rpartition(":")
        address = ip_address(host.strip("[]"))
        return address in block.network and (address, int(port)) not in {(one.address, one.port) for one in self.exempt}

    async def own_addresses(self) -> frozenset[AnyAddress]:
        return frozenset(self.addresses)

    async def forbidden_sockets(self, rules: IsolationRules) -> tuple[Socket, ...]:
        return tuple(one for one in self.sockets if not allows(rules, one))

    async def destroy_sockets(self, rules: IsolationRules) -> int:
        self.life.step("firewall.destroy_sockets")
        doomed = [one for one in self.sockets if not allows(rules, one) and one not in self.undying]
        self.sockets = [one for one in self.sockets if one not in doomed]
        if self.born:
            self.sockets.append(self.born.pop(0))
        return len(doomed)


@dataclass
class FakeNames:
    """Names that mean what `hosts`, `users` and `units` say."""

    hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    resolvers: tuple[AnyAddress, ...] = ()

    async def resolve(self, exclusions: Sequence[Exclusion], profiles: Sequence[Profile]) -> Resolved:
        opened: list[Opening] = []
        not_open: list[str] = []
        for one in exclusions:
            networks = fixed_networks(one)
            if networks is None:
                networks = tuple(ip_network(found) for found in self.hosts.get(str(one.peer), ()))
            uid, cgroup = self.users.get(one.user or ""), self.units.get(one.unit or "")
            if not networks or (one.user and uid is None) or (one.unit and cgroup is None):
                not_open.append(f"{one}: nothing is known of it here.")
            else:
                opened += openings(one, networks, uid=uid, cgroup=cgroup)
        return Resolved(openings=tuple(opened), resolvers=self.resolvers, not_open=tuple(not_open))


@dataclass
class FakeUsers:
    """People on terminals."""

    life: Life = field(default_factory=Life)
    logged_in: int = 0
    told: list[str] = field(default_factory=list)

    async def tell(self, text: str) -> int:
        self.life.step("users.tell")
        self.told.append(text)
        return self.logged_in


@dataclass
class FakeServer:
    """The server as an action sees it."""

    life: Life = field(default_factory=Life)
    known: tuple[Peer, ...] = (SERVER,)
    through: tuple[Peer, ...] = ()
    """Proxies."""
    answers: bool = True
    """Does it answer under the rules?"""
    hangs: bool = False
    """Never come back from `confirm`; the test must cancel."""
    asked: list[timedelta] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when `confirm` hangs."""

    def peers(self) -> tuple[Peer, ...]:
        return self.known

    def proxies(self) -> tuple[Peer, ...]:
        return self.through

    async def confirm(self, *, within: timedelta) -> bool:
        self.life.step("server.confirm")
        self.asked.append(within)
        if self.hangs:
            self.waiting.set()
            await asyncio.Event().wait()
        return self.answers


# --- evidence ----------------------------------------------------------------------------------------------


@dataclass
class FakeEvidence:
    """Takes evidence in parts of `part` bytes; keeps what it took. A source that is sent again is the same evidence."""

    life: Life = field(default_factory=Life)
    part: int = 4
    kept: dict[str, bytes] = field(default_factory=dict)
    """Evidence id to bytes."""
    after_part: Any = None
    """Called after each part: a test changes the source here."""

    async def send(self, source: Source) -> EvidenceRef:
        taken = bytearray(source.size)
        for extent in await source.extents():
            end = extent.offset + extent.length
            for offset in range(extent.offset, end, self.part):
                self.life.step("evidence.part")
                length = min(self.part, end - offset)
                taken[offset : offset + length] = await source.read(offset, length)
                if self.after_part is not None:
                    self.after_part()
        self.life.step("evidence.finish")
        sha256 = hashlib.sha256(taken).hexdigest()
        ref = EvidenceRef(id=f"ev_{sha256[:16]}", name=source.name, size=len(taken), sha256=sha256)
        self.kept[ref.id] = bytes(taken)
        return ref


# --- the agent itself ------------------------------------------------------------------------------------------------


@dataclass
class FakeJournal:
    """One task's journal. `restart` makes what was recorded the record of an earlier run."""

    life: Life = field(default_factory=Life)
    records: list[dict[str, Any]] = field(default_factory=list)
    """Everything that was recorded, in order."""
    earlier: Record | None = None
    partial: Model | None = None
    """What would be told if the task failed now."""

    async def record(self, record: Record) -> None:
        self.life.step("journal.record")
        self.records.append(dict(record))

    def keep(self, partial: Model) -> None:
        self.partial = partial

    def recorded(self) -> Record | None:
        return self.earlier

    def restart(self) -> None:
        """The agent starts again."""
        self.earlier = self.records[-1] if self.records else None


@dataclass
class FakeEffects:
    """Lasting effects by name."""

    life: Life = field(default_factory=Life)
    clock: FakeClock = field(default_factory=FakeClock)
    task: str = "tsk_1"
    held: dict[str, Effect] = field(default_factory=dict)
    lasts: dict[str, timedelta | None] = field(default_factory=dict)

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
        self.life.step("effects.hold")
        now, before = self.clock.now(), self.held.get(name)
        goes_on = before is not None and (before.until is None or now < before.until)
        effect = Effect(
            name=name,
            task=self.task,
            since=before.since if before is not None and goes_on else now,
            until=None if lasts is None else now + lasts,
            lift_action=lift_action,
            lift_params=lift_params,
            detail=detail,
            private=private or {},
        )
        if before is not None and goes_on and self._is_said_again(before, effect, lasts):
            self.held[name] = before.model_copy(update={"private": effect.private})
            return before
        self.held[name], self.lasts[name] = effect, lasts
        return effect

    async def amend(self, name: str, *, detail: Record | None = None, private: Record | None = None) -> None:
        self.life.step("effects.amend")
        if name in self.held:
            one = self.held[name]
            parts = {"detail": {**one.detail, **(detail or {})}, "private": {**one.private, **(private or {})}}
            self.held[name] = one.model_copy(update=parts)

    def _is_said_again(self, before: Effect, effect: Effect, lasts: timedelta | None) -> bool:
        """A task that goes on after a crash says the same once more: it lasts no longer for that."""
        may_differ = {"until": before.until, "private": before.private}
        return self.lasts.get(before.name) == lasts and before == effect.model_copy(update=may_differ)

    async def drop(self, name: str) -> None:
        self.life.step("effects.drop")
        self.held.pop(name, None)

    def all(self) -> tuple[Effect, ...]:
        return tuple(self.held.values())

    def remaining(self, name: str) -> timedelta | None:
        one = self.held.get(name)
        if one is None or one.until is None:
            return None
        return max(timedelta(0), one.until - self.clock.now())

    def current(self, name: str) -> Effect | None:
        return self.held.get(name)


@dataclass
class FakeProgress:
    """Remembers what people were told."""

    told: list[tuple[int, int | None, str, str]] = field(default_factory=list)
    paused: str = ""
    """Why it waits, as it was told last."""

    def __call__(self, done: int, total: int | None, unit: str, text: str = "", *, paused: str = "") -> None:
        self.told.append((done, total, unit, text))
        self.paused = paused


@dataclass
class FakeEndpoint:
    """All fakes of one endpoint, with their own types, on one clock and one life."""

    life: Life = field(default_factory=Life)
    clock: FakeClock = field(default_factory=FakeClock)
    task: str = "tsk_1"
    order: str = "ord_1"
    origin: str = "cli"
    settings: GroupSettings = field(default_factory=GroupSettings)

    def __post_init__(self) -> None:
        self.names = FakeNames()
        self.users = FakeUsers(life=self.life)
        self.firewall = FakeFirewall(life=self.life, clock=self.clock)
        self.processes = FakeProcesses(life=self.life)
        self.accounts = FakeAccounts(self.processes, life=self.life)
        self.autoruns = FakeAutoruns(life=self.life)
        self.containers = FakeContainers(life=self.life)
        self.machine = FakeMachine(life=self.life)
        self.terminals = FakeTerminals(life=self.life)
        self.scanner = FakeScanner(life=self.life)
        self.content = FakeContent(life=self.life)
        self.files = self.autoruns.files = FakeFiles(life=self.life)
        self.programs = FakePrograms(life=self.life, processes=self.processes, files=self.files, task=self.task)
        self.vault = FakeVault(self.files, life=self.life, clock=self.clock)
        self.uploads = FakeUploads()
        self.evidence = FakeEvidence(life=self.life)
        self.journal = FakeJournal(life=self.life)
        self.effects = FakeEffects(life=self.life, clock=self.clock, task=self.task)
        self.detections = FakeDetections(life=self.life)
        self.server = FakeServer(life=self.life)
        self.progress = FakeProgress()

    @property
    def host(self) -> Host:
        """What an action is handed."""
        return Host(
            task=self.task,
            order=self.order,
            origin=self.origin,
            settings=self.settings,
            names=self.names,
            users=self.users,
            firewall=self.firewall,
            processes=self.processes,
            programs=self.programs,
            accounts=self.accounts,
            autoruns=self.autoruns,
            containers=self.containers,
            machine=self.machine,
            terminals=self.terminals,
            scanner=self.scanner,
            content=self.content,
            files=self.files,
            vault=self.vault.in_hands_of(self.order),
            evidence=self.evidence,
            uploads=self.uploads,
            journal=self.journal,
            effects=self.effects,
            detections=self.detections,
            server=self.server,
            progress=self.progress,
        )

    def restart(self, *, ends_at: int | None = None) -> None:
        """The agent starts again after `kill -9`: the machine is as it was, the journal tells of an earlier run."""
        self.journal.restart()
        self.life.restart(ends_at=ends_at)

    def next_task(self, task: str, *, order: str | None = None) -> None:
        """Another task on the same endpoint, of another order: a journal of its own."""
        self.task = self.effects.task = self.programs.task = task
        self.order = order or task.replace("tsk", "ord")
        self.journal = FakeJournal(life=self.life)


def fake_host(**overrides: Any) -> Host:
    """A host on fakes, some of them given."""
    return replace(FakeEndpoint().host, **overrides)
