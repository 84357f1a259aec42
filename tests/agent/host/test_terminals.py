"""Terminals with real shells: joined to their person through connections that break, and closed for every reason."""

import asyncio
import os
import pwd
import re
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from stanch.agent.backoff import Backoff
from stanch.agent.host import terminals as of_host
from stanch.agent.host.procfs import read_stat
from stanch.agent.host.terminals import LinuxTerminals, Seats, command_of
from stanch.agent.terminal_link import TerminalLink
from stanch.core.errors import Invalid, NotFound, TargetGone, Unavailable
from stanch.core.processes import ProcessId
from stanch.core.terminal import Closed, Shell, Why
from stanch.core.terminal_wire import BUFFER, ON_THE_WAY, HangUp, Resize
from stanch.core.types import EndpointPath, hours, seconds
from tests.fakes.terminal_person import FakePerson
from tests.fakes.waiting import eventually

TASK = "tsk_test_terminals"
ME = pwd.getpwuid(os.geteuid()).pw_name


def quick() -> Backoff:
    return Backoff(first=0.001, longest=0.002)


def shell(**more) -> Shell:
    fields = {"program": EndpointPath("/bin/sh"), "user": ME, "folder": EndpointPath("/")}
    return Shell(**fields | {"idle": hours(1), "lasts": hours(2)} | more)


