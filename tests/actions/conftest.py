"""What an action waits for between two looks at a real kernel has come at once on a fake one."""

import pytest

from stanch.core.types import seconds


@pytest.fixture(autouse=True)
def _no_wait_between_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is cut at once there, or never."""
    monkeypatch.setattr("stanch.actions.isolate.BETWEEN_LOOKS", seconds(0))
