"""One scan to its end, whatever becomes of its workers."""

import os
import shutil
import signal
import socket
import subprocess

import pytest

from stanch.agent.host.scanner_files import ScanFolder
from stanch.core.autoruns import Place
from stanch.core.errors import ActionFailed, Invalid
from stanch.core.scanning import (
    Area,
    Engine,
    Files,
    Finding,
    Limits,
    Loaded,
    Skip,
    SkipReason,
)
from tests.agent.host.scanner_bench import BEGIN, END, WANTS, Bench, a_scan, events, finding, run
from tests.fakes.autoruns import FakeAutoruns


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


async def test_more_findings_than_allowed_are_nonsense(bench):
    """A worker that does not keep to its limit cannot fill the memory of the agent."""
    flood = [events(*(finding(f"r{n}-{m}") for m in range(400))) for n in range(3)]
    with pytest.raises(ActionFailed, match="nonsense"):
        await run(bench.scanner([*BEGIN, *flood, ["hang", None]]), a_scan(limits=Limits(findings=10)))


async def test_rules_that_all_do_not_count_are_invalid(bench):
    """Nothing is looked for in vain; the first thing that is wrong is named."""
    problem = {"line": 3, "text": "undefined identifier"}
    loaded = {"name": "r.yar", "kind": "yara", "count": 0, "problems": [problem]}
    with pytest.raises(Invalid, match="undefined identifier at line 3"):
        await run(bench.scanner([["open", None], ["say", {"type": "loaded", "loaded": loaded}], WANTS, ["hang", None]]))


async def test_a_scan_that_fails_says_why(bench):
    """The worker's own error is told."""
    with pytest.raises(ActionFailed, match="no room"):
        await run(bench.scanner([*BEGIN, ["say", {"type": "end", "tally": None, "error": "no room"}]]))


async def test_a_worker_that_dies_over_a_file_is_followed_by_another_without_it(bench):
    """The file is named, left out, and what was found before is not told twice."""
    first = [*BEGIN, ["all", None], events(finding()), ["at", "/tmp/bomb\udcff"], ["die", signal.SIGKILL]]
    second = [*BEGIN, ["all", None], events(finding(), finding("other")), END]
    told = await run(bench.scanner(first, second))
    assert [one.rule for one in told if isinstance(one, Finding)] == ["evil", "other"]
    assert [(one.name, one.reason) for one in told if isinstance(one, Skip)] == [("/tmp/bomb\\xff", SkipReason.CRASHED)]
    assert [one["skip"] for one in bench.jobs()] == [[], ["/tmp/bomb\udcff"]]
    assert len([one for one in told if isinstance(one, Loaded)]) == 1
    assert told[-1].complete
    assert told[-1].skipped == {SkipReason.CRASHED: 1}
    assert told[-1].findings == 2


async def test_what_a_dead_worker_has_learned_is_there_for_the_next(bench):
    """The next worker is handed the same file, so that little is done twice."""
    first = [
        *BEGIN,
        ["all", None],
        ["learn", "known"],
        ["say", {"type": "at", "names": ["a"]}],
        ["die", signal.SIGSEGV],
    ]
    bench.more["folder"] = ScanFolder(path=bench.folder / "scans")
    with pytest.raises(ActionFailed, match="nonsense"):
        await run(bench.scanner(first, [*BEGIN, ["raw", "?\n"]]))
    (learned,) = (bench.folder / "scans").glob("learned-*")
    assert learned.read_text() == "known"


async def test_a_scan_whose_workers_all_die_is_incomplete(bench):
    """After six of them it ends, and says so."""
    told = await run(bench.scanner([*BEGIN, ["all", None], ["at", "/tmp/x"], ["die", signal.SIGSEGV]]))
    assert not told[-1].complete
    assert "SIGSEGV" in told[-1].why_incomplete
    assert len(bench.jobs()) == 6
    assert told[-1].skipped == {SkipReason.CRASHED: 1}


async def test_a_worker_that_cannot_even_load_fails_the_scan(bench):
    """No scan that never began counts as one that found nothing."""
    with pytest.raises(ActionFailed, match="before it has loaded"):
        await run(bench.scanner([["open", None], ["die", signal.SIGKILL]]))


@pytest.fixture
def deleted_program(tmp_path):
    """A process whose program is gone from the disk."""
    program = tmp_path / "runs-deleted"
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([program, "1000"])
    program.unlink()
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def sleeping():
    """The path of a program that runs: whatever else runs on this machine, we do not count."""
    program = os.path.realpath("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as process:
        yield program
        process.kill()


async def test_critical_is_what_starts_and_what_runs(bench, deleted_program, sleeping):
    """Autoruns with their programs, what is mapped, and by descriptor what no path leads to."""
    autoruns = FakeAutoruns()
    autoruns.add("job", str(bench.folder / "starts"), place=Place.CRON, program=str(bench.folder / "program"))
    bench.more["autoruns"] = lambda: autoruns
    told = await run(bench.scanner([*BEGIN, ["all", None], END]), a_scan(files=Files(area=Area.CRITICAL)))
    named = {path for one in bench.heard("targets") for path in one["paths"] if not one["below"]}
    assert {str(bench.folder / "starts"), str(bench.folder / "program"), sleeping} <= named
    assert [one["begins"] for one in bench.log if "runs-deleted" in one.get("read", "")] == ["\x7fELF"]
    assert told[-1].complete


async def test_clamav_that_is_not_there_is_told(bench):
    """Where it was to be asked, the numbers say why it was not."""
    told = await run(bench.scanner([*BEGIN, ["all", None], END]), a_scan(engines=frozenset(Engine)))
    assert "not there" in told[-1].engines[Engine.CLAMAV]
    assert told[-1].complete
    assert await bench.scanner([]).engines() == {}


async def test_clamav_that_is_there_and_dead_makes_a_scan_incomplete(bench, monkeypatch):
    """A socket at which nobody listens is what a daemon leaves that has died: it was to be asked, and was not."""
    monkeypatch.setattr("stanch.agent.host.clamd._trusted", lambda: {os.geteuid()})
    path = bench.folder / "nowhere" / "run" / "clamav" / "clamd.ctl"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(path))
    told = await run(bench.scanner([*BEGIN, ["all", None], END]), a_scan(engines=frozenset(Engine)))
    assert not told[-1].complete
    assert "ClamAV's daemon does not answer" in told[-1].why_incomplete
    assert "does not answer" in told[-1].engines[Engine.CLAMAV]
