"""The agent's object graph: what is made of what, on one screen."""

import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from stanch import actions
from stanch.agent.about import About
from stanch.agent.clock import AgentClock
from stanch.agent.content import AgentContent, ContentUpdates
from stanch.agent.content_fetching import PackFetcher
from stanch.agent.content_store import ContentStore
from stanch.agent.control import EVERYBODYS, Control
from stanch.agent.desk import Desk, lift_isolation
from stanch.agent.effects import Effects
from stanch.agent.executor import Executor
from stanch.agent.gateway import Gateway
from stanch.agent.host.accounts import LinuxAccounts
from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.host.critical import Critical
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.inventory import capabilities, read_inventory
from stanch.agent.host.machine import LinuxMachine
from stanch.agent.host.metadata import account_name
from stanch.agent.host.names import LinuxNames
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.pen import free_left, usual_groups
from stanch.agent.host.processes import LinuxProcesses
from stanch.agent.host.program_group import parent_group
from stanch.agent.host.programs import recover as clear_programs
from stanch.agent.host.scanner_files import ScanFolder
from stanch.agent.host.scanner_limits import sweep as clear_scans
from stanch.agent.host.users import TerminalUsers
from stanch.agent.host.vault import LinuxVault
from stanch.agent.hosts import HostMaker, evidence_key, supervisor_pid, vault_settings
from stanch.agent.identity import Binding, Identity
from stanch.agent.journal import Journal
from stanch.agent.keeper import Keeper, OneAtATime
from stanch.agent.link import Link
from stanch.agent.local_policy import LocalPolicy
from stanch.agent.marker import set_mark
from stanch.agent.proxy import configured_proxy
from stanch.agent.release_code import Attempts, ReleaseDoor
from stanch.agent.renewal import Renewal
from stanch.agent.resolve import AddressBook
from stanch.agent.settings import Settings
from stanch.agent.spool import Spool
from stanch.agent.trust import TrustedKeys
from stanch.core.envelope import Kind
from stanch.core.host import Server
from stanch.core.network import Firewall, Names
from stanch.core.types import EndpointPath

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The parts that run."""

    identity: Identity
    link: Link
    about: About
    executor: Executor
    effects: Effects
    keeper: Keeper
    control: Control
    public: Control
    renewal: Renewal
    vault: LinuxVault
    updates: ContentUpdates


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    """What the agent keeps on its disk, and who it is."""

    settings: Settings
    identity: Identity
    journal: Journal
    clock: AgentClock
    spool: Spool
    effects: Effects
    policy: LocalPolicy
    critical: Critical
    vault: LinuxVault


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ways:
    """The ways to the server."""

    book: AddressBook
    link: Link
    gateway: Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guarded:
    """The firewall, and who keeps it."""

    firewall: NftFirewall
    one_at_a_time: OneAtATime
    names: Names
    keeper: Keeper


@asynccontextmanager
async def assembled(settings: Settings) -> AsyncIterator[Agent]:
    """An agent that is ready to run; leaving stops its tasks, to go on at the next start.

    NotFound or VerificationFailed if this endpoint has no identity that may be used here.
    """
    identity = load_identity(settings)
    async with AsyncExitStack() as stack:
        memory = _memory(settings, identity, stack)
        ways = await _ways(memory, stack)
        guarded = _guarded(memory, ways, stack)
        content = _content(memory, ways.gateway)
        updates = ContentUpdates(content)
        executor = await stack.enter_async_context(_executor(memory, ways, guarded, content, updates))
        desk = _desk(memory, ways, guarded, executor)
        renewal = _renewal(memory, ways)
        ways.link.explain = renewal.explain
        yield Agent(
            identity=identity,
            link=ways.link,
            about=_about(memory, guarded, executor),
            executor=executor,
            effects=memory.effects,
            keeper=guarded.keeper,
            control=Control(settings.socket, desk.answers()),
            public=Control(settings.code_socket, desk.answers_to_everybody(), manners=EVERYBODYS),
            renewal=renewal,
            vault=memory.vault,
            updates=updates,
        )


def _memory(settings: Settings, identity: Identity, stack: AsyncExitStack) -> _Memory:
    journal = Journal(settings.journal)
    stack.push_async_callback(journal.close)
    clear_programs(settings.programs, parent_group())
    clear_scans(parent_group())
    clock = AgentClock(journal, boot_seconds, boot_id())
    spool, policy = Spool(journal, clock), LocalPolicy(settings.config)
    critical = Critical(
        own=(Path(sys.prefix), settings.state, settings.config, policy.vault_folder(settings.vault)),
        services=lambda: vault_settings(journal).protect_services,
        excepted=policy.may_be_taken,
    )
    return _Memory(
        settings=settings,
        identity=identity,
        journal=journal,
        clock=clock,
        spool=spool,
        effects=Effects(journal, clock),
        policy=policy,
        critical=critical,
        vault=LinuxVault(
            policy.vault_folder(settings.vault),
            key=settings.vault_key,
            evidence_key=lambda: evidence_key(journal),
            limit=lambda: vault_settings(journal).limit,
            why_protected=critical.why,
            clock=clock.now,
            tell=lambda kind, detail: spool.put(spool.notice(kind, detail)),
        ),
    )


async def _ways(memory: _Memory, stack: AsyncExitStack) -> _Ways:
    settings, identity = memory.settings, memory.identity
    tls, proxy = identity.tls(settings.state), configured_proxy(settings.config, identity.proxy)
    book = AddressBook(settings.addresses, urls=identity.urls, proxy=proxy)
    gateway = await stack.enter_async_context(Gateway(tls=tls, targets=book.targets))
    return _Ways(book=book, link=Link(tls=tls, book=book, outbox=memory.spool), gateway=gateway)


def _guarded(memory: _Memory, ways: _Ways, stack: AsyncExitStack) -> _Guarded:
    firewall = NftFirewall(Namespace.current("net"))
    stack.push_async_callback(firewall.close)
    names, one_at_a_time = LinuxNames(server_has_names=ways.book.has_names), OneAtATime(firewall)
    keeper = Keeper(
        firewall=firewall,
        turn=one_at_a_time.lock,
        names=names,
        server=ways.link,
        effects=memory.effects,
        spool=memory.spool,
        clock=memory.clock,
        mark=partial(set_mark, memory.settings.state),
        moved=ways.book.changed,
    )
    return _Guarded(firewall=firewall, one_at_a_time=one_at_a_time, names=names, keeper=keeper)


def _content(memory: _Memory, gateway: Gateway, *, patient: bool = True) -> AgentContent:
    store, spool = ContentStore(memory.settings.content), memory.spool
    return AgentContent(
        store=store,
        journal=memory.journal,
        fetcher=PackFetcher(store, gateway, patient=patient),
        now=memory.clock.stamp,
        tell=lambda kind, detail: spool.put(spool.notice(kind, detail)),
    )


def _executor(
    memory: _Memory, ways: _Ways, guarded: _Guarded, content: AgentContent, updates: ContentUpdates
) -> Executor:
    hosts = _hosts(
        memory, ways.gateway, ways.link, content=content, firewall=guarded.one_at_a_time, names=guarded.names
    )
    on = {Kind.ADDRESSES: ways.book.learn, Kind.CONTENT: updates.learn}
    executor = _executor_of(memory, hosts, on=on, progress=ways.link.progress)
    content.in_use = executor.content_in_use
    return executor


def _hosts(
    memory: _Memory, gateway: Gateway, server: Server, *, content: AgentContent, firewall: Firewall, names: Names
) -> HostMaker:
    return HostMaker(
        journal=memory.journal,
        policy=memory.policy,
        firewall=firewall,
        names=names,
        users=TerminalUsers(),
        processes=LinuxProcesses(Namespace.current("pid"), supervisor=supervisor_pid()),
        accounts=LinuxAccounts(),
        machine=LinuxMachine(namespace=Namespace.current("pid")),
        critical=memory.critical,
        vault=memory.vault,
        programs=memory.settings.programs,
        program_groups=parent_group(),
        content=content,
        own=(EndpointPath.of(bytes(memory.settings.state.resolve())),),
        scan_folder=ScanFolder(path=memory.settings.scans),
        gateway=gateway,
        server=server,
        spool=memory.spool,
    )


def _executor_of(memory: _Memory, hosts: HostMaker, **more: Any) -> Executor:
    return Executor(
        endpoint=memory.identity.endpoint,
        registry=actions.load(),
        host_for=hosts,
        journal=memory.journal,
        clock=memory.clock,
        spool=memory.spool,
        effects=memory.effects,
        policy=memory.policy,
        keys=TrustedKeys(memory.journal, memory.identity.signing_keys),
        **more,
    )


@asynccontextmanager
async def executor_alone(settings: Settings, *, server: Server) -> AsyncIterator[Executor]:
    """An executor for root while no agent runs, without any way to the server; what it does is told later."""
    identity = load_identity(settings)
    async with AsyncExitStack() as stack:
        memory = _memory(settings, identity, stack)
        gateway = await stack.enter_async_context(Gateway(tls=identity.tls(settings.state), targets=lambda: ()))
        firewall = NftFirewall(Namespace.current("net"))
        stack.push_async_callback(firewall.close)
        names = LinuxNames(server_has_names=lambda: False)
        content = _content(memory, gateway, patient=False)
        hosts = _hosts(memory, gateway, server, content=content, firewall=OneAtATime(firewall), names=names)
        await free_left(usual_groups())
        await memory.vault.recover()
        yield await stack.enter_async_context(_executor_of(memory, hosts))


def _about(memory: _Memory, guarded: _Guarded, executor: Executor) -> About:
    return About(
        registry=actions.load(),
        inventory=read_inventory,
        capabilities=capabilities,
        policy=memory.policy,
        effects=memory.effects.active,
        isolation=guarded.keeper.status,
        news=memory.effects.news,
        open_tasks=executor.open_tasks,
        seconds=boot_seconds,
    )


def _desk(memory: _Memory, ways: _Ways, guarded: _Guarded, executor: Executor) -> Desk:
    door = ReleaseDoor(
        attempts=Attempts(memory.journal, memory.clock),
        effects=memory.effects,
        spool=memory.spool,
        lift=partial(lift_isolation, executor),
        account=account_name,
    )
    return Desk(
        identity=memory.identity,
        link=ways.link,
        executor=executor,
        effects=memory.effects,
        firewall=guarded.firewall,
        keeper=guarded.keeper,
        policy=memory.policy,
        door=door,
    )


def _renewal(memory: _Memory, ways: _Ways) -> Renewal:
    return Renewal(
        identity=memory.identity,
        state=memory.settings.state,
        gateway=ways.gateway,
        change=partial(change_tls, ways.gateway, ways.link),
        proved=ways.link.proved,
        clock=memory.clock,
        journal=memory.journal,
        spool=memory.spool,
    )


async def change_tls(gateway: Gateway, link: Link, tls: ssl.SSLContext) -> None:
    """Let every connection from now on be made with another certificate."""
    await gateway.change_tls(tls)
    link.change_tls(tls)


def load_identity(settings: Settings) -> Identity:
    """The identity, which may act here; after a reboot it is bound to the namespaces of this boot."""
    identity, here = Identity.load(settings.state), Binding.here(boot_id())
    identity.binding.check(here)
    if identity.binding != here:
        identity = identity.model_copy(update={"binding": here})
        try:
            identity.save(settings.state)
        except OSError as error:  # a full disk is no reason to leave the endpoint without its agent
            log.warning("the identity is not bound to this boot", error=str(error))
    return identity
