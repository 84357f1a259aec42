"""The door for programs: environment, bounds on time and output, and nothing left alive behind it."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest

from stanch.agent.host.run import Child, find, run
from stanch.core.errors import ActionFailed, TimedOut, Unavailable, Unsupported

SOON = timedelta(seconds=20)
AT_ONCE = timedelta(milliseconds=200)


async def _gone(pid: int) -> bool:
    """Has the process ended within a bounded wait? A zombie that nobody reaps yet counts as ended."""
    for _ in range(200):
        if _state(pid) in {"", "Z"}:
            return True
        await asyncio.sleep(0.02)
    return False


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def _pid_in(file: Path) -> int:
    for _ in range(500):
        if (text := _text(file)).endswith("\n"):
            return int(text)
        await asyncio.sleep(0.01)
    raise AssertionError(f"nothing was written to {file}")


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


async def test_it_returns_what_a_program_wrote_and_its_status():
    """A finished program gives both streams and its exit status, and a failing status is no exception."""
    done = await run(["sh", "-c", "echo out; echo err >&2; exit 3"], within=SOON)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


async def test_standard_input_is_what_was_given_or_nothing():
    """A program reads the given bytes to their end, and end of file at once if none were given."""
    assert (await run(["cat"], within=SOON, stdin=b"x" * 300_000)).stdout == b"x" * 300_000
    assert (await run(["cat"], within=SOON)).stdout == b""


async def test_a_program_that_does_not_read_its_input_is_no_failure():
    """Input that nobody reads is dropped without an error."""
    assert (await run(["true"], within=SOON, stdin=b"x" * 1_000_000)).returncode == 0


async def test_the_environment_is_made_from_nothing(monkeypatch):
    """No variable of ours reaches a program."""
    monkeypatch.setenv("STANCH_SECRET", "leak")
    seen = (await run(["env"], within=SOON)).stdout.decode()
    assert {line.partition("=")[0] for line in seen.splitlines()} == {"PATH", "LANG", "HOME"}


async def test_a_program_has_a_session_of_its_own():
    """A signal to our own group or terminal does not reach a program, nor the other way."""
    done = await run(["sh", "-c", "cut -d' ' -f6 /proc/self/stat; pwd"], within=SOON)
    session, folder = done.stdout.decode().split()
    assert int(session) != os.getsid(0)
    assert folder == "/"


async def test_a_missing_program_names_its_package():
    """What is not installed is unsupported here, and the hint says what to install."""
    with pytest.raises(Unsupported, match="nope-not-here"):
        await run(["nope-not-here"], within=SOON)


def test_programs_are_searched_in_fixed_folders_only(monkeypatch, tmp_path):
    """A program in the caller's PATH is not found."""
    fake = tmp_path / "nft-of-an-attacker"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported):
        find(fake.name)


def test_a_relative_path_is_never_a_program(monkeypatch, tmp_path):
    """A name with a slash that is not absolute would depend on the working folder."""
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unsupported):
        find("./tool")


async def test_time_is_bounded_and_children_die_too():
    """After its time, a program and the children that it left are dead."""
    with pytest.raises(TimedOut, match="sh did not finish"):
        await run(["sh", "-c", "sleep 1000 & echo $!; wait"], within=AT_ONCE)


async def test_a_child_that_holds_the_streams_dies_with_the_time(tmp_path):
    """A program that ended but left a child holding its output is over at the time limit, the child dead."""
    pid_file = tmp_path / "pid"
    with pytest.raises(TimedOut):
        await run(["sh", "-c", f"sleep 1000 & echo $! > {pid_file}"], within=AT_ONCE)
    assert await _gone(int(pid_file.read_text()))


async def test_cancelling_kills_the_group(tmp_path):
    """Who cancels a run leaves nothing behind."""
    pid_file = tmp_path / "pid"
    task = asyncio.create_task(run(["sh", "-c", f"sleep 1000 & echo $! > {pid_file}; wait"], within=SOON))
    pid = await _pid_in(pid_file)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _gone(pid)


@pytest.mark.parametrize("turns", range(12))
async def test_cancelling_at_any_moment_ends_the_program(turns):
    """However far the start has come when the caller is cancelled, the call ends, and with it the program."""
    before = _children()
    task = asyncio.create_task(run(["sleep", "1000"], within=SOON))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    assert _children() <= before


def _children() -> set[str]:
    return set(Path("/proc/thread-self/children").read_text().split())


async def test_output_is_bounded():
    """A program that writes without end is stopped at the limit."""
    with pytest.raises(ActionFailed, match="wrote more than it may"):
        await run(["sh", "-c", "while :; do echo flood; done"], within=SOON, output_limit=10_000)


# --- a program that stays --------------------------------------------------------------------------------------------

ECHO = ["sh", "-c", 'while read -r line; do echo "got $line"; echo "err $line" >&2; echo done; done']


async def test_a_child_answers_one_request_after_the_other():
    """Each request gets what both streams said before its last line."""
    child = await Child.start(ECHO)
    for word in (b"one", b"two"):
        assert await child.ask(word + b"\n", until=b"done", within=SOON) == b"got %b\nerr %b\n" % (word, word)
    await child.close()
    assert not child.alive


async def test_a_child_that_dies_is_unavailable():
    """A request that the program does not survive says so, with its last words."""
    child = await Child.start(["sh", "-c", "read -r line; echo bye"])
    with pytest.raises(Unavailable, match="bye"):
        await child.ask(b"x\n", until=b"done", within=SOON)
    assert not child.alive


async def test_a_dead_child_takes_no_request():
    """A request to a program that is gone fails at once and does not hang."""
    child = await Child.start(["true"])
    with pytest.raises(Unavailable):
        await child.ask(b"x\n", until=b"done", within=SOON)
    with pytest.raises(Unavailable):
        await child.ask(b"x\n", until=b"done", within=SOON)


async def test_a_silent_child_is_killed_in_time():
    """A request without an answer ends the program: a late answer could be taken for the next one."""
    child = await Child.start(["sh", "-c", "cat > /dev/null"])
    with pytest.raises(TimedOut):
        await child.ask(b"x\n", until=b"done", within=AT_ONCE)
    assert not child.alive


async def test_a_flooding_child_is_killed():
    """An answer over the limit ends the program."""
    child = await Child.start(["sh", "-c", "read -r line; while :; do echo flood; done"], output_limit=10_000)
    with pytest.raises(ActionFailed, match="wrote more than it may"):
        await child.ask(b"x\n", until=b"done", within=SOON)
    assert not child.alive


async def test_a_cancelled_request_kills_the_child():
    """Cancelling a request ends the program."""
    child = await Child.start(["sh", "-c", "cat > /dev/null"])
    task = asyncio.create_task(child.ask(b"x\n", until=b"done", within=SOON))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not child.alive
