"""Signing in and out."""

import json

import pytest

from stanch.client.session import load
from stanch.core.errors import NotFound
from tests.client.stub import PASSWORD, TOKEN


@pytest.fixture
def password(tmp_path):
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return str(file)


def test_login_keeps_a_session(run, stub, place, password):
    """With pin and password, the session file holds what later commands need, for the owner only."""
    ended = run("login", stub.url, "--ca-pin", stub.pin, "--name", "alice", "--password-file", password)
    assert ended.code == 0
    assert "Signed in" in ended.out
    saved = load(place)
    assert (saved.url, saved.token, saved.name) == (stub.url, TOKEN, "alice")
    assert place.stat().st_mode & 0o777 == 0o600
    assert run("whoami", "--json").json["name"] == "alice"


def test_the_token_is_never_printed(run, stub, password):
    """Neither people nor programs see the token."""
    line = ("login", stub.url, "--ca-pin", stub.pin, "--password-file", password)
    for one in (run(*line), run(*line, "--json")):
        assert one.code == 0
        assert TOKEN not in one.out + one.err


def test_a_wrong_pin_is_refused_before_the_password_is_sent(run, stub, place, password):
    """Whoever answers with another CA learns nothing."""
    ended = run("login", stub.url, "--ca-pin", "0" * 64, "--password-file", password)
    assert ended.code == 7
    assert ended.err.startswith("error[verification-failed]: ")
    assert [what for what, _ in stub.requests] == ["GET /ca"]
    assert not place.exists()


def test_the_pin_is_needed_once(run, stub, password):
    """A server that is known needs no pin; one that is not does."""
    line = ("login", stub.url, "--password-file", password)
    first = run(*line)
    assert first.code == 2
    assert "--ca-pin" in first.err
    assert run(*line, "--ca-pin", stub.pin).code == 0
    assert run(*line).code == 0
    assert run("logout").code == 0
    assert run(*line).code == 0


def test_a_wrong_password(run, stub, tmp_path, place):
    """The server's refusal is told, and no session is kept."""
    (tmp_path / "wrong").write_text("guess")
    ended = run("login", stub.url, "--ca-pin", stub.pin, "--password-file", str(tmp_path / "wrong"))
    assert ended.code == 3
    assert not place.exists()


def test_a_password_that_nobody_has_is_not_sent(run, stub, tmp_path):
    """An empty file, or the wrong one, is told without a word of what is in it."""
    for content in ("", "s3cret" * 500):
        (tmp_path / "wrong").write_text(content)
        ended = run("login", stub.url, "--ca-pin", stub.pin, "--password-file", str(tmp_path / "wrong"))
        assert ended.code == 2
        assert "1000" in ended.err
        assert "s3cret" not in ended.err
    assert stub.asked("POST /login") == []


def test_the_port_for_agents_is_the_wrong_one(run, stub, password):
    """Whoever mixes up the two ports is told which is which."""
    stub.errors["GET /ca"] = NotFound("There is nothing at this path")
    ended = run("login", stub.url, "--ca-pin", stub.pin, "--password-file", password)
    assert ended.code == 5
    assert "8443" in ended.err
    assert stub.asked("POST /login") == []


def test_a_person_is_asked_for_the_password(run, stub, terminal):
    """On a terminal the password is typed, unseen."""
    terminal(PASSWORD)
    assert run("login", stub.url, "--ca-pin", stub.pin).code == 0
    assert stub.asked("POST /login") == [{"name": "admin", "password": PASSWORD}]


def test_without_a_terminal_the_password_needs_a_file(run, stub):
    """A script that forgot the password is not left hanging."""
    ended = run("login", stub.url, "--ca-pin", stub.pin)
    assert ended.code == 2
    assert "--password-file" in ended.err


def test_logout_forgets_the_token(run, signed_in, place):
    """The server is told, the token is gone, and the server stays known."""
    assert run("logout").code == 0
    assert signed_in.asked("POST /logout") == [{}]
    assert load(place).token == ""
    ended = run("logout")
    assert ended.code == 3
    assert f"stanch login {signed_in.url}" in run("whoami").err


def test_logout_works_without_the_server(run, signed_in, place):
    """A server that is gone keeps nobody signed in."""
    place.write_text(json.dumps({**json.loads(place.read_text()), "url": "https://127.0.0.1:1"}))
    ended = run("logout", "--json")
    assert ended.json["ended"] is False
    assert load(place).token == ""


@pytest.mark.parametrize("line", [("whoami",), ("orders",), ("endpoints",), ("evidence", "list"), ("token", "list")])
def test_nobody_signed_in(run, line):
    """Every command that needs a session says how to get one."""
    ended = run(*line)
    assert ended.code == 3
    assert "stanch login" in ended.err


def test_whoami(run, signed_in):
    """People read what they may do."""
    ended = run("whoami")
    assert "alice" in ended.out
    assert "destructive" in ended.out
