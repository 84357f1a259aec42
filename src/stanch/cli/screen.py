"""Print blocks: with colour and lines on a terminal, as plain aligned text anywhere else; or JSON for programs."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel

from stanch.cli.plain import json_text, plain
from stanch.cli.render import Block, Fields, Listing, Note, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

WIDEST = 48
"""Columns are not aligned beyond this many characters."""

_STATE_COLUMN = "state"
_STYLES = {
    "done": "green",
    "online": "green",
    "running": "cyan",
    "sent": "cyan",
    "failed": "red",
    "refused": "yellow",
    "unknown": "magenta",
    "revoked": "red",
    "expired": "yellow",
    "cancelled": "yellow",
    "offline": "dim",
}


def print_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """One document on standard output."""
    click.echo(json_text(_jsonable(value)))


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_jsonable(one) for one in value] if isinstance(value, list | tuple) else value


def show_blocks(some: Iterable[Block]) -> None:
    """Print blocks on standard output."""
    show = _show_rich if sys.stdout.isatty() else _show_plain
    for block in some:
        show(block)


# --- plain -----------------------------------------------------------------------------------------------------------


def _show_plain(block: Block) -> None:
    match block:
        case Note():
            click.echo(block.text)
        case Fields():
            _title(block.title)
            width = max((len(name) for name, _ in block.rows), default=0) + 2
            for name, value in block.rows:
                click.echo(f"{name + ':':<{width}}{value}")
        case Table():
            _title(block.title)
            for line in plain_lines(block):
                click.echo(line)
        case Listing():
            _title(block.title)
            for line in block.lines:
                click.echo(f"  {line}")


def _title(title: str) -> None:
    if title:
        click.echo(f"\n{title}:")


def plain_lines(block: Table) -> list[str]:
    """A table as aligned text, two spaces between columns, heads in capitals; a very long cell moves only its row."""
    lines = [tuple(name.upper() for name in block.columns), *block.rows]
    widths = [min(WIDEST, max(map(len, column))) for column in zip(*lines, strict=True)]
    return [_line(line, widths, block.numeric) for line in lines]


def _line(cells: Sequence[str], widths: Sequence[int], numeric: frozenset[int]) -> str:
    padded = (
        cell.rjust(width) if n in numeric else cell.ljust(width)
        for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()


# --- a terminal ------------------------------------------------------------------------------------------------------


def console(*, stderr: bool = False) -> "Console":
    """A terminal that takes no markup and guesses at nothing: texts from endpoints are only texts."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


@contextmanager
def transfer_bar(text: str = "") -> Iterator[Callable[[int, int], None]]:
    """Shows on a terminal, as long as it takes, how many bytes of how many have moved; nothing anywhere else."""
    if not sys.stderr.isatty():
        yield lambda _done, _total, /: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        bar = bars.add_task(plain(text), total=None)
        yield lambda done, total, /: bars.update(bar, completed=done, total=total)


def _show_rich(block: Block) -> None:
    screen = console()
    match block:
        case Note():
            screen.print(_text(block.text, "dim"), soft_wrap=True)  # a command in it can be copied as one line
        case Fields():
            _rich_title(screen, block.title)
            screen.print(_rich_fields(block))
        case Table():
            _rich_title(screen, block.title)
            if block.tree:
                _show_rich_tree(screen, block)
            else:
                screen.print(_rich_table(block))
        case Listing():
            _rich_title(screen, block.title)
            for line in block.lines:
                screen.print(_text(f"  {line}"), soft_wrap=True)


def _text(text: str, style: str = "") -> Any:
    from rich.text import Text

    return Text(text, style=style)


def _rich_title(screen: "Console", title: str) -> None:
    if title:
        screen.print(_text(f"\n{title}", "bold"))


def _rich_fields(block: Fields) -> "RichTable":
    from rich.table import Table as RichTable

    grid = RichTable.grid(padding=(0, 2))
    for name, value in block.rows:
        grid.add_row(_text(name, "dim"), _text(value, _STYLES.get(value, "") if name == _STATE_COLUMN else ""))
    return grid


def _rich_table(block: Table) -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable

    made = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for n, name in enumerate(block.columns):
        # What one copies, such as an identifier, stays whole; sentences are folded.
        whole = not any(" " in row[n] or len(row[n]) > WIDEST for row in block.rows)
        made.add_column(_text(name), justify="right" if n in block.numeric else "left", no_wrap=whole, overflow="fold")
    for row in block.rows:
        made.add_row(*(_styled(block.columns[n], cell) for n, cell in enumerate(row)))
    return made


def _show_rich_tree(screen: "Console", block: Table) -> None:
    """One line for each row, cut at the edge of the screen as `ps` does: a folded tree is none."""
    head, *lines = plain_lines(block)
    for line, style in ((head, "bold"), *((line, "") for line in lines)):
        screen.print(_text(line, style), no_wrap=True, overflow="ellipsis")


def _styled(column: str, cell: str) -> Any:
    return _text(cell, _STYLES.get(cell, "") if column == _STATE_COLUMN else "")
