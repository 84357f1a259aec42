"""Who may order what: roles up to a risk, and the matrix of origins and solutions, as data.

`may` raises `Denied` with the reason, or returns None. It is asked once, by `server.orders.submit`, for every way in.
The matrix holds the facts of the reference system's rights table (who may order which response, under which
integration); what it does not list is Stanch's own and open to every origin but the solutions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from stanch.core.action import AnyAction, Risk
from stanch.core.errors import Denied
from stanch.core.model import Model
from stanch.core.types import Name


class Origin(StrEnum):
    """How a request came in."""

    SOLUTION = "solution"
    CONSOLE = "console"
    API = "api"
    CLI = "cli"
    LOCAL = "local"
    RULE = "rule"


class Solution(StrEnum):
    """A Detection and Response solution."""

    EDR_EXPERT = "edr-expert"
    KATA = "kata"
    MDR = "mdr"
    EDR_OPTIMUM = "edr-optimum"
    OPENC2 = "openc2"


class Permission(StrEnum):
    """What a role may do besides ordering actions."""

    READ = "read"
    """See endpoints, orders, tasks."""
    EVIDENCE = "evidence"
    """Download bytes taken from endpoints."""
    DELETE_EVIDENCE = "delete-evidence"
    """Delete such bytes from the server, for good."""
    UPLOAD = "upload"
    """Bring files to the server that orders take along (rules, tools), and remove them again: what they do with them is
    a matter of the action's risk."""
    CONTENT = "content"
    """Bring rules and indicators for endpoints to scan with, and publish them."""
    ENROL = "enrol"
    """Make and withdraw enrolment tokens, label and revoke endpoints."""
    RELEASE_CODE = "release-code"
    """See the codes that lift an isolation at the endpoint itself."""
    CONFIGURE = "configure"
    """Make groups and change their policies."""
    ADMINISTER = "administer"
    """Accounts, settings, the audit."""


_IN_WORDS: Mapping[Permission, str] = {
    Permission.READ: "see endpoints, orders and tasks",
    Permission.EVIDENCE: "download evidence",
    Permission.DELETE_EVIDENCE: "delete evidence",
    Permission.UPLOAD: "bring files to the server",
    Permission.CONTENT: "import, publish or remove content",
    Permission.ENROL: "enrol, label or revoke endpoints",
    Permission.RELEASE_CODE: "see release codes",
    Permission.CONFIGURE: "change groups and their policies",
    Permission.ADMINISTER: "administer the server",
}
"""Somebody may, or may not, do this."""


class Role(StrEnum):
    """A named set of rights. Combinations are unions."""

    VIEWER = "viewer"
    ANALYST = "analyst"
    RESPONDER = "responder"
    INCIDENT_LEAD = "incident-lead"
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class Rights:
    """What a role grants."""

    up_to: Risk | None
    """The worst risk that it may order; None for no orders."""
    permissions: frozenset[Permission]


_READ = frozenset({Permission.READ})
_WORK = _READ | {Permission.EVIDENCE, Permission.UPLOAD}
_LEAD = {Permission.RELEASE_CODE, Permission.DELETE_EVIDENCE, Permission.CONTENT}

ROLES: Mapping[Role, Rights] = {
    Role.VIEWER: Rights(None, _READ),
    Role.ANALYST: Rights(Risk.READ_ONLY, _WORK),
    Role.RESPONDER: Rights(Risk.DISRUPTIVE, _WORK),
    Role.INCIDENT_LEAD: Rights(Risk.DESTRUCTIVE, _WORK | _LEAD),
    Role.ADMINISTRATOR: Rights(Risk.DESTRUCTIVE, frozenset(Permission)),
}
"""Beware: EVIDENCE reads any file that READ_ONLY orders may fetch, secrets included; ENROL brings machines of one's own
into groups that automatic rules trust."""


