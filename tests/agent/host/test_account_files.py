"""Is a line of passwd, shadow and login.defs read for what it is, and a broken one told instead of guessed at?"""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.account_files import (
    MAX_FILE,
    first_uid,
    passwd_entries,
    passwd_entry,
    read_file,
    shadow_entry,
)
from stanch.core.errors import ActionFailed, StanchError, Unsupported

SHADOW = b"root:*:19000:0:99999:7:::\nalice:$6$s$hash:19000:0:99999:7::20999:\n"


def line(password: bytes, expires: bytes = b"") -> bytes:
    """The line of alice."""
    return b"alice:%s:19000:0:99999:7::%s:" % (password, expires)


@pytest.mark.parametrize(
    ("password", "locked", "bare"),
    [
        (b"$6$s$hash", False, False),
        (b"!$6$s$hash", True, False),
        (b"*", False, False),
        (b"!*", True, False),
        (b"!!", True, False),
        (b"!", True, True),
        (b"", False, True),
    ],
)
def test_a_password_is_locked_by_its_mark(password, locked, bare):
    """Without the mark, nothing may be left that would let everybody in."""
    found = shadow_entry(line(password), "alice")
    assert (found.locked, found.bare) == (locked, bare)


@pytest.mark.parametrize(
    ("expires", "expired"),
    [(b"", False), (b"0", False), (b"1", True), (b"20000", True), (b"20001", False)],
)
def test_an_account_expires_on_its_day(expires, expired):
    """Empty and 0 mean never."""
    assert shadow_entry(line(b"x", expires), "alice").expired(20_000) is expired


@pytest.mark.parametrize(
    "broken",
    [b"alice:x:1", b"alice:x:1:2:3:4:5:soon:", b"alice:x:a:0:99999:7:::", line(b"x") + b":more", line(b"x", b"-1")],
)
def test_a_broken_line_is_told(broken):
    """What shadow-utils would make of it is something else each time."""
    with pytest.raises(ActionFailed, match="broken"):
        shadow_entry(broken, "alice")


def test_an_account_without_a_line_cannot_expire():
    """The hint says what makes one."""
    with pytest.raises(Unsupported, match="pwconv"):
        shadow_entry(SHADOW, "bob")


def test_the_first_line_of_a_name_counts():
    """As for the C library; a name is compared whole."""
    raw = b"alice2:x:1:1::/:/bin/a\nalice:x:1000:1000::/home/alice:/bin/b\nalice:x:0:0::/:/bin/c\n"
    found = passwd_entry(raw, "alice")
    assert found is not None
    assert (found.uid, found.shell) == (1000, "/bin/b")


@pytest.mark.parametrize(
    "odd", [b"", b"alice", b"alice:x:-1:0::/:/x", b"alice:x:4294967296:0::/:/x", b"+::::::", b"alice:x:1:1::/:/x:y"]
)
def test_odd_lines_of_passwd_are_no_accounts(odd):
    """Nor are entries of NIS."""
    assert passwd_entry(odd, "alice") is None


@given(st.binary(max_size=300), st.sampled_from(["alice", "a", "root"]))
def test_garbage_is_read_or_refused_and_nothing_else(raw, name):
    """No bytes make the parsers fail in another way."""
    assert all(one.uid < 2**32 for one in passwd_entries(raw))
    assert first_uid(raw) >= 0
    try:
        shadow_entry(raw, name)
    except StanchError:
        return
    assert name.encode() in raw


@pytest.mark.parametrize(
    ("text", "least"),
    [(b"", 1000), (b"UID_MIN 500\n", 500), (b"#UID_MIN 5\n\tUID_MIN\t\t  600 # people\n", 600), (b"UID_MIN x", 1000)],
)
def test_people_begin_where_login_defs_says(text, least):
    """At 1000 where it says nothing."""
    assert first_uid(text) == least


def test_only_a_regular_file_is_read(tmp_path):
    """A link, a pipe or a file without end must not make a root process read something else, or wait."""
    file = tmp_path / "passwd"
    file.write_bytes(SHADOW)
    assert read_file(file) == SHADOW
    assert read_file(tmp_path / "nowhere") == b""
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(MAX_FILE + 1)
    for name in ("link", "pipe", "large"):
        with pytest.raises(ActionFailed):
            read_file(tmp_path / name)
