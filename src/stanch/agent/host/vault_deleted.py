"""Programs that were deleted, and still run: their content can be had from the process alone.

Malware deletes itself so that nobody finds it. `/proc/PID/exe` leads to it all the same, as long as it runs.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stanch.agent.host.pinned import Pinned, same_file
from stanch.agent.host.vault_parts import here, path_of, path_of_descriptor
from stanch.core.errors import TargetGone, Unsupported
from stanch.core.types import EndpointPath

_OF_PROCESS = re.compile(rb"/proc/(\d{1,10}|self)/exe")
_DELETED = b" (deleted)"


@dataclass(frozen=True, slots=True)
class Deleted:
    """A program without a name, open for reading. Whoever gets it closes it."""

    path: EndpointPath
    """What it was called."""

    descriptor: int


def named_by_process(path: EndpointPath) -> EndpointPath:
    """What a path such as `/proc/7/exe` stands for, if that has a name; any other path as it is. TargetGone."""
    if not _OF_PROCESS.fullmatch(path.raw):
        return path
    try:
        target = path_of(here(path).readlink())
    except OSError as error:
        raise TargetGone(f"There is no program at {path}", got=error.strerror) from error
    return path if target.raw.endswith(_DELETED) else target


def refuse_another_view(path: EndpointPath, pinned: Pinned) -> None:
    """Unsupported if a process runs not this file, but one of the same name in its own view, such as a container."""
    if not _OF_PROCESS.fullmatch(path.raw):
        return
    try:
        runs = here(path).stat()
    except OSError as error:
        raise TargetGone(f"There is no program at {path}", got=error.strerror) from error
    if not same_file(runs, pinned.status):
        raise Unsupported(
            f"{path} runs a program that the agent sees under another name, or not at all",
            got=f"another file at {pinned.path}",
            hint="It may run in a container: name the file by its path on this machine.",
        )


def running_deleted(path: EndpointPath) -> Deleted | None:
    """The deleted program that was at this path, or that a path such as `/proc/7/exe` leads to; None if none runs."""
    if _OF_PROCESS.fullmatch(path.raw):
        return _opened(here(path))
    if os.path.lexists(path.raw):
        return None
    wanted = here(path).parent.resolve() / f"{here(path).name}{_DELETED.decode()}"
    for link in _programs():
        with suppress(OSError):
            if link.readlink() == wanted:
                found = _opened(link)
                if found is not None:
                    return found
    return None


def _programs() -> Iterator[Path]:
    return (one / "exe" for one in Path("/proc").iterdir() if one.name.isdigit())


def _opened(link: Path) -> Deleted | None:
    """Open it, and only then look whether it is without a name: the process may run another program by now."""
    try:
        descriptor = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    name = path_of_descriptor(descriptor).raw
    if os.fstat(descriptor).st_nlink or not name.endswith(_DELETED):
        os.close(descriptor)
        return None
    return Deleted(EndpointPath.of(name.removesuffix(_DELETED)), descriptor)
