"""Derived code knows types and fields, never an action: its name occurs in its own file alone."""

import ast
import re
from collections.abc import Iterator

import pytest

from stanch import actions
from tests.house.source import Source, package

NAMES = frozenset(name for one in actions.load().values() for name in (one.name, one.command))
GENERIC = ("derive/", "cli/", "client/", "server/api/")
HAND_WRITTEN = ("cli/local/",)
"""`stanch local ...` works on the endpoint itself, without a registry of what a server offers."""

_WORDS = re.compile(r"[A-Za-z0-9_-]+")


def test_derived_code_names_no_action() -> None:
    """Neither as an identifier nor in a literal: a new look comes from a new type."""
    wrong = [
        f"{one.name}:{line} names the action {name!r}: derive it from the declaration"
        for one in package()
        if one.inside.startswith(GENERIC) and not one.inside.startswith(HAND_WRITTEN)
        for name, line in named(one)
    ]
    assert not wrong, "\n".join(wrong)


def named(one: Source) -> Iterator[tuple[str, int]]:
    """The action names in a syntax tree, docstrings and comments apart."""
    docs = set(_docstrings(one.tree))
    for node in one.nodes:
        if id(node) not in docs:
            yield from ((name, getattr(node, "lineno", 0)) for name in _words(node) if name in NAMES)


def _docstrings(tree: ast.Module) -> Iterator[int]:
    """Strings that stand alone as a statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield id(node.value)


def _words(node: ast.AST) -> Iterator[str]:
    identifier = next((getattr(node, name) for name in ("id", "attr", "arg", "name") if hasattr(node, name)), None)
    if isinstance(identifier, str):
        yield identifier
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from _literal_words(node.value)


def _literal_words(text: str) -> Iterator[str]:
    """All words of a literal that is no prose; of prose, those that no English sentence has."""
    words = _WORDS.findall(text)
    prose = len(text.split()) > 1
    return (word for word in words if not prose or "_" in word or "-" in word)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("isolate()", {"isolate"}),
        ("x = 'isolate'", {"isolate"}),
        ("x = '/api/v1/actions/isolate/orders'", {"isolate"}),
        ("x.kill_process(tree=True)", {"kill_process"}),
        ("x = 'try stanch kill-process first'", {"kill-process"}),
        ("def get_file(): ...", {"get_file"}),
        ("'''isolate'''\nx = 'release the hosts'", set()),
    ],
)
def test_the_search_finds_names(code: str, found: set[str], tmp_path) -> None:
    """The search sees identifiers, arguments and literals, and leaves docstrings and English alone."""
    path = tmp_path / "code.py"
    path.write_text(code, encoding="utf-8")
    assert {name for name, _line in named(Source(path))} == found
