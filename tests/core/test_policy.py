"""Who may order what: every role against every risk, every origin and solution against every action, and labels."""

from itertools import product

import pytest

from stanch import actions
from stanch.core.action import Risk
from stanch.core.errors import Denied
from stanch.core.policy import ROLES, RULE_MAY, SOLUTION_MAY, Origin, Permission, Principal, Role, Solution, may

REGISTRY = actions.load()
BY_RISK = {one.risk: one for one in REGISTRY.values()}
PEOPLE = (Origin.CONSOLE, Origin.API, Origin.CLI, Origin.LOCAL)

UP_TO = {
    Role.VIEWER: -1,
    Role.ANALYST: 0,
    Role.RESPONDER: 1,
    Role.INCIDENT_LEAD: 2,
    Role.ADMINISTRATOR: 2,
}
"""Role to the rank of the worst risk: written from the words of the design."""


def principal(*roles: Role, origin: Origin = Origin.CLI, solution: Solution | None = None, labels=()) -> Principal:
    """Somebody with these roles."""
    return Principal(name="alice", roles=roles, origin=origin, solution=solution, labels=labels)


def allowed(who: Principal, action: str, endpoints=None) -> bool:
    """Does `may` let it pass? Anything but Denied passes through."""
    try:
        may(who, REGISTRY[action], endpoints or {})
    except Denied:
        return False
    return True


@pytest.mark.parametrize(("role", "risk"), list(product(Role, BY_RISK)))
def test_roles_go_up_to_a_risk(role: Role, risk: Risk) -> None:
    """A role orders what is at most as bad as it was granted."""
    assert allowed(principal(role), BY_RISK[risk].name) is (UP_TO[role] >= risk.rank)


def test_every_role_is_known() -> None:
    """No role is without rights written down, here and there."""
    assert set(ROLES) == set(Role) == set(UP_TO)


def test_no_role_orders_nothing() -> None:
    """Somebody without roles may not even look at an endpoint."""
    assert not any(allowed(principal(), name) for name in REGISTRY)


def test_roles_add_up() -> None:
    """Two roles grant what either grants."""
    both = principal(Role.VIEWER, Role.RESPONDER)
    assert allowed(both, "isolate")
    assert both.can(Permission.EVIDENCE)


def test_a_denial_says_which_roles_would_do() -> None:
    """The error names the roles that there are and the ones that would suffice."""
    with pytest.raises(Denied) as raised:
        may(principal(Role.ANALYST), REGISTRY["isolate"], {})
    assert raised.value.got == "roles analyst"
    assert raised.value.expected == "one of responder, incident-lead, administrator"


# --- origins and solutions -------------------------------------------------------------------------------------------

LEADING = Role.INCIDENT_LEAD


@pytest.mark.parametrize(("name", "origin"), list(product(REGISTRY, PEOPLE)))
def test_people_are_bound_by_roles_alone(name: str, origin: Origin) -> None:
    """By hand, any way in is as good as another."""
    assert allowed(principal(LEADING, origin=origin), name)


@pytest.mark.parametrize(("name", "solution"), list(product(REGISTRY, Solution)))
def test_solutions_order_what_the_matrix_lists(name: str, solution: Solution) -> None:
    """A solution orders the actions that the matrix gives it, whatever its roles."""
    asks = principal(LEADING, origin=Origin.SOLUTION, solution=solution)
    assert allowed(asks, name) is (solution in SOLUTION_MAY.get(name, ()))


def test_an_unnamed_solution_orders_nothing() -> None:
    """A request that claims to be a solution without saying which is refused."""
    assert not any(allowed(principal(LEADING, origin=Origin.SOLUTION), name) for name in REGISTRY)


@pytest.mark.parametrize("name", REGISTRY)
def test_rules_order_what_is_listed(name: str) -> None:
    """An automatic rule orders only what may happen without a person."""
    assert allowed(principal(LEADING, origin=Origin.RULE), name) is (name in RULE_MAY)


def test_a_solution_is_bound_by_its_roles_too() -> None:
    """The matrix grants nothing that the roles do not."""
    assert not allowed(principal(Role.ANALYST, origin=Origin.SOLUTION, solution=Solution.KATA), "isolate")


def test_the_matrix_names_real_actions() -> None:
    """A typo in the matrix would silently close a way in."""
    assert set(REGISTRY) >= set(SOLUTION_MAY) | RULE_MAY


# --- labels ----------------------------------------------------------------------------------------------------------

FLEET = {"a": frozenset({"env=prod", "os=debian"}), "b": frozenset({"env=test"})}


def test_labels_bound_the_endpoints() -> None:
    """Somebody bound to labels acts on endpoints that carry all of them, and on no order that holds another."""
    bound = principal(LEADING, labels=("env=prod",))
    assert allowed(bound, "isolate", {"a": FLEET["a"]})
    assert not allowed(bound, "isolate", FLEET)
    assert not allowed(principal(LEADING, labels=("env=prod", "os=rhel")), "isolate", {"a": FLEET["a"]})


def test_no_labels_means_all_endpoints() -> None:
    """Somebody who is not bound acts everywhere."""
    assert allowed(principal(LEADING), "isolate", FLEET)


@pytest.mark.parametrize(("role", "permission"), list(product(Role, Permission)))
def test_permissions_are_required(role: Role, permission: Permission) -> None:
    """`require` raises exactly where `can` says no."""
    who = principal(role)
    if who.can(permission):
        who.require(permission)
    else:
        with pytest.raises(Denied):
            who.require(permission)


def test_only_an_administrator_administers() -> None:
    """Accounts and enrolment are in one role."""
    for permission in (Permission.ADMINISTER, Permission.ENROL):
        assert [role for role in Role if principal(role).can(permission)] == [Role.ADMINISTRATOR]


def test_what_is_refused_is_named_in_words() -> None:
    """Whoever is refused reads what he may not do, as people say it, for every permission."""
    nobody = Principal(name="bob", roles=(), origin=Origin.CLI)
    said = set()
    for permission in Permission:
        with pytest.raises(Denied) as refused:
            nobody.require(permission)
        said.add(refused.value.message)
    assert len(said) == len(Permission)
    assert "bob may not import, publish or remove content" in said
