"""A program on a pseudo terminal: held until it may begin, with a terminal of its own, and ended with all it left."""

import asyncio
import os
import re
import signal
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import uvloop

from stanch.agent.host import pty as door
from stanch.agent.host.procfs import read_stat
from stanch.agent.host.pty import Command, Pty
from stanch.core.errors import ActionFailed, Invalid, TargetGone
from stanch.core.types import seconds
from tests.fakes.waiting import eventually

TASK = "tsk_test_pty"


def command(*programs, **more):
    """What to run, as whoever runs the test."""
    fields = {
        "task": TASK,
        "programs": programs or [("/bin/sh", "-sh")],
        "arguments": (),
        "environment": {"PATH": "/usr/bin:/bin", "TERM": "dumb", "PS1": "$ ", "STANCH_TASK": TASK},
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "groups": os.getgroups(),
        "folder": "/",
        "folder_must": True,
    }
    return Command(**fields | more)


@asynccontextmanager
async def running(*programs, **more):
    """A terminal whose program runs; ended in the end."""
    one = await Pty.start(command(*programs, **more), columns=80, rows=24)
    try:
        await one.run()
        yield one
    finally:
        await one.end()


async def type_in(one: Pty, text: str) -> None:
    data = text.encode()
    while data:
        data = data[await one.write(data) :]


async def until(one: Pty, text: str) -> str:
    """What it writes, up to and with this text."""
    return (await until_match(one, re.escape(text))).string


async def until_match(one: Pty, pattern: str) -> re.Match[str]:
    """What it writes, up to and with something of this form."""
    seen = ""
    async with asyncio.timeout(20):
        while (found := re.search(pattern, seen)) is None:
            data = await one.read(4096)
            assert data, f"it ended with {seen!r}"
            seen += data.decode()
    return found


async def rest(one: Pty) -> bytes:
    """Everything up to its end."""
    seen = b""
    async with asyncio.timeout(20):
        while data := await one.read(65536):
            seen += data
    return seen


