"""The part of the demo that needs no root: it runs, and names what it leaves out."""

import json

import pytest

from stanch.demo import main

pytestmark = pytest.mark.slow


def test_without_root_the_demo_shows_what_it_can(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Server, enrolment, process list and file on loopback; the rest is named with the reason; exit 0."""
    monkeypatch.setattr(main, "missing", lambda: "it needs root")
    code = main.run(json=True, keep=False)
    told = {one["step"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert [one for one in told.values() if not one["ok"]] == []
    assert list(told) == ["server-first-start", "enrol", "look", "get-file", "left-out"]
    assert "it needs root" in told["left-out"]["evidence"]
    assert code == 0
