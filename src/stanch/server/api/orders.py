"""Orders and tasks: look, cancel, undo, and watch them change."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import Field

from stanch.core.model import LooseModel
from stanch.core.rest import OrderView, TaskView
from stanch.core.types import Id
from stanch.server.api.asking import After, Caller, House, Limit, Reader
from stanch.server.bus.in_process import Bus

BEAT_SECONDS = 15

router = APIRouter(tags=["orders"])


class OrderPage(LooseModel):
    """Some orders."""

    items: list[OrderView]
    """Newest first, without their tasks."""
    next: str | None = Field(default=None)
    """Pass as `after` for the next page; null at the end."""


@router.get("/orders")
async def list_orders(_caller: Reader, services: House, after: After = None, limit: Limit = 50) -> OrderPage:
    """Orders, newest first."""
    items, following = await services.orders.list(after=after, limit=limit)
    return OrderPage(items=items, next=following)


@router.get("/orders/{order}")
async def show_order(order: Id, _caller: Reader, services: House) -> OrderView:
    """An order with its tasks."""
    return await services.orders.get(order)


@router.post("/orders/{order}/cancel")
async def cancel_order(order: Id, caller: Caller, services: House) -> OrderView:
    """Cancel what was not sent; ask the endpoints to stop the rest."""
    return await services.orders.cancel(caller, order)


@router.post("/orders/{order}/undo", status_code=201)
async def undo_order(order: Id, caller: Caller, services: House) -> OrderView:
    """Order what takes this one back."""
    return await services.orders.undo(caller, order)


@router.get("/tasks/{task}")
async def show_task(task: Id, _caller: Reader, services: House) -> TaskView:
    """A task."""
    return await services.orders.task(task)


@router.get("/events", response_class=StreamingResponse)
async def events(_caller: Reader, services: House, order: Id | None = None) -> StreamingResponse:
    """Server-sent events: each `data:` line is a TaskEvent; lines that begin with a colon say that we are here."""
    if order is not None:
        await services.orders.get(order)
    return StreamingResponse(_lines(services.bus, order), media_type="text/event-stream")


async def _lines(bus: Bus, order: str | None) -> AsyncIterator[str]:
    """Events as they come. Whoever reads too slowly is let go: the lists have the truth."""
    with bus.subscribe(order) as subscription:
        yield ": listening\n\n"
        while not subscription.lost:
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    event = await subscription.next()
            except TimeoutError:
                yield ": still here\n\n"
            else:
                if event is None:
                    yield ": the server stops\n\n"
                    return
                yield f"data: {event.model_dump_json(exclude_none=True)}\n\n"
        yield ": too slow, some events are lost; ask for the order, then listen again\n\n"
