"""`stanch actions`, `endpoints`, `endpoint show|label|revoke`."""

import sys
from collections.abc import Iterator
from itertools import islice

import click

from stanch.actions import load
from stanch.cli.checking import checked
from stanch.cli.command import Command, Group, json_option
from stanch.cli.connect import connected
from stanch.cli.naming import endpoint_names, group_names
from stanch.cli.plain import plain
from stanch.cli.render import Block, Note, fields, table
from stanch.cli.screen import print_json, show_blocks
from stanch.client.session import default_path, known
from stanch.core.errors import Cancelled, Invalid
from stanch.core.frames import Inventory
from stanch.core.host import Effect
from stanch.core.isolation import IsolationStatus
from stanch.core.network import IsolationState
from stanch.core.rest import ActionView, EndpointView, LabelChange
from stanch.core.types import show_instant
from stanch.derive.openapi import action_view

SHOWN_ADDRESSES = 3
_NONE_YET = "No endpoint yet. `stanch token create` makes a token to enrol one with."


@click.command(cls=Command, examples=("actions", "actions --json"))
@json_option
def actions(*, as_json: bool) -> None:
    """List what can be ordered: on the server you are signed in to, else what this version knows."""
    found = _actions()
    if as_json:
        print_json(found)
        return
    rows = ((one.name.replace("_", "-"), one.risk, _undo(one), one.summary) for one in found)
    show_blocks([table(("action", "risk", "undone by", "what it does"), rows)])


def _actions() -> tuple[ActionView, ...]:
    session = known(default_path())
    if session is None or not session.token:
        return tuple(map(action_view, load().values()))
    with connected() as client:
        return client.actions()


def _undo(one: ActionView) -> str:
    if one.undo is None:
        return "-"
    return one.undo.replace("_", "-") if one.undo.isidentifier() else "nothing"


