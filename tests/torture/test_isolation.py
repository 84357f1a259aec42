"""The torture program: it passes, it finds what is there, and it leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.demo.program import children_of, status_of, wait_until
from tests.torture import sequence
from tests.torture.isolation import play
from tests.torture.moves import Move, always, isolate, nothing, usable
from tests.torture.sequence import Story
from tests.torture.world import ROOT, Template

SEQUENCES = 24
PROGRAM = (sys.executable, "-m", "tests.torture.isolation")

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def template(tmp_path: Path) -> Template:
    """A server's folder to begin with."""
    (tmp_path / "template").mkdir()
    return Template.made(tmp_path / "template")


def played(template: Template, tmp_path: Path, *moves: Move) -> dict:
    """One sequence of these moves alone."""
    (tmp_path / "sequence").mkdir()
    return play(1, moves, template, tmp_path / "sequence", 0.25)


@pytest.mark.long
def test_many_sequences_leak_nothing_and_strand_nobody():
    """The last line says so, and the exit status too."""
    done = subprocess.run(
        [*PROGRAM, "--sequences", str(SEQUENCES), "--seed", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == [f"{SEQUENCES} sequences, 0 leaks, 0 strandings"], done.stdout[-20_000:]
    assert done.returncode == 0


def hole(story: Story) -> None:
    """Everything of the agent is killed, its rules are flushed, and nobody tells the observer."""
    isolate(story)
    story.world.kill_supervisor()
    story.world.nft("flush", "ruleset")
    story.world.nft("delete", "table", "inet", "stanch")
    story.world.nft("delete", "table", "netdev", "stanch")
    time.sleep(0.3)  # sleep: somebody gets out
    story.start_supervisor()
    story.agent_recovered()


def test_a_real_leak_is_found(template: Template, tmp_path: Path):
    """The frames that got out are told, decoded, with the rules and the agent's log."""
    result = played(template, tmp_path, Move("hole", 1, always, hole, nothing))
    assert result["leaks"] > 0
    assert any("203.0.113.66" in one for one in result["frames"])
    assert result["agent_log"]


def cut(story: Story) -> None:
    """The cable of the endpoint is pulled, and nobody puts it back."""
    story.world.lab.outside.command("ip link set wire0 down")


def test_a_real_stranding_is_found(template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An endpoint that does not answer, and from which nothing is seen, is stranded."""
    monkeypatch.setattr(sequence, "OPEN_SECONDS", 2.0)
    result = played(template, tmp_path, Move("cut", 1, always, cut, nothing))
    assert result["strandings"] >= 2


def test_what_cannot_be_made_is_said():
    """No move is left out silently."""
    made, left_out = usable()
    assert {one.name for one in made} >= {"isolate", "release", "kill-agent", "server-dies"}
    assert all(": " in one for one in left_out)


@pytest.mark.long
def test_one_sequence_is_played_by_its_seed_and_told_as_json():
    """One object for the sequence, and the last line."""
    done = subprocess.run(
        [*PROGRAM, "--sequence-seed", "7", "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    told, last = done.stdout.splitlines()
    assert json.loads(told).items() >= {"seed": 7, "leaks": 0, "strandings": 0}.items()
    assert last == "1 sequences, 0 leaks, 0 strandings"


def _below(pid: int) -> Iterator[int]:
    for child in children_of(pid):
        yield child
        yield from _below(child)


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind_however_it_ends(how: signal.Signals, tmp_path: Path):
    """Every process of it is gone soon after the program itself, and its folder, unless it was killed."""
    env = {**os.environ, "TMPDIR": os.fspath(tmp_path)}
    with subprocess.Popen([*PROGRAM, "--sequences", "4"], cwd=ROOT, env=env, stdout=subprocess.PIPE) as program:
        try:
            assert wait_until(lambda: len(list(_below(program.pid))) > 12, within=60)
            born = {pid: found.started for pid in _below(program.pid) if (found := status_of(pid))}
        finally:
            os.kill(program.pid, how)
        program.communicate(timeout=120)
    assert wait_until(lambda: not any(_lives(pid, started) for pid, started in born.items()), within=30)
    assert how is signal.SIGKILL or list(tmp_path.iterdir()) == []


def _lives(pid: int, started: int) -> bool:
    status = status_of(pid)
    return status is not None and status.started == started and status.state != "Z"
