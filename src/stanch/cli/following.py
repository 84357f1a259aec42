"""`--wait`: follow an order until all its tasks are final, then tell what came of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from stanch.cli.board import board_of
from stanch.cli.outcome import exit_code, outcome
from stanch.cli.plain import plain
from stanch.cli.render import Block, Note, words
from stanch.cli.screen import print_json, show_blocks
from stanch.core.rest import OrderView

if TYPE_CHECKING:
    from stanch.client.api import Client


def finish(client: "Client", order: OrderView, *, wait: bool, as_json: bool) -> int:
    """What every command does that has made an order: follow it if asked to, and tell; the exit code."""
    last = _followed(client, order) if wait else order
    if as_json:
        print_json(last)
    else:
        show_blocks(outcome(last) if wait else _begun(last))
    return exit_code(last) if wait else 0


def _followed(client: "Client", order: OrderView) -> OrderView:
    try:
        with board_of(order) as board:
            for event in client.watch(order.id):
                board.take(event)
    except KeyboardInterrupt:
        click.echo(f"The order goes on. Follow it: stanch order show {order.id} --wait", err=True)
        click.echo(f"Stop it: stanch order cancel {order.id}", err=True)
        raise
    return client.order(order.id)


def _begun(order: OrderView) -> Iterator[Block]:
    action = plain(order.action).replace("_", "-")
    yield Note(f"Order {plain(order.id)}: {action}, {words(order.states)}.")
    yield Note(f"Follow it: stanch order show {plain(order.id)} --wait")
