"""What all commands share."""

import click
import pytest
from click.testing import CliRunner

from stanch.cli.command import Command, Group, from_module, json_option, sections


def test_help_ends_with_the_examples():
    """Each example is a whole line, as it would be typed, of a command and of a group alike."""

    @click.group(cls=Group, examples=("a b",))
    def group() -> None:
        """Group."""

    @group.command(examples=(f"a b {'x' * 200}",))
    def b() -> None:
        """Command."""

    assert CliRunner().invoke(group, ["--help"]).output.endswith("Examples:\n  stanch a b\n")
    assert CliRunner().invoke(group, ["b", "--help"]).output.endswith(f"Examples:\n  stanch a b {'x' * 200}\n")


def test_without_examples_there_is_no_heading():
    """A command that has none promises none."""
    assert "Examples" not in CliRunner().invoke(Command("x", callback=lambda: None), ["--help"]).output


def _said(*, as_json: bool) -> None:
    click.echo(as_json)


def test_json_is_off_until_it_is_asked_for():
    """The flag arrives as `as_json`."""
    command = json_option(Command("x", callback=_said))
    assert [CliRunner().invoke(command, line).output for line in ([], ["--json"])] == ["False\n", "True\n"]


def test_a_place_that_is_no_command_is_a_mistake_of_ours():
    """The error names the place."""
    with pytest.raises(TypeError, match="command:WIDTH"):
        from_module("stanch.cli.command:WIDTH")


def test_lists_stand_under_headings():
    """Every heading with its commands."""
    formatter = click.HelpFormatter(width=60)
    sections({"One": {"a": "Does a."}, "Two": {"b": "Does b."}}, formatter)
    assert formatter.getvalue() == "One:\n  a  Does a.\n\nTwo:\n  b  Does b.\n"
