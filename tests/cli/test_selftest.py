"""`stanch agent selftest`: a table for people, JSON for programs, and an exit code for both."""

from pathlib import Path

import pytest

from stanch.cli.selftest import FAILED, blocks
from tests.fakes.endpoint_state import Used

QUICK = ("account", "journal", "local-policy")


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, ...]:
    settings = Used(tmp_path).enrol().limit().settings
    return "--state", str(settings.state), "--config", str(settings.config), "--socket", str(settings.socket)


def only(*names: str) -> list[str]:
    return [word for name in names for word in ("--only", name)]


def test_what_works_is_told_in_both_forms(run, places):
    """Each check with its state and what was seen; nothing failed, so it ends with 0."""
    ended = run("agent", "selftest", *only(*QUICK), *places)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0].split() == ["CHECK", "STATE", "SEEN"]
    told = run("agent", "selftest", *only(*QUICK), *places, "--json").json
    assert [one["name"] for one in told["checks"]] == list(QUICK)
    assert told["failed"] == 0


def test_a_failure_ends_with_nine(run, tmp_path):
    """In both forms, with what would help."""
    line = ("agent", "selftest", *only("identity"), "--state", str(tmp_path / "nowhere"))
    ended = run(*line)
    assert ended.code == FAILED == 9
    assert "identity: Run: stanch agent enroll" in ended.out
    ended = run(*line, "--json")
    assert (ended.code, ended.json["failed"]) == (9, 1)


def test_a_name_that_no_check_has(run, places):
    """The names that there are, as an error of the line."""
    ended = run("agent", "selftest", "--only", "flux-capacitor", *places)
    assert ended.code == 2
    assert "firewall" in ended.err


def test_a_finding_does_not_speak_to_the_terminal():
    """What was seen may quote anything."""
    check = {"name": "x", "state": "failed", "seen": "\x1b[2J", "help": "\x1b[2J"}
    told = "".join(str(one) for one in blocks({"version": "1", "checks": [check], "failed": 1}))
    assert "\x1b" not in told
    assert "1 failed" in told


def test_help_has_examples(run):
    """Lines that can be typed."""
    ended = run("agent", "selftest", "--help")
    assert "stanch agent selftest --only server --only firewall" in ended.out
