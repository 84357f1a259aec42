"""Scans without agent and server, for `stanch ioc scan`, `stanch yara scan` and `stanch local scan`: the one way in.

The same scanner as the agent's, in this process, with the rights of whoever calls. The limits of the local policy bind
the server, not people on the machine.
"""

import os
import pwd
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from stanch.agent.content_base import BASE, base_materials
from stanch.agent.content_files import local_materials
from stanch.agent.host.autoruns import LinuxAutoruns
from stanch.agent.host.items import Parts as ItemParts
from stanch.agent.host.items import collectors
from stanch.agent.host.patience import Patience
from stanch.agent.host.program_group import parent_group
from stanch.agent.host.scanner import LinuxScanner
from stanch.agent.host.scanner_areas import patiently
from stanch.agent.host.scanner_files import ScanFolder
from stanch.agent.host.scanner_parts import Parts, Scans
from stanch.core.autoruns import Autorun, Place
from stanch.core.content import ContentKind
from stanch.core.errors import Invalid
from stanch.core.scanning import Event, Material, Scan
from stanch.core.types import EndpointPath

CACHE_VARIABLE: Final = "STANCH_SCAN_CACHE"
"""A folder in which scans by hand remember what they know of files, instead of one in the home folder."""
MOST_FILES: Final = 20_000


def materials(paths: Sequence[Path], kinds: frozenset[ContentKind]) -> tuple[Material, ...]:
    """The files of rules or indicators at these paths; of a folder, all in it that are of these kinds. Blocks.

    Invalid for a file or a folder that has none, and if there are too many; NotFound; TooLarge.
    """
    found = local_materials(paths, kinds)
    if len(found) > MOST_FILES:
        raise Invalid("These are too many files", got=len(found), expected=f"at most {MOST_FILES}")
    return found


def base() -> tuple[Material, ...]:
    """The rules and hashes that come with Stanch."""
    return tuple(one for name in BASE for one in base_materials(name))


def asked(paths: Sequence[str], ask: Callable[[str], str], *, seconds: float) -> Mapping[str, str]:
    """What is said of each path, without those that do not answer for so long. Blocks."""
    return patiently(Patience("names", seconds=seconds), lambda _path: None)(paths, ask)


def _task() -> str:
    return f"alone-{secrets.token_hex(8)}"


def _scanner(task: str, folder: ScanFolder) -> LinuxScanner:
    return LinuxScanner(
        task=task,
        scans=Scans(),
        parts=Parts(
            collectors=collectors(ItemParts(autoruns=LinuxAutoruns)),
            autoruns=LinuxAutoruns,
            folder=folder,
            groups=parent_group() if os.geteuid() == 0 else None,
        ),
    )


def _cache() -> Path:
    """Where what is known of files is kept: below the home folder of the account that runs, whatever HOME says."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".cache" / "stanch" / "scans"


async def autoruns() -> Sequence[EndpointPath]:
    """The files that start something on this machine, and the programs that they name."""
    found = list[EndpointPath]()
    async for batch in LinuxAutoruns().list(tuple(Place)):
        for one in batch:
            if isinstance(one, Autorun):
                found += [one.path, *([one.program] if one.program else [])]
    return found


async def scan_alone(scan: Scan, take: Callable[[Sequence[Event]], None]) -> None:
    """Do a scan; `take` is given each batch of events, a Tally as the last. StanchError."""
    task, folder = _task(), ScanFolder(path=_cache())
    events: AsyncGenerator[Sequence[Event], None] = _scanner(task, folder).scan(scan)
    try:
        async with aclosing(events):
            async for batch in events:
                take(batch)
    finally:
        folder.forget(task)  # its name never comes again, so nobody goes on where an interrupted scan was
