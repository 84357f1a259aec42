"""Who is logged in: is what logind and utmp say read with care, and believed only where the kernel agrees?"""

import ctypes
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.end_sessions import EndSessions, end_sessions
from stanch.agent.host import sessions
from stanch.agent.host.accounts import LinuxAccounts
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.processes import LinuxProcesses
from stanch.agent.host.sessions import Login, Logins, merged, parse_logind, parse_utmp, scope_of
from stanch.core.action import Verdict
from stanch.core.errors import Protected
from stanch.core.types import seconds
from tests.fakes.host import fake_host

LOGIND = """\
# This is private data. Do not parse.
UID=1000
USER=alice
ACTIVE=1
STATE=active
REMOTE=1
TYPE=tty
CLASS=user
SCOPE=session-c2.scope
TTY=pts/3
REMOTE_HOST=198.51.100.7
SERVICE=sshd
LEADER=4711
AUDIT=2
REALTIME=1700000000123456
"""


def record(user: bytes, line: bytes, *, pid=0, host=b"", kind=7, since=1_700_000_000) -> bytes:
    """A record of utmp."""
    return struct.pack("=hxxi32s4s32s256s4x4xI4x36x", kind, pid, line, b"", user, host, since)


# --- what is written -------------------------------------------------------------------------------------------------


def test_a_session_of_logind_is_read():
    """Who, where, from where, by what, since when, and its first process."""
    (found,) = parse_logind("c2", LOGIND)
    assert (found.id, found.user, found.terminal, found.remote) == ("c2", "alice", "pts/3", "198.51.100.7")
    assert (found.service, found.leader, found.since, found.uid) == ("sshd", 4711, 1_700_000_000_123_456, 1000)


@pytest.mark.parametrize("of", ["greeter", "background", "manager", "lock-screen"])
def test_what_is_no_person_is_left_out(of):
    """A greeter and the jobs of cron are sessions for logind, too."""
    assert list(parse_logind("c2", LOGIND.replace("CLASS=user", f"CLASS={of}"))) == []


def test_odd_numbers_of_logind_are_none():
    """What is no number is left out, not guessed at."""
    (found,) = parse_logind(
        "c2", LOGIND.replace("4711", "-1").replace("1700000000123456", "9" * 40).replace("1000", "x")
    )
    assert (found.leader, found.since, found.uid) == (0, 0, None)


def test_utmp_is_read():
    """A login by its terminal; one without by its process; the dead and those with odd names are left out."""
    raw = record(b"alice", b"pts/3", pid=7, host=b"198.51.100.7") + record(b"bob", b"", pid=9)
    raw += record(b"eve", b"pts/4", kind=8) + record(b"", b"pts/5") + record(b"mallory", b"a b") + b"cut off"
    alice, bob = parse_utmp(raw)
    assert (alice.id, alice.user, alice.leader, alice.remote) == ("pts/3", "alice", 7, "198.51.100.7")
    assert (bob.id, bob.terminal, alice.trusted) == ("utmp-9", "", False)


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_left_out(raw):
    """utmp may be written by whoever is in its group."""
    for one in parse_utmp(raw):
        assert one.user
        assert len(one.id) <= 64


@given(st.text(max_size=500))
def test_any_text_of_logind_is_read_or_left_out(text):
    """As above, and no number is negative."""
    for one in parse_logind("1", text + "\nCLASS=user\nUSER=x"):
        assert one.leader >= 0


def test_each_session_is_there_once():
    """What logind says goes before what utmp says of the same terminal, leader or name."""
    first = [Login(id="c2", user="alice", terminal="pts/3", leader=7, trusted=True)]
    same = [Login(id="pts/3", user="eve", terminal="pts/3"), Login(id="utmp-7", user="eve", leader=7)]
    other = Login(id="pts/4", user="bob", terminal="pts/4")
    assert merged(first, [*same, other, other]) == [*first, other]


@pytest.mark.parametrize(
    ("cgroups", "session"),
    [
        (b"0::/user.slice/user-1000.slice/session-c2.scope\n", "c2"),
        (b"0::/user.slice/user-1000.slice/session-3.scope/inner\n", "3"),
        (b"5:cpu:/\n1:name=systemd:/user.slice/user-0.slice/session-12.scope\n0::/\n", "12"),
        (b"0::/user.slice/user-1000.slice/user@1000.service/session-3.scope\n", ""),
        (b"0::/mine/user.slice/user-1000.slice/session-3.scope\n", ""),
        (b"0::/user.slice/user-1000.slice/session-3.scopes\n", ""),
        (b"", ""),
    ],
)
def test_only_the_group_that_logind_made_counts(cgroups, session):
    """People may make groups of such a name below their own."""
    assert scope_of(cgroups) == session


