"""The commands that README and guides show are commands that there are: each one parses."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from stanch.cli.main import root

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "guide").glob("*.md")))

FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"^(?:\$ )?(?:echo '[^']*' \| )?(?:sudo )?(?:\.venv/bin/)?stanch (.+)$", re.MULTILINE)
NAMED = re.compile(r"`(?:sudo )?stanch ([^`]+)`")
MADE_UP = {"count-processes"}
"""The action that the guide adds, and that is not there yet."""

PLACEHOLDERS = {"SHA256": "5f1d" * 16, "5f1d…c0": "5f1d" * 16, "HASH": "5f1d" * 16, "ITEM": "qrt_0123456789abcdef"}


def line_of(text: str, at: int) -> int:
    """The number of the line in which a match begins."""
    return text.count("\n", 0, at) + 1


def shown() -> Iterator[tuple[str, list[str]]]:
    """Each line of a fenced block that begins with `stanch`: where it stands, and its words."""
    for page in PAGES:
        text = page.read_text()
        for block in FENCED.finditer(text):
            for line in SHOWN.finditer(block[1]):
                where = f"{page.name}:{line_of(text, block.start(1) + line.start())}"
                words = shlex.split(line[1], comments=True)
                if words[0] not in MADE_UP:
                    yield where, words


def named() -> Iterator[tuple[str, list[str]]]:
    """Each command that a sentence names; `a | b` of one group is two."""
    for page in PAGES:
        text = page.read_text()
        for found in NAMED.finditer(FENCED.sub(lambda block: "\n" * block[0].count("\n"), text)):
            first, *others = (" ".join(part.split()) for part in found[1].split(" | "))
            above = first.split()[:-1]
            for words in (shlex.split(first), *([*above, *shlex.split(other)] for other in others)):
                yield f"{page.name}: {' '.join(words)}", words


def reached(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the first words lead to, and the words that are left."""
    command: click.Command = root
    left = list(words)
    while isinstance(command, click.Group) and left:
        below = command.get_command(click.Context(command, **root.context_settings), left[0])
        assert below is not None, f"there is no command {left[0]!r} in `stanch {' '.join(words)}`"
        command, left = below, left[1:]
    return command, left


SHOWN_LINES = list(shown())
NAMED_LINES = list(named())


def test_pages_have_examples() -> None:
    """Nothing below is true merely because no example was found."""
    assert len(SHOWN_LINES) > 60
    assert len(NAMED_LINES) > 50
    assert {where.split(":")[0] for where, _ in SHOWN_LINES} >= {"README.md", "scans.md", "content.md", "evidence.md"}


@pytest.mark.parametrize("words", [words for _, words in SHOWN_LINES], ids=[where for where, _ in SHOWN_LINES])
def test_what_is_shown_parses(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that can be copied from a page is taken as it stands, once its files are there."""
    monkeypatch.chdir(tmp_path)
    for word in words:
        if word.startswith("./") or word in {"t", "FILE"}:
            Path(word).write_bytes(b"there")
        elif word.endswith("/") and not word.startswith("/"):
            Path(word).mkdir()
    command, left = reached([PLACEHOLDERS.get(word, word) for word in words])
    with command.make_context(command.name, left):
        pass


@pytest.mark.parametrize("words", [words for _, words in NAMED_LINES], ids=[where for where, _ in NAMED_LINES])
def test_what_is_named_exists(words: list[str]) -> None:
    """A command of which a sentence speaks is there, with the options that it is given."""
    command, left = reached(words)
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    assert {word.split("=")[0] for word in left if re.match("--[a-z]", word)} <= options
