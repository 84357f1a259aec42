"""`stanch groups`: list, make, change, show and delete groups."""

import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

import click

from stanch.cli.checking import checked
from stanch.cli.command import Group, json_option
from stanch.cli.connect import connected
from stanch.cli.naming import group_names
from stanch.cli.plain import plain
from stanch.cli.render import Block, Note, fields, table
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import Cancelled, Invalid
from stanch.core.rest import EndpointView, GroupChange, GroupCreate, GroupView

_LABEL_HELP = "Its endpoints carry this; with several, all of them. Without any, every endpoint belongs to it."

name_argument = click.argument("name", metavar="NAME", shell_complete=group_names)


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=("groups", "groups create web --label role=web", "groups show web"),
)
@json_option
@click.pass_context
def groups(ctx: click.Context, *, as_json: bool) -> None:
    """List groups, the one that decides first at the top; make and change them.

    A group is a name for the endpoints that carry certain labels: `--group NAME` addresses an order to it, and its
    policy says what its endpoints follow (`stanch policy`). Of the groups of an endpoint the one with the smallest rank
    decides, section by section. The group `all` is always there, and decides last.
    """
    if ctx.invoked_subcommand is not None:
        return
    with connected() as client:
        found = client.groups()
    if as_json:
        print_json(found)
        return
    rows = ((one.name, one.labels, one.endpoints, one.rank, one.sections, one.description) for one in found)
    show_blocks([table(("group", "labels", "endpoints", "rank", "policy for", "description"), rows)])


@groups.command(
    examples=(
        "groups create web --label role=web",
        "groups create web-prod --label role=web --label env=prod --rank 10 --description 'Shops'",
    ),
)
@click.argument("name", metavar="NAME")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help=_LABEL_HELP)
@click.option("--rank", type=int, help="Of the groups of an endpoint the smallest decides.  [default: 1000]")
@click.option("--description", metavar="TEXT", help="What it is for.")
@json_option
def create(*, labels: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Make a group. It changes nothing before it gets a policy."""
    body = checked(GroupCreate, {**given, "labels": list(labels)}, "The group cannot be made so")
    with connected() as client:
        made = client.create_group(body)
    if as_json:
        print_json(made)
    else:
        show_blocks([_fields(made), Note(f"\nIts policy: stanch policy edit {plain(made.name)}")])


@groups.command(
    examples=(
        "groups change web --rank 10",
        "groups change web --label role=web --label env=prod",
        "groups change web --description 'Shops'",
    ),
)
@name_argument
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="All its labels from now on.")
@click.option("--no-labels", is_flag=True, help="Every endpoint belongs to it from now on.")
@click.option("--rank", type=int, help="Of the groups of an endpoint the smallest decides.")
@click.option("--description", metavar="TEXT", help="What it is for.")
@json_option
def change(*, name: str, labels: tuple[str, ...], no_labels: bool, as_json: bool, **given: Any) -> None:
    """Change labels, rank or description of a group. Its endpoints follow at once."""
    if labels and no_labels:
        raise Invalid("Labels were named, and none wanted", expected="--label KEY=VALUE or --no-labels")
    wanted = {**given, "labels": [] if no_labels else list(labels) or None}
    body = checked(GroupChange, wanted, "The group cannot be changed so")
    if not body.model_fields_set:
        raise Invalid("Nothing to change was named", expected="--label, --no-labels, --rank or --description")
    with connected() as client:
        found = client.change_group(name, body)
    if as_json:
        print_json(found)
    else:
        show_blocks([_fields(found)])


@groups.command(examples=("groups show web", "groups show web --json"))
@name_argument
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Endpoints, at most.")
@json_option
def show(*, name: str, limit: int, as_json: bool) -> None:
    """Show a group and its endpoints."""
    with connected() as client:
        found = client.group(name)
        members = list(islice(client.endpoints(group=name), limit))
    if as_json:
        print_json({**found.model_dump(mode="json"), "members": [_member(one) for one in members]})
    else:
        show_blocks([_fields(found), *_members(found, members)])


@groups.command(examples=("groups delete web", "groups delete web --yes"))
@name_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(*, name: str, yes: bool, as_json: bool) -> None:
    """Delete a group, and its policy with it. Its endpoints then follow their other groups."""
    with connected() as client:
        found = client.group(name)
        if not yes and sys.stdin.isatty() and not click.confirm(_question(found), err=True):
            raise Cancelled("Nothing was deleted", hint="Answer yes, or give --yes.")
        client.delete_group(name)
    if as_json:
        print_json({"group": name, "deleted": True, "sections": list(found.sections)})
    else:
        show_blocks([Note(f"The group {plain(name)} is deleted; with it went {_policy(found)}.")])


def _question(group: GroupView) -> str:
    return (
        f"Delete the group {plain(group.name, longest=100)}? With it goes {_policy(group)}; "
        f"{group.endpoints} endpoints will follow their other groups only."
    )


def _policy(group: GroupView) -> str:
    sections = ", ".join(map(plain, group.sections))
    return f"its policy for {sections}" if sections else "no policy"


def _fields(group: GroupView) -> Block:
    return fields(
        group=group.name,
        labels=group.labels or "none: every endpoint",
        rank=group.rank,
        description=group.description,
        endpoints=group.endpoints,
        policy_for=group.sections,
    )


def _members(group: GroupView, members: Sequence[EndpointView]) -> list[Block]:
    if not members:
        return [Note("\nNo endpoint belongs to it.")]
    rows = ((one.hostname, one.id, one.labels, one.groups) for one in members)
    shown: list[Block] = [table(("endpoint", "id", "labels", "groups"), rows, title="endpoints")]
    if group.endpoints > len(members):
        shown.append(
            Note(f"... and {group.endpoints - len(members)} more: stanch endpoints --group {plain(group.name)}")
        )
    return shown


def _member(one: EndpointView) -> dict[str, Any]:
    return {"id": one.id, "hostname": one.hostname, "labels": list(one.labels), "groups": list(one.groups)}
