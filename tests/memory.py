"""Folders in memory, for tests that commit often: SIGKILL loses no written page, so no disk need be waited for."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")


@contextmanager
def folder_in_memory(prefix: str) -> Iterator[Path]:
    """A folder that is gone at the end; an ordinary temporary one where there is no such memory."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)
