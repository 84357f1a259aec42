"""Blocks are chosen by the types of fields."""

import datetime as dt
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from stanch.actions.kill_process import Killed, Restarter
from stanch.cli import render
from stanch.cli.render import Fields, Listing, Note, Table, blocks, human_size, show, summary
from stanch.core.action import Plan, Step
from stanch.core.files import FileInfo, FileType
from stanch.core.model import Model
from stanch.core.processes import OpenSocket
from stanch.core.scanning import Engine, Finding, Line, Object, Problem, Unknown
from stanch.core.types import Duration, EvidenceRef, Instant, Printed, Secret, Size, Text

REF = EvidenceRef(id="evi_1", name="/tmp/x", size=1536, sha256="a" * 64)


class Leaf(Model):
    """A row."""

    number: int
    title: Text
    depth: int = 0


class Whole(Model):
    """Everything at once."""

    flag: bool = True
    lasts: Duration = dt.timedelta(hours=5)
    at: Instant = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
    nothing: Text | None = None
    words: tuple[Text, ...] = ("a", "b")
    empty: tuple[Leaf, ...] = ()
    key: Secret = "hidden"
    evidence: EvidenceRef = REF
    inner: Leaf = Leaf(number=1, title="in")
    leaves: tuple[Leaf, ...] = (Leaf(number=1, title="root"), Leaf(number=22, title="child", depth=1))


class Stream(Model):
    """What was printed."""

    written: Size = Size(0)
    text: Printed = ""


class Ran(Model):
    """Two streams."""

    stdout: Stream
    stderr: Stream


def test_a_value_becomes_fields_notes_and_tables():
    """Plain fields first, evidence with its command, rows in a table."""
    first, note, rows = blocks(Whole(), title="web-01")
    assert isinstance(first, Fields)
    assert first.title == "web-01"
    assert dict(first.rows) == {
        "flag": "yes",
        "lasts": "5h",
        "at": "2026-11-24 12:00:00+00:00",
        "nothing": "-",
        "words": "a, b",
        "empty": "none",
        "key": "********",
        "evidence": f"/tmp/x, 1.5 KiB, SHA-256 {'a' * 64}",
        "inner number": "1",
        "inner title": "in",
        "inner depth": "0",
    }
    assert note == Note("Fetch it with: stanch evidence get evi_1")
    assert rows == Table(("number", "title"), (("1", "root"), ("22", "  child")), "leaves", frozenset({0}), tree=True)


def test_what_is_for_programs_only_is_not_shown():
    """A field with `repr=False`: an earlier name of another one, or a secret."""

    class Two(Model):
        new: int = 1
        old: Annotated[int, Field(repr=False)] = 1

    assert list(blocks(Two())) == [Fields((("new", "1"),))]


def test_a_plan_is_shown_with_its_steps():
    """The generic way serves the plan, too."""
    plan = Plan(changes=True, steps=(Step(what="Drop", target="all"),), warnings=("Beware",))
    fields, steps = blocks(plan)
    assert ("warnings", "Beware") in fields.rows
    assert steps.rows == (("Drop", "all"),)


def test_a_summary_is_one_short_line():
    """Fields in short, rows as a number, secrets hidden."""
    line = summary(Whole())
    assert line.startswith("flag yes, lasts 5h")
    assert len(line) <= 101
    assert "hidden" not in line


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB"), (2**40, "1.0 TiB")],
)
def test_sizes_read_well(size, text):
    """The largest unit that leaves a number above one."""
    assert human_size(size) == text


@given(st.integers(0, 2**63))
def test_every_size_can_be_shown(size):
    """No size is out of range."""
    assert human_size(size)[0].isdigit()


def test_any_value_can_be_shown():
    """A mapping is JSON, a set a list, and an unknown thing its own text."""
    assert show({"a": [1, "x"]}) == '{"a": [1, "x"]}'
    assert show(frozenset()) == "none"
    assert show(3.5) == "3.5"


# --- files -----------------------------------------------------------------------------------------------------------

INFO = FileInfo(
    size=1536, mode=0o640, user="eve", group="staff", modified=dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC), inode=7
)


class Taken(Model):
    """A file, as an action answers it."""

    path: Text
    evidence: EvidenceRef = REF
    type: FileType = FileType(name="ELF 64-bit executable", first="7f454c46")
    info: FileInfo = INFO
    sha1: Text | None = None
    """Nobody asked for it."""
    md5: Text | None = None
    """Known of some."""


class Files(Model):
    """Several."""

    files: tuple[Taken, ...]


def test_files_are_one_short_line_each():
    """Evidence by its identifier, a file by what matters, its type by name; what nobody has, has no column."""
    rows, note = blocks(Files(files=(Taken(path="/a"), Taken(path="/b", md5="0f"))))
    assert rows.columns == ("path", "evidence", "type", "info", "md5")
    info = "1.5 KiB, 0640 eve:staff, 2026-11-24 12:00:00+00:00"
    assert rows.rows[0] == ("/a", "evi_1", "ELF 64-bit executable", info, "-")
    assert note == Note("Fetch each with: stanch evidence get EVIDENCE")


