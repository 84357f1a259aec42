"""Where the killed agents and their world live."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory import folder_in_memory


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of this test's own."""
    with folder_in_memory("stanch-killing-") as made:
        yield made
