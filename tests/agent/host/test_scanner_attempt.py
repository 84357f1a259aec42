"""One worker at its work: paused, slowed, given up."""

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest

from stanch.core.scanning import (
    Advance,
    Finding,
    Limits,
    SkipReason,
)
from tests.agent.host.scanner_bench import (
    BEGIN,
    END,
    Bench,
    a_scan,
    events,
    finding,
    run,
)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


async def test_a_worker_that_says_nothing_counts_as_dead(bench):
    """A scan does not wait for ever."""
    bench.more["silence"] = 0.2
    first = [*BEGIN, ["all", None], ["at", "/tmp/x"], ["hang", None]]
    scan = a_scan(limits=Limits(per_object=timedelta(seconds=1)))
    told = await run(bench.scanner(first, [*BEGIN, ["all", None], END]), scan)
    assert told[-1].skipped == {SkipReason.CRASHED: 1}


async def test_a_scan_is_paused_and_goes_on(bench):
    """The worker is told, whoever asks hears whether it was otherwise, and the numbers say how long."""
    scanner = bench.scanner([*BEGIN, ["all", None], events(finding()), ["hear", None], ["hear", None], END])
    told = []
    async with asyncio.timeout(60), aclosing(scanner.scan(a_scan())) as batches:
        async for batch in batches:
            told += batch
            if any(isinstance(one, Finding) for one in batch):
                assert tuple(scanner.running()) == ("tsk_1",)
                assert await scanner.pause("tsk_1", paused=True)
                assert not await scanner.pause("tsk_1", paused=True)
            if any(isinstance(one, Advance) and one.paused for one in batch):
                assert await scanner.pause("tsk_1", paused=False)
    assert [one["type"] for one in bench.log if one.get("type") in {"pause", "resume"}] == ["pause", "resume"]
    assert told[-1].complete


async def test_it_steps_back_while_others_wait(bench):
    """Pressure that goes on while the scan is paused is that of others: the numbers say for what it waited."""
    counter = iter(range(0, 10**12, 10**9))
    bench.more["totals"] = lambda: {"io": next(counter)}
    scanner = bench.scanner([*BEGIN, ["all", None], ["hear", None], END])
    told = await run(scanner)
    assert [one["type"] for one in bench.log if one.get("type") == "pause"] == ["pause"]
    assert any(isinstance(one, Advance) and one.paused for one in told)
