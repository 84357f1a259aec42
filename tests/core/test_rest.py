"""The bodies of the REST API: requests are closed and bounded, views survive JSON and newer servers."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from stanch.core import rest
from stanch.core.model import LooseModel, Model
from stanch.core.rest import (
    EndpointView,
    GroupChange,
    GroupCreate,
    LabelChange,
    LoginRequest,
    OrderCommon,
    PolicyChange,
    ServerAddresses,
    TokenCreate,
    TokenCreated,
)
from stanch.core.types import hours

MODELS = [
    one
    for one in vars(rest).values()
    if isinstance(one, type) and issubclass(one, BaseModel) and one.__module__ == rest.__name__
]
each = pytest.mark.parametrize("model", MODELS, ids=lambda one: one.__name__)


@each
def test_every_field_is_described(model: type[BaseModel]) -> None:
    """The reference of the API has a sentence for each field."""
    assert not [name for name, field in model.model_fields.items() if not field.description]


@each
def test_requests_are_closed_and_views_are_open(model: type[BaseModel]) -> None:
    """A typo in a request is an error; a newer server may show more."""
    request = model in {
        OrderCommon,
        LabelChange,
        LoginRequest,
        TokenCreate,
        GroupCreate,
        GroupChange,
        PolicyChange,
        ServerAddresses,
    }
    assert issubclass(model, Model)
    assert issubclass(model, LooseModel) is not request


def test_an_order_has_safe_defaults() -> None:
    """An order without words goes to nobody and is valid for a day."""
    order = OrderCommon()
    assert (order.endpoints, order.labels, order.valid_for, order.dry_run) == ((), (), hours(24), False)


WRONG: dict[str, tuple[type[Model], dict[str, Any]]] = {
    "unknown field": (OrderCommon, {"endpoint": ["a"]}),
    "empty endpoint": (OrderCommon, {"endpoints": [""]}),
    "label without value": (OrderCommon, {"labels": ["prod"]}),
    "too many labels": (OrderCommon, {"labels": ["a=b"] * 21}),
    "endless validity": (OrderCommon, {"valid_for": "10000h"}),
    "long reason": (OrderCommon, {"reason": "x" * 4001}),
    "text for a flag": (OrderCommon, {"dry_run": "perhaps"}),
    "no uses": (TokenCreate, {"uses": 0}),
    "empty password": (LoginRequest, {"name": "a", "password": ""}),
    "huge password": (LoginRequest, {"name": "a", "password": "x" * 1001}),
}


@pytest.mark.parametrize(("model", "body"), WRONG.values(), ids=WRONG)
def test_wrong_requests_are_refused(model: type[Model], body: dict[str, Any]) -> None:
    """Each of these is refused."""
    with pytest.raises(ValidationError):
        model.model_validate(body)


ENDPOINT = {
    "id": "ep_1",
    "hostname": "web-01",
    "labels": ["env=prod"],
    "online": True,
    "last_seen": "2026-11-24T12:00:00Z",
    "revoked": False,
    "agent_version": "0.1.0",
    "inventory": {"hostname": "web-01"},
    "actions": {"isolate": 1},
    "capabilities": {"nft": "yes"},
    "effects": [],
    "enrolled": "2026-11-24T11:00:00Z",
}


def test_views_survive_json() -> None:
    """What the server shows, the client reads back."""
    view = EndpointView.model_validate(ENDPOINT)
    assert EndpointView.model_validate_json(view.model_dump_json()) == view


def test_instants_have_a_zone() -> None:
    """A moment without a time zone means nothing."""
    with pytest.raises(ValidationError):
        EndpointView.model_validate({**ENDPOINT, "enrolled": "2026-11-24T11:00:00"})


def test_a_created_token_shows_its_secret_once() -> None:
    """The list of tokens has no field for the secret."""
    assert set(TokenCreated.model_fields) - set(rest.TokenView.model_fields) == {"token", "ca_pin", "gateway_url"}
