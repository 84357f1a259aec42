"""Child programs of the demo."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stanch.core.errors import Unavailable
from stanch.demo.program import ENVIRONMENT, Program, status_of, wait_until

SLEEP = ("sleep", "600")


def test_a_program_ends_with_its_context(tmp_path: Path):
    """After the context no process is left."""
    with Program.start(SLEEP, log=tmp_path / "log") as program:
        assert status_of(program.process.pid) is not None
    assert program.process.poll() is not None
    assert status_of(program.process.pid) is None


def test_a_program_that_ignores_the_polite_signal_is_killed(tmp_path: Path):
    """SIGTERM first, SIGKILL when the time is over."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    program = Program.start((sys.executable, "-c", code), log=tmp_path / "log")
    program.wait_for_line("deaf", within=10)
    program.stop(within=0.1)
    assert program.process.returncode == -signal.SIGKILL


def test_a_program_dies_with_the_demo(tmp_path: Path):
    """When the demo itself is killed without a chance to clean up, its programs end."""
    code = (
        "import sys, time; from pathlib import Path; from stanch.demo.program import Program\n"
        f"p = Program.start({SLEEP!r}, log=Path({str(tmp_path / 'inner')!r})); print(p.process.pid, flush=True)\n"
        "time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, **ENVIRONMENT})
    assert owner.stdout is not None
    with owner.stdout:
        child = int(owner.stdout.readline())
    assert status_of(child) is not None
    owner.kill()
    owner.wait()
    assert wait_until(lambda: (status := status_of(child)) is None or status.state == "Z", within=10)


def test_waiting_for_a_line_ends_when_the_program_does(tmp_path: Path):
    """A program that ends without the line raises at once, with its own words."""
    with Program.start(("sh", "-c", "echo 'no such thing'"), log=tmp_path / "log") as program:
        with pytest.raises(Unavailable) as caught:
            program.wait_for_line("ready", within=60)
        assert "no such thing" in str(caught.value.got)


def test_a_line_counts_only_when_it_is_whole(tmp_path: Path):
    """Half a line is not yet an answer."""
    with Program.start(("sh", "-c", "printf 'ready a'; sleep 0.2; echo b; sleep 600"), log=tmp_path / "log") as program:
        assert program.wait_for_line("ready", within=10) == "ready ab"


def test_a_program_gets_none_of_our_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A proxy or a secret in the caller's environment does not reach the demo's programs."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with Program.start(("env",), log=tmp_path / "log", env={"EXTRA": "1"}) as program:
        program.process.wait(10)
    said = program.said()
    assert "HTTPS_PROXY" not in said
    assert "EXTRA=1" in said


def test_there_is_no_status_of_a_process_that_is_not(tmp_path: Path):
    """A pid that nobody has gives None."""
    with Program.start(("true",), log=tmp_path / "log") as program:
        program.process.wait(10)
    assert status_of(program.process.pid) is None
