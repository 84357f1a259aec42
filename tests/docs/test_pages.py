"""The pages hold together: links lead somewhere, and the index of decisions names each of them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADR = ROOT / "docs" / "adr"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """What its headings are called in a link."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """A link within the repository names a file or folder that is there, and a heading that it has."""
    for place, heading in LINK.findall(page.read_text()):
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name} links to {place}"
        assert not heading or heading in anchors(target), f"{page.name} links to {place}#{heading}"


def test_the_index_names_every_decision() -> None:
    """Each decision has its line in the index, with its number and its title, in order."""
    titles = [(file.read_text().partition("\n")[0].removeprefix("# "), file.name) for file in sorted(ADR.glob("0*.md"))]
    lines = re.findall(r"^(\d+\.) \[(.+)\]\((.+)\)$", (ADR / "README.md").read_text(), re.MULTILINE)
    assert [(f"{number} {title}", name) for number, title, name in lines] == titles
