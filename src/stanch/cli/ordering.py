"""One command for each action, made from its specification: nothing here knows any action."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.actions import load
from stanch.cli.checking import checked
from stanch.cli.command import Command, json_option
from stanch.cli.connect import connected
from stanch.cli.following import finish
from stanch.cli.naming import endpoint_names, group_names
from stanch.cli.plain import plain
from stanch.cli.screen import transfer_bar
from stanch.core.action import AnyAction, Risk
from stanch.core.errors import Cancelled, Invalid, UnknownAction
from stanch.core.rest import EndpointView, OrderCommon
from stanch.derive.commands import NONE, UPLOAD, CommandSpec, OptionSpec, command_of, raw_params

if TYPE_CHECKING:
    from stanch.client.api import Client

MANY = 5
"""Changing more endpoints than this asks for a yes."""

MAX_SECRET = 10_000

_LOCAL_FILE = click.Path(path_type=Path, dir_okay=False)

_OWN = "own_"
"""In front of the names of an action's own options, so that they never meet those of every order."""


def command_named(name: str) -> click.Command | None:
    """The command of an action; None if there is no such action."""
    try:
        action = load().find(name)
    except UnknownAction:
        return None
    return order_command(action) if action.command == name else None


def order_command(action: AnyAction) -> click.Command:
    """The command that orders an action."""
    spec = command_of(action)

    def run(**given: Any) -> int:
        own = {name.removeprefix(_OWN): given.pop(name) for name in list(given) if name.startswith(_OWN)}
        return _order(action, spec, own, **given)

    command = Command(
        spec.name,
        callback=run,
        help="\n\n".join(filter(None, [spec.summary, spec.description, spec.undo])),
        short_help=spec.summary,
        examples=spec.examples,
        params=[_endpoints(), *map(_option, spec.options)],
    )
    for decorate in (*_EVERY_ORDER, *([_CONFIRM] if spec.typed else [])):
        decorate(command)
    return command


# --- options ---------------------------------------------------------------------------------------------------------


def _meaning(field: str) -> str:
    return OrderCommon.model_fields[field].description or ""


_EVERY_ORDER = (
    click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help=_meaning("labels")),
    click.option("--group", metavar="NAME", shell_complete=group_names, help=_meaning("group")),
    click.option("--reason", metavar="TEXT", help=_meaning("reason")),
    click.option("--case", metavar="ID", help=_meaning("case")),
    click.option("--valid-for", metavar="DURATION", help=f"{_meaning('valid_for')}  [default: 1d]"),
    click.option("--dry-run", is_flag=True, help=_meaning("dry_run")),
    click.option("--wait", is_flag=True, help="Follow the tasks to their end; the exit code tells how they ended."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    json_option,
)


_CONFIRM = click.option(
    "--confirm",
    metavar="TEXT",
    help="The name of the endpoint, or how many endpoints there are, for scripts; a person is asked. `--yes` is not "
    "enough.",
)


def _endpoints() -> click.Argument:
    return click.Argument(["endpoints"], nargs=-1, metavar="[ENDPOINT]...", shell_complete=endpoint_names)


def _option(spec: OptionSpec) -> click.Option:
    """The option of a parameter. Values stay text: the parameter's own type parses them."""
    made: dict[str, Any] = {"help": _help(spec), "required": spec.required}
    if spec.switch:
        made |= {"default": None}
    elif spec.kind == "secret":
        made |= {"type": click.File("r"), "metavar": "FILE"}
    elif spec.kind == UPLOAD:
        made |= {"type": _LOCAL_FILE, "metavar": "FILE", "multiple": spec.multiple}
    elif spec.choices:
        made |= {"type": click.Choice([*spec.choices, *([NONE] if spec.nullable else [])]), "multiple": spec.multiple}
        if spec.default == NONE:  # it may be said, but says nothing
            made |= {"metavar": f"[{'|'.join(spec.choices)}]"}
    else:
        made |= {"type": str, "metavar": spec.kind.upper(), "multiple": spec.multiple}
    return click.Option([*spec.flags, f"{_OWN}{spec.name}"], **made)


def _help(spec: OptionSpec) -> str:
    notes = [
        "a file that holds it, - for standard input" if spec.kind == "secret" else "",
        "a file here, which is uploaded with the order" if spec.kind == UPLOAD else "",
        "may be given several times" if spec.multiple else "",
        f"default: {_default(spec)}" if spec.default else "",
        f"or {NONE}" if spec.nullable and spec.default != NONE else "",
    ]
    said = "; ".join(filter(None, notes))
    return f"{spec.help}  [{said}]" if said else spec.help


def _default(spec: OptionSpec) -> str | None:
    on, _, off = spec.flags[0].partition("/")
    return {"on": on, "off": off}.get(spec.default or "") if spec.switch else spec.default


# --- the order -------------------------------------------------------------------------------------------------------


def _order(
    action: AnyAction,
    spec: CommandSpec,
    own: Mapping[str, Any],
    *,
    wait: bool,
    yes: bool,
    as_json: bool,
    **common: Any,
) -> int:
    files = {one.name: own[one.name] for one in spec.options if one.kind == UPLOAD and own.get(one.name)}
    # What is wrong with the rest is told before a file is read or sent.
    params = _params(action, spec, dict(own) | {name: _each(path, unread) for name, path in files.items()})
    order = _common(common)
    seated = action.interactive and not order.dry_run
    if seated and as_json:
        raise Invalid("A terminal is for a person", got="--json", expected="no --json, or --dry-run with it")
    with connected() as client:
        if spec.typed:
            order = _typed(client, spec, order)
        elif not yes:
            _ask(client, spec, order)
        if files:
            bring = _bringer(client, order)
            params |= {name: _each(path, bring) for name, path in files.items()}
        made = client.submit(action.name, order, params)
        if seated:
            from stanch.cli.terminal import take_seat

            return take_seat(client, made)
        return finish(client, made, wait=wait, as_json=as_json)


