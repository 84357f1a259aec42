"""A declaration that breaks a rule refuses to exist; one that holds parses, answers and tells how to take it back."""

from dataclasses import replace
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError, model_validator

from stanch.core.action import (
    RESERVED,
    AfterCrash,
    Check,
    DeclarationError,
    Irreversible,
    Params,
    Plan,
    Registry,
    Result,
    Risk,
    Undo,
    Verdict,
    action,
    check_declaration,
    expectation,
    invalid_fields,
)
from stanch.core.errors import Invalid, UnknownAction
from stanch.core.host import Host
from stanch.core.types import Pid


class Nudge(Params):
    """Whom."""

    pid: Pid
    """Process id."""

    times: Annotated[int, Field(ge=1, le=9)] = 1
    """How often."""


class Nudged(Result):
    """What came of it."""

    changed: bool
    """False if it was nudged already."""


async def _plan(_host: Host, _params: Nudge) -> Plan:
    return Plan(changes=True)


async def _verify(_host: Host, _params: Nudge, _result: Nudged | None) -> Check:
    return Check.of(True, "nudged")


def _back(params: Nudge, result: Nudged) -> Nudge | None:
    return params if result.changed else None


READING: dict[str, Any] = {
    "version": 1,
    "risk": Risk.READ_ONLY,
    "after_crash": AfterCrash.RERUN,
    "examples": ("web-01",),
}
CHANGING = READING | {
    "risk": Risk.DISRUPTIVE,
    "after_crash": AfterCrash.REVERT,
    "plan": _plan,
    "verify": _verify,
    "undo": Irreversible("A nudge is felt."),
}


async def run(_host: Host, params: Nudge) -> Nudged:
    """Nudge a process.

    It may
    wake up.
    """
    return Nudged(changed=params.times > 0)


async def undescribed(_host: Host, params: Nudge) -> Nudged:
    return Nudged(changed=params.times > 0)


async def no_params(_host: Host, _params: int) -> Nudged:
    """Take a plain number."""
    return Nudged(changed=True)


async def no_result(_host: Host, _params: Nudge) -> int:
    """Answer with a plain number."""
    return 1


class OtherParams(Params):
    """Of another action."""


async def _foreign_plan(_host: Host, _params: OtherParams) -> Plan:
    return Plan(changes=False)


NUDGE = action("nudge", **CHANGING)(run)


def test_the_declaration_reads_the_function() -> None:
    """Parameters, result, summary and description come from the decorated function."""
    assert (NUDGE.params, NUDGE.result, NUDGE.summary) == (Nudge, Nudged, "Nudge a process.")
    assert NUDGE.description == "It may wake up."
    assert NUDGE.source == __name__
    assert not NUDGE.read_only


def test_the_name_is_a_command() -> None:
    """A name with underscores is a command with hyphens."""
    assert replace(NUDGE, name="nudge_process").command == "nudge-process"


async def test_calling_it_runs_it() -> None:
    """An action is called like the function that it was made of."""
    assert await NUDGE(None, Nudge(pid=1)) == Nudged(changed=True)  # type: ignore[arg-type]  # it touches no host


BROKEN_RULES = {
    "name": {"name": "Nudge-It"},
    "version": {"version": 0},
    "docstring": {"summary": ""},
    "example": {"examples": ()},
    "plan": {"plan": None},
    "verify": {"verify": None},
    "undo": {"undo": None},
    "after_crash": {"after_crash": AfterCrash.RERUN},
}


@pytest.mark.parametrize(("rule", "change"), BROKEN_RULES.items(), ids=BROKEN_RULES)
def test_a_broken_rule_is_named(rule: str, change: dict[str, Any]) -> None:
    """The error says which rule is broken, and where."""
    with pytest.raises(DeclarationError, match=rule) as raised:
        check_declaration(replace(NUDGE, **change))
    assert __name__ in str(raised.value)


@pytest.mark.filterwarnings("ignore:Field name")  # pydantic, too, would rather keep `json` for itself
@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_parameters_are_refused(name: str) -> None:
    """No parameter takes a name that belongs to the order itself."""
    annotated = {"__annotations__": {name: Pid}, "__module__": __name__, name: Field(1, description="A pid.")}
    with pytest.raises(DeclarationError, match="reserved"):
        check_declaration(replace(NUDGE, params=type("Bad", (Params,), annotated)))


