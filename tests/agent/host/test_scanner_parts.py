"""The scans that run, and who may pause them."""

from contextlib import aclosing

import pytest

from stanch.core.errors import Conflict, TargetGone
from tests.agent.host.scanner_bench import BEGIN, Bench, a_scan, run


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


async def test_only_a_scan_that_runs_can_be_paused(bench):
    """Anything else is gone, or never was."""
    with pytest.raises(TargetGone):
        await bench.scanner([]).pause("tsk_9", paused=True)


async def test_a_task_has_one_scan_at_a_time(bench):
    """A second one of the same task is a conflict."""
    scanner = bench.scanner([*BEGIN, ["hang", None]])
    async with aclosing(scanner.scan(a_scan())) as batches:
        await anext(batches)
        with pytest.raises(Conflict):
            await run(scanner)
