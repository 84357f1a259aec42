"""One worker at its work: paused, slowed, given up."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import pytest

from stanch.agent.host.scanner_pressure import LITTLE_BYTES
from stanch.agent.host.scanner_scan import MAX_SILENT
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
    Content,
    a_scan,
    events,
    finding,
    material,
    run,
)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


async def test_a_worker_that_says_nothing_counts_as_dead(bench):
    """A scan does not wait for ever."""
    bench.more["silence"] = 2  # a busy machine starts the next worker slowly, and that one is to be heard
    first = [*BEGIN, ["all", None], ["at", "/tmp/x"], ["hang", None]]
    scan = a_scan(limits=Limits(per_object=timedelta(seconds=1)))
    told = await run(bench.scanner(first, [*BEGIN, ["all", None], END]), scan)
    assert told[-1].skipped == {SkipReason.CRASHED: 1}


async def test_silence_is_not_waited_for_again_and_again(bench):
    """Two workers that say nothing until they are given up are enough: the scan ends, incomplete, and says so."""
    bench.more["silence"] = 1
    scan = a_scan(limits=Limits(per_object=timedelta(seconds=1)))
    told = await run(bench.scanner([*BEGIN, ["all", None], ["hang", None]]), scan)
    assert len(bench.jobs()) == MAX_SILENT
    assert not told[-1].complete
    assert told[-1].why_incomplete.startswith(f"{MAX_SILENT} scanners died")


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
            if any(isinstance(one, Advance) and one.paused and one.why == "on order" for one in batch):
                assert await scanner.pause("tsk_1", paused=False)
    assert [one["type"] for one in bench.log if one.get("type") in {"pause", "resume"}] == ["pause", "resume"]
    assert told[-1].complete


async def test_it_steps_back_while_others_wait(bench):
    """Pressure that goes on while the scan is paused is that of others: the numbers say for what it waited."""
    counter = iter(range(0, 10**12, 10**9))
    # Not before it has all: a pause that comes among the names would be read as one of them.
    bench.more["totals"] = lambda: {"io": next(counter) if bench.heard("all") else 0}
    much = ["say", {"type": "events", "events": [["advance", {"files": 1, "bytes": LITTLE_BYTES}]]}]
    scanner = bench.scanner([*BEGIN, ["all", None], much, ["hear", None], END])
    told = await run(scanner)
    assert [one["type"] for one in bench.log if one.get("type") == "pause"] == ["pause"]
    assert any(isinstance(one, Advance) and one.paused and one.why.startswith("others wait for ") for one in told)


async def test_a_pause_does_not_come_among_the_rules(bench):
    """Until a worker has loaded them it reads nothing else: whoever orders a pause then has it afterwards."""

    class Ordering(Content):
        async def read(self, offset, length):
            await scanner.pause("tsk_1", paused=True)
            for _ in range(100):  # whoever would tell the worker has many chances
                await asyncio.sleep(0)
            return await super().read(offset, length)

    @asynccontextmanager
    async def opened():
        yield Ordering(b"rule a { condition: true }")

    scanner = bench.scanner([*BEGIN, ["all", None], END])
    told = await run(scanner, a_scan(materials=(material(open=opened), material(b"rule b { condition: true }"))))
    assert told[-1].complete
    assert len(bench.jobs()) == 1
