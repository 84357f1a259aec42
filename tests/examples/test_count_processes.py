"""The example of the guide, loaded beside the real actions: one file was enough for all that is derived from it."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stanch.actions import load
from stanch.cli.ordering import order_command
from stanch.core.action import AnyAction
from stanch.core.errors import Denied, Invalid
from stanch.core.policy import Origin, Principal, Role, may
from stanch.derive.commands import options_of, raw_params
from stanch.derive.openapi import action_view, order_body
from stanch.derive.reference import pages
from tests.contract.bounds import unbounded, undescribed
from tests.fakes.host import FakeEndpoint
from tests.house.source import PACKAGE, ROOT

EXAMPLE = ROOT / "examples" / "count_processes.py"
GUIDE = ROOT / "docs" / "guide" / "add-an-action.md"


@pytest.fixture
def one() -> AnyAction:
    """The example, from a registry that holds the real actions too."""
    return load(beside=[EXAMPLE]).find("count-processes")


@pytest.fixture
def endpoint() -> FakeEndpoint:
    """An endpoint with four processes of two users."""
    endpoint = FakeEndpoint()
    for pid in (7, 8, 9):
        endpoint.processes.add(pid, user="www-data")
    return endpoint


async def count(one: AnyAction, endpoint: FakeEndpoint, **params: Any) -> Any:
    """Run it as an agent does: foreign parameters in, JSON out."""
    result = await one(endpoint.host, one.parse(params))
    return json.loads(result.model_dump_json())


async def test_it_counts(one: AnyAction, endpoint: FakeEndpoint) -> None:
    """Each account is counted, the busiest one first."""
    assert await count(one, endpoint) == {
        "total": 4,
        "users": [{"user": "www-data", "processes": 3}, {"user": "root", "processes": 1}],
    }


async def test_its_parameters_narrow(one: AnyAction, endpoint: FakeEndpoint) -> None:
    """One account, or only the busy ones, can be asked for."""
    assert (await count(one, endpoint, user="root"))["users"] == [{"user": "root", "processes": 1}]
    assert (await count(one, endpoint, at_least=2))["users"] == [{"user": "www-data", "processes": 3}]
    with pytest.raises(Invalid):
        one.parse({"at_least": 0})


def test_it_keeps_the_contract(one: AnyAction) -> None:
    """What the contract tests ask of every action, the example keeps."""
    for model in (one.params, one.result):
        assert not unbounded(model.model_json_schema())
        assert not undescribed(model.model_json_schema())


@pytest.mark.parametrize("number", [0, 1])
def test_its_command_line_is_derived(one: AnyAction, number: int) -> None:
    """Its examples are command lines, and its options come from its parameters."""
    context = order_command(one).make_context(one.command, shlex.split(one.examples[number]))
    given = {name.removeprefix("own_"): value for name, value in context.params.items()}
    assert (
        one.parse(raw_params(options_of(one.params), given)).model_fields_set == [set(), {"user", "at_least"}][number]
    )
    assert "--at-least" in order_command(one).get_help(context)


def test_its_reference_is_derived() -> None:
    """Its page is written."""
    page = pages(load(beside=[EXAMPLE]))["actions/count-processes.md"]
    assert "`--at-least`" in page
    assert "`POST /api/v1/actions/count_processes/orders`" in page


def test_its_rest_body_is_derived(one: AnyAction) -> None:
    """The API takes its parameters typed, and lists it with their schema."""
    body = order_body(one).model_validate({"endpoints": ["web-01"], "params": {"at_least": 5}})
    assert body.params == one.parse({"at_least": 5})
    with pytest.raises(ValidationError):
        order_body(one).model_validate({"params": {"at_least": 0}})
    assert set(action_view(one).params["properties"]) == {"user", "at_least"}


def test_roles_are_checked(one: AnyAction) -> None:
    """Its risk decides who may order it."""
    may(Principal(name="alice", roles=(Role.ANALYST,), origin=Origin.CLI), one, {})
    with pytest.raises(Denied):
        may(Principal(name="bob", roles=(Role.VIEWER,), origin=Origin.CLI), one, {})


@pytest.mark.slow
def test_one_file_is_enough(tmp_path: Path) -> None:
    """A copy of the package with this one file more has the command, and nothing else was touched."""
    shutil.copytree(PACKAGE, tmp_path / "stanch", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLE, tmp_path / "stanch" / "actions")
    help_of = [sys.executable, "-m", "stanch.cli.main", "count-processes", "--help"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    shown = subprocess.run(help_of, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Count the processes of an endpoint by user." in shown.stdout
    assert "--at-least" in shown.stdout


def test_the_guide_quotes_the_file() -> None:
    """What the guide shows of the file stands in the file."""
    blocks = GUIDE.read_text(encoding="utf-8").split("```python\n")[1:]
    quoted = [block.partition("```")[0] for block in blocks if "async def test_" not in block.partition("```")[0]]
    lines = {line for block in quoted for line in block.splitlines() if line.strip()}
    assert quoted
    assert lines <= set(EXAMPLE.read_text(encoding="utf-8").splitlines())
