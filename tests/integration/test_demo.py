"""The whole demo, as a user starts it: every step holds, and nothing is left behind, however it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stanch.demo.lab import LABS
from stanch.demo.program import ENVIRONMENT, wait_until

pytestmark = pytest.mark.slow

DEMO = (sys.executable, "-m", "stanch.cli.main", "demo", "--json", "--keep")
STORY = [
    "attack",
    "server-first-start",
    "enrol",
    "look",
    "dry-run",
    "isolate",
    "idle-connection-dead",
    "server-link-alive",
    "exclusion",
    "exclusion-ends",
    "tamper-running-agent",
    "tamper-killed-agent",
    "kill-tree",
    "get-file",
    "quarantine",
    "quarantine-list",
    "restore",
    "delete-and-undo",
    "run-process",
    "fetch-what-it-wrote",
    "persistence",
    "publish-rules",
    "yara-scan",
    "ioc-scan",
    "malware-scan",
    "list-autoruns",
    "disable-autorun",
    "kill-respawning-tree",
    "enable-autorun",
    "end-it-for-good",
    "release",
    "idle-stays-dead",
    "release-code",
    "release-code-typed",
    "release-code-told",
    "isolate-again",
    "server-outage",
    "server-back",
    "orders-tell-all",
    "kept",
    "removed",
]
Running = subprocess.Popen[bytes]


def left_by(owner: int) -> list[str]:
    """The folders of labs that belong to a process."""
    return [folder.name for folder in LABS.iterdir() if f".{owner}." in folder.name] if LABS.is_dir() else []


def steps(lines: Sequence[bytes]) -> dict[str, dict[str, Any]]:
    """Name of a step to all that was printed of it."""
    return {one["step"]: one for one in map(json.loads, lines)}


@pytest.fixture
def demo() -> Iterator[Running]:
    """A running demo; killed if a test fails on the way."""
    environment = {**os.environ, **ENVIRONMENT}
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, env=environment) as running:
        yield running
        running.kill()


@pytest.mark.root
def test_every_step_of_the_story_holds(demo: Running):
    """All steps in their order, each with its evidence; kept until Ctrl-C; then exit 0, and the lab is gone."""
    assert demo.stdout is not None
    lines = list[bytes]()
    for line in demo.stdout:  # a story that breaks off is kept, too, and has fewer lines
        lines.append(line)
        if steps([line]).keys() & {"kept", "removed"}:
            break
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=60)
    told = steps([*lines, *said.splitlines()])
    assert [one for one in told.values() if not one["ok"]] == []
    assert list(told) == STORY
    assert all(set(one) == {"step", "ok", "ms", "evidence"} and one["evidence"] for one in told.values())
    assert told["tamper-running-agent"]["evidence"].startswith(("refused:", "repaired:"))
    assert demo.returncode == 0
    assert left_by(demo.pid) == []


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(demo: Running, number: int):
    """Ended in the middle, it removes its namespaces and programs, and says so."""
    assert demo.stdout is not None
    first = steps([demo.stdout.readline()])
    assert first["attack"]["ok"]
    names = [folder.split(".")[0] for folder in left_by(demo.pid)]
    demo.send_signal(number)
    said, _ = demo.communicate(timeout=60)
    assert steps(said.splitlines())["removed"]["ok"]
    assert demo.returncode == 128 + number
    assert left_by(demo.pid) == []
    assert [entry.name for entry in Path("/run/netns").iterdir() if entry.name.startswith(tuple(names))] == []


@pytest.mark.root
def test_a_killed_demo_takes_its_programs_with_it(demo: Running):
    """SIGKILL leaves no time to tidy up: programs die all the same, and the next lab removes the names."""
    assert demo.stdout is not None
    assert steps([demo.stdout.readline()])["attack"]["ok"]
    (folder,) = left_by(demo.pid)
    demo.kill()
    demo.wait()
    assert wait_until(lambda: not running_in(folder), within=10)
    sweep = "from stanch.demo.lab import sweep; print(*sweep())"
    swept = subprocess.run([sys.executable, "-c", sweep], capture_output=True, text=True, check=True)
    assert folder.partition(".")[0] in swept.stdout.split()
    assert left_by(demo.pid) == []


def running_in(folder: str) -> list[str]:
    """Processes whose command line names the lab's folder."""
    lines = (_command(entry) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [line for line in lines if folder in line]


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""