@pytest.mark.parametrize("function", [no_params, no_result])
def test_models_are_required(function: Any) -> None:
    """An action takes Params and returns a Result."""
    with pytest.raises(DeclarationError, match=function.__name__):
        action("nudge", **CHANGING)(function)


def test_a_docstring_is_required() -> None:
    """An action says what it does."""
    with pytest.raises(DeclarationError, match="docstring"):
        action("nudge", **CHANGING)(undescribed)


def test_plan_and_run_take_the_same_parameters() -> None:
    """A plan for other parameters would be a plan for another action."""
    with pytest.raises(DeclarationError, match="_foreign_plan"):
        action("nudge", **CHANGING | {"plan": _foreign_plan})(run)


def test_a_reading_action_needs_no_undo() -> None:
    """What changes nothing needs no plan, no verify and no undo."""
    assert action("look", **READING)(run).read_only


# --- parsing ---------------------------------------------------------------------------------------------------------


def test_parameters_are_parsed_as_json() -> None:
    """Foreign data becomes typed parameters."""
    assert NUDGE.parse({"pid": 5}) == Nudge(pid=5, times=1)
    assert NUDGE.parse_result({"changed": True}) == Nudged(changed=True)


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({}, "pid"),
        ({"pid": 0}, "pid"),
        ({"pid": "x"}, "pid"),
        ({"pid": 1, "speed": 2}, "speed"),
        ({"pid": 1, "times": float("nan")}, "finite"),
        ({"pid": object()}, "integer"),
    ],
)
def test_wrong_parameters_are_named(raw: dict[str, Any], field: str) -> None:
    """The error names the wrong field, what it got and what it expected."""
    with pytest.raises(Invalid) as raised:
        NUDGE.parse(raw)
    assert field in str(raised.value)


def test_a_result_may_tell_more_than_is_known() -> None:
    """A newer agent's fields are left out, at any depth; a newer order's parameter is refused by its name."""
    assert NUDGE.parse_result({"changed": True, "newer": {"x": 1}}) == Nudged(changed=True)
    with pytest.raises(Invalid, match="newer"):
        NUDGE.parse({"pid": 5, "newer": 1})


def test_a_result_of_another_type_is_invalid() -> None:
    """An endpoint that answers something else is not believed."""
    with pytest.raises(Invalid):
        NUDGE.parse_result({"changed": "perhaps"})


def test_long_values_are_cut_in_errors() -> None:
    """A hostile value is shown by its beginning."""
    with pytest.raises(Invalid) as raised:
        NUDGE.parse({"pid": "x" * 10_000})
    assert len(str(raised.value)) < 1000


def test_many_errors_are_cut() -> None:
    """Of a hundred wrong fields, the first ones are named."""
    with pytest.raises(Invalid) as raised:
        NUDGE.parse({"pid": 1} | {f"f{n}": n for n in range(100)})
    assert str(raised.value).count("f") < 40
    assert invalid_fields.__doc__


# --- undo ------------------------------------------------------------------------------------------------------------


def test_undo_is_an_order_of_its_own() -> None:
    """What takes a run back is another action with parameters made of what happened."""
    undoable = replace(NUDGE, undo=Undo("nudge", _back))
    assert undoable.undo_params(Nudge(pid=5), Nudged(changed=True)) == ("nudge", Nudge(pid=5))
    assert undoable.undo_params(Nudge(pid=5), Nudged(changed=False)) is None
    assert NUDGE.undo_params(Nudge(pid=5), Nudged(changed=True)) is None


def test_another_way_is_taken_where_the_first_has_nothing() -> None:
    """The ways are tried in their order; None if none of them has anything to take back."""
    ways = Undo("nudge", _back, otherwise=Undo("kick_it", _kick))
    undoable = replace(NUDGE, undo=ways)
    assert undoable.undo_params(Nudge(pid=5), Nudged(changed=True)) == ("nudge", Nudge(pid=5))
    assert undoable.undo_params(Nudge(pid=5), Nudged(changed=False)) == ("kick_it", Nudge(pid=5))
    assert undoable.undo_params(Nudge(pid=1), Nudged(changed=False)) is None
    assert ways.actions == ("nudge", "kick_it")


