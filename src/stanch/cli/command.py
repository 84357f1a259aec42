"""What all commands share: help with examples, the flag `--json`, and groups that import a command when it is used."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

WIDTH = 100
"""Help is never wider, so that it reads the same everywhere."""

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose help ends with examples: whole lines, `stanch` left out."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the examples as they would be typed."""
        _write_examples(formatter, self.examples)
        super().format_epilog(ctx, formatter)


class Group(Command, click.Group):
    """A group whose commands are Commands, and whose help may end with examples."""

    command_class = Command


Group.group_class = Group


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    if not examples:
        return
    with formatter.section("Examples"):
        for line in examples:
            formatter.write(f"{'':>{formatter.current_indent}}stanch {line}\n")


def from_module(place: str) -> click.Command:
    """The command at `module:attribute`, imported now."""
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, click.Command):
        raise TypeError(f"got {type(found).__name__} at {place}, expected a command")
    return found


def json_option(command: F) -> F:
    """`--json`: one JSON document on standard output, and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def sections(names: Mapping[str, Mapping[str, str]], formatter: click.HelpFormatter) -> None:
    """Lists of commands under headings: heading to name to what it does."""
    for heading, commands in names.items():
        with formatter.section(heading):
            formatter.write_dl(list(commands.items()), col_max=22)
