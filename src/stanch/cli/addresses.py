"""`stanch addresses`: where agents reach the server."""

import click

from stanch.cli.checking import checked
from stanch.cli.command import Group, json_option
from stanch.cli.connect import connected
from stanch.cli.render import fields
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import Invalid
from stanch.core.rest import ServerAddresses, ServerAddressesView


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=("addresses", "addresses set https://new.example.org:8444"),
)
@json_option
@click.pass_context
def addresses(context: click.Context, *, as_json: bool) -> None:
    """Show where agents reach the server; announce an address ahead of a move."""
    if context.invoked_subcommand is None:
        with connected() as client:
            _show(client.addresses(), as_json=as_json)


@addresses.command(
    "set",
    examples=(
        "addresses set https://new.example.org:8444",
        "addresses set https://192.0.2.7:8444 https://[2001:db8::7]:8444",
        "addresses set --none",
    ),
)
@click.argument("urls", metavar="[URL]...", nargs=-1)
@click.option("--none", "nothing", is_flag=True, help="Take back all that were announced.")
@json_option
def set_addresses(*, urls: tuple[str, ...], nothing: bool, as_json: bool) -> None:
    """Announce these addresses, and no others, besides those that the server was started with.

    Agents are told at once and keep them, also while they are isolated: announce before you move the server.
    """
    if bool(urls) is nothing:
        raise Invalid("It is not clear what to announce", expected="one URL or more, or --none")
    wrong = "The addresses cannot be announced so"
    body = ServerAddresses(urls=()) if nothing else checked(ServerAddresses, {"urls": urls}, wrong)
    with connected() as client:
        _show(client.announce(body), as_json=as_json)


def _show(view: ServerAddressesView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        show_blocks([fields(configured=view.configured, announced=view.announced, resolved=view.peers)])
