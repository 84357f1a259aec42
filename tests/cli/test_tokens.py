"""Enrolment tokens on the command line."""

import pytest


def test_tokens(run, signed_in):
    """A new token comes with the whole command that uses it; the list shows none."""
    ended = run("token", "create", "--uses", "2", "--valid-for", "7d", "--label", "env=prod")
    assert f"--token tok_secret --ca-pin {signed_in.pin}" in ended.out
    assert signed_in.asked("POST /tokens") == [{"uses": 2, "valid_for": "7d", "labels": ["env=prod"]}]
    assert "tok_secret" not in run("token", "list").out
    assert run("token", "revoke", "etk_1", "--json").json["revoked"] is True


@pytest.mark.parametrize("line", [("--uses", "0"), ("--valid-for", "x"), ("--label", "x")])
def test_a_wrong_token_is_not_made(run, signed_in, line):
    """Bounds are checked here."""
    assert run("token", "create", *line).code == 2
    assert not signed_in.requests