# --- what runs -------------------------------------------------------------------------------------------------------


@dataclass
class Shell:
    """A shell on a terminal, with a child."""

    pid: int
    child: int
    terminal: str


_SET_CHILD_SUBREAPER = 36


@pytest.fixture
def shell():
    """A session of its own on a new terminal: a shell that hears no HUP and no TERM, and its child."""
    if shutil.which("setsid") is None:
        pytest.skip("setsid is not installed")
    master, slave = pty.openpty()
    terminal = os.ttyname(slave).removeprefix("/dev/")
    script = "trap '' HUP TERM; sleep 300 & echo $$ $!; wait"
    # It must not descend from this process, which stands for the agent here, and may have been told to adopt orphans.
    assert ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, ctypes.c_ulong(0), 0, 0, 0) == 0
    command = ["setsid", "--fork", "--ctty", "sh", "-c", script]
    with subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE) as started, ExitStack() as held:
        os.close(slave)
        held.callback(os.close, master)
        assert started.stdout is not None
        pid, child = map(int, started.stdout.readline().split())
        for one in (child, pid):
            pidfd = os.pidfd_open(one)
            held.callback(os.close, pidfd)
            held.callback(_kill, pidfd)
        yield Shell(pid, child, terminal)


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


@pytest.fixture
def there(tmp_path):
    """Who is logged in by files that a test writes."""

    def make(*, utmp=b"", logind=None, uid=None) -> Logins:
        (tmp_path / "utmp").write_bytes(utmp)
        (tmp_path / "sessions").mkdir(exist_ok=True)
        for name, text in (logind or {}).items():
            (tmp_path / "sessions" / name).write_text(text)
        uid = os.geteuid() if uid is None else uid
        return Logins(logind=tmp_path / "sessions", utmp=tmp_path / "utmp", uid_of=lambda _name: uid)

    return make


def test_a_login_of_utmp_is_its_terminal_and_what_descends(there, shell):
    """The leader first; what is not there any more is not shown."""
    utmp = record(b"alice", shell.terminal.encode(), pid=shell.pid) + record(b"eve", b"pts/99999", pid=4_194_303)
    logins = there(utmp=utmp)
    (found,) = logins.sessions()
    assert (found.id, found.user, found.processes, found.own) == (shell.terminal, "alice", 2, False)
    assert found.leader is not None
    assert found.leader.pid == shell.pid
    assert found.since == datetime.fromtimestamp(1_700_000_000, UTC)
    assert [one.pid for one in logins.processes([found])[0]] == [shell.pid, shell.child]


def test_a_terminal_of_somebody_else_is_not_believed(there, shell):
    """utmp may claim that a terminal is another account's: nothing of it is shown, nothing would be ended."""
    assert there(utmp=record(b"alice", shell.terminal.encode(), pid=shell.pid), uid=54_321).sessions() == []


def test_a_leader_that_has_nothing_to_do_with_it_is_not_believed(there, shell):
    """Nor what descends from it: here, all of the tests."""
    (found,) = there(utmp=record(b"alice", shell.terminal.encode(), pid=os.getppid())).sessions()
    assert (found.leader, found.processes, found.own) == (None, 2, False)


@pytest.mark.parametrize("line", [b"../etc/passwd", b"null", b"pts/../null", b"ptmx", b"tty" + b"x" * 20])
def test_a_line_that_is_no_terminal_is_none(there, shell, line):
    """A name with a way in it leads nowhere."""
    assert there(utmp=record(b"alice", line, pid=shell.pid), uid=0).sessions() == []


def test_a_session_of_logind_is_believed(there, shell):
    """Only root writes its files; without a control group, the leader and the terminal tell."""
    text = LOGIND.replace("TTY=pts/3", f"TTY={shell.terminal}").replace("4711", str(shell.pid))
    logins = there(logind={"c2": text, "c2.ref": "no session"}, utmp=record(b"alice", shell.terminal.encode()))
    (found,) = logins.sessions()
    assert (found.id, found.processes, found.remote, found.service) == ("c2", 2, "198.51.100.7", "sshd")


