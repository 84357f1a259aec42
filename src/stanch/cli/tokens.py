"""`stanch token create|list|revoke`."""

from typing import Any

import click

from stanch.cli.checking import checked
from stanch.cli.command import Group, json_option
from stanch.cli.connect import connected
from stanch.cli.plain import plain
from stanch.cli.render import Note, fields, table
from stanch.cli.screen import print_json, show_blocks
from stanch.core.rest import TokenCreate


@click.group(cls=Group, examples=("token create --uses 10 --label env=prod", "token list"))
def token() -> None:
    """Make and withdraw enrolment tokens: with one, a machine becomes an endpoint."""


@token.command(
    examples=("token create", "token create --uses 100 --valid-for 7d --label env=prod --label role=web"),
)
@click.option("--uses", type=int, help="How many endpoints may enrol with it.  [default: 1]")
@click.option("--valid-for", metavar="DURATION", help="How long.  [default: 1d]")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="The endpoints get it; several times.")
@json_option
def create(*, as_json: bool, **given: Any) -> None:
    """Make an enrolment token, and show the command that uses it. The secret is shown this once."""
    body = checked(TokenCreate, given, "The token cannot be made so")
    with connected() as client:
        made = client.create_token(body)
    if as_json:
        print_json(made)
        return
    enrol = f"stanch agent enroll --server {made.gateway_url} --token {made.token} --ca-pin {made.ca_pin}"
    about = fields(token=made.token, uses=made.uses_left, expires=made.expires, labels=made.labels)
    show_blocks([about, Note("\nOn the endpoint, as root:"), Note(f"  {plain(enrol)}")])


@token.command("list", examples=("token list", "token list --json"))
@json_option
def list_tokens(*, as_json: bool) -> None:
    """List enrolment tokens, without their secrets."""
    with connected() as client:
        found = client.tokens()
    if as_json:
        print_json(found)
        return
    rows = ((one.id, one.uses_left, one.expires, one.labels, one.created_by, one.revoked) for one in found)
    show_blocks([table(("token", "uses left", "expires", "labels", "by", "revoked"), rows)])


@token.command(examples=("token revoke TOKEN",))
@click.argument("key", metavar="TOKEN")
@json_option
def revoke(*, key: str, as_json: bool) -> None:
    """Withdraw an enrolment token, by its id. Endpoints that used it stay enrolled."""
    with connected() as client:
        client.revoke_token(key)
    if as_json:
        print_json({"token": key, "revoked": True})
    else:
        show_blocks([Note(f"Token {plain(key)} is withdrawn.")])
