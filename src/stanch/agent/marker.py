"""A file beside the journal that says: this endpoint is isolated. It is there for the day on which the journal is not.

Whoever puts an isolation in force marks it, whoever lifts it removes the mark; the boot program believes the journal,
and the mark only where the journal cannot be read.
"""

import os
from contextlib import suppress
from pathlib import Path

from stanch.disk.atomic import atomic_write

MARK = "isolated"


def mark_isolated(state: Path) -> None:
    """Leave the mark in a state folder, on the disk when this returns; OSError if it cannot be."""
    if not is_marked(state):
        atomic_write(state / MARK, b"This endpoint is isolated. Read when the journal cannot be.\n")


def unmark(state: Path) -> None:
    """Remove the mark if there is one, for good when this returns; OSError if it cannot be."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            os.unlink(MARK, dir_fd=folder)
            os.fsync(folder)
    finally:
        os.close(folder)


def is_marked(state: Path) -> bool:
    """Is the mark there?"""
    return os.path.lexists(state / MARK)


def set_mark(state: Path, isolated: bool) -> None:  # noqa: FBT001 - whether it is isolated is all there is to say
    """Leave the mark, or remove it; OSError if that cannot be done."""
    if isolated:
        mark_isolated(state)
    else:
        unmark(state)
