"""The generated pages."""

import re
from dataclasses import replace

import pytest

from stanch.core.action import Registry
from stanch.core.errors import error_classes
from stanch.derive.reference import action_page, errors_page, pages, table
from tests.derive.synthetic import do_everything, do_nothing

PAGES = pages(Registry([do_everything, do_nothing]))


def test_every_action_has_a_page_and_stands_in_the_index():
    """Pages are named as commands, and the index links to each."""
    assert set(PAGES) == {"actions.md", "errors.md", "actions/do-everything.md", "actions/do-nothing.md"}
    for name in ("do-everything", "do-nothing"):
        assert f"(actions/{name}.md)" in PAGES["actions.md"]


def test_every_parameter_and_result_is_described():
    """A page says everything that the declaration says."""
    page = action_page(do_everything)
    for name, info in do_everything.params.model_fields.items():
        assert f"`--{name.replace('_', '-')}" in page
        assert info.description in page
    assert "`evidence`" in page
    assert "stanch do-everything web-01 --pid 1" in page
    assert "`set` `device`" in page


def test_bounds_are_told():
    """Numbers and lists say how far they go."""
    page = action_page(do_everything)
    assert "at least -5, at most 10" in page
    assert "at most 5 of them" in page


def test_an_action_without_parameters_says_so():
    """No empty table."""
    assert "## Parameters\n\nNone." in action_page(do_nothing)


def test_a_cell_cannot_break_its_table():
    """Pipes and line ends are escaped, so that every line has as many cells as the head."""
    lines = table(("a", "b"), [("x | y", "1\n2")]).splitlines()
    assert lines == ["| a | b |", "| --- | --- |", "| x \\| y | 1 2 |"]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_every_table_is_even(page):
    """Each row has as many cells as the one above."""
    rows = [len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")]
    heads = [n for n, line in enumerate(page.splitlines()) if line.startswith("| ---")]
    assert heads or not rows
    blocks = [block for block in page.split("\n\n") if block.startswith("|")]
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_every_error_is_listed():
    """Code, statuses and exit code of each class of the tree."""
    page = errors_page()
    for kind in error_classes():
        if kind.__module__ == "stanch.core.errors":
            assert f"`{kind.code}` | {kind.http_status} | {kind.openc2_status} | {kind.exit_code} |" in page


def test_what_must_be_typed_is_told():
    """On the page of an action that must be confirmed, and on no other."""
    assert "`--confirm`" in action_page(replace(do_nothing, typed=True))
    assert "`--confirm`" not in action_page(do_nothing)
