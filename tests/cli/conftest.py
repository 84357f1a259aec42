"""A command line, a server on loopback, and somebody who is signed in to it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from stanch.cli.main import main
from stanch.client.session import SavedSession, save
from tests.client.stub import TOKEN, Listening, Stub, listening


@dataclass(frozen=True)
class Ended:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document: anything else there fails."""
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Listening:
    with listening(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Every test has a session file, a folder and a terminal width of its own."""
    path = tmp_path / "config" / "session.json"
    monkeypatch.setenv("STANCH_SESSION", str(path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("STANCH_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def stub(server) -> Stub:
    return server.serve(Stub())


@pytest.fixture
def signed_in(stub, place) -> Stub:
    """The stub, and a session at it."""
    save(place, SavedSession(url=stub.url, ca=stub.ca, token=TOKEN, name="alice"))
    return stub


@pytest.fixture
def run(capsys) -> Run:
    def call(*line: str) -> Ended:
        capsys.readouterr()
        code = main(line)
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture
def terminal(monkeypatch):
    """Standard streams are a terminal, and somebody types these lines."""

    def answer(*lines: str) -> None:
        typed = iter(lines)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt: next(typed))
        monkeypatch.setattr("click.termui.hidden_prompt_func", lambda _prompt: next(typed))

    return answer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """What scans by hand remember stays in the folder of the test."""
    monkeypatch.setenv("STANCH_SCAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def planted(tmp_path, cache):
    """A folder with something bad and something good, and a rule for it."""
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "bad file").write_bytes(b"xxstanch-planted-MARK")
    (tmp_path / "look" / "good").write_bytes(b"nothing")
    rule = 'rule planted : demo { strings: $a = "stanch-planted-MARK" condition: $a }\n'
    (tmp_path / "rule.yar").write_text(rule)
    return tmp_path
