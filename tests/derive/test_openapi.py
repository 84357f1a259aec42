"""Bodies of orders, and entries of the list of actions."""

import json
from dataclasses import replace

import pytest
from pydantic import ValidationError

from stanch.actions import load
from stanch.core.rest import ActionView, OrderCommon
from stanch.derive.openapi import action_view, order_body
from tests.derive.synthetic import Everything, do_everything, do_nothing


def test_a_body_is_the_order_and_the_parameters():
    """The fields of every order stand beside `params` of the action's own type."""
    body = order_body(do_everything).model_validate({"endpoints": ["a"], "reason": "why", "params": {"pid": 1}})
    assert isinstance(body, OrderCommon)
    assert body.params == Everything(pid=1)
    assert set(type(body).model_fields) == {*OrderCommon.model_fields, "params"}


def test_parameters_may_be_left_out_where_none_is_needed():
    """An action without required parameters needs no `params`."""
    assert order_body(do_nothing).model_validate({"endpoints": ["a"]}).params == do_nothing.params()
    with pytest.raises(ValidationError, match="params"):
        order_body(do_everything).model_validate({"endpoints": ["a"]})


@pytest.mark.parametrize(
    "body", [{"params": {"pid": 1, "x": 1}}, {"params": {"pid": 0}}, {"params": {"pid": 1}, "x": 1}]
)
def test_unknown_and_wrong_fields_are_refused(body):
    """A body is closed and bounded, as its parameters are."""
    with pytest.raises(ValidationError):
        order_body(do_everything).model_validate(body)


def test_what_is_said_of_an_action_is_made_once() -> None:
    """A server that starts again in the same process, as tests do, makes no type and no schema a second time."""
    assert order_body(do_nothing) is order_body(do_nothing)
    assert action_view(do_nothing) is action_view(do_nothing)


def test_an_order_keeps_the_descriptions_of_every_order() -> None:
    """The fields that all orders have are described in the body of each, and `params` by its action's name."""
    fields = order_body(do_nothing).model_fields
    assert {name: fields[name].description for name in OrderCommon.model_fields} == {
        name: info.description for name, info in OrderCommon.model_fields.items()
    }
    assert fields["params"].description == "Parameters of do_nothing."


def test_bodies_have_names_of_their_own():
    """Two actions never share a schema name."""
    names = [order_body(one).__name__ for one in load().values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("action", [*load().values(), do_everything, do_nothing], ids=lambda one: one.name)
def test_every_view_crosses_the_wire(action):
    """What the list says is JSON and comes back the same."""
    view = action_view(action)
    assert ActionView.model_validate_json(view.model_dump_json()) == view
    assert json.dumps(view.params)
    assert view.risk == action.risk


def test_undo_is_an_action_or_a_reason():
    """A program can tell what takes an order back."""
    views = {name: action_view(one).undo for name, one in load().items()}
    assert views["isolate"] == "release"
    assert views["list_processes"] is None
    assert action_view(do_everything).undo == "It was only a test | really."


def test_a_typed_action_says_that_it_must_be_confirmed():
    """In its entry and in the body of its orders; the field itself is that of every order."""
    typed = replace(do_nothing, typed=True)
    assert action_view(typed).typed
    assert not action_view(do_nothing).typed
    field = order_body(typed).model_json_schema()["properties"]["confirm"]
    assert "Needed" in field["description"]
    assert order_body(typed).model_validate({"endpoints": ["a"], "confirm": "a"}).confirm == "a"
    with pytest.raises(ValidationError, match="confirm"):
        order_body(typed).model_validate({"endpoints": ["a"], "confirm": "a" * 201})
