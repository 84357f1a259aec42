"""What scans know of files: one file for all, and one of each that runs, in a folder that only we may enter.

The worker gets descriptors, never paths. What a scan learns is beside what was known until the scan is complete; then
both become one. A scan that was killed finds what it has learned when its task runs again.
"""

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from stanch.agent.host.run import run
from stanch.core.errors import Denied, StanchError
from stanch.core.types import minutes

log = structlog.get_logger(__name__)

REMEMBERED: Final = "remembered"
LEARNED: Final = "learned-"
MERGING: Final = "stanch.agent.host.scanner_merging"
MOST_LEARNED: Final = 20
"""Of scans that were broken off; the oldest go first."""
LONGEST: Final = 3 * 86_400
"""Seconds after which nobody goes on with one."""

_TASK = re.compile(r"[0-9A-Za-z_-]{1,64}")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_LEARN = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC

MERGED_WITHIN: Final = minutes(10)
"""A process of its own does it: it takes memory and time that the agent has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What one scan knows: open descriptors, None where there is nothing."""

    remembered: int | None = None
    learned: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFolder:
    """The folder; None to remember nothing beyond a scan."""

    path: Path | None

    @contextmanager
    def opened(self, task: str, *, cache: bool) -> Iterator[Known]:
        """What a task's scan knows. Without `cache`, only what it has learned itself. Denied."""
        try:
            found = None if self.path is None else self._open(self.path, task, cache=cache)
        except OSError as error:  # a full disk, or no home folder: nothing is remembered, and the scan is as good
            log.warning("what scans learn cannot be kept", why=str(error))
            found = None
        if found is None:
            yield from _in_memory()
            return
        remembered, learned = found
        try:
            yield Known(remembered=remembered, learned=learned)
        finally:
            os.close(learned)
            if remembered is not None:
                os.close(remembered)

    @staticmethod
    def _open(path: Path, task: str, *, cache: bool) -> tuple[int | None, int] | None:
        if not _TASK.fullmatch(task):
            return None
        folder = _folder(path)
        try:
            _sweep(folder, keep=task)
            learned = _checked(os.open(f"{LEARNED}{task}", _LEARN, 0o600, dir_fd=folder))
            with suppress(FileNotFoundError):
                return _checked(os.open(REMEMBERED, _READ, dir_fd=folder)) if cache else None, learned
            return None, learned
        finally:
            os.close(folder)

    async def finish(self, task: str, *, cache: bool) -> None:
        """The scan has looked everywhere: what it has learned is for other scans, too. Never raises."""
        if self.path is None or not _TASK.fullmatch(task):
            return
        learned = self.path / f"{LEARNED}{task}"
        try:
            if cache and learned.stat().st_size:
                line = [sys.executable, "-I", "-m", MERGING, os.fspath(self.path), REMEMBERED, learned.name]
                done = await run(line, within=MERGED_WITHIN)
                if done.returncode:
                    log.warning("a scan is not remembered", why=done.stderr[-500:].decode(errors="replace"))
            learned.unlink()
        except FileNotFoundError:
            pass  # it was kept in memory, which was told when it began
        except (OSError, StanchError) as error:  # the next scan reads it all again
            log.warning("a scan is not remembered", why=str(error))

    def forget(self, task: str) -> None:
        """Nobody will go on with a task's scan: what is left of what it has learned goes. Never raises. Blocks."""
        if self.path is not None and _TASK.fullmatch(task):
            with suppress(OSError):
                (self.path / f"{LEARNED}{task}").unlink()


def _sweep(folder: int, *, keep: str) -> None:
    """Remove what broken off scans have learned, if nobody will go on with it."""
    found = []
    for name in os.listdir(folder):
        if name.startswith(LEARNED) and name != f"{LEARNED}{keep}":
            with suppress(OSError):
                found.append((os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime, name))
    found.sort(reverse=True)
    for n, (when, name) in enumerate(found):
        if n >= MOST_LEARNED or found[0][0] - when > LONGEST:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)


def _in_memory() -> Iterator[Known]:
    """What a scan learns is kept as long as it runs: it goes on with it if a file kills its worker."""
    learned = os.memfd_create("stanch-scan")
    try:
        yield Known(learned=learned)
    finally:
        os.close(learned)


def _folder(path: Path) -> int:
    """The folder, made if it is not there; Denied if anybody else may write in it."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _checked(folder)
    except BaseException:
        os.close(folder)
        raise


def _checked(descriptor: int) -> int:
    """Denied if what is open belongs to somebody else: what we believe must be our own."""
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise Denied(
            "What is known of earlier scans may have been written by somebody else",
            got=f"owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}",
            expected=f"owner {os.geteuid()}, writable by nobody else",
            hint="Remove that folder, or scan without the cache.",
        )
    return descriptor
