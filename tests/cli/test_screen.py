"""Blocks on a terminal and in a pipe."""

import pytest

from stanch.cli.render import Fields, Note, Table
from stanch.cli.screen import plain_lines, print_json, show_blocks, transfer_bar
from tests.client.stub import an_endpoint


def test_plain_tables_are_aligned():
    """Numbers to the right, text to the left, no spaces at the end."""
    table = Table(("n", "name"), (("1", "a"), ("22", "bb")), numeric=frozenset({0}))
    assert plain_lines(table) == [" N  NAME", " 1  a", "22  bb"]


BLOCKS = [
    Fields((("state", "done"), ("name", "[b]x")), "about"),
    Table(("state",), (("failed",),), "tasks"),
    Note("Go on."),
]


def test_a_pipe_gets_plain_text(capsys):
    """No colours, no frames, titles on lines of their own."""
    show_blocks(BLOCKS)
    assert capsys.readouterr().out == "\nabout:\nstate: done\nname:  [b]x\n\ntasks:\nSTATE\nfailed\nGo on.\n"


def test_a_terminal_gets_colours(capsys, monkeypatch):
    """States have colours there, and markup in a value is only text."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    show_blocks(BLOCKS)
    out = capsys.readouterr().out
    assert "\x1b[32mdone" in out
    assert "\x1b[31mfailed" in out
    assert "[b]x" in out


@pytest.mark.parametrize("value", [an_endpoint(1), [an_endpoint(1)], (), {"a": "\x9b"}])
def test_json_is_one_line(capsys, value):
    """Models, lists of them and plain objects are one document on one line."""
    print_json(value)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.isascii()


def test_a_long_cell_is_whole_in_a_pipe_and_moves_only_its_row():
    """Nothing is cut where programs read, and one long line does not widen all."""
    table = Table(("a", "b"), (("x" * 500, "1"), ("y", "2")))
    lines = plain_lines(table)
    assert lines[1] == "x" * 500 + "  1"
    assert len(lines[2]) < 60


@pytest.mark.parametrize("width", ["40", "80", "200"])
def test_a_tree_keeps_one_line_for_each_row(capsys, monkeypatch, width):
    """However narrow the terminal is, indentation stays readable."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", width)
    rows = tuple((f"{'  ' * n}name-{n}", f"argument {n} " * 50) for n in range(5))
    show_blocks([Table(("name", "arguments"), rows, tree=True)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.index("name-") for line in lines if "name-" in line] == [0, 2, 4, 6, 8]
    assert all("argum" in line for line in lines if "name-" in line)


def test_a_command_can_be_copied(capsys, monkeypatch):
    """A line that is longer than the terminal is wide is left to the terminal, which copies it as one."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    command = "stanch agent enroll --server https://server:8444 --token T --ca-pin " + "5f" * 32
    show_blocks([Note(command)])
    assert command in capsys.readouterr().out


def test_an_identifier_is_not_broken(capsys, monkeypatch):
    """What one copies stays on one line; text beside it is folded."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    show_blocks([Table(("task", "detail"), (("tsk_01m85wk9vth2w2zhqh80yzq6we", "some words " * 20),))])
    assert "tsk_01m85wk9vth2w2zhqh80yzq6we" in capsys.readouterr().out


def test_a_transfer_is_shown_on_a_terminal_only(capsys, monkeypatch):
    """A pipe gets nothing; a name with markup in it is only text."""
    with transfer_bar("x") as progress:
        progress(1, 2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with transfer_bar("[b]x") as progress:
        progress(512, 1024)
    out, err = capsys.readouterr()
    assert (out, "[b]x" in err) == ("", True)
