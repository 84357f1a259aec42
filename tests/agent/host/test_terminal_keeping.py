"""What the keeper of a terminal does, by what it says on its socket."""

import asyncio
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stanch.agent.host.procfs import read_stat
from stanch.agent.host.pty import KEEPER, Command, Pty
from stanch.core.types import seconds
from tests.fakes.waiting import wait_until

GROUPS = Path("/sys/fs/cgroup/unified")


def order(*arguments: str, **more: object) -> bytes:
    """What the agent sends first: sh, as whoever runs the test."""
    words = {
        "programs": [["/bin/sh", "sh"]],
        "arguments": arguments,
        "environment": {"PATH": "/usr/bin:/bin"},
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "groups": os.getgroups(),
        "folder": "/",
        "folder_must": True,
        "group": None,
    }
    return json.dumps(words | more).encode()


class Agent:
    """The agent's end."""

    def __init__(self, words: socket.socket, terminal: int, process: "subprocess.Popen[bytes]") -> None:
        self.words = words
        self.terminal = terminal
        self.process = process

    def hears(self) -> str:
        return self.words.recv(65_536).decode()

    def shown(self) -> bytes:
        """All that was written, to the end."""
        seen = b""
        try:
            while data := os.read(self.terminal, 4096):
                seen += data
        except OSError:
            pass
        return seen


@contextmanager
def kept() -> Iterator[Agent]:
    """A keeper that runs, and is ended in the end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(20)
    master, slave = pty.openpty()
    command = [sys.executable, "-I", "-S", str(KEEPER), "tsk_test_keeping"]
    with subprocess.Popen(command, stdin=theirs, stdout=slave, env={}, cwd="/") as process:
        theirs.close()
        os.close(slave)
        try:
            yield Agent(ours, master, process)
        finally:
            ours.close()
            assert process.wait(timeout=30) == 0
            os.close(master)


def runs(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.state not in "ZX"


def test_the_words_from_the_first_to_the_last():
    """Its pid, that it runs, how it ended, and then nothing more."""
    with kept() as agent:
        agent.words.send(order("-c", "echo hello; exit 4"))
        word, pid = agent.hears().split()
        assert word == "pid"
        assert runs(int(pid))
        agent.words.send(b"go")
        assert agent.hears() == "running"
        assert agent.hears() == "exit 4"
        assert agent.hears() == ""
        assert b"hello\r\n" in agent.shown()


def test_an_agent_that_goes_without_having_listened():
    """What it did not hear any more is no trouble: all is ended."""
    with kept() as agent:
        agent.words.send(order("-c", "trap '' HUP; echo ready; while :; do sleep 0.1; done"))
        pid = int(agent.hears().split()[1])
        agent.words.send(b"go")
        assert os.read(agent.terminal, 100) == b"ready\r\n"
    assert not runs(pid)


def test_another_word_than_go_is_none():
    """Whatever else is said, the program never begins."""
    with kept() as agent:
        agent.words.send(order("-c", "echo hello"))
        agent.hears()
        agent.words.send(b"stop")
        said = [agent.hears() for _ in range(3)]
        assert said[-1] == ""
        assert b"hello" not in agent.shown()


@pytest.mark.parametrize("wrong", [{"programs": [["/nonexistent", "x"]]}, {"folder": "/nonexistent"}, {"uid": "x"}])
def test_what_fails_is_told_with_its_number(wrong):
    """A program, folder or account that cannot be had is told, with what the kernel said."""
    with kept() as agent:
        agent.words.send(order("-c", "echo hello", **wrong))
        agent.hears()
        agent.words.send(b"go")
        word, number, _ = agent.hears().split(" ", 2)
        assert word == "failed"
        assert number == ("0" if "uid" in wrong else "2")
        assert b"hello" not in agent.shown()


def test_a_home_that_cannot_be_entered_is_no_obstacle():
    """Only a folder that was asked for must be there."""
    with kept() as agent:
        agent.words.send(order("-c", "pwd", folder="/nonexistent", folder_must=False))
        agent.hears()
        agent.words.send(b"go")
        assert agent.hears() == "running"
        assert agent.shown() == b"/\r\n"


def test_no_favour_and_no_deafness_is_inherited():
    """The shell is as likely to be chosen when memory is short as anybody's, and dies of a closed pipe."""
    with kept() as agent:
        agent.words.send(order("-c", "cat /proc/self/oom_score_adj; grep SigIgn /proc/self/status"))
        agent.hears()
        agent.words.send(b"go")
        lines = agent.shown().decode().split()
        assert lines[0] == "0"
        assert int(lines[-1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_a_tree_that_grows_while_it_is_killed_ends():
    """Who forks and forks again is held still first."""
    with kept() as agent:
        script = "trap '' HUP; grow() { while :; do sleep 0.01 & wait; done; }; grow & grow & grow & echo ready; wait"
        agent.words.send(order("-c", script))
        pid = int(agent.hears().split()[1])
        agent.words.send(b"go")
        assert agent.hears() == "running"
        assert os.read(agent.terminal, 100) == b"ready\r\n"
        agent.words.send(b"hang-up 0.05")
        assert agent.hears() == f"exit -{int(signal.SIGKILL)}"
        assert agent.hears() == ""
        assert not runs(pid)


def test_the_shell_dies_with_its_keeper():
    """If somebody kills the keeper, the kernel kills the shell."""
    with kept() as agent:
        agent.words.send(order("-c", "while :; do sleep 0.1; done"))
        pid = int(agent.hears().split()[1])
        agent.words.send(b"go")
        assert agent.hears() == "running"
        agent.process.kill()
        wait_until(lambda: not runs(pid))
        agent.process.wait(timeout=20)
        agent.process.returncode = 0  # as was meant


@pytest.mark.root
@pytest.mark.skipif(not GROUPS.is_dir(), reason="no control groups of version 2 there")
async def test_a_control_group_of_its_own():
    """What runs in a terminal is in the group of the task from its first instruction, and the group goes with it."""
    parent = GROUPS / f"stanch-test-{os.getpid()}"
    parent.mkdir()
    try:
        command = Command(
            task="tsk_test_group",
            programs=[("/bin/cat", "cat")],
            arguments=["/proc/self/cgroup"],
            environment={},
            uid=os.geteuid(),
            gid=os.getegid(),
            groups=os.getgroups(),
            folder="/",
            folder_must=True,
        )
        one = await Pty.start(command, columns=80, rows=24, groups=parent)
        try:
            await one.run()
            async with asyncio.timeout(20):
                shown = b""
                while data := await one.read(4096):
                    shown += data
                await one.gone.wait()
        finally:
            one.hang_up(seconds(0))
            await one.end()
        assert f"{parent.name}/stanch-run-tsk_test_group".encode() in shown
        assert not [*parent.glob("stanch-run-*")]
    finally:
        parent.rmdir()
