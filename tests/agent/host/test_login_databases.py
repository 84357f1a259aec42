"""Logins in SQLite files: whole ones, damaged ones, and ones that would go on for ever."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.host.login_databases import last_logins, sessions
from stanch.agent.host.login_records import Record, Type

TABLE = (
    "CREATE TABLE wtmp(ID INTEGER PRIMARY KEY, Type INTEGER, User TEXT, Login INTEGER, Logout INTEGER, TTY TEXT,"
    " RemoteHost TEXT, Service TEXT)"
)
LAST = "CREATE TABLE Lastlog2(Name TEXT PRIMARY KEY, Time INTEGER, TTY TEXT, RemoteHost TEXT, Service TEXT)"


def database(folder: Path, *statements: str) -> bytes:
    """A database file after these."""
    path = folder / "made.db"
    path.unlink(missing_ok=True)
    made = sqlite3.connect(path)
    with made:
        for one in statements:
            made.execute(one)
    made.close()
    return path.read_bytes()


def test_sessions_of_wtmpdb(tmp_path: Path) -> None:
    """With their ends, oldest first; times are microseconds there."""
    raw = database(
        tmp_path,
        TABLE,
        "INSERT INTO wtmp VALUES (1, 3, 'alice', 1700000000000000, 1700000060000000, 'pts/0', '192.0.2.1', 'sshd')",
        "INSERT INTO wtmp VALUES (2, 1, 'reboot', 1600000000000000, NULL, '~', '6.1.0', NULL)",
    )
    boot, login = sessions(raw)
    assert (boot[0].type, boot[1]) == (Type.BOOT_TIME, None)
    assert login == (
        Record(type=7, line="pts/0", user="alice", host="192.0.2.1", time=1_700_000_000, address="192.0.2.1"),
        1_700_000_060,
    )


def test_last_logins_of_lastlog2(tmp_path: Path) -> None:
    """Those that were ever there."""
    raw = database(tmp_path, LAST, "INSERT INTO Lastlog2(Name, Time) VALUES ('alice', 7), ('bob', 0), (NULL, 'x')")
    assert last_logins(raw) == {"alice": 7}


def test_a_database_with_a_log_is_read(tmp_path: Path) -> None:
    """As far as it stands in the file itself."""
    raw = database(tmp_path, LAST, "INSERT INTO Lastlog2(Name, Time) VALUES ('alice', 7)", "PRAGMA user_version = 1")
    marked = raw[:18] + b"\2\2" + raw[20:]
    assert last_logins(marked) == {"alice": 7}


@pytest.mark.parametrize("raw", [b"", b"SQLite format 3\0", b"SQLite format 3\0" + bytes(2000), b"x" * 5000])
def test_what_is_no_database_has_no_rows(raw: bytes) -> None:
    """It says nothing, and raises nothing."""
    assert sessions(raw) == []
    assert last_logins(raw) == {}


def test_other_types_than_expected_do_no_harm(tmp_path: Path) -> None:
    """SQLite keeps whatever somebody puts in a column."""
    raw = database(tmp_path, TABLE, "INSERT INTO wtmp VALUES (1, 'x', 7, 'y', 1.5, x'ff', x'00', NULL)")
    assert sessions(raw) == [(Record(type=0, line="\\xff", user="7", host="\0"), None)]


def test_a_view_that_never_ends_is_broken_off(tmp_path: Path) -> None:
    """After so many steps, there is no answer."""
    raw = database(
        tmp_path,
        "CREATE VIEW Lastlog2 AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
        " SELECT 'a' AS Name, max(x) AS Time FROM n",
    )
    assert last_logins(raw) == {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with a few rows."""
    rows = [f"INSERT INTO wtmp VALUES ({n}, 3, 'u{n}', {n}000000, NULL, 'pts/{n}', 'h', 's')" for n in range(1, 60)]
    return database(tmp_path_factory.mktemp("made"), TABLE, *rows)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(16, 12_000), st.binary(min_size=1, max_size=9)), max_size=9), st.integers(0, 9000)
)
def test_no_damage_raises(whole: bytes, changes: list[tuple[int, bytes]], cut: int) -> None:
    """A database that was changed in a few places and cut off."""
    raw = bytearray(whole)
    for where, what in changes:
        raw[where : where + len(what)] = what
    for record, end in sessions(bytes(raw[: len(raw) - cut])):
        assert record.time >= 0
        assert end is None or end >= 0
