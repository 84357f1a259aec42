"""The scanner with a worker that a test plays."""

import pytest

from stanch.core.errors import Invalid
from stanch.core.scanning import (
    Advance,
    Finding,
    Loaded,
    Tally,
)
from tests.agent.host.scanner_bench import BEGIN, END, Bench, a_scan, events, finding, run


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


async def test_a_scan_is_told_from_its_rules_to_its_numbers(bench):
    """What was loaded comes first, then what was found, and the numbers last."""
    scanner = bench.scanner([*BEGIN, ["all", None], events(finding(), ["advance", {"files": 2}]), END])
    told = await run(scanner)
    assert [type(one) for one in told] == [Loaded, Finding, Advance, Tally]
    assert told[-1].complete
    assert told[-1].findings == 1
    assert scanner.running() == ()


async def test_nothing_to_scan_with_is_invalid(bench):
    """No worker is started for nothing."""
    with pytest.raises(Invalid):
        await run(bench.scanner([]), a_scan(materials=()))
