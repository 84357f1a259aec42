"""One line there and one back, whatever listens."""

import json
import socket

import pytest

from stanch.cli.local.socket import MAX_ANSWER, ask
from stanch.core.errors import Denied, Protected, StanchError, Unavailable
from tests.cli.local.answers import ok


def test_a_question_is_one_line_and_so_is_the_answer(agent):
    """The request says what to do, and the value comes back."""
    assert ask(agent(ok(state="isolated")), "isolation-status") == {"state": "isolated"}
    assert agent.asked == [{"do": "isolation-status"}]


def test_an_error_of_the_agent_is_raised_as_its_class(agent):
    """The agent's own error reaches whoever asked."""
    body = Protected("Not that", hint="Never.").body().model_dump()
    with pytest.raises(Protected, match="Not that"):
        ask(agent(json.dumps({"ok": False, "error": body}).encode() + b"\n"), "isolation-off")


@pytest.mark.parametrize(
    "answer", [b"", b"\n", b"nonsense\n", b"[]\n", b'{"ok": false}\n', b'{"ok": true}\n', b"\xff\n"]
)
def test_an_answer_that_is_none_is_unavailable(agent, answer):
    """Whatever else listens there is not believed."""
    with pytest.raises(Unavailable, match="understood"):
        ask(agent(answer), "status")


def test_an_answer_without_end_is_cut_off(agent):
    """Nobody fills our memory through the socket."""
    with pytest.raises(StanchError):
        ask(agent(b"x" * (MAX_ANSWER + 1_000_000)), "status")


def test_no_socket_means_no_agent(tmp_path):
    """A missing socket, and one that nobody listens on, are both nobody."""
    assert ask(tmp_path / "none.sock", "status") is None
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead.sock"))
    dead.close()
    assert ask(tmp_path / "dead.sock", "status") is None


def test_no_right_is_denied(tmp_path, monkeypatch):
    """Who is not root is told so."""

    def refused(*_):
        raise PermissionError

    monkeypatch.setattr("stanch.cli.local.socket._exchange", refused)
    with pytest.raises(Denied, match="root"):
        ask(tmp_path / "x.sock", "status")
