"""Benchmarks report honestly: bars are held or missed, the last line is JSON, the README shows what was measured."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import __main__ as program
from benchmarks import harness
from benchmarks.harness import Bar, percentile, report, rounded


@pytest.mark.parametrize(
    ("value", "better", "held"),
    [(1, "<=", True), (2, "<=", True), (3, "<=", False), (1, ">=", False), (2, ">=", True), (math.nan, "<=", False)],
)
def test_bars_are_held_or_missed(value: float, better: Any, *, held: bool) -> None:
    """A bar includes its own value; a value that is no number holds nothing."""
    assert Bar(what="x", value=value, bar=2, better=better).held is held


def test_the_last_line_is_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read name, machine, figures and bars from one line."""
    harness.progress("warming up")
    report("x", {"ms": 1.23456}, [Bar(what="w", value=3, bar=2, tried="less work"), Bar(what="v", value=1, bar=2)])
    out, err = capsys.readouterr()
    assert "warming up" in err
    said = json.loads(out)
    assert said["figures"] == {"ms": 1.23}
    assert said["bars"] == [
        {"what": "w", "value": 3, "bar": "<= 2", "held": False, "tried": "less work"},
        {"what": "v", "value": 1, "bar": "<= 2", "held": True},
    ]
    assert set(said["machine"]) == {"cores", "cpu", "ram_gib", "kernel", "python"}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.integers(1, 100))
def test_percentiles_are_values(values: list[float], percent: int) -> None:
    """A percentile is one of the values, and that share of the values does not exceed it."""
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0012345, 0.00123), (1234.5, 1230), (12345, 12345), (0.0, 0.0), ("a", "a")]
)
def test_figures_have_three_digits(value: Any, shown: Any) -> None:
    """More digits than were measured are not shown; counts are whole."""
    assert rounded(value) == shown


OUTCOME = {
    "name": "wave",
    "machine": {"cores": 2},
    "figures": {"ms": 5},
    "bars": [{"what": "a|b", "value": 5, "bar": "<= 4", "held": False, "tried": "waving less"}],
}


def test_the_readme_gets_a_section() -> None:
    """A new benchmark is added at the end; the text before it stays."""
    text = program.rewrite("# Figures\n\nWords.\n", {"wave": OUTCOME})
    assert text.startswith("# Figures\n\nWords.\n")
    assert "| a\\|b | 5 | <= 4 | **missed** waving less |" in text


def test_the_readme_is_rewritten_in_place() -> None:
    """Measuring again replaces the old section, and only that one."""
    first = program.rewrite("# Figures\n", {"wave": OUTCOME, "nod": {**OUTCOME, "name": "nod"}})
    again = program.rewrite(first, {"wave": {**OUTCOME, "figures": {"ms": 6}}})
    assert again == first.replace("| `ms` | 5 |", "| `ms` | 6 |", 1)
    assert program.rewrite(again, {}) == again


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of benchmarks of our own."""
    place = tmp_path / "benchmarks"
    place.mkdir()
    (place / "__init__.py").touch()
    (place / "good.py").write_text(f'"""Measure."""\ndef main(): ...\nprint("noise")\nprint({json.dumps(OUTCOME)!r})\n')
    (place / "bad.py").write_text('"""Break."""\ndef main(): ...\nraise SystemExit(3)\n')
    (place / "part.py").write_text('"""Used by others."""\n')
    (place / "README.md").write_text("# Figures\n")
    monkeypatch.setattr(program, "FOLDER", place)
    monkeypatch.setattr(program, "README", place / "README.md")
    return place


def test_benchmarks_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file with a main is a benchmark, with its first line."""
    assert program.main([]) == 0
    assert capsys.readouterr().out == "bad   Break.\ngood  Measure.\n"
    assert folder.is_dir()


def test_a_broken_benchmark_is_not_a_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All others are written, and the exit code says that one broke."""
    assert program.main(["--all", "--write"]) == 1
    assert "MISSED  bad: broke" in capsys.readouterr().out
    assert "## wave" in (folder / "README.md").read_text()


def test_a_missed_bar_is_no_failure_of_the_run(folder: Path) -> None:
    """It is reported as missed."""
    assert program.main(["good"]) == 0
    assert (folder / "README.md").read_text() == "# Figures\n"


def test_unknown_benchmarks_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A typo is answered with what there is."""
    assert program.main(["god"]) == 2
    assert "there are: bad, good" in capsys.readouterr().err
    assert str(folder) not in sys.path
