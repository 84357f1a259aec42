"""Are people told on their terminals: all of them, in plain text, within a bounded time?"""

import os
import pty
import struct
import tty
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from stanch.agent.host.run import find
from stanch.agent.host.users import MAX_TEXT, WIDTH, TerminalUsers, sanitised
from stanch.core.errors import Unsupported

USER_PROCESS, DEAD_PROCESS = 7, 8


def utmp(*logins: tuple[int, bytes, bytes]) -> bytes:
    """A file of the form utmp(5): kind, terminal, account."""
    form = "=hxxi32s4s32s256s52x"
    return b"".join(struct.pack(form, kind, os.getpid(), line, line[-4:], user, b"") for kind, line, user in logins)


@pytest.fixture
def there(tmp_path: Path):
    """A host with these logins, and a program in the place of wall that does what a shell script says."""

    def make(script: str, *logins: tuple[int, bytes, bytes], **options) -> TerminalUsers:
        (tmp_path / "utmp").write_bytes(utmp(*logins))
        (tmp_path / "wall").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "wall").chmod(0o700)
        places = {"utmp": tmp_path / "utmp", "sessions": tmp_path / "sessions"}
        return TerminalUsers(program=os.fspath(tmp_path / "wall"), **places, **options)

    return make


ALICE, BOB = (USER_PROCESS, b"pts/0", b"alice"), (USER_PROCESS, b"tty1", b"bob")


# --- telling ---------------------------------------------------------------------------------------------------------


async def test_the_text_goes_to_wall_and_terminals_are_counted(there, tmp_path):
    """One terminal counts once, however often it is listed; a dead login and a graphical one do not count."""
    dead, graphical = (DEAD_PROCESS, b"pts/9", b"eve"), (USER_PROCESS, b":0", b"alice")
    users = there(f"cat > {tmp_path}/said", ALICE, ALICE, BOB, dead, graphical)
    assert await users.tell("You are cut off.") == 2
    assert (tmp_path / "said").read_text() == "You are cut off."


async def test_wall_gets_no_environment_of_ours(there, tmp_path, monkeypatch):
    """Nothing that the agent knows reaches the program."""
    monkeypatch.setenv("STANCH_SECRET", "1")
    assert await there(f"cat > /dev/null; env > {tmp_path}/env", ALICE).tell("x") == 1
    assert "STANCH_SECRET" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize("script", ["exit 3", "echo no >&2; exit 1"])
async def test_a_wall_that_fails_is_logged(there, script):
    """Nobody was told, and it says so instead of raising."""
    with capture_logs() as logs:
        assert await there(script, ALICE).tell("x") == 0
    assert [one["event"] for one in logs] == ["users-not-told"]


async def test_a_missing_wall_is_logged(tmp_path):
    """A host without the program isolates all the same."""
    (tmp_path / "utmp").write_bytes(utmp(ALICE))
    with capture_logs() as logs:
        users = TerminalUsers(program=os.fspath(tmp_path / "none"), utmp=tmp_path / "utmp", sessions=tmp_path)
        assert await users.tell("x") == 0
    assert [one["event"] for one in logs] == ["users-not-told"]


async def test_a_terminal_that_hangs_is_left_behind(there):
    """What could be told was told; the rest is given up after its time."""
    with capture_logs() as logs:
        users = there("cat > /dev/null; exec sleep 600", ALICE, within=timedelta(seconds=0.3))
        assert await users.tell("x") == 1
    assert [one["event"] for one in logs] == ["a terminal took no text"]


@pytest.mark.parametrize("text", ["", "\x1b\x07\n \t"])
async def test_nothing_is_said_where_nothing_is_left(there, tmp_path, text):
    """A text without a word in it starts no program."""
    assert await there(f"touch {tmp_path}/said", ALICE).tell(text) == 0
    assert not (tmp_path / "said").exists()


async def test_nobody_is_told_where_nobody_is(there, tmp_path):
    """No program is started on a server that nobody is logged in to."""
    assert await there(f"touch {tmp_path}/said").tell("x") == 0
    assert not (tmp_path / "said").exists()


async def test_sessions_of_logind_count_where_there_is_no_utmp(there, tmp_path):
    """A terminal that both list counts once; a session without a terminal, a greeter and garbage do not."""
    users = there("cat > /dev/null", ALICE)
    (tmp_path / "sessions").mkdir()
    sessions = {
        "1": "USER=alice\nCLASS=user\nTTY=pts/0\n",
        "2": "USER=bob\nCLASS=user\nTTY=tty2\n",
        "3": "USER=carol\nCLASS=user\n",
        "4": "USER=gdm\nCLASS=greeter\nTTY=tty7\n",
        "5": "\0\xff",
    }
    for name, text in sessions.items():
        (tmp_path / "sessions" / name).write_text(text)
    os.mkfifo(tmp_path / "sessions" / "1.ref")
    assert users.terminals() == {"pts/0", "tty2"}
    assert await users.tell("x") == 2


# --- the real one ----------------------------------------------------------------------------------------------------


def wall_is_here() -> bool:
    """Is there a wall here?"""
    try:
        find("wall")
    except Unsupported:
        return False
    return True


@pytest.mark.root
@pytest.mark.skipif(not wall_is_here(), reason="wall is not installed")
async def test_a_real_wall_writes_on_a_real_terminal(tmp_path):
    """In a mount namespace of its own, whose utmp lists a pseudo terminal that this test holds."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    line = os.ttyname(slave).removeprefix("/dev/")
    listed = tmp_path / "utmp"
    listed.write_bytes(utmp((USER_PROCESS, line.encode(), b"root")))
    inside = f"mount -t tmpfs none /run && cp {listed} /run/utmp && exec wall"
    script = tmp_path / "wall"
    script.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{inside}'\n")
    script.chmod(0o700)
    try:
        users = TerminalUsers(program=os.fspath(script), utmp=listed, sessions=tmp_path)
        assert await users.tell("You are cut off.\nAsk the \x1b[31mhelp desk.") == 1
        os.set_blocking(master, False)
        said = os.read(master, 65536).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert "You are cut off." in said
    assert "Ask the [31mhelp desk." in said


# --- the text --------------------------------------------------------------------------------------------------------


@given(st.text(max_size=3000))
def test_any_text_becomes_plain_bounded_lines(text):
    """No control character but the line break, no line wider than a terminal, no more than the bound."""
    plain = sanitised(text)
    lines = plain.split("\n")
    assert all(character.isprintable() for line in lines for character in line)
    assert all(len(line) <= WIDTH for line in lines)
    assert len(plain.replace("\n", "")) <= MAX_TEXT
    assert sanitised(plain) == plain


def test_words_survive():
    """Long lines are wrapped between words, and line breaks stay."""
    words = "one two three " * 20
    assert sanitised(f"first\n{words}").split() == ["first", *words.split()]
    assert sanitised("first\nsecond") == "first\nsecond"
