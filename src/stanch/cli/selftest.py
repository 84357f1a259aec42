"""`stanch agent selftest`: what works on this machine and, if not, why and what would help."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from stanch.cli.command import Command, json_option
from stanch.cli.places import config_option, socket_option, state_option
from stanch.cli.plain import plain
from stanch.cli.render import Block, Note, table, words
from stanch.cli.screen import print_json, show_blocks
from stanch.core.errors import ActionFailed

FAILED: Final = ActionFailed.exit_code


@click.command(
    cls=Command,
    examples=(
        "agent selftest",
        "agent selftest --json",
        "agent selftest --only server --only firewall",
    ),
)
@click.option("--only", multiple=True, metavar="NAME", help="Only this check; several times.")
@config_option
@state_option
@socket_option
@json_option
def selftest(*, only: tuple[str, ...], config: Path, state: Path, socket: Path, as_json: bool) -> int:
    """Try what the agent can do on this machine. Changes nothing, and may be run while the agent runs.

    Run it as root. Each check does the real thing on something that is made for it, and removed again. Ends with 9 if
    a check failed; what is limited or skipped is no failure.
    """
    from stanch.agent import selftest as tests
    from stanch.agent.selftest_probe import Bench
    from stanch.agent.settings import Settings

    bench = Bench(settings=Settings(config=config.absolute(), state=state.absolute(), socket=socket.absolute()))
    found = asyncio.run(tests.selftest(bench, only=only))
    if as_json:
        print_json(found)
    else:
        show_blocks(blocks(found.model_dump(mode="json")))
    return FAILED if found.failed else 0


def blocks(found: Mapping[str, Any]) -> Iterator[Block]:
    """For people: a table, then what would help, line by line."""
    checks: list[dict[str, Any]] = found["checks"]
    yield table(("check", "state", "seen"), ((one["name"], one["state"], one["seen"]) for one in checks))
    for one in checks:
        if one["help"] is not None and one["state"] != "ok":
            yield Note(f"{plain(one['name'])}: {plain(one['help'])}")
    yield Note(f"Stanch {plain(found['version'])}: {words(Counter(one['state'] for one in checks))}")
