"""How the demo's steps are told."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import Denied, Unavailable
from stanch.demo.report import LEAST_EVIDENCE, NotSeen, Report, Step, expect


def told(*, as_json: bool) -> tuple[Report, io.StringIO]:
    """A report whose clock stands still, and what it prints."""
    out = io.StringIO()
    return Report(as_json=as_json, out=out, clock=lambda: 1.0), out


def raising(error: Exception):
    """A step that fails."""

    def do() -> str:
        raise error

    return do


@given(step=st.text(), ok=st.booleans(), ms=st.integers(0, 10**9), evidence=st.text())
def test_a_step_for_programs_reads_back(*, step: str, ok: bool, ms: int, evidence: str):
    """Whatever the evidence holds, it is one line with one JSON object of exactly the four fields."""
    line = Step(step, ok, ms, evidence).for_programs()
    assert "\n" not in line
    assert json.loads(line) == {"step": step, "ok": ok, "ms": ms, "evidence": evidence}


@given(words=st.lists(st.text("abc-", min_size=1, max_size=60), max_size=40), columns=st.integers(0, 300))
def test_evidence_for_people_stays_on_the_screen(*, words: list[str], columns: int):
    """Every word is there, each line begins below the first, and only a word that is too long goes beyond the edge."""
    first, *more = Step("attack", ok=True, ms=1, evidence=" ".join(words)).for_people(columns).split("\n")
    begins = len(Step("attack", ok=True, ms=1, evidence="").for_people(columns))
    assert first[:begins].startswith("✓ attack")
    assert {line[:begins].strip() for line in more} <= {""}
    lines = [line[begins:] for line in (first, *more)]
    assert " ".join(lines).split() == words
    assert all(len(line) <= max(LEAST_EVIDENCE, columns - begins) for line in lines if " " in line)


def test_a_check_that_fails_does_not_stop_the_story():
    """What was not seen is told, the next step runs, and in the end not all held."""
    report, out = told(as_json=True)
    assert report.run("first", raising(NotSeen("The beacon is heard", got=3, expected=0)))
    assert report.run("second", lambda: "fine")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["ok"] for line in lines] == [False, True]
    assert lines[0]["evidence"] == "The beacon is heard (got 3, expected 0)"
    assert not report.all_held


@pytest.mark.parametrize("error", [Denied("no"), Unavailable("no"), OSError("no")])
def test_an_error_stops_the_story(error: Exception):
    """Without the step the rest means nothing."""
    report, out = told(as_json=False)
    assert not report.run("first", raising(error))
    assert out.getvalue().startswith("✗ first")


def test_a_defect_is_not_hidden():
    """An error that is not of the tree is a defect of the demo and comes out."""
    report, _ = told(as_json=True)
    with pytest.raises(ZeroDivisionError):
        report.run("first", raising(ZeroDivisionError()))


def test_nothing_checked_is_not_everything_held():
    """A story without a step has not succeeded."""
    report, _ = told(as_json=True)
    assert not report.all_held


def test_remarks_are_for_people_only():
    """With JSON, standard output holds steps and nothing else."""
    report, out = told(as_json=True)
    report.remark("hello")
    assert out.getvalue() == ""
    report.kept(("a", "b"))
    assert json.loads(out.getvalue())["step"] == "kept"


def test_expect_says_both_sides():
    """A failed expectation carries what was got and what was expected."""
    expect(True, "fine", got=1)
    with pytest.raises(NotSeen) as caught:
        expect(False, "wrong", got=1, expected=2)
    assert (caught.value.got, caught.value.expected) == ("1", "2")
