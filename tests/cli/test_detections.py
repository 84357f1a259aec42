"""Detections on the command line."""

import pytest

from stanch.core.detections import Severity
from tests.client.stub import a_detection


def test_detections_are_listed(run, signed_in):
    """One line for each, with what it means and what the endpoint told."""
    signed_in.detections = [a_detection(2, who="root, nft"), a_detection(1, kind="policy-changed")]
    lines = run("detections").out.splitlines()
    assert lines[0].startswith("AT")
    for text in ("web-01", "high", "root, nft"):
        assert text in lines[1]
    assert "medium" in lines[2]


def test_one_kind_as_json(run, signed_in):
    """Only what was asked for."""
    signed_in.detections = [a_detection(2), a_detection(1, kind="policy-changed")]
    found = run("detections", "--kind", "policy-changed", "--json").json
    assert [one["id"] for one in found] == [1]


def test_nothing_is_said_in_words(run, signed_in):
    """An empty list is no empty screen, and does not say more than was asked."""
    assert "Nothing was detected" in run("detections").out
    assert "Nothing like that" in run("detections", "--severity", "high").out


def test_what_an_endpoint_tells_cannot_speak_to_the_terminal(run, signed_in):
    """Its words are hostile."""
    signed_in.detections = [a_detection(1, who="\x1b[2Jeve\n9")]
    ended = run("detections")
    assert "\x1b" not in ended.out
    assert len(ended.out.splitlines()) == 2


def test_an_unknown_kind_is_refused(run, signed_in):
    """The words that are known are named."""
    ended = run("detections", "--kind", "flood")
    assert ended.code == 2
    assert "isolation-tampered" in ended.err


@pytest.mark.parametrize(("severity", "shown"), [("low", 2), ("medium", 2), ("high", 1)])
def test_severities_are_typed_as_they_are_shown(run, signed_in, severity, shown):
    """In small letters, as the examples and the table have them."""
    signed_in.detections = [a_detection(2), a_detection(1, kind="policy-changed")]
    assert severity in list(Severity)
    assert len(run("detections", "--severity", severity, "--json").json) == shown


def test_what_a_scan_has_found_is_a_sentence(run, signed_in):
    """Rule and place of the first finds, and that there are more; whatever an endpoint tells instead does no harm."""
    rows = [{"rule": f"evil{n}", "objects": [{"name": f"/tmp/{n}"}]} for n in range(5)]
    odd = [7, {"rule": "odd", "objects": "x"}, {"objects": [None]}]
    signed_in.detections = [a_detection(2, found=5, findings=rows), a_detection(1, findings=odd)]
    lines = run("detections").out.splitlines()
    assert "evil0 in /tmp/0, evil1 in /tmp/1, evil2 in /tmp/2, ..., found 5" in lines[1]
    assert "odd in an unknown place" in lines[2]
