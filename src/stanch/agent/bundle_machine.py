"""What a support bundle tells of the machine: our tables, the end of our log, and how much room our folder takes."""

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from stanch.agent.host import blocks, ruleset
from stanch.agent.host.run import find
from stanch.agent.systemd import AGENT, UNITS, Run
from stanch.core.errors import ActionFailed
from stanch.core.types import seconds

LOG_LINES = 2000
MAX_LOG = 8 * 1_048_576
MAX_LISTING = 8 * 1_048_576
MAX_FILES = 100_000
WITHIN = seconds(20)

_SECRET = re.compile(r"(meta priority (?:set )?)\S+")
"""By it the output chain knows the packets that somebody in particular may send."""


async def tables(run: Run) -> str:
    """Our own tables, and no others, as nft lists them."""
    find("nft")
    listed = []
    for family in ("inet", "netdev"):
        for name in (ruleset.TABLE, blocks.TABLE):
            done = await run(["nft", "list", "table", family, name], within=WITHIN, output_limit=MAX_LISTING)
            said = (done.stdout or done.stderr).decode("utf-8", "backslashreplace")
            listed.append(_SECRET.sub(r"\1(left out)", said) if not done.returncode else f"# no {family} {name}\n")
    return "".join(listed)


async def log_tail(run: Run) -> str:
    """The last lines of the agent's log, fewer if they are very long. Unsupported without journalctl."""
    find("journalctl")
    for lines in (LOG_LINES, LOG_LINES // 10):
        with suppress(ActionFailed):
            return await _log_of(run, lines)
    return await _log_of(run, LOG_LINES // 100)


async def _log_of(run: Run, lines: int) -> str:
    units = [f"--unit={one}" for one in (AGENT, *(name for name in UNITS if name != AGENT))]
    line = ["journalctl", "--no-pager", "--quiet", "--output=short-iso", f"--lines={lines}", *units]
    done = await run(line, within=WITHIN, output_limit=MAX_LOG)
    if done.returncode:
        said = done.stderr.decode("utf-8", "backslashreplace").strip()
        raise ActionFailed("journalctl failed", got=said[:500] or f"exit status {done.returncode}")
    return done.stdout.decode("utf-8", "backslashreplace")


def disk_use(state: Path) -> Mapping[str, object]:
    """Bytes of each thing in the state folder, folders with all that is in them; no names below that."""
    sizes = {one.name: _size(one) for one in sorted(state.iterdir())[:1000]}
    usage = shutil.disk_usage(state)
    return {"folder": os.fspath(state), "bytes": sizes, "disk_total": usage.total, "disk_free": usage.free}


def _size(path: Path) -> int:
    total = path.lstat().st_size
    count = 0
    for folder, _folders, files in os.walk(path) if path.is_dir() and not path.is_symlink() else ():
        for name in files:
            count += 1
            if count > MAX_FILES:
                return total
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - of a walk, which is text
            except OSError:
                continue
    return total
