"""What every action owes, asked of the registry: a new action file is held to this without touching a test."""

import re
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from stanch import actions
from stanch.cli.ordering import order_command, unread
from stanch.core.action import RESERVED, AfterCrash, AnyAction, Irreversible, Risk, Undo
from stanch.core.errors import Invalid
from stanch.core.rest import OrderCommon
from stanch.derive.commands import command_of, options_of, raw_params
from tests.contract.bounds import unbounded, undescribed
from tests.house.source import ROOT

REGISTRY = actions.load()
each = pytest.mark.parametrize("one", REGISTRY.values(), ids=REGISTRY.keys())
changing = pytest.mark.parametrize(
    "one", [one for one in REGISTRY.values() if not one.read_only], ids=lambda one: one.name
)
EXAMPLES = [(one, line) for one in REGISTRY.values() for line in one.examples]


@each
def test_it_says_what_it_does(one: AnyAction) -> None:
    """The summary is one sentence, in the imperative, that fits on a line."""
    assert re.fullmatch(r"[A-Z].{10,110}\.", one.summary)
    assert one.description


@each
@pytest.mark.parametrize("model", ["params", "result"])
def test_every_field_is_described(one: AnyAction, model: str) -> None:
    """Each field says what it means, those of inner values too: help, forms and reference show it."""
    assert not undescribed(getattr(one, model).model_json_schema())


@each
@pytest.mark.parametrize("model", ["params", "result"])
def test_every_value_is_bounded(one: AnyAction, model: str) -> None:
    """No string, list or number is as large as its sender likes."""
    assert not unbounded(getattr(one, model).model_json_schema())


@each
def test_its_names_are_its_own(one: AnyAction) -> None:
    """No parameter takes a name of the order itself, neither as a field nor as an option."""
    assert not set(one.params.model_fields) & (RESERVED | set(OrderCommon.model_fields))


@each
def test_defaults_are_valid(one: AnyAction) -> None:
    """What may be left out may also be sent: the defaults pass, and mean what leaving them out does."""
    given = raw_example(one, one.examples[0])
    defaults = one.params.model_construct().model_dump(mode="json", warnings=False)
    assert one.parse({**defaults, **given}) == one.parse(given)
    with pytest.raises(Invalid, match="surprise"):
        one.parse({**given, "surprise": 1})


@each
def test_its_time_is_limited(one: AnyAction) -> None:
    """Every action ends by itself."""
    assert timedelta(0) < one.time_limit <= timedelta(days=7)


@each
def test_reading_is_repeated_and_changing_is_not(one: AnyAction) -> None:
    """After a crash, what only reads may simply run again; what changes must look first."""
    assert (one.after_crash is AfterCrash.RERUN) is one.read_only
    assert (one.risk is Risk.READ_ONLY) is one.read_only


@changing
def test_what_changes_can_be_planned_verified_and_taken_back(one: AnyAction) -> None:
    """It has a dry run, looks whether the effect is in place, and says how it is undone, or why it cannot be."""
    assert one.plan is not None
    assert one.verify is not None
    assert isinstance(one.undo, Undo | Irreversible)
    for function in (one.plan, one.verify):
        assert function.__doc__


@changing
def test_the_way_back_exists(one: AnyAction) -> None:
    """An undo names an action of the registry; an explicit "cannot" gives its reason."""
    if isinstance(one.undo, Undo):
        assert one.undo.action in REGISTRY
    else:
        assert isinstance(one.undo, Irreversible)
        assert len(one.undo.why) > 20


# --- the command line ------------------------------------------------------------------------------------------------


def typed(one: AnyAction, line: str) -> dict[str, Any]:
    """What the command line makes of an example."""
    context = order_command(one).make_context(one.command, shlex.split(line))
    return {name.removeprefix("own_"): value for name, value in context.params.items()}


def _unread(value: Any) -> Any:
    """Something of the right type for each file that would be uploaded."""
    if isinstance(value, tuple) and any(isinstance(one, Path) for one in value):
        return [unread(one) for one in value]
    return unread(value) if isinstance(value, Path) else value


def raw_example(one: AnyAction, line: str) -> dict[str, Any]:
    """The parameters of an example, not yet parsed."""
    given, options = typed(one, line), options_of(one.params)
    # A file is uploaded before its order is sent; until then something of the right type stands for it.
    given |= {name: _unread(value) for name, value in given.items()}
    return raw_params(options, given)


@pytest.mark.parametrize(("one", "line"), EXAMPLES, ids=[f"{one.command} {line}" for one, line in EXAMPLES])
def test_its_examples_are_real(one: AnyAction, line: str) -> None:
    """Each example of the help is a command line that parses, into parameters that pass."""
    given = typed(one, line)
    assert given["endpoints"] or given["labels"] or given["group"]
    one.parse(raw_example(one, line))


@each
def test_its_command_has_no_option_twice(one: AnyAction) -> None:
    """The options of the action and those of every order do not meet."""
    flags = [flag for option in order_command(one).params for flag in (*option.opts, *option.secondary_opts)]
    assert len(flags) == len(set(flags))
    assert command_of(one).options == options_of(one.params)


# --- the files around it ---------------------------------------------------------------------------------------------


@each
def test_it_has_a_reference_page(one: AnyAction) -> None:
    """`make docs` wrote its page."""
    page = ROOT / "docs" / "reference" / "actions" / f"{one.command}.md"
    assert one.summary in page.read_text(encoding="utf-8")


@each
def test_it_has_a_test_file(one: AnyAction) -> None:
    """Its file has a test file of the same name."""
    stem = one.source.rpartition(".")[2]
    assert (ROOT / "tests" / "actions" / f"test_{stem}.py").is_file()
