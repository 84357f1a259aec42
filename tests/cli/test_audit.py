"""The audit on the command line."""

import pytest

from stanch.core.errors import Denied, VerificationFailed
from tests.client.stub import an_audit_entry

CHANGED = VerificationFailed("Audit entry 2 was changed, or one before it removed", got="aa", expected="bb")


def test_the_audit_is_listed(run, signed_in):
    """One line for each entry, the newest first, at most so many."""
    signed_in.audit = [an_audit_entry(n) for n in (3, 2, 1)]
    lines = run("audit", "--limit", "2").out.splitlines()
    assert [line.split()[0] for line in lines] == ["ENTRY", "3", "2"]
    for text in ("alice", "order", "ord_3", '"endpoints": 1'):
        assert text in lines[1]


def test_the_audit_is_listed_as_json(run, signed_in):
    """A program gets the hashes too."""
    signed_in.audit = [an_audit_entry(1)]
    assert run("audit", "--json").json == [an_audit_entry(1).model_dump(mode="json")]


def test_no_name_in_the_audit_speaks_to_the_terminal(run, signed_in):
    """Whoever fails to sign in chooses the name that stands there."""
    signed_in.audit = [an_audit_entry(1, who="\x1b[2Jeve\n9")]
    ended = run("audit")
    assert "\x1b" not in ended.out
    assert len(ended.out.splitlines()) == 2


def test_the_audit_is_verified(run, signed_in):
    """The number of entries and the newest hash, to be written down elsewhere."""
    signed_in.audit = [an_audit_entry(n) for n in (3, 2, 1)]
    ended = run("audit", "verify")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split() for line in ended.out.splitlines()[:2]] == [["entries:", "3"], ["newest:", f"{3:064x}"]]
    assert run("audit", "verify", "--json").json == {"entries": 3, "newest": f"{3:064x}"}


@pytest.mark.parametrize("line", [("audit", "verify"), ("audit", "verify", "--json")])
def test_a_broken_audit_fails(run, signed_in, line):
    """The exit code is that of VerificationFailed, and the entry is named."""
    signed_in.errors["GET /audit/verify"] = CHANGED
    ended = run(*line)
    assert ended.code == VerificationFailed.exit_code
    assert "entry 2 " in ended.out + ended.err
    assert "whole" not in ended.out


@pytest.mark.parametrize("path", [("audit",), ("audit", "verify")])
def test_who_is_no_administrator_is_told(run, signed_in, path):
    """The server denies it; the exit code says so."""
    signed_in.errors[f"GET /{'/'.join(path)}"] = Denied("bob may not administer")
    assert run(*path).code == Denied.exit_code


@pytest.mark.parametrize("option", [("--json",), ("--limit", "3")])
def test_options_before_the_command_are_not_lost(run, signed_in, option):
    """They are refused: they would mean the list."""
    ended = run("audit", *option, "verify")
    assert ended.code == 2
    assert not signed_in.requests
