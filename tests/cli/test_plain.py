"""Texts from endpoints are harmless wherever they are shown."""

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.cli.plain import json_text, plain
from stanch.core.errors import StanchError
from stanch.core.task import State
from tests.client.stub import an_endpoint

HOSTILE = {
    "markup": "[red]x[/red]",
    "broken markup": "[/]",
    "link": "[link=http://evil]x[/link]",
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "8-bit": "\x9b31mred",
    "clear": "\x1b[2J\x1b[H",
    "line": "ok\nweb-99 online",
    "return": "evil\rgood",
    "backspace": "evil\b\b\b\bgood",
    "direction": "\u202egpj.exe",
    "hidden": "a\u200bb",
    "separator": "a\u2028b",
    "emoji code": ":skull:",
}


@given(st.text())
def test_plain_text_is_one_line_without_controls(text):
    """Whatever comes in, nothing that a terminal obeys comes out."""
    shown = plain(text)
    assert all(unicodedata.category(one) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for one in shown)
    assert len(shown.splitlines()) <= 1


def test_ordinary_text_stays_as_it_is():
    """Letters of every script, spaces and punctuation are left alone."""
    for text in ("web-01", "Grüße", "日本語", "/a b/c [d]", "100 %"):
        assert plain(text) == text


def test_long_text_is_cut():
    """Nobody fills the screen."""
    assert plain("x" * 100, longest=10) == "x" * 10 + "…"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_json_is_ascii_and_comes_back(value):
    """JSON for programs carries every text, and no byte that a terminal obeys."""
    text = json_text(value)
    assert json.loads(text) == value
    assert all(" " <= one <= "~" for one in text.replace("\x7f", ""))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("tty", [False, True], ids=["pipe", "terminal"])
def test_hostile_names_are_shown_as_text(run, signed_in, monkeypatch, text, tty):
    """Neither markup nor escape sequences of a host name, a result or an error take effect."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm")
    if tty:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setenv("NO_COLOR", "1")
    signed_in.endpoints = [an_endpoint(1, hostname=text)]
    error = StanchError(text, got=text, hint=text).body()
    signed_in.ends[text] = {"state": State.FAILED, "error": error}
    for ended in (run("endpoints"), run("endpoint", "show", "ept_1"), run("isolate", "ept_1", "--wait")):
        assert plain(text) in ended.out
        _assert_harmless(ended.out + ended.err)
    signed_in.errors["GET /whoami"] = StanchError(text, got=text, hint=text)
    ended = run("whoami")
    assert plain(text) in ended.err
    _assert_harmless(ended.err)


def _assert_harmless(printed: str) -> None:
    """Line ends, bold and dim are ours; no other control may be there."""
    said = re.sub(r"\x1b\[[012]m", "", printed)
    assert not [one for one in said if one != "\n" and unicodedata.category(one) in {"Cc", "Cf", "Zl", "Zp"}]
