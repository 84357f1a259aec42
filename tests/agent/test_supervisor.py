"""The supervisor with small programs in the agent's place: deaths, silences, requests to stop."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from stanch.agent.settings import STATE_VARIABLE, Settings
from stanch.agent.supervisor import (
    DEFAULT_STATE,
    EXIT_IN_USE,
    EXIT_NOT_ENROLLED,
    Patience,
    Supervisor,
    locked,
    restart_delay,
)
from tests.fakes.waiting import wait_until

QUICK = Patience(silence=0.5, first_restart=0.01, longest_restart=0.05, healthy=60.0, goodbye=5.0)

BEATING = """
import itertools, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
with open(sys.argv[1], "a") as lives: lives.write(f"{os.getpid()}\\n")
for number in itertools.count():
    os.write(int(os.environ["STANCH_AGENT_BEAT"]), b".")
    time.sleep(0.02)
    if number == 40: open(sys.argv[1] + ".old", "w").close()
"""

SILENT = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1], "a") as lives: lives.write(f"{os.getpid()}\\n")
if len(sys.argv) > 2: os.close(int(os.environ["STANCH_AGENT_BEAT"]))
time.sleep(600)
"""


def lives(file: Path) -> list[int]:
    """The pids of the agents that were started so far."""
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def alive(pid: int) -> bool:
    with suppress(OSError), Path(f"/proc/{pid}/stat").open() as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


@contextmanager
def supervised(program: str, *arguments: str, patience: Patience = QUICK) -> Iterator[Supervisor]:
    """A supervisor that runs in a thread of this process until the end of the block."""
    one = Supervisor([sys.executable, "-c", program, *arguments], patience=patience, environment=os.environ)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(one.run()))
    thread.start()
    try:
        yield one
    finally:
        one.stop()
        thread.join(20)
    assert codes == [0]


def test_a_killed_agent_is_started_again(tmp_path):
    """SIGKILL to the agent, by its pid, brings a new one."""
    file = tmp_path / "lives"
    with supervised(BEATING, str(file)):
        for number in range(1, 4):
            wait_until(lambda number=number: len(lives(file)) == number)
            os.kill(lives(file)[-1], signal.SIGKILL)
        wait_until(lambda: len(lives(file)) == 4)
    assert not any(map(alive, lives(file)))


@pytest.mark.parametrize("arguments", [(), ("close",)], ids=["does not beat", "closed its end"])
def test_a_silent_agent_is_killed_and_started_again(tmp_path, arguments):
    """An agent that lives but does not beat is ended, though it ignores SIGTERM."""
    file = tmp_path / "lives"
    patience = Patience(silence=0.3, first_restart=0.01, goodbye=0.1)
    with supervised(SILENT, str(file), *arguments, patience=patience):
        wait_until(lambda: len(lives(file)) >= 2)
        assert not alive(lives(file)[0])


def test_a_beating_agent_is_left_alone(tmp_path):
    """Beats count: the agent lives on well past the time of silence."""
    file = tmp_path / "lives"
    patience = Patience(silence=0.2, first_restart=0.01)
    with supervised(BEATING, str(file), patience=patience):
        wait_until(lambda: Path(f"{file}.old").exists())
        assert len(lives(file)) == 1


def test_stopping_ends_the_agent_gracefully(tmp_path):
    """A stop lets the agent end by itself, and nothing is left."""
    file = tmp_path / "lives"
    with supervised(BEATING, str(file)):
        wait_until(lambda: len(lives(file)) == 1)
    assert len(lives(file)) == 1
    assert not alive(lives(file)[0])


def test_stopping_kills_an_agent_that_does_not_want_to(tmp_path):
    """An agent that ignores SIGTERM is killed after its time for a goodbye."""
    file = tmp_path / "lives"
    with supervised(SILENT, str(file), patience=Patience(silence=60.0, goodbye=0.2)):
        wait_until(lambda: len(lives(file)) == 1)
    assert not alive(lives(file)[0])


def test_an_agent_that_gives_up_is_not_started_again(tmp_path, capfd):
    """An agent that is not enrolled says so once, and the supervisor ends with its code."""
    one = Supervisor(
        [sys.executable, "-c", f"raise SystemExit({EXIT_NOT_ENROLLED})"], patience=QUICK, environment=os.environ
    )
    assert one.run() == EXIT_NOT_ENROLLED
    events = [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()]
    assert events == ["agent-started", "agent-ended", "agent-gave-up"]


def test_restarts_slow_down_to_a_bound():
    """An agent that dies at once is not started in a tight loop."""
    delays = [restart_delay(failures, Patience()) for failures in range(100)]
    assert delays[0] == 0.5
    assert delays == sorted(delays)
    assert delays[-1] == 30.0


def test_two_supervisors_cannot_share_a_state_folder(tmp_path):
    """The second one is refused as long as the first one lives, and says so in one line."""
    with locked(tmp_path / "state"):
        with pytest.raises(BlockingIOError), locked(tmp_path / "state"):
            pass
        code, said = run_supervisor(tmp_path / "state")
    assert code == EXIT_IN_USE
    assert "another supervisor" in json.loads(said)["got"]
    with locked(tmp_path / "state"):
        pass


def run_supervisor(state: Path) -> tuple[int, bytes]:
    """A real supervisor until it ends by itself: its code, and what it said."""
    ended = subprocess.run(
        [sys.executable, "-I", "-m", "stanch.agent.supervisor"],
        env={**os.environ, STATE_VARIABLE: str(state)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr


def test_the_agent_dies_with_its_supervisor(tmp_path):
    """SIGKILL to the supervisor leaves no orphan that would share the state folder with the next agent."""
    file = tmp_path / "lives"
    program = f"""
import os, sys
from stanch.agent.supervisor import Patience, Supervisor
Supervisor([sys.executable, "-c", {SILENT!r}, {str(file)!r}], patience=Patience(), environment=os.environ).run()
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(lives(file)) == 1)
        process.kill()
    wait_until(lambda: not alive(lives(file)[0]))


def test_a_real_agent_without_identity_ends_with_the_reason(tmp_path):
    """`python -m stanch.agent.supervisor` on an empty folder tells how to enrol, and stops trying."""
    code, said = run_supervisor(tmp_path / "state")
    assert code == EXIT_NOT_ENROLLED
    assert b"stanch agent enroll" in said


def test_the_supervisor_imports_the_standard_library_only():
    """What must work when a dependency is broken imports none."""
    program = """
import json, sys
import stanch.agent.supervisor
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{program}"],
        capture_output=True,
        check=True,
    ).stdout
    foreign = {name for name in json.loads(output) if name not in sys.stdlib_module_names} - {"stanch", "__main__"}
    assert foreign == set()


def test_the_default_state_folder_is_the_agents():
    """The supervisor cannot import the settings, so the two must say the same."""
    assert Path(DEFAULT_STATE) == Settings().state