def runs(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.state not in "ZX"


async def background(one: Pty, file: Path, *, way: str = "") -> int:
    """The pid of a background job that was started in this way, and ignores SIGHUP."""
    script = f"trap '' HUP; echo $$ >{file}; exec sleep 1000"
    await type_in(one, f'{way} sh -c "{script.replace("$", chr(92) + "$")}" >/dev/null 2>&1 </dev/null &\n')
    await eventually(lambda: _written(file) is not None)
    return _written(file) or 0


def _written(file: Path) -> int | None:
    text = file.read_text() if file.exists() else ""
    return int(text) if text.endswith("\n") else None


async def test_nothing_of_it_runs_before_it_may(tmp_path):
    """Until it is told to run, its process is there, and the program has not begun."""
    mark = tmp_path / "mark"
    one = await Pty.start(command(("/usr/bin/touch", "touch"), arguments=(str(mark),)), columns=80, rows=24)
    try:
        assert runs(one.id.pid)
        assert read_stat(one.id.pid).started == one.id.started
        assert not mark.exists()
        await one.run()
        assert await one.exited == 0
        assert mark.exists()
    finally:
        await one.end()


async def test_who_is_never_told_to_run_ends_without_having_begun(tmp_path):
    """An end before the beginning leaves nothing, and has done nothing."""
    mark = tmp_path / "mark"
    one = await Pty.start(command(("/usr/bin/touch", "touch"), arguments=(str(mark),)), columns=80, rows=24)
    await one.end()
    assert not runs(one.id.pid)
    assert not mark.exists()


async def test_it_has_a_terminal_of_its_own():
    """It leads a session whose terminal is this one, job control included, and what is typed is echoed."""
    async with running() as one:
        await type_in(one, "tty; stty size; echo $$\n")
        text = await until(one, f"\r\n{one.id.pid}\r\n")
        assert "/dev/pts/" in text
        assert "24 80" in text
        stat = read_stat(one.id.pid)
        assert stat.session == one.id.pid
        assert stat.terminal == one._device.number


async def test_another_size_is_seen_inside():
    """`stty size` says what the window was made."""
    async with running() as one:
        one.resize(132, 43)
        await type_in(one, "stty size\n")
        await until(one, "43 132")


async def test_only_its_own_descriptors_are_open():
    """Nothing that the agent has open is handed down."""
    async with running() as one:
        await type_in(one, "ls /proc/$$/fd; echo e''nd=\n")
        text = await until(one, "end=\r\n")
        assert {int(word) for word in text.split() if word.isdecimal()} <= {
            0,
            1,
            2,
            10,
        }  # 10: how dash has its terminal


def test_on_the_agents_own_event_loop_too():
    """uvloop differs in how it starts and watches processes: nothing of that shows here."""

    async def story() -> str:
        async with running() as one:
            await type_in(one, "ls /proc/$$/fd; echo e''nd=; exit 0\n")
            text = await until(one, "end=\r\n")
            assert await one.exited == 0
            await asyncio.wait_for(one.gone.wait(), 20)
            return text

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        text = runner.run(story())
    assert {int(word) for word in text.split() if word.isdecimal()} <= {0, 1, 2, 10}


@pytest.mark.parametrize(("typed", "status"), [("exit 3\n", 3), ("kill -9 $$\n", -signal.SIGKILL)])
async def test_how_it_ended(typed, status):
    """Exit code or signal, with all that was written before, and then its end."""
    async with running() as one:
        await type_in(one, f"echo last; {typed}")
        assert b"last\r\n" in await rest(one)
        assert await one.exited == status
        await asyncio.wait_for(one.gone.wait(), 20)


async def test_the_first_program_that_can_be_run_is_run():
    """A login shell that is not there is passed over."""
    async with running(("/nonexistent/shell", "-shell"), ("/bin/sh", "-sh")) as one:
        await type_in(one, "echo $SHELL $0\n")
        await until(one, "/bin/sh -sh\r\n")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"programs": [("/nonexistent/shell", "x")]}, TargetGone),
        ({"folder": "/nonexistent"}, TargetGone),
        ({"programs": [("/etc/passwd", "x")]}, ActionFailed),
        ({"programs": [("/", "x")]}, ActionFailed),
    ],
)
async def test_what_cannot_be_run_says_why(wrong, error):
    """A program or folder that is not there is told by its name, and nothing is left."""
    one = await Pty.start(command(**wrong), columns=80, rows=24)
    try:
        with pytest.raises(error) as raised:
            await one.run()
        assert (wrong.get("folder") or wrong["programs"][0][0]) in raised.value.got
    finally:
        await one.end()
    assert not runs(one.id.pid)


async def test_a_start_of_too_many_words_is_refused():
    """What does not fit into one message is refused before anything is started."""
    with pytest.raises(Invalid):
        await Pty.start(command(arguments=("x" * 70_000,)), columns=80, rows=24)


@pytest.mark.parametrize("way", ["", "setsid", "env -i /usr/bin/setsid", "setsid -f setsid -f"])
async def test_what_it_leaves_in_the_background_is_ended(tmp_path, way):
    """When the shell exits, whatever it has started ends: also an orphan without session, terminal and environment."""
    async with running() as one:
        pid = await background(one, tmp_path / "pid", way=way)
        assert runs(pid)
        await type_in(one, "exit\n")
        await asyncio.wait_for(one.gone.wait(), 20)
        assert not runs(pid)


async def test_hanging_up_is_a_sighup_first():
    """Who wants to clean up at SIGHUP can."""
    script = "trap 'echo cleaned; exit 5' HUP; echo ready=; while :; do sleep 0.1; done"
    async with running(("/bin/sh", "sh"), arguments=("-c", script)) as one:
        await until(one, "ready=\r\n")
        one.hang_up(seconds(20))
        assert b"cleaned" in await rest(one)
        assert await one.exited == 5


async def test_who_ignores_sighup_is_killed_after_the_grace():
    """The grace is all that there is."""
    async with running() as one:
        await type_in(one, "stty -echo; trap '' HUP TERM INT; echo re''ady=\n")
        await until(one, "ready=\r\n")
        one.hang_up(timedelta(milliseconds=50))
        assert await asyncio.wait_for(asyncio.shield(one.exited), 20) == -signal.SIGKILL


