"""The journal, read by somebody else: all that is told, nothing changed, nothing left beside it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from stanch.agent.journal_reading import read_journal
from stanch.core.errors import NotFound, Unavailable
from tests.fakes.endpoint_state import EVIDENCE_KEY, PARAMETER, Used


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Of an endpoint that was used."""
    return Used(tmp_path).enrol().work().settings.journal


def names(journal: Path) -> list[str]:
    return sorted(one.name for one in journal.parent.iterdir())


def test_tells_what_is_in_it(journal):
    """Effects, tasks without what they were about, what waits, the time, and the key for evidence."""
    found = read_journal(journal)
    assert list(found.effects) == ["account-alice"]
    (task,) = found.tasks
    assert (task.id, task.action, task.phase, task.state, task.error) == (
        "t1",
        "get_file",
        "finished",
        "failed",
        "target-gone",
    )
    assert PARAMETER not in task.model_dump_json()
    assert sum(one.entries for one in found.spool) == 1
    assert found.evidence_key == EVIDENCE_KEY
    assert found.time is not None
    assert found.time.year == 2027
    assert (found.damage, found.unread) == (None, ())


def test_leaves_nothing_beside_it(journal):
    """No log and no index is made, and no byte of the journal is changed."""
    before, content = names(journal), journal.read_bytes()
    read_journal(journal)
    assert (names(journal), journal.read_bytes()) == (before, content)


def test_what_the_agent_writes_meanwhile_is_seen(journal):
    """While the agent runs, its newest lines are in the log beside the file."""
    with closing(sqlite3.connect(journal, isolation_level=None)) as agent:
        agent.execute("DELETE FROM effects")
        assert journal.with_name("journal.db-wal").exists()
        assert read_journal(journal).effects == {}


def test_there_is_none(tmp_path):
    """The agent has never run."""
    with pytest.raises(NotFound, match="no journal"):
        read_journal(tmp_path / "journal.db")


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(4096)])
def test_a_broken_one_is_said_to_be(tmp_path, content):
    """It is neither repaired nor moved."""
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with pytest.raises(Unavailable):
        read_journal(path)
    assert path.read_bytes() == content


def test_a_newer_one_is_refused(journal):
    """Its tables may mean something else."""
    with closing(sqlite3.connect(journal, isolation_level=None)) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(Unavailable, match="99"):
        read_journal(journal)


def test_an_effect_of_another_version_is_named(journal):
    """It is in force all the same, so it must not be passed over."""
    with closing(sqlite3.connect(journal, isolation_level=None)) as newer:
        newer.execute("UPDATE effects SET effect = '{}'")
    found = read_journal(journal)
    assert (found.effects, found.unread) == ({}, ("account-alice",))