def _kick(params: Nudge, _result: Nudged) -> Nudge | None:
    return params if params.pid > 1 else None


# --- the registry ----------------------------------------------------------------------------------------------------

REGISTRY = Registry([NUDGE, replace(NUDGE, name="kick_it", version=3)])


def test_the_registry_is_sorted_by_name() -> None:
    """Every list that is derived from it has the same order."""
    assert list(REGISTRY) == ["kick_it", "nudge"]
    assert len(REGISTRY) == 2
    assert REGISTRY.versions() == {"kick_it": 3, "nudge": 1}


def test_actions_are_found_by_name_or_command() -> None:
    """Both spellings lead to it."""
    assert REGISTRY.find("kick-it") is REGISTRY.find("kick_it") is REGISTRY["kick_it"]


def test_unknown_actions_are_answered_with_the_known_ones() -> None:
    """The error lists what there is, and does not echo an endless name."""
    with pytest.raises(UnknownAction) as raised:
        REGISTRY.find("x" * 10_000)
    assert raised.value.expected == "kick_it, nudge"
    assert len(raised.value.got or "") == 100


def test_one_name_is_declared_once() -> None:
    """Two actions of one name refuse to start."""
    with pytest.raises(DeclarationError, match="already declared"):
        Registry([NUDGE, NUDGE])


def test_undo_must_exist() -> None:
    """An undo that is nowhere refuses to start."""
    with pytest.raises(DeclarationError, match="nowhere"):
        Registry([replace(NUDGE, undo=Undo("unnudge", _back))])
    with pytest.raises(DeclarationError, match="nowhere"):
        Registry([replace(NUDGE, undo=Undo("nudge", _back, otherwise=Undo("unnudge", _back)))])


def test_an_undo_need_not_be_typed() -> None:
    """Nobody is asked to type anything by an undo, so it must not be done by an action that wants it."""
    with pytest.raises(DeclarationError, match="typed"):
        Registry([replace(NUDGE, undo=Undo("kick_it", _back)), replace(NUDGE, name="kick_it", typed=True)])


def test_risks_are_comparable() -> None:
    """Risks grow from reading to destroying."""
    assert [risk.rank for risk in (Risk.READ_ONLY, Risk.DISRUPTIVE, Risk.DESTRUCTIVE)] == [0, 1, 2]


def test_a_check_is_a_verdict() -> None:
    """What was seen is in place, or it is not."""
    assert Check.of(True, "x").verdict is Verdict.IN_PLACE
    assert Check.of(False, "x").verdict is Verdict.ABSENT


@pytest.mark.parametrize(
    ("pydantic", "ours"),
    [
        ("Value error, got 'x', expected a duration such as 5h", "a duration such as 5h"),
        (
            "Value error, expected exclusions that do not leave everything open",
            "exclusions that do not leave everything open",
        ),
        ("Input should be a valid tuple", "Input should be a list"),
        (
            "Tuple should have at most 10 items after validation, not 11",
            "List should have at most 10 items after validation, not 11",
        ),
        ("Field required", "Field required"),
        (
            "Input should be less than or equal to datetime.timedelta(days=1, seconds=120)",
            "Input should be less than or equal to 1d2m",
        ),
        ("Input should be at least datetime.timedelta(seconds=1)", "Input should be at least 1s"),
    ],
)
def test_an_expectation_is_said_once_and_in_words_of_everyday(pydantic: str, ours: str) -> None:
    """What was got stands beside it, and people write lists, not tuples."""
    assert expectation(pydantic) == ours


def test_what_is_wrong_as_a_whole_has_no_place() -> None:
    """A rule over several fields names none of them."""

    class Pair(Params):
        """Two numbers."""

        first: Annotated[int, Field(ge=0, le=9)] = 0
        """One."""

        @model_validator(mode="after")
        def _never(self) -> "Pair":
            raise ValueError("expected something else")

    with pytest.raises(ValidationError) as caught:
        Pair.model_validate({"first": 1})
    wrong = invalid_fields("The pair is wrong", caught.value)
    assert (wrong.got, wrong.expected) == ("{'first': 1}", "something else")
