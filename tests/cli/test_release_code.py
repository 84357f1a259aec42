"""`stanch release-code`."""

import pytest

from stanch.core.rest import ReleaseCodeEntry
from tests.client.stub import NOW, an_endpoint


def entry(number: int, *, in_force: bool = False) -> ReleaseCodeEntry:
    """A code."""
    code = f"{number}ABCDEFGHJKMNPQR"
    task, order = f"tsk_{number}", f"ord_{number}"
    return ReleaseCodeEntry(task=task, order=order, action="isolate", code=code, in_force=in_force, created=NOW)


@pytest.fixture
def codes(signed_in):
    """Two codes, the older of them in force."""
    signed_in.endpoints = [an_endpoint(1)]
    signed_in.release_codes = [entry(2), entry(1, in_force=True)]
    return signed_in


def test_codes_are_shown_in_groups_of_four(run, codes):
    """With their task, order and time, and the line to type at the endpoint for the one in force."""
    ended = run("release-code", "web-01")
    lines = ended.out.splitlines()
    assert any("2ABC-DEFG-HJKM-NPQR" in line and "tsk_2" in line and "ord_2" in line and "no" in line for line in lines)
    assert any("1ABC-DEFG-HJKM-NPQR" in line and "yes" in line for line in lines)
    assert lines[-1].endswith("stanch local isolation release-code 1ABC-DEFG-HJKM-NPQR")


def test_the_reason_is_sent(run, codes):
    """It stands in the audit."""
    run("release-code", "web-01", "--reason", "rack 7")
    assert codes.asked("GET /endpoints/web-01/release-codes") == [{"reason": "rack 7"}]


def test_none_in_force_is_said(run, codes):
    """Then the endpoint itself tells which task it waits for."""
    codes.release_codes = [entry(2)]
    assert "stanch local isolation status" in run("release-code", "web-01").out


def test_as_json(run, codes):
    """The whole answer."""
    found = run("release-code", "web-01", "--json").json
    assert [one["code"] for one in found["codes"]] == ["2ABCDEFGHJKMNPQR", "1ABCDEFGHJKMNPQR"]


def test_an_unknown_endpoint(run, codes):
    """The server's own error."""
    assert run("release-code", "nowhere").code == 5
