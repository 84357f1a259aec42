"""Histories of shells, as these write them, and whatever else is in the file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.shell_histories import HISTORIES, LONGEST, Command, bash, fish, ksh, plain, zsh


def test_bash_with_and_without_times() -> None:
    """A stamp counts for the lines behind it."""
    raw = b"ls\n#1700000000\nfor x in 1; do\necho $x\n\n#comment\n#1700000001\npwd"
    assert list(bash(raw)) == [
        Command("ls"),
        Command("for x in 1; do", 1_700_000_000),
        Command("echo $x", 1_700_000_000),
        Command("#comment", 1_700_000_000),
        Command("pwd", 1_700_000_001),
    ]


def test_csh_has_a_plus_sign_in_its_stamps() -> None:
    """In .history."""
    shell, parse = HISTORIES[".history"]
    assert (shell, list(parse(b"#+1700000000\nls\n"))) == ("csh", [Command("ls", 1_700_000_000)])


def test_zsh_with_times_long_lines_and_odd_signs() -> None:
    """A backslash at the end goes on; what zsh writes as two bytes is one again."""
    raw = b": 1700000000:0;ls\n: 1700000001:12;echo a\\\necho b\nplain\n: 1700000002:0;echo \xc3\x83\x84\n"
    assert list(zsh(raw)) == [
        Command("ls", 1_700_000_000),
        Command("echo a\necho b", 1_700_000_001),
        Command("plain"),
        Command("echo ä", 1_700_000_002),
    ]


def test_fish() -> None:
    """Its escapes are taken back; what else it keeps is passed over."""
    raw = b"- cmd: echo a\\nb \\\\n\n  when: 1700000000\n  paths:\n    - x\n- cmd: last\n"
    assert list(fish(raw)) == [Command("echo a\nb \\n", 1_700_000_000), Command("last")]


def test_ksh_and_plain_ones() -> None:
    """Zero bytes part commands, behind a mark."""
    assert list(ksh(b"\x81\x01ls\n\0\0pwd\n\0")) == [Command("ls"), Command("pwd")]
    assert list(plain(b"ls\r\n\n pwd\n")) == [Command("ls"), Command(" pwd")]


def test_odd_bytes_are_told() -> None:
    """No text has surrogates."""
    assert list(bash(b"a\xffb\n")) == [Command("a\\xffb")]


def test_a_time_that_is_none_is_not_told() -> None:
    """Beyond the year 9999 there is none."""
    assert list(bash(b"#999999999999\nls\n")) == [Command("ls")]


def test_a_line_without_end_is_cut() -> None:
    """What is behind the bound is left out; the next line is whole."""
    assert [len(one.text) for one in bash(b"x" * (2 * LONGEST) + b"\nls\n")] == [LONGEST, 2]
    (one, *_rest) = zsh(b"y\\\n" * LONGEST)
    assert len(one.text) <= 2 * LONGEST


@pytest.mark.parametrize("name", HISTORIES)
@given(
    st.lists(
        st.sampled_from([b"ls", b"\n", b"#17", b": 1:2;", b"\\", b"- cmd: ", b"  when: 5", b"\0", b"\x83", b"\xff"])
    )
)
def test_no_bytes_raise(name: str, parts: list[bytes]) -> None:
    """Every command has a text that is not blank."""
    for one in HISTORIES[name][1](b"".join(parts)):
        assert one.text.encode()
