"""Asking the worker that looks through packs, which may lie, die, hang or chatter."""

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from stanch.core.errors import ActionFailed, TimedOut
from stanch.worker import ask_lint as module
from stanch.worker.ask_lint import Looked, ask_lint


@pytest.fixture
def pack_file(tmp_path: Path) -> Path:
    path = tmp_path / "pack"
    path.write_bytes(b"whatever")
    return path


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch):
    """Let another program run in place of the worker."""
    start = module.started

    def as_it_says(program: str) -> None:
        line = [sys.executable, "-I", "-c", program]
        monkeypatch.setattr(module, "started", lambda _line, **how: start(line, **how))

    return as_it_says


async def ask(path: Path, **how) -> Looked:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return await ask_lint(descriptor, **how)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os; os.abort()", "signal 6"),
        ("raise SystemExit(3)", "exit status 3"),
        ("print('nonsense')", "nonsense"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "too much"),
        ('print(\'{"confined": {}, "files": [[-1, 0]], "problems": [], "unknown": [], "why_incomplete": ""}\')', "non"),
    ],
)
async def test_a_worker_that_was_taken_over(pack_file: Path, behave, program: str, message: str) -> None:
    """Its nonsense, its chatter and its end are an error."""
    behave(program)
    with pytest.raises(ActionFailed, match=message):
        await ask(pack_file)


async def test_a_worker_that_hangs_is_ended(pack_file: Path, behave) -> None:
    """When its time is over."""
    behave("import time; time.sleep(1000)")
    with pytest.raises(TimedOut):
        await ask(pack_file, within=timedelta(milliseconds=50))


async def test_it_reads_the_file_itself(pack_file: Path, behave) -> None:
    """From the descriptor, from where that stands: the server holds nothing of the pack in memory."""
    behave(
        "import json, os; data = os.read(0, 100).decode(); "
        "print(json.dumps({'confined': {}, 'files': [], 'problems': [], 'unknown': [], 'why_incomplete': data}))"
    )
    assert (await ask(pack_file)).why_incomplete == "whatever"
