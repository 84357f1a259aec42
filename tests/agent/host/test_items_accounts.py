"""UserItem and GroupItem: accounts and groups that are planted are found, and nothing is guessed."""

import os
import sqlite3
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.items import Parts
from stanch.agent.host.items_accounts import parse_accounts, parse_groups, parse_passwords
from stanch.agent.host.login_records import lastlog_size
from stanch.core.errors import ForbiddenHere
from stanch.core.ioc.terms import DOCUMENTS
from tests.agent.host.autorun_root import Root
from tests.agent.host.below_world import found, one, parts_of

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
alice:x:1000:1000:Alice Adams,Room 1,,:/home/alice:/bin/zsh
daemon:x:1:1::/:/usr/sbin/nologin
plain::1001:1000::/home/plain:/bin/sh
lost:x:1002:77::/home/lost:
broken:x:1
"""
SHADOW = """\
root:*:19000:0:99999:7:::
alice:$6$salt$hash:19000:0:99999:7::18000:
daemon:!:0:0:99999:7:::
"""
GROUP = "root:x:0:\npeople:x:1000:\nsudo:x:27:alice,root\nempty:x:5:\nbroken:x\n"
OPEN = ("disabled", "lockedout", "passwordrequired", "userpasswordage")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A machine with a few accounts."""
    made = Root(tmp_path)
    made.write("/etc/passwd", PASSWD)
    made.write("/etc/shadow", SHADOW)
    made.write("/etc/group", GROUP)
    return made


def test_an_account_is_known(root: Root) -> None:
    """All that stands in the files; the last login where one is kept."""
    values = one("UserItem", parts_of(root.folder), "alice")
    assert values["Username"] == ("alice",)
    assert (values["fullname"], values["description"]) == (("Alice Adams",), ("Alice Adams,Room 1,,",))
    assert (values["userid"], values["SecurityID"]) == ((1000,), ("1000",))
    assert (values["homedirectory"], values["shell"]) == (("/home/alice",), ("/bin/zsh",))
    assert values["grouplist/groupname"] == ("people", "sudo")
    assert (values["lockedout"], values["passwordrequired"]) == ((False,), (True,))
    assert set(values) | {"LastLogin"} == set(DOCUMENTS["UserItem"])


def test_the_age_of_a_password(root: Root) -> None:
    """In seconds since the day on which it was changed."""
    (age,) = one("UserItem", parts_of(root.folder), "alice", "userpasswordage")["userpasswordage"]
    changed = datetime.now(UTC).timestamp() - float(age)
    assert abs(changed - 19000 * 86_400) < 60
    assert one("UserItem", parts_of(root.folder), "daemon", "userpasswordage") == {"userpasswordage": ()}


def test_who_cannot_log_in(root: Root) -> None:
    """An account that has expired or has no shell is disabled; a mark in place of a password fits none."""
    assert one("UserItem", parts_of(root.folder), "alice", "disabled") == {"disabled": (True,)}
    assert one("UserItem", parts_of(root.folder), "daemon", *OPEN[:2]) == {"disabled": (True,), "lockedout": (True,)}
    assert one("UserItem", parts_of(root.folder), "root", *OPEN[:2]) == {"disabled": (False,), "lockedout": (True,)}
    assert one("UserItem", parts_of(root.folder), "plain", *OPEN) == {
        "disabled": (False,),
        "lockedout": (False,),
        "passwordrequired": (False,),
        "userpasswordage": (),
    }


def test_without_a_line_in_shadow(root: Root) -> None:
    """Its password is somewhere, and nobody can tell anything of it."""
    assert one("UserItem", parts_of(root.folder), "lost", *OPEN, "grouplist/groupname", "shell") == {
        "grouplist/groupname": (),
        "shell": (),
    }


