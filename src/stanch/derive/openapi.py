"""From an action to its place in the REST API: the body of its orders, and its entry in the list of actions."""

from functools import cache
from typing import Any, cast

from pydantic import Field, create_model

from stanch.core.action import AnyAction, Irreversible, Params, Undo
from stanch.core.rest import ActionView, OrderCommon
from stanch.derive.commands import annotation_of


class OrderBody(OrderCommon):
    """What every `POST /api/v1/actions/{name}/orders` carries; each action narrows `params` to its own."""

    params: Params
    """Parameters of the action."""


@cache
def order_body(action: AnyAction) -> type[OrderBody]:
    """The body of an action's orders: the fields of every order, and `params` of its own type."""
    needed = any(info.is_required() for info in action.params.model_fields.values())
    params: Any = Field(description=f"Parameters of {action.name}.", **({} if needed else _empty(action)))
    made = create_model(
        f"{action.params.__name__}Order",
        __base__=OrderBody,
        __doc__=action.summary,
        # There is no class statement whose docstrings could be found; looking for it is most of a server's start.
        __cls_kwargs__={"use_attribute_docstrings": False},
        params=(action.params, params),
        **(_confirm() if action.typed else {}),
    )
    return cast("type[OrderBody]", made)


def _confirm() -> dict[str, Any]:
    """The field of every order, which these orders cannot do without unless they are dry runs."""
    info = OrderCommon.model_fields["confirm"]
    text = "The name of the endpoint, or how many endpoints there are, typed once more. Needed unless it is a dry run."
    return {"confirm": (annotation_of(info), Field(default=None, description=text))}


def _empty(action: AnyAction) -> dict[str, Any]:
    """Nothing needs to be said: `params` may be left out."""
    return {"default_factory": action.params}


@cache
def action_view(action: AnyAction) -> ActionView:
    """An action, as `GET /api/v1/actions` shows it."""
    return ActionView(
        name=action.name,
        version=action.version,
        summary=action.summary,
        risk=action.risk,
        undo=_undo(action),
        after_crash=action.after_crash,
        typed=action.typed,
        params=action.params.model_json_schema(),
        result=action.result.model_json_schema(mode="serialization"),
    )


def _undo(action: AnyAction) -> str | None:
    if isinstance(action.undo, Undo):
        return action.undo.action
    return action.undo.why if isinstance(action.undo, Irreversible) else None