class Principal(Model):
    """Somebody, or something, that asks."""

    name: Name
    """Account name, solution name or rule name."""
    roles: Annotated[tuple[Role, ...], Field(max_length=len(Role))]
    """Granted roles."""
    origin: Origin
    """The way it came in."""
    solution: Solution | None = None
    """Which solution, when the origin is one."""
    labels: Annotated[tuple[str, ...], Field(max_length=100)] = ()
    """Only endpoints that carry all of these labels; none means all endpoints."""

    def can(self, permission: Permission) -> bool:
        """Does any of its roles grant this?"""
        return any(permission in ROLES[role].permissions for role in self.roles)

    def require(self, permission: Permission) -> None:
        """Raise Denied unless a role grants this."""
        if not self.can(permission):
            raise Denied(
                f"{self.name} may not {_IN_WORDS[permission]}",
                got=f"roles {', '.join(self.roles) or 'none'}",
                expected=f"one of {', '.join(r for r in Role if permission in ROLES[r].permissions)}",
            )


_X, _K, _M, _O = Solution.EDR_EXPERT, Solution.KATA, Solution.MDR, Solution.EDR_OPTIMUM
_ALL = frozenset({_X, _K, _M, _O, Solution.OPENC2})

SOLUTION_MAY: Mapping[str, frozenset[Solution]] = {
    "isolate": _ALL,
    "release": _ALL,
    "block_address": frozenset({Solution.OPENC2}),
    "unblock_address": frozenset({Solution.OPENC2}),
    "get_file": _ALL - {Solution.OPENC2},
    "run_process": _ALL,
    "kill_process": _ALL,
    "quarantine": _ALL,
    "restore": _ALL,
    "quarantine_delete": frozenset({_X, _K, _M, _O}),
    "quarantine_list": frozenset({_X, _K, _M, _O}),
    "quarantine_get": frozenset({_X, _K, _O}),
    "delete_file": frozenset({_X, _K, _O, Solution.OPENC2}),
    "ioc_scan": frozenset({_X, _K, _O}),
    "yara_scan": frozenset({_X}),
    "critical_areas_scan": frozenset({_X, _O, Solution.OPENC2}),
    "malware_scan": frozenset({_X, _O, Solution.OPENC2}),
    "update_content": frozenset({_X, _K, _M, _O}),
}
"""Which solutions may order an action. One that is not listed is Stanch's own: no solution orders it."""

RULE_MAY = frozenset({"isolate", "quarantine", "critical_areas_scan"})
"""What an automatic rule may order."""


def may(principal: Principal, action: AnyAction, endpoints: Mapping[str, frozenset[str]]) -> None:
    """Raise Denied unless the principal may order the action on all these endpoints (id -> labels)."""
    _role_allows(principal, action)
    _origin_allows(principal, action)
    reach(principal, endpoints)


def reach(principal: Principal, endpoints: Mapping[str, frozenset[str]]) -> None:
    """Raise Denied unless its labels let the principal act on all these endpoints (id -> labels)."""
    outside = [one for one, labels in endpoints.items() if not labels >= set(principal.labels)]
    if outside:
        raise Denied(
            f"{principal.name} may not act on some of these endpoints",
            got=", ".join(outside[:5]),
            expected=f"endpoints labelled {', '.join(principal.labels)}",
        )


def _role_allows(principal: Principal, action: AnyAction) -> None:
    granted = [ROLES[role].up_to for role in principal.roles]
    best = max((risk.rank for risk in granted if risk is not None), default=-1)
    if best < action.risk.rank:
        enough = [role for role in Role if (up_to := ROLES[role].up_to) and up_to.rank >= action.risk.rank]
        raise Denied(
            f"{principal.name} may not order {action.name}, which is {action.risk}",
            got=f"roles {', '.join(principal.roles) or 'none'}",
            expected=f"one of {', '.join(enough)}",
        )


def _origin_allows(principal: Principal, action: AnyAction) -> None:
    if principal.origin is Origin.SOLUTION and principal.solution not in SOLUTION_MAY.get(action.name, ()):
        raise Denied(f"{action.name} is not an action that {principal.solution} may order")
    if principal.origin is Origin.RULE and action.name not in RULE_MAY:
        raise Denied(f"{action.name} is not an action that automatic rules may order")