def test_files_that_are_forbidden_are_not_known(root: Root) -> None:
    """Neither groups nor passwords; the rest is. What was left out is told."""

    def forbid(path: str) -> None:
        if path.endswith(("group", "shadow")):
            raise ForbiddenHere("It is forbidden")

    parts = replace(parts_of(root.folder), forbidden=forbid)
    missed = list[str]()
    known = one("UserItem", parts, "alice", *OPEN, "grouplist/groupname", "userid", missed=missed)
    assert known == {"userid": (1000,)}
    assert missed == ["/etc/group: It is forbidden; /etc/shadow: It is forbidden"]
    assert found("GroupItem", parts, missed=missed) == []


def test_the_last_login_by_lastlog(root: Root) -> None:
    """A table with a row for each number; who is not in it has never been there."""
    path = root.write("/var/log/lastlog")
    with path.open("r+b") as file:
        file.seek(1000 * lastlog_size())
        file.write(struct.pack("=q" if lastlog_size() > 292 else "=i", 1_700_000_000).ljust(lastlog_size(), b"\0"))
    assert one("UserItem", parts_of(root.folder), "alice", "LastLogin") == {"LastLogin": (1_700_000_000,)}
    assert one("UserItem", parts_of(root.folder), "root", "LastLogin") == {"LastLogin": ()}
    assert one("UserItem", parts_of(root.folder), "plain", "LastLogin") == {"LastLogin": ()}


def test_the_last_login_by_lastlog2(root: Root) -> None:
    """A database; where there is neither, it is not known."""
    assert one("UserItem", parts_of(root.folder), "alice", "LastLogin") == {}
    path = root.at("/var/lib/lastlog/lastlog2.db")
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE Lastlog2 (Name TEXT PRIMARY KEY, Time INTEGER, TTY TEXT)")
        database.execute("INSERT INTO Lastlog2 VALUES ('alice', 1800000000, 'pts/0')")
    database.close()
    assert one("UserItem", parts_of(root.folder), "alice", "LastLogin") == {"LastLogin": (1_800_000_000,)}
    assert one("UserItem", parts_of(root.folder), "root", "LastLogin") == {"LastLogin": ()}


def test_groups_with_all_their_members(root: Root) -> None:
    """Those that are listed, and those whose own group it is."""
    items = {item.name: item.values for item in found("GroupItem", parts_of(root.folder))}
    assert items["sudo"] == {"GroupName": ("sudo",), "gid": (27,), "userlist/username": ("alice", "root")}
    assert items["people"]["userlist/username"] == ("alice", "plain")
    assert items["empty"]["userlist/username"] == ()
    assert "broken" not in items


def test_a_pipe_in_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    """There are no accounts then, which is told."""
    Root(tmp_path).fifo("/etc/passwd")
    missed = list[str]()
    assert found("UserItem", parts_of(tmp_path), missed=missed) == []
    assert missed == ["/etc/passwd: it is a FIFO"]


def test_an_account_that_was_shut_with_day_zero_is_disabled() -> None:
    """`chage -E 0` shuts an account, whatever shadow(5) thinks of that number; without a number it never expires."""
    shut = parse_passwords("bob:$6$x$y:19000:0:99999:7::0:")["bob"]
    assert shut.expires == 0
    assert parse_passwords("bob:$6$x$y:19000:0:99999:7:::")["bob"].expires is None


def test_of_this_machine() -> None:
    """Its accounts are those of the C library."""
    names = {item.values["userid"]: item.name for item in found("UserItem", Parts(), "userid")}
    assert names[(0,)] == "root"
    assert [item for item in found("GroupItem", Parts(), "gid") if item.values["gid"] == (0,)]


@given(st.text("ab:x0123,\n\udcff", max_size=200))
def test_no_text_raises(text: str) -> None:
    """Lines that are broken are left out."""
    assert all(one.name for one in parse_accounts(text))
    assert all(one.gid >= 0 for one in parse_groups(text))
    assert all(parse_passwords(text))


def test_odd_bytes_are_told(tmp_path: Path) -> None:
    """So that every JSON takes them."""
    Root(tmp_path).write("/etc/passwd", os.fsdecode(b"a\xff:x:7:7:c\xfe:/:/bin/sh\n"))
    (item,) = found("UserItem", parts_of(tmp_path), "Username", "description")
    assert item.values == {"Username": ("a\\xff",), "description": ("c\\xfe",)}
