"""Actions and the orders of each: one route per action of the registry, made in a loop that knows none of them."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter

from stanch.core.action import AnyAction, Registry
from stanch.core.errors import NotFound
from stanch.core.rest import ActionView, OrderCommon, OrderView
from stanch.derive.openapi import OrderBody, action_view, order_body
from stanch.server.api.asking import Caller, House


def action_routes(registry: Registry) -> APIRouter:
    """List the actions, and order each."""
    router = APIRouter(tags=["actions"])
    views = [action_view(one) for one in registry.values()]

    @router.get("/actions")
    async def actions(_caller: Caller) -> list[ActionView]:
        """What can be ordered."""
        return views

    for one in registry.values():
        router.add_api_route(
            f"/actions/{one.name}/orders",
            _submit(one),
            methods=["POST"],
            status_code=201,
            summary=one.summary,
            description=one.description,
            operation_id=f"order_{one.name}",
        )

    @router.post("/actions/{name}/orders", include_in_schema=False)
    async def unknown(name: str, _caller: Caller) -> None:
        """Any other name: say which there are."""
        found = registry.find(name)
        raise NotFound("Orders of this action are elsewhere", hint=f"Use its name, {found.name}.")

    return router


def _submit(action: AnyAction) -> Callable[..., Awaitable[OrderView]]:
    async def submit(body: OrderBody, caller: Caller, services: House) -> OrderView:
        common = OrderCommon.model_construct(**{name: getattr(body, name) for name in OrderCommon.model_fields})
        params = body.params.model_dump(mode="json", exclude_defaults=True)
        return await services.orders.submit(caller, action.name, params, common)

    # The body's type is made from the action: a signature cannot say that before there is one.
    submit.__annotations__["body"] = order_body(action)
    return submit
