"""The bench: a folder that goes again, threads that nobody waits for."""

import os
from pathlib import Path

import pytest

from stanch.agent.selftest_probe import Bench
from stanch.core.errors import NotFound
from tests.fakes.endpoint_state import Used


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    settings = Used(tmp_path).settings
    settings.state.mkdir(mode=0o700)
    return Bench(settings=settings)


def test_the_scratch_folder_goes_again(bench):
    """With what is in it, whatever went wrong meanwhile."""
    with pytest.raises(ZeroDivisionError):
        fail_in(bench)
    assert list(bench.settings.state.iterdir()) == []


def fail_in(bench: Bench) -> None:
    with bench.scratch() as scratch:
        assert scratch.stat().st_mode & 0o777 == 0o700
        (scratch / "folder").mkdir()
        (scratch / "folder/file").write_text("x")
        raise ZeroDivisionError


def test_what_a_killed_test_left_is_swept(bench):
    """Not what a test has that runs now, and nothing of another name."""
    state = bench.settings.state
    left, running, other = (
        state / name for name in ("selftest-4194999-00000000", f"selftest-{os.getpid()}-00000000", "a")
    )
    for one in (left, running, other):
        one.mkdir()
    (left / "file").write_text("x")
    bench.sweep()
    assert sorted(state.iterdir()) == sorted([running, other])


async def test_a_thread_answers_or_raises(bench):
    """As the function itself would."""
    assert await bench.in_thread(lambda: 42) == 42
    with pytest.raises(NotFound):
        await bench.in_thread(lambda: bench.journal)
