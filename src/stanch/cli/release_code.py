"""`stanch release-code`."""

import click

from stanch.cli.command import Command, json_option
from stanch.cli.connect import connected
from stanch.cli.naming import endpoint_names
from stanch.cli.render import Note, table
from stanch.cli.screen import print_json, show_blocks
from stanch.core.isolation import show_code
from stanch.core.rest import ReleaseCodeEntry, ReleaseCodes

_HEADS = ("code", "in force", "task", "order", "action", "ordered")


@click.command(
    cls=Command,
    examples=("release-code web-01", "release-code web-01 --reason 'called from the data centre'"),
)
@click.argument("endpoint", shell_complete=endpoint_names)
@click.option("--reason", default="", metavar="TEXT", help="Why you look; it stands in the audit.")
@json_option
def release_code(*, endpoint: str, reason: str, as_json: bool) -> None:
    """Show the code that lifts the isolation of an endpoint at the endpoint itself, without the server.

    Whoever is at the endpoint types it there. Each look is in the audit.
    """
    with connected() as client:
        found = client.release_codes(endpoint, reason=reason)
    if as_json:
        print_json(found)
        return
    show_blocks([table(_HEADS, map(_row, found.codes), title=found.hostname), Note(_advice(found))])


def _row(one: ReleaseCodeEntry) -> tuple[object, ...]:
    return show_code(one.code), one.in_force, one.task, one.order, one.action, one.created


def _advice(found: ReleaseCodes) -> str:
    """What to type, and which code to take."""
    current = next((one for one in found.codes if one.in_force), None)
    if current is None:
        return (
            "\nThe endpoint last told of no effect that these lift. `stanch local isolation status` on it shows the "
            "task that it waits for; then type there: stanch local isolation release-code CODE"
        )
    return f"\nAt the endpoint, type: stanch local isolation release-code {show_code(current.code)}"
