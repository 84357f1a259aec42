"""`stanch local quarantine`: put files of this machine into its vault, list them, bring them back, remove them.

The same actions that the server orders, through the agent where one answers, and by this process where none does: a
machine that has lost its server must not lose its files.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from stanch.cli.command import Group, json_option
from stanch.cli.local.socket import ask
from stanch.cli.places import config_option, socket_option, state_option
from stanch.cli.plain import plain
from stanch.cli.programs import completed
from stanch.cli.render import Note, human_size, table
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import Cancelled, Denied
from stanch.core.types import EndpointPath

PAGE = 500
"""Items that are asked for at once."""

_PATH = click.Path(path_type=str)


@click.group(
    cls=Group,
    examples=(
        "local quarantine put /tmp/dropper",
        "local quarantine list",
        "local quarantine restore qrt_0123456789abcdef",
    ),
)
def quarantine() -> None:
    """Files of this machine: into its vault, back from it, out of it for good. As root."""


@quarantine.command(
    examples=("local quarantine put /tmp/dropper", "local quarantine put /tmp/a /tmp/b --end-processes --yes")
)
@click.argument("files", nargs=-1, required=True, type=_PATH)
@click.option("--end-processes", is_flag=True, help="End the processes that run it, too.")
@click.option("--keep-original", is_flag=True, help="Take a copy, and leave the file where it is.")
@click.option("--max-size", metavar="SIZE", help="Refuse a larger file; 100MiB if not given.")
@config_option
@state_option
@socket_option
@json_option
def put(
    *,
    files: tuple[str, ...],
    end_processes: bool,
    keep_original: bool,
    max_size: str | None,
    config: Path,
    state: Path,
    socket: Path,
    as_json: bool,
) -> None:
    """Put files into the vault, encrypted, and take them away."""
    params: dict[str, Any] = {"path": [path_here(one) for one in files], "max_files": max(100, len(files))}
    params |= {"end_processes": True} if end_processes else {}
    params |= {"keep_original": True} if keep_original else {}
    params |= {"max_size": max_size} if max_size else {}
    done = _Here(config, state, socket).order("quarantine", params)
    _tell(done, as_json=as_json, items=done.get("items", ()), said="taken into the vault")


@quarantine.command("list", examples=("local quarantine list", "local quarantine list --json"))
@config_option
@state_option
@socket_option
@json_option
def list_items(*, config: Path, state: Path, socket: Path, as_json: bool) -> None:
    """List what is in the vault, the newest first, and how full it is."""
    here, items, after = _Here(config, state, socket), list[Mapping[str, Any]](), None
    while True:
        page = here.order("quarantine_list", {"limit": PAGE, **({"after": after} if after else {})})
        items += page.get("items", ())
        after = page.get("next")
        if not after:
            break
    usage = page.get("usage", {})
    count = f"{len(items)} item{'' if len(items) == 1 else 's'}"
    said = f"{count}; {human_size(usage.get('size', 0))} of {human_size(usage.get('limit', 0))} used"
    _tell({"items": items, "usage": usage}, as_json=as_json, items=items, said=said)


@quarantine.command(
    examples=(
        "local quarantine restore qrt_0123456789abcdef",
        "local quarantine restore qrt_0123456789abcdef --to /root/sample --rename",
    )
)
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("--to", type=_PATH, metavar="PATH", help="Another place.")
@click.option("--replace", is_flag=True, help="What is there goes into the vault.")
@click.option("--rename", is_flag=True, help="If something is there, put it beside.")
@click.option("--fallback", type=_PATH, metavar="FOLDER", help="Where to, if its own folder is gone.")
@config_option
@state_option
@socket_option
@json_option
def restore(
    *,
    items: tuple[str, ...],
    to: str | None,
    replace: bool,
    rename: bool,
    fallback: str | None,
    config: Path,
    state: Path,
    socket: Path,
    as_json: bool,
) -> None:
    """Bring files back, with all that belongs to them: owner, mode, attributes, times, other names."""
    params: dict[str, Any] = {"items": list(items)}
    params |= {"to": path_here(to)} if to else {}
    params |= {"fallback": path_here(fallback)} if fallback else {}
    params |= {"replace": True} if replace else {}
    params |= {"rename": True} if rename else {}
    done = _Here(config, state, socket).order("restore", params)
    if as_json:
        print_json(dict(done))
        return
    back = done.get("restored", ())
    show_blocks([Note(f"{plain(str(one.get('path')))} is back.") for one in back] or [Note("Nothing to bring back.")])


@quarantine.command(
    examples=("local quarantine remove qrt_0123456789abcdef", "local quarantine remove qrt_0123456789abcdef --yes")
)
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
@state_option
@socket_option
@json_option
def remove(*, items: tuple[str, ...], yes: bool, config: Path, state: Path, socket: Path, as_json: bool) -> None:
    """Remove items from the vault for good. This cannot be undone."""
    question = f"Remove {len(items)} from the vault for good?"
    if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        raise Cancelled("They stay in the vault", hint="Answer yes, or give --yes.")
    done = _Here(config, state, socket).order("quarantine_delete", {"items": list(items)})
    if as_json:
        print_json(dict(done))
    else:
        show_blocks([Note(f"{len(items)} removed for good.")])


def path_here(given: str) -> str:
    """A path as somebody in this folder means it, as the agent reads it: absolute, odd bytes written out."""
    return EndpointPath.of(os.path.join(os.getcwdb(), os.fsencode(given)))  # noqa: PTH109, PTH118 - paths are bytes here


class _Here:
    """This machine: its agent, or this process in the agent's place."""

    def __init__(self, config: Path, state: Path, socket: Path) -> None:
        self._config = config
        self._state = state
        self._socket = socket

    def order(self, action: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The result of an action; its error if it was not done."""
        done = ask(self._socket, "run", patience=None, action=action, params=dict(params))
        if done is not None:
            return done
        if os.geteuid() != 0:
            raise Denied("Only root may do this", hint="Try again with sudo.")
        from stanch.agent.alone import run_alone

        found: Mapping[str, Any] = completed(run_alone(self._config, self._state, action, params))
        return found


def _tell(done: Mapping[str, Any], *, as_json: bool, items: Sequence[Mapping[str, Any]], said: str) -> None:
    if as_json:
        print_json(dict(done))
        return
    rows = (
        (
            one.get("id"),
            human_size(one.get("info", {}).get("size", 0)),
            one.get("why"),
            one.get("taken"),
            one.get("path"),
        )
        for one in items
    )
    show_blocks([table(("item", "size", "why", "taken", "path"), rows), Note(said)])
