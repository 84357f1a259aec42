"""The way in: help, unknown commands, and how commands end."""

import ast
import os
from pathlib import Path

import click
import pytest

import stanch
from stanch.actions import load
from stanch.cli.main import root

UPDATE = bool(os.environ.get("STANCH_UPDATE_GOLDEN"))
GOLDEN = Path(__file__).parent / "golden"
CLI = Path(stanch.__file__).parent / "cli"


def walk(command: click.Command, path: tuple[str, ...] = ()):
    """Every command, with the words that lead to it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, **root.context_settings)
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name))


COMMANDS = list(walk(root))
ACTIONS = {path for path, _ in COMMANDS if len(path) == 1}


def golden(path: tuple[str, ...]) -> str:
    """The name of its golden file: `yara scan` is another command than the action `yara-scan`."""
    name = "-".join(path) or "stanch"
    return "_".join(path) if len(path) > 1 and (name,) in ACTIONS else name


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=lambda path: " ".join(path) or "stanch")
def test_help_is_as_it_was(run, path):
    """`--help` of every command is what the golden file says; STANCH_UPDATE_GOLDEN=1 writes it anew."""
    file = GOLDEN / f"{golden(path)}.txt"
    shown = run(*path, "--help")
    assert shown.code == 0
    if UPDATE:
        file.write_text(shown.out)
    assert shown.out == file.read_text()


def test_no_golden_file_is_left_over():
    """A command that is gone takes its golden file with it."""
    assert {file.stem for file in GOLDEN.glob("*.txt")} == {golden(path) for path, _ in COMMANDS}


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=lambda one: " ".join(one) if isinstance(one, tuple) else "")
def test_every_command_has_help_and_examples(path, command):
    """Examples begin with the command itself, and every option says what it does."""
    assert command.help
    assert command.examples
    assert all(line.startswith(" ".join(path)) for line in command.examples)
    assert all(one.help for one in command.params if isinstance(one, click.Option))


def test_no_action_is_named():
    """The command line knows actions only through the registry."""
    names = {form for name in load() for form in (name, name.replace("_", "-"))}
    for file in CLI.rglob("*.py"):
        if file.is_relative_to(CLI / "local"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            said = {getattr(node, part, None) for part in ("id", "attr", "name", "arg", "value")}
            assert not names & {one for one in said if isinstance(one, str)}, file


def test_nothing_shows_the_help(run):
    """`stanch` alone tells what there is, on standard error."""
    ended = run()
    assert ended.code == 2
    assert "Usage: stanch" in ended.err
    assert not ended.out


def test_a_mistyped_command_is_answered_with_what_is_close(run):
    """The error names a command that exists."""
    ended = run("endpionts")
    assert ended.code == 2
    assert ended.err.startswith("error[invalid]: ")
    assert "endpoints" in ended.err


@pytest.mark.parametrize("line", [("--nope",), ("order",), ("order", "show"), ("endpoints", "--limit", "x")])
def test_a_wrong_line_is_invalid(run, line):
    """Usage errors end with the exit code of Invalid, and say where the help is."""
    ended = run(*line)
    assert ended.code == 2
    assert not ended.out
    assert "--help" in ended.err


def test_the_version(run):
    """`--version` tells which."""
    assert run("--version").out == f"stanch {stanch.__version__}\n"
