"""Memory of processes: what is found in it, and that nobody else is blamed."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.core.scanning import Finding
from stanch.worker.scan import processes
from stanch.worker.scan.processes import started, within
from stanch.worker.scan.rules import RuleSet, source_of
from stanch.worker.scan.telling import Telling, Wire
from tests.worker.scan.driving import Done, worker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root looks into the processes of others")
RULES = b'rule Evil { strings: $a = "planted-' + b'in-memory-4711" condition: $a }'


@contextmanager
def child(secret: str) -> Iterator[int]:
    """A process that has a text in its memory, put together there."""
    program = f"import sys\nkept = ''.join({list(secret)!r}).encode() * 3\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def scanned(*processes: dict[str, object], rules: bytes = RULES, **more: object) -> Done:
    """Their memory, looked into."""
    with worker([("yara", "e", rules)], memory=True, **more) as driver:
        driver.say(type="processes", processes=list(processes))
        return driver.finish()


def named(pid: int, **more: object) -> dict[str, object]:
    """As the agent names it."""
    since = started(pid)
    assert since is not None
    return {"pid": pid, "started": since[0], "name": "python", "path": "/usr/bin/python", **more}


def test_it_finds_what_is_in_memory_and_nothing_else() -> None:
    """Of two processes the one that has it, with its number and start."""
    with child("planted-in-memory-4711") as evil, child("nothing") as clean:
        wanted = named(evil)
        done = scanned(wanted, named(clean))
    (finding,) = done.findings
    (about,) = finding["objects"]
    assert (about["pid"], about["started"], about["document"]) == (evil, wanted["started"], "ProcessItem")
    assert done.tally["processes"] == 2
    assert not done.skips


def test_a_program_that_is_forbidden_is_not_looked_into() -> None:
    """Whatever the agent thought that it runs: the worker looks itself, and tells it."""
    here = Path(sys.executable).resolve()
    with child("planted-in-memory-4711") as evil:
        done = scanned(named(evil), forbidden=[f"{here.parent}/**"])
        other = scanned(named(evil), forbidden=["/nowhere", "/nowhere/**"])
    assert done.skipped == {(f"python ({evil})", "forbidden")}
    assert (done.findings, done.tally["processes"]) == ([], 0)
    assert len(other.findings) == 1


def test_a_program_that_becomes_a_forbidden_one_meanwhile_is_not_blamed(monkeypatch) -> None:
    """It is asked once more afterwards: what was found then is told to nobody."""
    told = Telling(Wire(), most_findings=10, most_rules=0)
    ran = iter([b"/usr/bin/a", b"/secret/b"])
    monkeypatch.setattr(processes, "program", lambda _pid: next(ran))
    with child("planted-in-memory-4711") as evil:
        processes.look(
            named(evil),
            RuleSet([source_of("e", RULES)], fast=True, tags=frozenset(), seconds=60),
            told,
            lambda path: path == b"/secret/b",
        )
    assert (told.findings, dict(told.skipped)) == (0, {"forbidden": 1})


def test_a_number_that_was_given_anew_is_not_blamed() -> None:
    """Its start is not that of the process which was meant."""
    with child("planted-in-memory-4711") as evil:
        done = scanned(named(evil, started=1))
    assert done.skipped == {(f"python ({evil})", "gone")}
    assert not done.findings


def test_threads_of_the_kernel_and_itself_are_left_out() -> None:
    """Nothing is to be read of the first; the second has the rules in its memory."""
    with worker([("yara", "e", RULES)], memory=True) as driver:
        driver.say(type="processes", processes=[named(driver.process.pid)])
        done = driver.finish()
    assert (done.findings, done.skips, done.tally["processes"]) == ([], [], 0)


def test_what_killed_an_earlier_worker_is_left_out() -> None:
    """By its name, as the agent was told it."""
    with child("planted-in-memory-4711") as evil:
        done = scanned(named(evil), skip=[f"python ({evil})"])
    assert (done.findings, done.tally["processes"]) == ([], 0)


def test_rules_that_never_end_are_stopped() -> None:
    """The process is named."""
    endless = b"rule Endless { condition: for all i in (1..99999999999) : (i > 0) }"
    with child("x") as pid:
        done = scanned(named(pid), rules=endless, per_object=1)
    assert done.skipped == {(f"python ({pid})", "timed-out")}


@pytest.mark.parametrize("path", ["", "(unreachable)/x", "/" + "x" * 5000, "/odd\udcff"])
def test_a_program_is_named_by_what_may_be_a_path(path: str) -> None:
    """A path that the agent would refuse would end the scan."""
    with child("planted-in-memory-4711") as evil:
        (finding,) = scanned(named(evil, path=path)).findings
    about = Finding.model_validate(finding).objects[0]
    assert (about.path or "") == {"/odd\udcff": r"/odd\xff"}.get(path, "")


def test_what_never_comes_back_is_given_up() -> None:
    """A page of a file system that hangs; and what fails is not taken for done."""
    never = threading.Event()

    def waits() -> None:
        never.wait()

    def fails() -> None:
        raise ZeroDivisionError

    assert not within(0.01, waits)
    never.set()
    assert within(60, lambda: None)
    with pytest.raises(ZeroDivisionError):
        within(60, fails)
