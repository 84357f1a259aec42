"""The door to the worker: what it gets of us, and that all of it ends."""

import asyncio
import os
import select
import signal
import sys
from contextlib import aclosing

import pytest

from stanch.agent.host import scanner_worker
from stanch.core.errors import ActionFailed
from stanch.core.scanning import (
    Finding,
    Limits,
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


async def test_the_worker_has_no_environment_and_a_session_of_its_own(bench):
    """It gets nothing of ours, and a low priority."""
    told = await run(bench.scanner([*BEGIN, ["environment", None], ["all", None], END]))
    seen = next(one for one in bench.log if "environ" in one)
    assert set(seen["environ"]) <= {"LC_CTYPE"}  # which Python itself sets
    assert seen["cwd"] == "/"
    assert seen["sid"] != os.getsid(0)
    assert seen["nice"] >= 10
    assert told[-1].limited["nice"] == "yes"


async def test_a_scan_that_is_not_gentle_keeps_its_priority(bench):
    """Whoever is in a hurry gets the whole machine."""
    await run(bench.scanner([*BEGIN, ["environment", None], ["all", None], END]), a_scan(limits=Limits(gentle=False)))
    assert next(one for one in bench.log if "environ" in one)["nice"] == os.nice(0)


async def test_leaving_early_kills_the_worker_and_its_children(bench):
    """Cancelling ends all of it at once."""
    scanner = bench.scanner([*BEGIN, ["all", None], ["child", None], events(finding()), ["hang", None]])
    async with asyncio.timeout(60), aclosing(scanner.scan(a_scan())) as batches:
        async for batch in batches:
            if any(isinstance(one, Finding) for one in batch):
                break
    for pid in next(one for one in bench.log if "pids" in one)["pids"]:
        assert await asyncio.to_thread(_is_gone, pid)
    assert scanner.running() == ()


def _is_gone(pid: int) -> bool:
    """True when it has ended: the kernel needs a moment for a child of a process that was killed."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([held], [], [], 20)[0])
    finally:
        os.close(held)


async def test_what_a_worker_complains_about_is_told(bench):
    """The last line of its errors says why it could not begin."""
    bench.more["command"] = (sys.executable, "-I", "-c", "raise SystemExit('no such module')")
    with pytest.raises(ActionFailed, match="no such module"):
        await run(bench.scanner([]))


async def test_whoever_holds_the_output_does_not_keep_the_scan(bench):
    """A child that left the session and has the pipe: the scan ends with its worker's last word."""
    scanner = bench.scanner([*BEGIN, ["holder", None], ["all", None], events(finding()), END])
    try:
        told = await run(scanner)
        assert told[-1].complete
        assert scanner.running() == ()
    finally:
        held = [one["holder"] for one in bench.log if "holder" in one]
        for pid in held:
            os.kill(pid, signal.SIGKILL)
    assert held


async def test_endless_complaints_do_not_keep_the_agent_busy(bench, monkeypatch):
    """After the first of them they are read slowly, and all the same the last of them is told."""
    waits: list[float] = []
    monkeypatch.setattr(scanner_worker, "_SLOWLY", 0)
    slept = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await slept(0)

    monkeypatch.setattr(scanner_worker.asyncio, "sleep", sleep)
    assert (await run(bench.scanner([*BEGIN, ["complain", 50], ["all", None], END])))[-1].complete
    assert waits
