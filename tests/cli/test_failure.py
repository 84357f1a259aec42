"""How failed commands end."""

import subprocess
import sys

import pytest

from stanch.core.errors import StanchError, error_classes


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.code)
def test_every_error_ends_with_its_own_exit_code(run, signed_in, kind):
    """An error of the server is one line, a hint, and the exit code of its class."""
    signed_in.errors["GET /whoami"] = kind("It went wrong", got="this", expected="that", hint="Do so.")
    ended = run("whoami")
    assert ended.code == kind.exit_code
    assert ended.err == f"error[{kind.code}]: It went wrong (got this, expected that)\nhint: Do so.\n"
    assert not ended.out


def test_an_error_as_json(run, signed_in):
    """With --json the error is one document on standard output, and the exit code is the same."""
    signed_in.errors["GET /whoami"] = StanchError("It went wrong")
    ended = run("whoami", "--json")
    assert ended.code == 1
    assert ended.json["error"]["code"] == "internal"
    assert not ended.err


@pytest.mark.parametrize("line", [("--json", "--nope"), ("order", "--json"), ("order", "show", "--json")])
def test_a_wrong_line_as_json(run, line):
    """Even a line that cannot be parsed is answered as JSON where JSON was asked for."""
    assert run(*line).json["error"]["code"] == "invalid"


def test_an_unexpected_error_is_not_a_traceback(run, monkeypatch):
    """A mistake of ours asks to be reported, and shows its traceback only when wanted."""
    monkeypatch.setattr("stanch.cli.fleet._actions", lambda: 1 / 0)
    ended = run("actions")
    assert ended.code == 1
    assert "ZeroDivisionError" in ended.err
    assert "Traceback" not in ended.err
    monkeypatch.setenv("STANCH_DEBUG", "1")
    assert "Traceback" in run("actions").err


def test_a_missing_right_names_sudo(run, monkeypatch):
    """Who is not root is told what would help."""

    def refused():
        raise PermissionError(13, "Permission denied", "/var/lib/stanch/agent")

    monkeypatch.setattr("stanch.cli.fleet._actions", refused)
    ended = run("actions")
    assert ended.code == 4
    assert "/var/lib/stanch/agent" in ended.err
    assert "sudo" in ended.err


def test_an_interrupt_ends_with_130(run, monkeypatch):
    """Ctrl-C is what shells expect."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("stanch.cli.fleet._actions", interrupted)
    assert run("actions").code == 130


def test_a_closed_pipe_is_quiet():
    """`stanch actions --json | head -c 1` leaves no traceback."""
    line = f"{sys.executable} -m stanch.cli.main actions --json | head -c 1"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert "Traceback" not in ended.stderr