@click.command(
    cls=Command,
    examples=(
        "endpoints",
        "endpoints --search 10.0.0.5",
        "endpoints --label env=prod --label role=db --json",
        "endpoints --group web",
    ),
)
@click.option("--search", default="", metavar="TEXT", help="Only those whose name, address, ... contains this.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only those that carry all of these.")
@click.option("--group", metavar="NAME", shell_complete=group_names, help="Only those of this group.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="At most so many.")
@json_option
def endpoints(*, search: str, labels: tuple[str, ...], group: str | None, limit: int, as_json: bool) -> None:
    """List and search endpoints."""
    with connected() as client:
        found = list(islice(client.endpoints(search=search, labels=labels, group=group), limit))
    if as_json:
        print_json(found)
    elif found:
        show_blocks([_endpoint_table(found)])
    else:
        asked = bool(search or labels or group)
        show_blocks([Note("No endpoint is like that. `stanch endpoints` lists all." if asked else _NONE_YET)])


def _endpoint_table(found: list[EndpointView]) -> Block:
    rows = (
        (one.hostname, one.id, _state(one), _addresses(one.inventory), one.inventory.os, one.labels, _effects(one))
        for one in found
    )
    return table(("endpoint", "id", "state", "addresses", "os", "labels", "in force"), rows)


def _state(one: EndpointView) -> str:
    link = "revoked" if one.revoked else "online" if one.online else "offline"
    cut_off = one.isolation is not None and one.isolation.state is not IsolationState.RELEASED
    return f"{link}, {one.isolation.state}" if one.isolation is not None and cut_off else link


def _addresses(inventory: Inventory) -> str:
    found = [address for device in inventory.interfaces for address in device.addresses]
    outside = [address for address in found if not address.startswith(("127.", "::1", "fe80:"))] or found
    more = f" and {len(outside) - SHOWN_ADDRESSES} more" if len(outside) > SHOWN_ADDRESSES else ""
    return ", ".join(outside[:SHOWN_ADDRESSES]) + more


def _effects(one: EndpointView) -> str:
    return ", ".join(map(_effect, one.effects)) or "-"


def _effect(effect: Effect) -> str:
    return f"{plain(effect.name)} until {show_instant(effect.until)}" if effect.until else plain(effect.name)


@click.group(cls=Group, examples=("endpoint show web-01", "endpoint label web-01 env=prod"))
def endpoint() -> None:
    """Show, label or revoke one endpoint."""


@endpoint.command(examples=("endpoint show web-01", "endpoint show web-01 --json"))
@click.argument("name", metavar="ENDPOINT", shell_complete=endpoint_names)
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show one endpoint, by id or host name: the machine, its agent, what it can do, what is in force."""
    with connected() as client:
        found = client.endpoint(name)
    if as_json:
        print_json(found)
    else:
        show_blocks(_endpoint_blocks(found))


def _endpoint_blocks(one: EndpointView) -> Iterator[Block]:
    about = one.inventory
    yield fields(
        endpoint=one.hostname,
        id=one.id,
        state=_state(one),
        labels=one.labels,
        groups=one.groups,
        last_seen=one.last_seen,
        enrolled=one.enrolled,
        agent=one.agent_version,
        os=about.os,
        kernel=f"{about.kernel} {about.architecture}",
        users=about.users,
        actions=sorted(f"{name.replace('_', '-')} {version}" for name, version in one.actions.items()),
    )
    if one.isolation is not None:
        yield from isolation_blocks(one.isolation)
    if about.interfaces:
        devices = ((device.name, device.mac, device.addresses) for device in about.interfaces)
        yield table(("device", "mac", "addresses"), devices, title="network")
    if one.capabilities:
        yield table(("ability", "there"), sorted(one.capabilities.items()), title="capabilities")
    if one.effects:
        effects = ((effect.name, effect.since, effect.until, effect.lift_action, effect.task) for effect in one.effects)
        yield table(("effect", "since", "until", "lifted by", "task"), effects, title="in force")


def isolation_blocks(told: IsolationStatus) -> Iterator[Block]:
    """What an endpoint tells about its isolation."""
    if told.state is IsolationState.RELEASED and told.tampered is None:
        return
    yield fields(
        "isolation",
        state=told.state,
        since=told.since,
        until=told.until,
        by=f"{told.by} ({told.origin})" if told.origin else told.by,
        why=told.why,
        order=told.order,
        allowed=told.allow,
        profiles=told.profiles,
        not_covered=told.not_covered,
        not_open=told.not_open,
    )
    if told.tampered is not None:
        seen = told.tampered
        yield fields("tampered with", at=seen.at, what=seen.what, who=seen.who, repaired=seen.repaired)


@endpoint.command(examples=("endpoint label web-01 env=prod role=db", "endpoint label web-01 --remove env"))
@click.argument("name", metavar="ENDPOINT", shell_complete=endpoint_names)
@click.argument("add", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--remove", multiple=True, metavar="KEY", help="Take this label away; may be given several times.")
@json_option
def label(*, name: str, add: tuple[str, ...], remove: tuple[str, ...], as_json: bool) -> None:
    """Put labels on an endpoint, and take others away. Labels make the groups that orders are addressed to."""
    if not (add or remove):
        raise Invalid("No label was named", expected="KEY=VALUE or --remove KEY")
    change = checked(LabelChange, {"add": add, "remove": remove}, "The labels are wrong")
    with connected() as client:
        found = client.label(name, change)
    if as_json:
        print_json(found)
    else:
        show_blocks([fields(endpoint=found.hostname, labels=found.labels)])


@endpoint.command(examples=("endpoint revoke web-01", "endpoint revoke web-01 --yes"))
@click.argument("name", metavar="ENDPOINT", shell_complete=endpoint_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def revoke(*, name: str, yes: bool, as_json: bool) -> None:
    """Accept the certificate of an endpoint no longer. It must enrol again to come back."""
    question = f"Revoke {plain(name, longest=100)}? It can then be reached no more."
    if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        raise Cancelled("Nothing was revoked", hint="Answer yes, or give --yes.")
    with connected() as client:
        client.revoke(name)
    if as_json:
        print_json({"endpoint": name, "revoked": True})
    else:
        show_blocks([Note(f"{plain(name)} is revoked.")])
