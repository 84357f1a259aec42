"""The agent's object graph: what is made of what, on one screen."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from stanch import actions
from stanch.agent.about import About
from stanch.agent.clock import AgentClock
from stanch.agent.control import Control
from stanch.agent.desk import Desk
from stanch.agent.effects import Effects
from stanch.agent.executor import Executor
from stanch.agent.gateway import Gateway
from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.host.files import LinuxFiles
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.inventory import capabilities, read_inventory
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.processes import LinuxProcesses
from stanch.agent.identity import Binding, Identity
from stanch.agent.journal import Journal
from stanch.agent.link import Link
from stanch.agent.local_policy import LocalPolicy
from stanch.agent.resolve import AddressBook
from stanch.agent.settings import Settings
from stanch.agent.spool import Spool
from stanch.agent.supervisor import BEAT_VARIABLE
from stanch.agent.tasks import TaskContext
from stanch.agent.transfer import EvidenceSender
from stanch.agent.trust import TrustedKeys
from stanch.core.envelope import Kind
from stanch.core.host import Files, Firewall, Host, Processes, Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The parts that run."""

    identity: Identity
    link: Link
    about: About
    executor: Executor
    effects: Effects
    control: Control


@asynccontextmanager
async def assembled(settings: Settings) -> AsyncIterator[Agent]:
    """An agent that is ready to run; leaving stops its tasks, to go on at the next start.

    NotFound or VerificationFailed if this endpoint has no identity that may be used here.
    """
    identity = load_identity(settings)
    tls = identity.tls(settings.state)
    async with AsyncExitStack() as stack:
        journal = Journal(settings.journal)
        stack.push_async_callback(journal.close)
        clock = AgentClock(journal, boot_seconds, boot_id())
        spool, effects = Spool(journal, clock), Effects(journal, clock)
        registry, policy = actions.load(), LocalPolicy(settings.config)
        book = AddressBook(settings.addresses, urls=identity.urls)
        link = Link(tls=tls, book=book, outbox=spool)
        gateway = await stack.enter_async_context(Gateway(tls=tls, targets=book.targets))
        firewall = NftFirewall(Namespace.current("net"))
        stack.push_async_callback(firewall.close)
        processes = LinuxProcesses(Namespace.current("pid"), supervisor=supervisor_pid())
        executor = Executor(
            endpoint=identity.endpoint,
            registry=registry,
            host_for=HostMaker(
                firewall=firewall, processes=processes, files=LinuxFiles(), gateway=gateway, server=link
            ),
            journal=journal,
            clock=clock,
            spool=spool,
            effects=effects,
            policy=policy,
            keys=TrustedKeys(journal, identity.signing_keys),
            on={Kind.ADDRESSES: book.learn},
            progress=link.progress,
        )
        await stack.enter_async_context(executor)
        about = About(
            registry=registry,
            inventory=read_inventory,
            capabilities=capabilities,
            policy=policy,
            effects=effects.active,
            news=effects.news,
            open_tasks=executor.open_tasks,
            seconds=boot_seconds,
        )
        desk = Desk(identity=identity, link=link, executor=executor, effects=effects, firewall=firewall, policy=policy)
        control = Control(settings.socket, desk.answers())
        yield Agent(identity=identity, link=link, about=about, executor=executor, effects=effects, control=control)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMaker:
    """Puts the machine and what belongs to one task together."""

    firewall: Firewall
    processes: Processes
    files: Files
    gateway: Gateway
    server: Server

    def __call__(self, context: TaskContext) -> Host:
        """The host in the hands of one task."""
        return Host(
            task=context.task,
            firewall=self.firewall,
            processes=self.processes,
            files=self.files,
            evidence=EvidenceSender(task=context.task, gateway=self.gateway, progress=context.progress),
            journal=context.journal,
            effects=context.effects,
            server=self.server,
            progress=context.progress,
        )


def load_identity(settings: Settings) -> Identity:
    """The identity, which may act here; after a reboot it is bound to the namespaces of this boot."""
    identity, here = Identity.load(settings.state), Binding.here(boot_id())
    identity.binding.check(here)
    if identity.binding != here:
        identity = identity.model_copy(update={"binding": here})
        identity.save(settings.state)
    return identity


def supervisor_pid() -> int | None:
    """Our supervisor, if we have one: all its children are Stanch's own."""
    return os.getppid() if BEAT_VARIABLE in os.environ else None
