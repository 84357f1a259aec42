"""The tree of files that the house rules are about, parsed once."""

import ast
import gc
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "stanch"
FOLDERS = ("src", "tests", "benchmarks", "examples")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, by its full name."""

    module: str
    line: int
    lazy: bool
    """Inside a function."""

    @property
    def layer(self) -> str:
        """The folder of Stanch that it is in; empty for foreign modules and for `stanch` itself."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "stanch" and len(parts) > 1 else ""

    @property
    def top(self) -> str:
        """The package that it is in."""
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path from the root of the checkout."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def inside(self) -> str:
        """Its path from the root of the package."""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def layer(self) -> str:
        """The folder of the package that it is in."""
        return self.inside.partition("/")[0]

    @cached_property
    def text(self) -> str:
        """Its content."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        # Every tree is kept: the collector would walk through all of them again at each further file, and free nothing.
        gc.disable()
        try:
            return ast.parse(self.text, str(self.path))
        finally:
            gc.freeze()
            gc.enable()

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """Every function, methods and inner ones too."""
        return tuple(node for node in self.nodes if isinstance(node, Function))

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of its syntax tree."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every imported module; `from a import b` may mean a module a.b, so it counts as that."""
        return tuple(_imports(self.tree, lazy=False))

    @cached_property
    def relative_imports(self) -> tuple[ast.ImportFrom, ...]:
        """Imports with leading dots."""
        return tuple(node for node in self.nodes if isinstance(node, ast.ImportFrom) and node.level)


def _imports(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.level == 0:
            yield from (Import(f"{child.module}.{alias.name}", child.lineno, lazy) for alias in child.names)
        elif not isinstance(child, ast.expr):
            yield from _imports(child, lazy=lazy or isinstance(child, Function))


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Every Python file in these folders of the checkout."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return tuple(Source(path) for path in sorted(found) if "__pycache__" not in path.parts)


def package() -> tuple[Source, ...]:
    """Every Python file of the package."""
    return sources("src")


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that is or would be committed."""
    command = ("git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
    paths = (ROOT / name for name in listed.decode().split("\0") if name)
    return tuple(path for path in paths if path.is_file())
