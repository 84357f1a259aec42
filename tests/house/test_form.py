"""The form of the code: what a file begins with, how long it may get, what it may be called, what tests owe."""

import ast
import statistics
from collections.abc import Iterator

import pytest

from tests.house.source import FOLDERS, PACKAGE, ROOT, Function, Source, package, sources

MAX_FILE = 500
MAX_TEST_FILE = 800
MAX_FUNCTION = 60
MEDIAN_FUNCTION = 10
HANGS = 10

EMPTY_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "stuff"})
EMPTY_CLASSES = ("Manager", "Helper", "Helpers", "Util", "Utils")

TESTED_ELSEWHERE = {
    "agent/attempt.py": "agent/test_executor.py",
    "agent/lanes.py": "agent/test_running.py",
    "agent/policy_watch.py": "agent/test_executor.py",
    "agent/tasks.py": "agent/test_running.py",
    "demo/attack.py": "demo/test_outside.py",
    "demo/client.py": "demo/test_outside.py",
    "demo/main.py": "integration/test_demo_without_root.py",
    "demo/questions.py": "demo/test_outside.py",
    "demo/without_root.py": "integration/test_demo_without_root.py",
    "server/clock.py": "integration/test_clocks.py",
    "server/order_views.py": "server/test_orders.py",
    "server/store/database.py": "server/store/test_writer.py",
    "server/store/migrations/env.py": "server/store/test_migrate.py",
    "server/store/migrations/versions/v0001_first_tables.py": "server/store/test_migrate.py",
    "server/store/tables.py": "server/store/test_migrate.py",
}
"""Source files without a test file of their own, and the one that tests them. This list may only shrink."""


def everything() -> tuple[Source, ...]:
    """All Python files of the project."""
    return sources(*FOLDERS)


def test_every_file_says_what_it_is_for() -> None:
    """A file's first line is a docstring."""
    silent = [one.name for one in everything() if not one.text.startswith(('"""', 'r"""'))]
    assert not silent


def test_files_are_short() -> None:
    """A file that grows beyond the bound holds two things; a test file may hold more of the same."""
    lengths = [(len(one.text.splitlines()), one.name) for one in everything()]
    assert not [found for found in lengths if found[0] > (MAX_TEST_FILE if found[1].startswith("tests/") else MAX_FILE)]


def length(function: Function) -> int:
    """Its lines, without decorators."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def test_functions_are_short() -> None:
    """A function fits on a screen."""
    lengths = [(length(function), one.name, function.name) for one in everything() for function in one.functions]
    assert not [found for found in lengths if found[0] > MAX_FUNCTION]


def test_most_functions_are_very_short() -> None:
    """The median function is under ten lines."""
    assert statistics.median(length(function) for one in package() for function in one.functions) < MEDIAN_FUNCTION


def test_no_name_is_empty() -> None:
    """A name says what is inside: `utils` says that nobody knew."""
    files = [one.name for one in everything() if {*one.path.parts, one.path.stem} & EMPTY_NAMES]
    classes = [
        f"{one.name}: {node.name}"
        for one in everything()
        for node in one.nodes
        if isinstance(node, ast.ClassDef) and node.name.endswith(EMPTY_CLASSES)
    ]
    assert not files + classes


# --- what tests owe --------------------------------------------------------------------------------------------------


def says_something(one: Source) -> bool:
    """Does the file hold more than its docstring?"""
    return len(one.tree.body) > 1


def has_a_test(one: Source) -> bool:
    """Is there a test file where the mirror of the package has it?"""
    mirror = ROOT / "tests" / one.path.relative_to(PACKAGE)
    return mirror.with_name(f"test_{mirror.stem.strip('_')}.py").is_file()


def test_every_source_file_has_its_test_file() -> None:
    """The tests mirror the package, file by file."""
    files = [one for one in package() if one.path.parent != PACKAGE and says_something(one)]
    owing = {one.inside for one in files if not has_a_test(one)} - set(TESTED_ELSEWHERE)
    assert not owing, "no test file: " + ", ".join(sorted(owing))


@pytest.mark.parametrize(("name", "tested_by"), TESTED_ELSEWHERE.items(), ids=TESTED_ELSEWHERE)
def test_the_list_of_exceptions_shrinks(name: str, tested_by: str) -> None:
    """An exception whose file is gone, or has its own test by now, is taken off the list."""
    one = Source(PACKAGE / name)
    assert one.path.is_file()
    assert not has_a_test(one)
    assert (ROOT / "tests" / tested_by).is_file()


def every_test() -> Iterator[tuple[Source, Function]]:
    """Every test of the project."""
    for one in sources("tests"):
        if one.path.name.startswith("test_"):
            yield from ((one, function) for function in one.functions if function.name.startswith("test_"))


def test_every_test_says_one_sentence() -> None:
    """A test's docstring is the claim that it makes, in one sentence."""
    silent = [
        f"{one.name}:{function.lineno} {function.name}"
        for one, function in every_test()
        if not is_a_sentence(ast.get_docstring(function) or "")
    ]
    assert not silent, "\n".join(silent)


def is_a_sentence(text: str) -> bool:
    """The first paragraph has an end; more may follow where a claim needs a reason."""
    return text.partition("\n\n")[0].endswith((".", "?", "!"))


def test_tests_do_not_sleep() -> None:
    """A test waits for a condition; a sleep outside a polling loop hides a race and says why on its line."""
    sleeping = [f"{one.name}:{line}" for one in sources("tests") for line in idle_sleeps(one)]
    assert not sleeping, "say `# sleep: why`, or wait for a condition: " + ", ".join(sleeping)


def idle_sleeps(one: Source) -> Iterator[int]:
    """Lines of sleeps that are in no loop, neither zero nor endless, and give no reason."""
    loops = [node for node in one.nodes if isinstance(node, ast.While | ast.For | ast.AsyncFor)]
    polling = {id(node) for loop in loops for node in ast.walk(loop)}
    for node in one.nodes:
        if isinstance(node, ast.Call) and id(node) not in polling and _is_sleep(node, one.text.splitlines()):
            yield node.lineno


def _is_sleep(call: ast.Call, lines: list[str]) -> bool:
    named = isinstance(call.func, ast.Attribute) and call.func.attr == "sleep"
    return named and not _is_yield_or_hang(call.args) and "# sleep: " not in lines[call.lineno - 1]


def _is_yield_or_hang(arguments: list[ast.expr]) -> bool:
    """A sleep of zero lets others run; one of ten seconds or more is work that the test is there to stop."""
    value = arguments[0].value if arguments and isinstance(arguments[0], ast.Constant) else None
    return isinstance(value, int | float) and (value == 0 or value >= HANGS)


def test_exemptions_give_their_reason() -> None:
    """In the package, a noqa or a type: ignore has its code and, on the same line, its reason."""
    bare = [
        f"{one.name}:{number}"
        for one in package()
        for number, line in enumerate(one.text.splitlines(), 1)
        for mark in ("# " + "noqa", "# type: " + "ignore")
        if mark in line and not _is_explained(line.partition(mark)[2], mark)
    ]
    assert not bare


def _is_explained(rest: str, mark: str) -> bool:
    code = rest.startswith((": ", ":")) if "noqa" in mark else rest.startswith("[")
    reason = rest.partition(" - ")[2] or rest.partition(" # ")[2]
    return code and len(reason.strip()) > len("why")
