"""`stanch audit`, `audit verify`."""

from itertools import islice

import click
from click.core import ParameterSource

from stanch.cli.command import Group, json_option
from stanch.cli.connect import connected
from stanch.cli.render import Note, fields, table
from stanch.cli.screen import print_json, show_blocks

PATIENCE = 600.0
"""Seconds: the audit of years takes a while to walk."""


@click.group(
    cls=Group,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    examples=("audit", "audit --limit 1000 --json", "audit verify"),
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@json_option
@click.pass_context
def audit(context: click.Context, *, limit: int, as_json: bool) -> None:
    """List who did what on the server, the newest first; verify that nobody changed it. For administrators."""
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    with connected() as client:
        found = list(islice(client.audit(), limit))
    if as_json:
        print_json(found)
        return
    rows = ((one.n, one.at, one.who, one.what, one.subject, one.detail) for one in found)
    show_blocks([table(("entry", "at", "who", "what", "subject", "detail"), rows)])


def _refuse_options(context: click.Context) -> None:
    """Options of the list that stand before a command would be lost."""
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise click.UsageError(f"Options of `{context.invoked_subcommand}` come after it.", context)


@audit.command(examples=("audit verify", "audit verify --json"))
@json_option
def verify(*, as_json: bool) -> None:
    """Check the chain of hashes: every entry is as it was written, and none before the newest is missing.

    Write the number of entries and the newest hash down elsewhere. Whoever can write to the server's database could
    cut off the end, or make the whole chain anew: then no entry has that hash any more.
    """
    with connected(patience=PATIENCE) as client:
        whole = client.verify_audit()
    if as_json:
        print_json(whole)
        return
    note = Note("\nThe audit is whole. Write both down elsewhere; `stanch audit --json` shows the hash of every entry.")
    show_blocks([fields(entries=whole.entries, newest=whole.newest), note])
