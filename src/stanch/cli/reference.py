"""Write `docs/reference/`: `python -m stanch.cli.reference [--check] FOLDER`.

With `--check` nothing is written; a page that is stale, missing or left over is named, and the exit code is 1.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from stanch.actions import load
from stanch.cli.command import WIDTH
from stanch.cli.main import root
from stanch.cli.outline import outlines
from stanch.derive.reference import document, listing, pages
from stanch.derive.reference_terms import terms_page
from stanch.disk.atomic import atomic_write


def all_pages() -> Mapping[str, str]:
    """Path to Markdown, for everything that is generated."""
    return {**pages(load()), "cli.md": cli_page(), "ioc-terms.md": terms_page()}


def cli_page() -> str:
    """Every command that is written by hand, with its help; actions have pages of their own."""
    derived = outlines()
    intro = (
        "`stanch` with no argument lists all commands. One command per action: see [actions](actions.md). "
        "How commands end: see [errors](errors.md)."
    )
    top = click.Context(root, info_name="stanch", terminal_width=WIDTH, **root.context_settings)
    names = [name for name in root.list_commands(top) if name not in derived]
    shown = [block for name in names for block in _sections(top, name)]
    return document("Command line", [intro, listing([root.get_help(top).rstrip()]), *shown])


def _sections(above: click.Context, name: str) -> Iterator[str]:
    """The help of a command, and of those below it."""
    group = above.command
    command = group.get_command(above, name) if isinstance(group, click.Group) else None
    if command is None:
        return
    context = click.Context(command, info_name=name, parent=above)
    yield f"## {context.command_path}"
    yield listing([command.get_help(context).rstrip()])
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            yield from _sections(context, below)


def stale(folder: Path) -> list[str]:
    """The pages that are not what they should be: changed, missing, or left over."""
    return _stale(folder, all_pages())


def _stale(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    there = {file.relative_to(folder).as_posix(): file.read_text("utf-8") for file in folder.rglob("*.md")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def write(folder: Path) -> None:
    """Make every page what it should be, and remove those that are left over."""
    wanted = all_pages()
    for name in _stale(folder, wanted):
        page, file = wanted.get(name), folder / name
        if page is None:
            file.unlink()
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, page.encode(), mode=0o644)


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; say which pages are stale.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def reference(*, check: bool, folder: Path) -> None:
    """Write the reference pages into FOLDER."""
    found = stale(folder)
    if check and found:
        click.echo(f"Stale: {', '.join(found)}. Run: python -m stanch.cli.reference {folder}", err=True)
        sys.exit(1)
    write(folder)
    click.echo(f"{len(all_pages())} pages, {len(found)} {'stale' if check else 'written'}.")


if __name__ == "__main__":
    reference()
