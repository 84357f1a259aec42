"""`stanch orders`, `order show|cancel|undo`."""

from itertools import islice

import click

from stanch.cli.command import Command, Group, json_option
from stanch.cli.connect import connected
from stanch.cli.following import finish
from stanch.cli.outcome import outcome, states
from stanch.cli.render import Block, Note, fields, table, words
from stanch.cli.screen import print_json, show_blocks
from stanch.core.rest import OrderView

_wait = click.option("--wait", is_flag=True, help="Follow it to the end; the exit code tells how its tasks ended.")


@click.command(cls=Command, examples=("orders", "orders --limit 100 --json"))
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="At most so many.")
@json_option
def orders(*, limit: int, as_json: bool) -> None:
    """List orders, the newest first."""
    with connected() as client:
        found = list(islice(client.orders(), limit))
    if as_json:
        print_json(found)
    else:
        show_blocks([_order_table(found)])


def _order_table(found: list[OrderView]) -> Block:
    if not found:
        return Note("No order yet. `stanch actions` lists what can be ordered.")
    rows = ((one.id, _what(one), states(one), one.requested_by, one.origin, one.created, one.reason) for one in found)
    return table(("order", "action", "tasks", "by", "origin", "ordered", "reason"), rows)


def _what(one: OrderView) -> str:
    return one.action.replace("_", "-") + (" (dry run)" if one.dry_run else "")


@click.group(cls=Group, examples=("order show ORDER --wait", "order undo ORDER"))
def order() -> None:
    """Show, follow, cancel or take back one order."""


@order.command(examples=("order show ORDER", "order show ORDER --wait --json"))
@click.argument("key", metavar="ORDER")
@_wait
@json_option
def show(*, key: str, wait: bool, as_json: bool) -> int:
    """Show an order, its tasks and their results."""
    with connected() as client:
        found = client.order(key)
        if wait:
            return finish(client, found, wait=True, as_json=as_json)
    if as_json:
        print_json(found)
    else:
        show_blocks([_about(found), *outcome(found)])
    return 0


def _about(one: OrderView) -> Block:
    return fields(
        order=one.id,
        action=_what(one),
        params=one.params,
        by=one.requested_by,
        origin=one.solution or one.origin,
        reason=one.reason or None,
        case=one.case,
        ordered=one.created,
        valid_until=one.valid_until,
    )


@order.command(examples=("order cancel ORDER",))
@click.argument("key", metavar="ORDER")
@json_option
def cancel(*, key: str, as_json: bool) -> None:
    """Stop what is not done yet. A task that an endpoint has is final when the endpoint answers."""
    with connected() as client:
        found = client.cancel(key)
    if as_json:
        print_json(found)
    else:
        show_blocks([Note(f"Order {found.id}: {words(found.states)}.")])


@order.command(examples=("order undo ORDER", "order undo ORDER --wait"))
@click.argument("key", metavar="ORDER")
@_wait
@json_option
def undo(*, key: str, wait: bool, as_json: bool) -> int:
    """Take an order back, with a new order made from what it did."""
    with connected() as client:
        return finish(client, client.undo(key), wait=wait, as_json=as_json)