def test_a_session_is_its_control_group(there, shell, monkeypatch):
    """Where logind gave it one: what has left terminal and parent is found; and is still when nobody lists it."""
    groups = {shell.child: b"0::/user.slice/user-1000.slice/session-c2.scope\n"}
    monkeypatch.setattr(sessions, "_read", lambda pid, name: groups.get(pid, b"") if name == "cgroup" else b"")
    logins = there(logind={"c2": LOGIND})
    (found,) = logins.sessions()
    assert [one.pid for one in logins.processes([found])[0]] == [shell.child]
    (logins._logind / "c2").unlink()
    assert [one.pid for one in logins.processes([found])[0]] == [shell.child]


def test_a_later_session_on_the_terminal_is_another(there, shell):
    """What is ended is what was seen, and not whoever came after."""
    line = shell.terminal.encode()
    (found,) = there(utmp=record(b"alice", line, pid=shell.pid)).sessions()
    assert there(utmp=record(b"alice", line, pid=shell.pid, since=1_700_000_001)).processes([found]) == [[]]


def test_the_session_of_stanch_is_known_and_not_counted(there):
    """The agent, what started it and what it started are nobody's to end."""
    (found,) = there(logind={"c9": LOGIND.replace("4711", str(os.getpid()))}).sessions()
    assert (found.own, found.processes) == (True, 0)


def test_everything_of_a_user_id(shell):
    """Processes by their user ids, whatever session they are in; never for root or Stanch itself."""
    with pytest.raises(Protected):
        Logins().processes_of(0)
    with pytest.raises(Protected):
        Logins().processes_of(os.geteuid())
    assert Logins().processes_of(4_000_000_000) == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("options", "cgroup", "meant"),
    [
        (["--pid"], b"0::/system.slice/docker-1234.scope\n", False),
        (["--pid"], b"0::/user.slice/user-%d.slice/session-c2.scope\n", True),
        (["--pid"], b"0::/user.slice/user-1000.slice/session-c2.scope\n", False),
        (["--pid"], b"0::/x\n1:name=/user.slice/user-%d.slice\n", False),
        ([], b"0::/system.slice/docker-1234.scope\n", True),
    ],
)
def test_a_container_that_uses_the_same_number_is_not_the_account(monkeypatch, options, cgroup, meant):
    """User id 1000 of an image is nobody on the machine; what was made for the account in its own session is hers."""
    uid, read = 3_000_000_000 + os.getpid(), sessions._read  # of nobody else, not even of another test
    cgroup = cgroup.replace(b"%d", str(uid).encode())
    monkeypatch.setattr(sessions, "_read", lambda pid, name: cgroup if name == "cgroup" else read(pid, name))
    script = f"import os; os.setresuid({uid}, {uid}, {uid}); print(os.getpid(), flush=True); os.read(0, 1)"
    command = ["setsid", "--fork", "unshare", *options, "--fork", sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline()
        assert bool(Logins().processes_of(uid)) is meant


@pytest.mark.root
def test_a_user_id_is_found_in_any_role():
    """A process that only kept the rights of an account for later has them, too; one of Stanch's own is left out."""
    uid = 3_999_999_999
    script = f"import os; os.setresuid(0, 0, {uid}); print(os.getpid(), flush=True); os.read(0, 1)"
    for apart in ([], ["setsid", "--fork"]):
        # It ends when its standard input does, which is when this process lets go.
        command = [*apart, sys.executable, "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
            assert started.stdout is not None
            pid = int(started.stdout.readline())
            assert [one.pid for one in Logins().processes_of(uid)] == ([pid] if apart else [])


async def test_a_session_is_ended_for_real(there, shell):
    """What hears neither HUP nor TERM is killed, and that it is gone is seen."""
    logins = there(utmp=record(b"alice", shell.terminal.encode(), pid=shell.pid))
    host = fake_host(accounts=LinuxAccounts(logins=logins), processes=LinuxProcesses(Namespace.current("pid")))
    params = EndSessions(session=(shell.terminal,), grace=seconds(1))
    result = await end_sessions(host, params)
    (end,) = result.sessions
    assert (end.ended, end.processes, end.left) == (True, 2, ())
    assert end_sessions.verify is not None
    assert (await end_sessions.verify(host, params, result)).verdict is Verdict.IN_PLACE
