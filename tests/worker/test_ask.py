"""Asking a worker, which may lie, die, hang or chatter."""

import asyncio
import os
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest
import uvloop

from stanch.core.errors import ActionFailed, TimedOut, Unavailable
from stanch.worker import ask as module
from stanch.worker.ask import Request, ask
from tests.fakes.waiting import eventually

Behaviour = Callable[[str], None]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    """Let another program run in place of the worker; its pid comes first on its standard output."""
    start = module.started

    def behave(program: str) -> None:
        monkeypatch.setattr(module, "started", lambda _line: start([sys.executable, "-I", "-c", program]))

    return behave


async def test_an_answer() -> None:
    """What was rendered, and how the process was confined that did it."""
    answer = await ask(Request(kind="hex"), b"\x00\xffA")
    assert answer.shown == {"data": "00ff41", "ascii": "..A"}
    assert answer.confined["no_new_privileges"] == "yes"


def test_the_loop_of_the_server_does_as_well() -> None:
    """With much input, which is written as the worker reads it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer = runner.run(ask(Request(kind="strings", offset=5), b"word" + bytes(4 * 2**20)))
    assert answer.shown is not None
    assert answer.shown["strings"][0]["offset"] == 5


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os; os.abort()", "signal 6"),
        ("raise SystemExit(3)", "exit status 3"),
        ("print('nonsense')", "nonsense"),
        ("print('[' * 100000)", "nonsense"),
        ('print(\'{"confined": {}, "error": "no idea"}\')', "no idea"),
        ("print('{\"shown\": {}}')", "nonsense"),
    ],
)
async def test_a_worker_that_fails(worker: Behaviour, program: str, message: str) -> None:
    """Its end, its error or its nonsense become an error with a way out."""
    worker(program)
    with pytest.raises(ActionFailed, match=message) as caught:
        await ask(Request(kind="text"), b"x")
    assert caught.value.hint or "nonsense" in caught.value.message


async def test_a_worker_that_reads_nothing(worker: Behaviour) -> None:
    """One that ends before it has read everything is no broken pipe of ours."""
    worker("raise SystemExit(1)")
    with pytest.raises(ActionFailed):
        await ask(Request(kind="text"), bytes(8 * 2**20))


async def test_a_worker_that_chatters_is_ended(worker: Behaviour) -> None:
    """Its output is read so far, and no further."""
    worker("import sys\nwhile True: sys.stdout.write('x' * 65536)")
    with pytest.raises(ActionFailed, match="too much"):
        await ask(Request(kind="text"), b"x")


async def test_a_worker_that_hangs_is_ended(worker: Behaviour) -> None:
    """When its time is over, so is it."""
    worker("import time; time.sleep(600)")
    with pytest.raises(TimedOut):
        await ask(Request(kind="text"), b"x", within=timedelta(seconds=0.2))


async def test_a_caller_that_goes_away_leaves_no_process(
    worker: Behaviour, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    """Cancelled in the middle, it kills what it has started."""
    worker(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()) + '.')\ntime.sleep(600)")
    asking = asyncio.ensure_future(ask(Request(kind="text"), b"x"))
    await eventually(lambda: (tmp_path / "pid").exists() and "." in (tmp_path / "pid").read_text())
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()[:-1]), 0)


async def test_no_interpreter_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that is broken says so."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(Unavailable, match="cannot be started"):
        await ask(Request(kind="text"), b"x")


async def test_it_inherits_nothing(worker: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment, and no open file of the server."""
    monkeypatch.setenv("SECRET", "s3cret")
    worker(
        "import json, os\n"
        "fds = [n for n in range(3, 200) if os.path.exists(f'/proc/self/fd/{n}')]\n"
        "names = sorted(set(os.environ) - {'LC_CTYPE'})\n"
        "print(json.dumps({'confined': {}, 'shown': {'environment': names, 'open': fds}}))"
    )
    read, write = os.pipe()
    try:
        answer = await ask(Request(kind="text"), b"x")
    finally:
        os.close(read)
        os.close(write)
    assert answer.shown == {"environment": [], "open": []}
