"""Puts a task's `Host` together: the machine, and what belongs to the task alone."""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog
from pydantic import ValidationError

from stanch.agent.content import AgentContent
from stanch.agent.gateway import Gateway
from stanch.agent.host.autoruns import LinuxAutoruns
from stanch.agent.host.containers import LinuxContainers
from stanch.agent.host.critical import Critical
from stanch.agent.host.files import LinuxFiles
from stanch.agent.host.items import Parts as ItemParts
from stanch.agent.host.items import collectors
from stanch.agent.host.packages import Packages
from stanch.agent.host.programs import LinuxPrograms
from stanch.agent.host.scanner import LinuxScanner
from stanch.agent.host.scanner_files import ScanFolder
from stanch.agent.host.scanner_parts import Parts as ScanParts
from stanch.agent.host.scanner_parts import Scans
from stanch.agent.host.terminals import LinuxTerminals, Seats
from stanch.agent.host.vault import LinuxVault
from stanch.agent.journal import Journal
from stanch.agent.local_policy import LocalPolicy
from stanch.agent.path_rules import PathRules
from stanch.agent.spool import Spool
from stanch.agent.supervisor import BEAT_VARIABLE
from stanch.agent.tasks import TaskContext
from stanch.agent.telling import SpoolDetections
from stanch.agent.terminal_link import TerminalLink, dial_through
from stanch.agent.transfer import EvidenceSender
from stanch.agent.uploads import GatewayUploads
from stanch.core.accounts import Accounts
from stanch.core.envelope import Kind
from stanch.core.host import Host, Server, Users
from stanch.core.machine import Machine
from stanch.core.network import Firewall, Names
from stanch.core.processes import Processes
from stanch.core.settings import GroupSettings, VaultSettings
from stanch.core.types import EndpointPath

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMaker:
    """The machine, as the agent holds it."""

    journal: Journal
    policy: LocalPolicy
    firewall: Firewall
    names: Names
    users: Users
    processes: Processes
    accounts: Accounts
    machine: Machine
    critical: Critical
    vault: LinuxVault
    programs: Path
    """Where the output of programs is kept until it is sent."""
    program_groups: Path | None
    """The control group below which each of them, and each scan, gets its own; None for none."""
    content: AgentContent
    own: tuple[EndpointPath, ...]
    """Folders with our keys and our identity: no rule looks into them, since what it matches is told."""
    scan_folder: ScanFolder
    """What scans know of files."""
    gateway: Gateway
    server: Server
    spool: Spool
    seats: Seats = field(default_factory=Seats)
    """Of the terminals of all tasks."""
    scans: Scans = field(default_factory=Scans)
    """Of all tasks, as far as they run."""

    def __call__(self, context: TaskContext) -> Host:
        """The host in the hands of one task. The owner's limits bind those of the server, not root's own."""
        rules = PathRules() if context.own else self.policy.path_rules()
        order = context.order
        return Host(
            task=context.task,
            order=context.task if context.own else order.order,
            origin=order.origin,
            settings=group_settings(self.journal),
            firewall=self.firewall,
            names=self.names,
            users=self.users,
            processes=self.processes,
            programs=LinuxPrograms(task=context.task, spool=self.programs, rules=rules, groups=self.program_groups),
            accounts=self.accounts,
            autoruns=LinuxAutoruns(packages=Packages, forbidden=rules.check),
            containers=LinuxContainers(),
            machine=self.machine,
            terminals=LinuxTerminals(
                task=context.task,
                line=lambda: TerminalLink(task=context.task, dial=dial_through(self.gateway)),
                seats=self.seats,
                groups=self.program_groups,
            ),
            files=LinuxFiles(critical=self.critical, forbidden=rules.check, writable=rules.check_write),
            vault=self.vault.of(context, rules),
            evidence=EvidenceSender(
                task=context.task,
                gateway=self.gateway,
                progress=context.progress,
                recipient=lambda: evidence_key(self.journal),
            ),
            uploads=GatewayUploads(task=context.task, gateway=self.gateway),
            journal=context.journal,
            effects=context.effects,
            detections=SpoolDetections(
                task=context.task, order=context.task if context.own else order.order, spool=self.spool
            ),
            server=self.server,
            progress=context.progress,
            scanner=self._scanner(context, rules),
            content=self.content,
        )

    def _scanner(self, context: TaskContext, rules: PathRules) -> LinuxScanner:
        autoruns = partial(LinuxAutoruns, packages=Packages, forbidden=rules.check)
        parent = supervisor_pid()
        parts = ScanParts(
            collectors=collectors(ItemParts(autoruns=autoruns, forbidden=rules.check)),
            autoruns=partial(LinuxAutoruns, forbidden=rules.check),
            folder=self.scan_folder,
            groups=self.program_groups,
            forbidden=lambda: (*rules.forbidden, *self.own),
            ours=() if parent is None else (parent,),
        )
        return LinuxScanner(task=context.task, scans=self.scans, parts=parts)


def group_settings(journal: Journal) -> GroupSettings:
    """The policy of this endpoint's groups, as the server signed it last; nothing is set before that."""
    body = journal.get(Kind.POLICY) or {}
    try:
        return GroupSettings.model_validate(body.get("settings", {}))
    except ValidationError as error:
        log.warning("the policy is not understood, and not followed", error=str(error)[:500])
        return GroupSettings()


def vault_settings(journal: Journal) -> VaultSettings:
    """What that policy says of the vault."""
    return group_settings(journal).vault or VaultSettings()


def evidence_key(journal: Journal) -> str:
    """The age recipient to which the server wants evidence encrypted, as it signed it last; empty if it never did."""
    body = journal.get(Kind.ADDRESSES) or {}
    key = body.get("evidence_key")
    return key if isinstance(key, str) else ""


def supervisor_pid() -> int | None:
    """Our supervisor, if we have one: all its children are Stanch's own."""
    return os.getppid() if BEAT_VARIABLE in os.environ else None
