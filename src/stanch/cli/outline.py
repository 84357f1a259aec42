"""The names and summaries of all actions, read from their source text without importing them.

`stanch --help` and shell completion must answer at once; importing the actions means importing pydantic, which takes
longer than all the rest. Only listing relies on this: running a command goes through the registry, and a test holds
the two together.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import stanch

FOLDER = Path(stanch.__file__).parent / "actions"


def outlines(folder: Path = FOLDER) -> Mapping[str, str]:
    """Command to summary, sorted."""
    return dict(sorted(one for file in folder.glob("*.py") for one in _declared(file.read_text("utf-8"))))


def _declared(source: str) -> Iterator[tuple[str, str]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.AsyncFunctionDef):
            for name in filter(None, map(_declared_name, node.decorator_list)):
                yield name.replace("_", "-"), (ast.get_docstring(node) or "").partition("\n")[0]


def _declared_name(decorator: ast.expr) -> str | None:
    match decorator:
        case ast.Call(func=ast.Name(id="action"), args=[ast.Constant(value=str(name)), *_]):
            return name
        case _:
            return None
