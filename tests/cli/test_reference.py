"""The generated reference is what the code says."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from stanch.cli.reference import all_pages, reference, stale, write

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_the_reference_is_not_stale():
    """docs/reference is what would be written now; if not: python -m stanch.cli.reference docs/reference."""
    assert stale(REFERENCE) == []


def test_every_link_between_pages_leads_somewhere():
    """A page links only to pages that are there."""
    import re

    pages = all_pages()
    for name, page in pages.items():
        for link in re.findall(r"\]\(([^)#]+\.md)\)", page):
            assert (Path(name).parent / link).as_posix() in pages


def test_pages_are_written_repaired_and_removed(tmp_path):
    """A changed page, a missing one and one too many are all put right."""
    write(tmp_path)
    assert stale(tmp_path) == []
    (tmp_path / "errors.md").write_text("changed")
    (tmp_path / "cli.md").unlink()
    (tmp_path / "actions" / "gone.md").write_text("left over")
    assert stale(tmp_path) == ["actions/gone.md", "cli.md", "errors.md"]
    write(tmp_path)
    assert stale(tmp_path) == []


def test_the_pages_are_made_once_however_many_are_stale(tmp_path, monkeypatch):
    """Writing all of them from nothing asks for them a single time."""
    asked = []
    monkeypatch.setattr("stanch.cli.reference.all_pages", lambda: asked.append(1) or {"a.md": "a", "b/c.md": "c"})
    write(tmp_path)
    assert (len(asked), (tmp_path / "b/c.md").read_text()) == (1, "c")


def test_check_writes_nothing(tmp_path):
    """--check fails, names what is stale, and leaves it so."""
    ended = CliRunner().invoke(reference, ["--check", str(tmp_path)])
    assert ended.exit_code == 1
    assert "errors.md" in ended.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["stanch server", "stanch order undo", "stanch local isolation off"])
def test_the_command_line_page_has_every_command(word):
    """Commands below groups are there, with their help."""
    assert f"## {word}\n" in all_pages()["cli.md"]
