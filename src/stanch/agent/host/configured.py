"""Configuration files of the machine, read with bounds: whatever they are, reading them ends soon and never fails."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

MAX_BYTES = 512 * 1024
"""Of one file; the rest is not read."""

MAX_FILES = 200
"""Of one folder."""

MAX_LINE = 4096


def text_of(path: Path, *, limit: int = MAX_BYTES) -> str:
    """The beginning of a regular file; empty if it cannot be read."""
    try:
        # Without O_NONBLOCK, a FIFO in the file's place would stop the agent.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            return file.read(limit).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def lines_of(path: Path, *, limit: int = MAX_BYTES) -> Iterator[str]:
    """Its lines, stripped, those that are absurdly long left out."""
    return (line.strip() for line in text_of(path, limit=limit).split("\n") if len(line) <= MAX_LINE)


def files_in(folder: Path, *endings: str) -> list[Path]:
    """The files of a folder whose names end so, in order; none if it cannot be read."""
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(endings or ("",)))
    except OSError:
        return []
    return [folder / name for name in found[:MAX_FILES]]
