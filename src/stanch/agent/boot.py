"""Put isolation and blocks back in force before the network comes up: `python -m stanch.agent.boot`, or `stanch-boot`.

It runs at every boot, without the agent, the network and the server, and asks nobody. What is restored, and what a
damaged journal means, is decided in restore.py. It may run again at any time: an agent that runs is left alone (its
supervisor holds the state folder), and so is one that starts meanwhile, which waits for its turn.

It says one line of JSON. Exit codes: 0 all is well; 1 something ought to be restored and is not, or nobody can tell;
2 wrong arguments; 3 the endpoint is cut off, but somebody has to look (the reason says why).
"""

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from stanch.agent.marker import is_marked
from stanch.agent.settings import Settings
from stanch.agent.supervisor import locked

if TYPE_CHECKING:
    from datetime import timedelta

    from stanch.agent.restore import Restoration
    from stanch.core.network import Block

EXIT_FAILED, EXIT_LOOK = 1, 3

_EPILOG = """\
examples:
  stanch-boot                                 restore what was in force, as the unit does at boot
  stanch-boot --dry-run                       say what would be restored, and change nothing
  stanch-boot --state /srv/stanch/agent       the same for another state folder
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Restore what is to be in force; the exit code."""
    options = _parser().parse_args(argv)
    settings = replace(Settings.from_environment(os.environ), state=options.state)
    try:
        if not is_marked(settings.state) and (reason := _why_nothing(settings.journal)):
            return _nothing(reason, dry_run=options.dry_run)
        if options.dry_run:
            return _dry_run(settings)
        with locked(settings.state):
            return _remember(settings) if options.remember else _restore(settings)
    except BlockingIOError:
        return tell("agent-runs", reason="the agent runs, and takes care of it")
    except OSError as error:
        return tell("failed", failure=str(error), code=EXIT_FAILED)


def _nothing(reason: str, *, dry_run: bool) -> int:
    if not dry_run:
        return tell("nothing", reason=reason)
    say(f"Nothing to restore: {reason}", to=sys.stdout)
    return 0


def _why_nothing(journal: Path) -> str | None:
    """Why nothing can be there to restore; None if the journal has to be read properly."""
    if not os.path.lexists(journal):
        return "no agent has ever run here"
    if not journal.is_file():  # to open a FIFO would hold up the boot for ever
        return None
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as db:
        if db.execute("SELECT 1 FROM effects LIMIT 1").fetchone() is None:
            return "nothing was in force"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stanch-boot",
        description="Put network isolation and blocks back in force before the network comes up, without the agent.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Settings.from_environment(os.environ).state
    parser.add_argument("--state", type=Path, default=usual, metavar="FOLDER", help=f"the agent's folder ({usual})")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")
    instead.add_argument(
        "--remember", action="store_true", help="at shutdown: write down what is left of each deadline"
    )
    return parser


# From here on, imports cost half a second: on most boots, and for most devices, nothing comes this far.


def _restore(settings: Settings) -> int:
    import asyncio

    import structlog

    from stanch.agent.host.clock import boot_id
    from stanch.agent.restore import apply
    from stanch.core.errors import StanchError

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # one line is said, by `tell`
    found = _look(settings)
    if found.nothing:
        return tell("nothing", failure=found.wrong, code=_code(found), remarks=found.remarks)
    try:
        found = asyncio.run(apply(found, settings, boot_id))
    except Exception as error:  # noqa: BLE001 - the last place that can say why the network is open
        hint = f" {error.hint}" if isinstance(error, StanchError) and error.hint else ""
        return tell(
            "failed", failure=f"{str(error) or type(error).__name__}{hint}", code=EXIT_FAILED, remarks=found.remarks
        )
    return tell(
        "restored",
        failure=found.wrong,
        code=_code(found),
        remarks=found.remarks,
        isolated=found.isolate,
        lift_after=None if found.lift_after is None else round(found.lift_after.total_seconds()),
        blocks=len(found.blocks),
    )


def _remember(settings: Settings) -> int:
    from stanch.agent.host.clock import boot_id, boot_seconds
    from stanch.agent.restore import remember

    try:
        count = remember(settings.journal, boot_seconds=boot_seconds(), boot_id=boot_id())
    except Exception as error:  # noqa: BLE001 - as above; the deadlines stay as they were written last
        return tell("not-remembered", failure=str(error) or type(error).__name__, code=EXIT_FAILED)
    return tell("remembered", deadlines=count)


def _look(settings: Settings) -> "Restoration":
    from stanch.agent.host.clock import boot_id, boot_seconds
    from stanch.agent.restore import look

    return look(settings, boot_seconds=boot_seconds(), boot_id=boot_id())


def _dry_run(settings: Settings) -> int:
    found = _look(settings)
    for line in plan(found):
        say(line, to=sys.stdout)
    if found.wrong:
        say(found.wrong, to=sys.stderr)
    return _code(found)


def _code(found: "Restoration") -> int:
    return 0 if found.wrong is None else EXIT_LOOK if found.isolate else EXIT_FAILED


def plan(found: "Restoration") -> list[str]:
    """What would be done, one line each, for people."""
    lines = [f"Block {_ways(one)} {one.network}{_time(one.remaining)}" for one in found.blocks]
    if found.isolate:
        opened = "nothing is known to stay open" if found.rules is None else f"{len(found.rules.allow)} exclusions"
        servers = "the remembered server" if found.rules is None else f"{len(found.rules.servers)} server addresses"
        lines.insert(0, f"Isolate{_time(found.lift_after)}: {servers}, {opened}")
    return [*(lines or ["Nothing to restore"]), *found.remarks]


def _ways(one: "Block") -> str:
    return "from and to" if one.inward and one.outward else "from" if one.inward else "to"


def _time(left: "timedelta | None") -> str:
    return " for ever" if left is None else f" for {left}".partition(".")[0]


def tell(event: str, *, failure: str | None = None, code: int = 0, **facts: object) -> int:
    """One line of JSON about what was done, and the reason for people where something is wrong; the code."""
    say(json.dumps({"event": event, "logger": "boot", "code": code, "failure": failure, **facts}), to=sys.stdout)
    if failure is not None:
        say(f"stanch-boot: {failure}", to=sys.stderr)
    return code


def say(line: str, *, to: TextIO) -> None:
    """One line, at once."""
    print(line, file=to, flush=True)


if __name__ == "__main__":
    sys.exit(main())