class Row(Model):
    """Some that always speak, some that seldom do."""

    name: Text
    count: int
    seldom: Text = ""
    off: bool = False
    number: int = 0
    several: tuple[Text, ...] = ()
    on: bool = True


class Rows(Model):
    """A table of them."""

    rows: tuple[Row, ...]


def test_what_says_nothing_in_any_row_has_no_column_in_a_wide_table(monkeypatch):
    """What is empty, zero or off unless it is set; not what must be given, nor what is on unless it is set."""
    monkeypatch.setattr(render, "WIDE", len(Row.model_fields))
    quiet, loud = Row(name="", count=0), Row(name="", count=0, seldom="x", off=True, number=1, several=("y",))
    assert next(blocks(Rows(rows=(quiet, quiet)))).columns == ("name", "count", "on")
    assert next(blocks(Rows(rows=(quiet, loud)))).columns == tuple(Row.model_fields)


def test_a_narrow_table_says_no_too():
    """That whatever restarts an ended process was itself not ended must be seen."""
    one = Restarter(pid=7, name="watch")
    (table,) = [block for block in blocks(Killed(processes=(), respawned_by=(one,))) if isinstance(block, Table)]
    assert dict(zip(table.columns, table.rows[0], strict=True))["ended"] == "no"


class Silent(Model):
    """Nothing must be said of it."""

    remark: Text = ""
    depth: int = 0


class Silents(Model):
    """A table of them."""

    rows: tuple[Silent, ...]


def test_rows_that_all_say_nothing_are_rows_all_the_same():
    """How many there are can be seen."""
    assert next(blocks(Silents(rows=(Silent(), Silent())))) == Table(("remark",), (("",), ("",)), "rows", tree=True)


@pytest.mark.parametrize(
    ("state", "text"),
    [("LISTEN", "tcp 0.0.0.0:22 LISTEN"), ("ESTAB", "tcp 0.0.0.0:22 > 10.0.0.1:9 ESTAB")],
)
def test_a_socket_is_short(state, text):
    """The peer is told where there is one."""
    assert show(OpenSocket(protocol="tcp", local="0.0.0.0:22", remote="10.0.0.1:9", state=state)) == text


def test_of_one_file_the_whole_command_is_told():
    """It can be copied."""
    _rows, note = blocks(Files(files=(Taken(path="/a"),)))
    assert note == Note("Fetch it with: stanch evidence get evi_1")


class Pieces(Model):
    """Evidence in several pieces."""

    evidence: tuple[EvidenceRef, ...]


def test_pieces_of_evidence_say_how_to_fetch_them():
    """A table of evidence alone has the command, too."""
    rows, note = blocks(Pieces(evidence=(REF, REF)))
    assert rows.columns[0] == "id"
    assert "evidence get" in note.text


def test_what_a_program_printed_is_shown_in_lines():
    """Each line on its own, harmless to a terminal, under the name of its stream; nothing for an empty one."""
    ran = Ran(stdout=Stream(text="one\ttwo\r\n\x1b[31mred\n"), stderr=Stream())
    first, *rest = blocks(ran)
    assert isinstance(first, Fields)
    assert [name for name, _ in first.rows] == ["stdout written", "stderr written"]
    assert rest == [Listing(("one     two", "\\x1b[31mred"), "stdout")]


def test_a_finding_is_a_row_that_can_be_read():
    """Where and why stand in the row as people say them, the first of many, and what is empty is not spelled out."""
    seen = Object(document="FileItem", name="/tmp/\x1bx", size=18, user="root", sha256="ab" * 32)
    why = tuple(Line(text=f"$a at {n}", got="evil") for n in range(7))
    [rows] = blocks(Finds(findings=(Finding(engine=Engine.YARA, rule="r", objects=(seen,), why=why),)))
    assert isinstance(rows, Table)
    row = dict(zip(rows.columns, rows.rows[0], strict=True))
    assert row["objects"] == f"/tmp/\\x1bx (18 bytes, root) SHA-256 {'ab' * 32}"
    assert row["why"].startswith("$a at 0: evil; $a at 1: evil; ")
    assert row["why"].endswith(" ... and 2 more (--json has all)")


def test_what_is_wrong_with_rules_is_told_with_its_line():
    """A problem and an unknown term are sentences, not names and values."""
    assert show(Problem(line=3, rule="bad", text="syntax error")) == "line 3, bad: syntax error"
    assert show(Problem(text="no YARA")) == "no YARA"
    assert show(Unknown(term="RegistryItem/Path", why="Windows")) == "RegistryItem/Path (Windows)"


class Finds(Model):
    """What a scan has found."""

    findings: tuple[Finding, ...]