def _params(action: AnyAction, spec: CommandSpec, own: Mapping[str, Any]) -> dict[str, Any]:
    """Checked parameters, as JSON: only what was given, secrets as they are."""
    given = {option.name: _read(option, own.get(option.name)) for option in spec.options}
    raw = raw_params(spec.options, given)
    checked: dict[str, Any] = action.parse(raw).model_dump(mode="json", exclude_unset=True)
    return checked | {one.name: raw[one.name] for one in spec.options if one.kind == "secret" and one.name in raw}


# --- files that are uploaded with the order --------------------------------------------------------------------------

Bring = Callable[[Path], Mapping[str, Any]]


def _each(path: Path | Sequence[Path], bring: Bring) -> Any:
    return bring(path) if isinstance(path, Path) else [bring(one) for one in path]


def unread(_path: Path) -> Mapping[str, Any]:
    """Something of the right type, until the file is read."""
    return {"id": "unread", "size": 0, "sha256": "0" * 64}


def _bringer(client: "Client", order: OrderCommon) -> Bring:
    """Upload a file; for a dry run, only look what it is."""

    def bring(path: Path) -> Mapping[str, Any]:
        if order.dry_run:
            from stanch.client.uploads import described

            return described(path).model_dump(mode="json")
        with transfer_bar(path.name) as progress:
            return client.upload(path, progress=progress).model_dump(mode="json")

    return bring


def _read(option: OptionSpec, value: Any) -> Any:
    if option.kind != "secret" or value is None:
        return value
    return next(iter(value.read(MAX_SECRET).splitlines()), "")


def _common(given: Mapping[str, Any]) -> OrderCommon:
    if not (given["endpoints"] or given["labels"] or given["group"]):
        raise Invalid(
            "No endpoint was named",
            expected="ENDPOINT..., --label KEY=VALUE or --group NAME",
            hint="`stanch endpoints` lists what there is.",
        )
    return checked(OrderCommon, given, "The order is wrong")


# --- are you sure? ---------------------------------------------------------------------------------------------------


def _typed(client: "Client", spec: CommandSpec, order: OrderCommon) -> OrderCommon:
    """The order, with what it is done to typed once more; the server compares.

    Invalid where nobody can be asked, Cancelled if a person types something else.
    """
    if order.dry_run or order.confirm is not None:
        return order
    if not sys.stdin.isatty():
        raise Invalid(
            f"{spec.name} must be confirmed",
            got="nobody to ask",
            expected="--confirm with the name of the endpoint, or the number of endpoints",
            hint="--dry-run shows which endpoints they are.",
        )
    names = _named(client, order)
    wanted = names[0] if len(names) == 1 else str(len(names))
    click.echo(f"{spec.summary} ({spec.risk}) {spec.undo or ''}", err=True)
    click.echo(
        f"On {plain(', '.join(names[:MANY]), longest=200)}{' and others' if len(names) > MANY else ''}.", err=True
    )
    what = "the name of the endpoint" if len(names) == 1 else f"how many endpoints these are ({wanted})"
    if click.prompt(f"Type {what} to do it", err=True, default="", show_default=False).strip() != wanted:
        raise Cancelled("Nothing was ordered", got="something else was typed", expected=plain(wanted))
    return order.model_copy(update={"confirm": wanted})


def _named(client: "Client", order: OrderCommon) -> list[str]:
    """The host names of the endpoints of an order, as they are now."""
    found = {one: client.endpoint(one) for one in dict.fromkeys(order.endpoints)}
    by_id = {one.id: one.hostname for one in found.values()}
    if not order.endpoints or (order.labels and not order.group):
        by_id |= {one.id: one.hostname for one in _selected(client, order)}
    return sorted(by_id.values())


def _selected(client: "Client", order: OrderCommon) -> Iterator[EndpointView]:
    """What labels and the group select: no order goes to one that was revoked, so none is counted."""
    found = client.endpoints(labels=order.labels, group=order.group)
    return (one for one in found if not one.revoked)


def _ask(client: "Client", spec: CommandSpec, order: OrderCommon) -> None:
    """Ask a person before what is destructive or changes many endpoints; Cancelled if they say no."""
    if order.dry_run or spec.risk is Risk.READ_ONLY or not sys.stdin.isatty():
        return
    if order.endpoints and (order.group or not order.labels):
        count = len(order.endpoints)
    else:
        count = sum(1 for _ in _selected(client, order))
    if spec.risk is not Risk.DESTRUCTIVE and count <= MANY:
        return
    targets = ", ".join([*order.endpoints[:MANY], *order.labels, *([f"group {order.group}"] if order.group else [])])
    click.echo(f"{spec.summary} ({spec.risk}) {spec.undo or ''}", err=True)
    if not click.confirm(f"Do it on {count} endpoints ({plain(targets, longest=200)})?", err=True):
        raise Cancelled("Nothing was ordered", hint="See what would happen with --dry-run.")