def runs(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.state not in "ZX"


@dataclass
class Story:
    """A terminal, and the person at it."""

    person: FakePerson = field(default_factory=FakePerson)
    seats: Seats = field(default_factory=Seats)
    finish: float = 20.0
    patience: float = 20.0
    """How long an outage may last."""
    grace: float = 0.2
    """Between SIGHUP and SIGKILL."""
    begun: list[ProcessId] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.links: list[TerminalLink] = []

    def line(self) -> TerminalLink:
        made = TerminalLink(
            task=TASK,
            dial=self.person.dial,
            backoff=quick,
            grace=seconds(self.patience),
            finish_within=seconds(self.finish),
        )
        self.links.append(made)
        return made

    def terminals(self) -> LinuxTerminals:
        return LinuxTerminals(task=TASK, line=self.line, seats=self.seats, grace=seconds(self.grace), drain=seconds(20))

    async def started(self, one: ProcessId) -> None:
        self.begun.append(one)

    async def open(self, one: Shell) -> Closed:
        return await self.terminals().open(one, started=self.started)

    @asynccontextmanager
    async def opened(self, **more):
        """While it is open; when it is left, it must have been closed."""
        opening = asyncio.get_running_loop().create_task(self.open(shell(**more)))
        try:
            yield opening
            await asyncio.wait_for(opening, 20)
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        assert not runs(self.begun[0].pid)

    async def sees(self, pattern: str) -> re.Match[str]:
        """Wait until something of this form is shown."""
        found = []
        await self.person.until(lambda: found.extend(re.finditer(pattern, self.person.shown.decode())) or found)
        return found[0]


async def test_a_session_from_the_first_key_to_the_exit_code():
    """What is typed is done, what is written is shown, and how it ended is told to both."""
    story = Story()
    async with story.opened() as opening:
        story.person.type("echo he''llo; exit 3\n")
        await story.sees("hello\r\n")
    closed = opening.result()
    assert (closed.why, closed.code, closed.signal, closed.pid) == (Why.EXIT, 3, None, story.begun[0].pid)
    assert (closed.sent, closed.received) == (len(story.person.shown), len("echo he''llo; exit 3\n"))
    assert story.person.closed == closed


async def test_a_signal_that_ended_it_is_told():
    """A shell that is killed has no exit code, but a signal."""
    story = Story()
    async with story.opened() as opening:
        story.person.type("kill -9 $$\n")
    assert (opening.result().code, opening.result().signal) == (None, "SIGKILL")


async def test_another_size_reaches_the_shell():
    """The first size is the order's; another one is the person's."""
    story = Story()
    async with story.opened(columns=100, rows=30):
        story.person.type("stty size\n")
        await story.sees("30 100")
        story.person.say(Resize(columns=132, rows=43))
        story.person.type("while [ \"$(stty size)\" != '43 132' ]; do :; done; stty size; exit\n")
        await story.sees("43 132\r\n")


async def test_keys_that_signal_are_typed():
    """Ctrl-C is a signal to what runs in the foreground."""
    story = Story()
    script = "trap 'exit 7' INT; echo begun; while :; do sleep 0.1; done"
    async with story.opened(arguments=["-c", script]) as opening:
        await story.sees("begun\r\n")
        story.person.type("\x03")
    assert (opening.result().why, opening.result().code) == (Why.EXIT, 7)


async def test_what_runs_in_the_background_is_ended(tmp_path):
    """After the exit nothing of it runs, even if it wanted to stay."""
    story, file = Story(), tmp_path / "pid"
    async with story.opened():
        story.person.type(f"setsid sh -c \"trap '' HUP; echo \\$\\$ >{file}; exec sleep 1000\" >/dev/null &\n")
        await eventually(lambda: file.exists() and file.read_text().endswith("\n"))
        assert runs(int(file.read_text()))
        story.person.type("exit\n")
    assert not runs(int(file.read_text()))


async def test_who_kills_the_keeper_ends_the_terminal(tmp_path):
    """Its jobs do not keep a terminal open whose keeper somebody has killed; how the shell ended nobody can tell."""
    story, file = Story(), tmp_path / "pid"
    async with story.opened() as opening:
        story.person.type(f"sh -c \"trap '' HUP; echo \\$\\$ >{file}; exec sleep 1000\" &\n")
        await eventually(lambda: file.exists() and file.read_text().endswith("\n"))
        story.person.type("kill -9 $PPID\n")
    closed = opening.result()
    assert (closed.why, closed.code, closed.signal) == (Why.EXIT, None, None)
    assert not runs(int(file.read_text()))


@pytest.mark.parametrize("seed", range(4))
async def test_much_output_arrives_whole_through_broken_connections(tmp_path, seed):
    """2 MB of it, with a connection that breaks again and again, and none of it lost or doubled."""
    file = tmp_path / "lines"
    file.write_bytes(b"".join(b"%d\n" % n for n in range(280_000)))
    story = Story(FakePerson(cuts=[(seed * 7 + n * n) % 23 for n in range(12)]))
    async with story.opened() as opening:
        story.person.type(f"stty -echo -onlcr; echo be''gin; cat {file}; exit\n")
    shown = bytes(story.person.shown)
    assert shown.partition(b"begin\n")[2] == file.read_bytes()
    assert opening.result().sent == len(shown)
    assert len(story.person.dialled) > 4


async def test_a_flood_waits_for_its_reader():
    """`yes` with nobody who takes it costs one buffer, however long it runs."""
    story = Story(FakePerson(acknowledges=False), finish=0.01)
    async with story.opened() as opening:
        story.person.type("yes\n")
        await story.person.until(lambda: len(story.person.shown) >= BUFFER)
        link = story.links[0]
        assert link.outgoing.room == 0
        story.person.say(HangUp())
        await asyncio.wait({opening}, timeout=20)
        assert len(story.person.shown) == BUFFER
    assert opening.result().why is Why.LEFT


async def test_a_flood_is_ended_by_a_key():
    """What is typed gets through while output floods, since the person reads."""
    story = Story()
    async with story.opened(arguments=["-c", "trap 'exit 7' INT; yes; exit 8"]) as opening:
        await story.person.until(lambda: len(story.person.shown) > BUFFER)
        story.person.type("\x03")
    assert opening.result().code == 7
    assert opening.result().sent == len(story.person.shown)


async def test_a_shell_that_does_not_read_costs_one_buffer():
    """What is pasted into a program that reads nothing waits, bounded, and hanging up still works."""
    story = Story()
    async with story.opened() as opening:
        story.person.type("stty raw -echo; echo be''gun; sleep 1000\n")
        await story.sees("begun")
        story.person.type(b"x" * (ON_THE_WAY // 2))
        link = story.links[0]
        await eventually(lambda: link.typed.waiting > ON_THE_WAY // 2 - 100_000)
        assert link.typed.waiting <= ON_THE_WAY
        story.person.say(HangUp())
    assert opening.result().why is Why.LEFT


async def test_nobody_types():
    """It says so before, and closes."""
    story = Story()
    async with story.opened(idle=seconds(0.2)) as opening:
        pass
    assert opening.result().why is Why.IDLE
    assert b"nothing was typed" in story.person.shown
    assert story.person.closed == opening.result()


async def test_typing_keeps_it_open():
    """The time without typing begins anew with each key."""
    story = Story()
    async with story.opened(idle=seconds(1.6)) as opening:
        await story.sees("nothing was typed")
        story.person.type("echo he''re\n")
        await story.sees("here\r\n")
        await story.sees("(?s)nothing was typed.*nothing was typed")
    assert opening.result().why is Why.IDLE


async def test_its_time_is_over():
    """However busy it is, it ends, and says so before."""
    story = Story()
    async with story.opened(lasts=seconds(0.2)) as opening:
        story.person.type("trap '' HUP; sleep 1000\n")
    assert opening.result().why is Why.TIME
    assert b"its time is over" in story.person.shown


async def test_the_person_leaves():
    """Hanging up ends the shell and all in it."""
    story = Story()
    async with story.opened() as opening:
        story.person.type("trap '' HUP; echo re''ady\n")
        await story.sees("ready\r\n")
        story.person.say(HangUp())
    assert (opening.result().why, opening.result().signal) == (Why.LEFT, "SIGKILL")
    assert story.person.closed == opening.result()


@pytest.mark.parametrize("trouble", [Unavailable("away"), NotFound("nobody waits")])
async def test_the_server_goes_for_good(trouble):
    """A shell that nobody can reach any more is ended."""
    story = Story(patience=0.1)
    async with story.opened() as opening:
        story.person.type("echo re''ady\n")
        await story.sees("ready\r\n")
        story.person.refuses = trouble
        story.person.cut()
    assert opening.result().why is Why.LINK
    assert story.person.closed is None


async def test_the_shell_goes_on_while_the_server_is_away():
    """An outage shorter than the grace is seen by nobody."""
    story = Story()
    async with story.opened():
        story.person.type("sleep 0; echo be''fore\n")
        await story.sees("before\r\n")
        story.person.cut()
        story.person.type("echo af''ter; exit\n")
        await story.sees("after\r\n")
    assert len(story.person.dialled) == 2


async def test_cancelled_it_is_closed_and_says_so():
    """A task that is cancelled ends the shell, and its result tells what it was."""
    story = Story()
    async with story.opened() as opening:
        story.person.type("echo re''ady\n")
        await story.sees("ready\r\n")
        opening.cancel()
    assert opening.result().why is Why.CANCELLED
    assert story.person.closed == opening.result()


async def test_cancelled_twice_it_is_ended_all_the_same():
    """Who has no patience left gets no result, and nothing runs on."""
    story = Story(grace=20)
    opening = asyncio.get_running_loop().create_task(story.open(shell()))
    story.person.type("trap '' HUP; echo re''ady\n")
    await story.sees("ready\r\n")
    opening.cancel()
    await asyncio.wait({opening}, timeout=0.01)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await eventually(lambda: not runs(story.begun[0].pid))


async def test_nothing_is_started_if_the_server_cannot_be_joined():
    """Unavailable means that there was no shell."""
    story = Story(FakePerson(refuses=NotFound("nobody")))
    with pytest.raises(Unavailable):
        await story.open(shell())
    assert story.begun == []


async def test_the_shell_waits_until_it_is_written_down(tmp_path):
    """If its process cannot be written down, it never began."""
    story = Story()

    async def fails(_one):
        raise Unavailable("the disk is full")

    mark = tmp_path / "mark"
    wanted = shell(program=EndpointPath("/usr/bin/touch"), arguments=[str(mark)])
    with pytest.raises(Unavailable, match="disk is full"):
        await story.terminals().open(wanted, started=fails)
    assert not mark.exists()


async def test_seats_are_few_and_given_back():
    """One too many is refused before anything happens, and a seat is free again afterwards."""
    story = Story(seats=Seats(1))
    async with story.opened():
        story.person.type("echo re''ady\n")
        await story.sees("ready\r\n")
        with pytest.raises(Unavailable, match="Too many"):
            await story.terminals().open(shell(), started=story.started)
        assert "Too many" in await story.terminals().why_not(shell())
        story.person.type("exit\n")
    assert await story.terminals().why_not(shell()) is None


async def test_what_cannot_be_opened_says_why():
    """An unknown user, program and folder are found without starting anything, and refused when it is opened."""
    wrong = {
        "no such user": (shell(user="nobody-of-this-name"), Invalid),
        "no program": (shell(program=EndpointPath("/nonexistent/sh")), TargetGone),
        "no folder": (shell(folder=EndpointPath("/nonexistent")), TargetGone),
    }
    for text, (one, error) in wrong.items():
        story = Story()
        assert text in await story.terminals().why_not(one)
        with pytest.raises(error):
            await story.open(one)


class Account:
    """An account as the name service has it."""

    def __init__(self, **fields):
        known = {"pw_name": "www", "pw_uid": 33, "pw_gid": 33, "pw_dir": "/var/www", "pw_shell": "/bin/bash"}
        vars(self).update(known | fields)


@pytest.mark.parametrize(
    ("login", "programs"),
    [
        ("/bin/bash", [("/bin/bash", "-bash"), ("/bin/sh", "-sh")]),
        ("/bin/sh", [("/bin/sh", "-sh")]),
        ("/usr/sbin/nologin", [("/bin/sh", "-sh")]),
        ("/bin/false", [("/bin/sh", "-sh")]),
        ("", [("/bin/sh", "-sh")]),
    ],
)
def test_the_login_shell_or_another(monkeypatch, login, programs):
    """A login shell that lets nobody in is of no use to a responder."""
    monkeypatch.setattr(of_host.pwd, "getpwnam", lambda _name: Account(pw_shell=login))
    monkeypatch.setattr(of_host.os, "getgrouplist", lambda _name, gid: [gid])
    command = command_of(shell(program=None, user="www", folder=None), TASK)
    assert command.programs == programs
    assert (command.folder, command.folder_must) == ("/var/www", False)
    assert {"HOME": "/var/www", "USER": "www", "STANCH_TASK": TASK}.items() <= command.environment.items()
    assert (command.uid, command.gid, command.groups) == (33, 33, [33])


def test_odd_bytes_in_a_path_are_kept():
    """A program whose name is no text can be run."""
    command = command_of(shell(program=EndpointPath(r"/tmp/\xff")), TASK)
    assert os.fsencode(command.programs[0][0]) == b"/tmp/\xff"
    assert rb"\udcff" in command.to_json()


def test_a_signal_without_a_name_has_its_number():
    """Real-time signals have none."""
    assert of_host._signal_name(signal.SIGHUP) == "SIGHUP"
    assert of_host._signal_name(64) in {"SIGRTMAX", "signal 64"}
    assert of_host._signal_name(50) == "signal 50"
