"""Where the killed agents and their world live."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: SIGKILL loses no written page, so the disk need not be waited for."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="stanch-killing-", dir=memory if memory.is_dir() else None) as name:
        yield Path(name)