async def test_all_of_it_ends_with_the_agent(tmp_path):
    """If the agent's end of the socket closes, as when it is killed, nothing is left running."""
    async with running() as one:
        pid = await background(one, tmp_path / "pid", way="setsid")
        assert runs(pid)
        one._loop.remove_reader(one._words.fileno())
        one._words.shutdown(2)
        await eventually(lambda: not runs(one.id.pid) and not runs(pid))


async def test_who_kills_the_keeper_gets_not_away(tmp_path):
    """With its keeper dead, what carries the mark of the task is found by that."""
    async with running() as one:
        pid = await background(one, tmp_path / "pid", way="setsid")
        os.kill(one._keeper.pid, signal.SIGKILL)
        await asyncio.wait_for(one.gone.wait(), 20)
        assert await one.exited is None
        await one.end()
        await eventually(lambda: not runs(one.id.pid) and not runs(pid))


async def test_a_keeper_that_hangs_is_killed(monkeypatch):
    """A stopped keeper does not hold up the end for ever."""
    monkeypatch.setattr(door, "END_SECONDS", 0.05)
    async with running() as one:
        os.kill(one._keeper.pid, signal.SIGSTOP)
        await one.end()
        await eventually(lambda: not runs(one.id.pid))


async def test_a_program_that_does_not_come_up_is_given_up(monkeypatch):
    """A start that takes for ever, as on a dead network file system, is an error in time."""
    one = await Pty.start(command(), columns=80, rows=24)
    os.kill(one._keeper.pid, signal.SIGSTOP)
    monkeypatch.setattr(door, "START_SECONDS", 0.05)
    monkeypatch.setattr(door, "END_SECONDS", 0.05)
    with pytest.raises(ActionFailed, match="could not be started"):
        await one.run()
    await one.end()
    await eventually(lambda: not runs(one.id.pid))


@pytest.mark.root
async def test_it_becomes_the_account():
    """User, group and groups are the account's, and the terminal belongs to it alone."""
    async with running(uid=65534, gid=65534, groups=[65534], folder="/") as one:
        await type_in(one, "id -u; id -g; id -G; stat -c '%u %a' $(tty); echo e''nd=\n")
        text = await until(one, "end=\r\n")
        assert "65534\r\n65534\r\n65534\r\n65534 600\r\n" in text


OTHER_TERMINAL = """
import fcntl, os, struct, sys
wanted, masters = int(sys.argv[2]), []
os.makedirs(sys.argv[1], exist_ok=True)
while True:
    masters.append(os.open(sys.argv[1] + "/ptmx", os.O_RDWR | os.O_NOCTTY))
    fcntl.ioctl(masters[-1], 0x40045431, struct.pack("i", 0))  # TIOCSPTLCK
    number = struct.unpack("i", fcntl.ioctl(masters[-1], 0x80045430, bytes(4)))[0]  # TIOCGPTN
    if number >= wanted:
        break
os.setsid()
os.open(f"{sys.argv[1]}/{wanted}", os.O_RDWR)
print("ready", flush=True)
sys.stdin.read()
"""
"""Sits at the terminal of this number, of another file system of terminals, until its input ends."""


@pytest.mark.root
async def test_who_sits_at_the_terminal_of_that_number_in_a_container_is_not_killed(tmp_path):
    """Containers count their terminals from 0 as the machine does: the same number is not the same terminal."""
    async with running() as one:
        number = os.minor(one._device.number)
        mount = f"mount -t devpts -o newinstance,ptmxmode=0666 devpts {tmp_path}"
        script = f'{mount} && exec python3 -c "$0" {tmp_path} {number}'
        innocent = await asyncio.create_subprocess_exec(
            "unshare", "-m", "sh", "-c", script, OTHER_TERMINAL,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert await asyncio.wait_for(innocent.stdout.readline(), 20) == b"ready\n"
        stat = read_stat(innocent.pid)
        assert stat.terminal == one._device.number
        await one.end()
        assert runs(innocent.pid)
        innocent.stdin.close()
        assert await innocent.wait() == 0
