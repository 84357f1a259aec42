"""Are the printable texts in memory found, within bounds?"""

import os
import secrets
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import items_memory
from stanch.agent.host.items_memory import Memory, texts
from stanch.core.ioc.items import CUT


def read(pid: int, memory: Memory | None = None) -> list[object]:
    """The texts of a process."""
    folder = os.open(f"/proc/{pid}", os.O_RDONLY)
    try:
        return list((memory or Memory(Event())).strings(folder, "", sign=lambda: None))
    finally:
        os.close(folder)


HOLDS = """
import sys
text = sys.argv[1][::-1]
kept = bytearray(b"\\0" * 1_000_000 + text.encode() + b"\\0" * 1_000_000)
print("ready", flush=True); sys.stdin.read()
"""


def test_a_text_amid_much_memory_is_found(child):
    """It lies in a large region of its own."""
    token = secrets.token_hex(16)
    planted = child(HOLDS, token[::-1])
    assert any(token in text for text in read(planted.pid))


def test_no_more_is_told_than_may_be(child, monkeypatch):
    """The texts together stay within their bound."""
    monkeypatch.setattr(items_memory, "MAX_CHARACTERS", 1000)
    planted = child(HOLDS, "nothing")
    *texts, last = read(planted.pid)
    assert last is CUT
    assert 0 < sum(map(len, texts)) <= 1000


def test_it_ends_when_it_is_told_to(child):
    """A scan that is broken off reads no more than a block."""
    planted, stop = child(HOLDS, "nothing"), Event()
    stop.set()
    assert len(read(planted.pid, Memory(stop))) < len(read(planted.pid))


def test_what_comes_after_too_much_is_not_known(child, monkeypatch):
    """The first process is read, the next is not, and that is said."""
    monkeypatch.setattr(items_memory, "MAX_ALL", 1)
    planted, memory = child(HOLDS, "nothing"), Memory(Event())
    assert read(planted.pid, memory)
    with pytest.raises(OSError, match="no more"):
        read(planted.pid, memory)


@given(st.text("abc XYZ19!", min_size=6, max_size=100), st.binary(max_size=50))
def test_texts_of_one_and_two_bytes_are_found(text, other):
    """Whatever lies around them, if it is not printable itself."""
    around = bytes(byte for byte in other if not 0x20 <= byte < 0x7F and byte != 9)
    assert text in list(texts(around + b"\1" + text.encode() + b"\1" + around))
    assert text in list(texts(around + b"\1\1" + text.encode("utf-16-le") + b"\1\1" + around))


@pytest.mark.parametrize("raw", [b"", b"short", b"\0" * 100, b"s\0h\0o\0r\0t\0", b"\xc3\xa4\xc3\xb6" * 20])
def test_what_is_short_or_not_printable_is_no_text(raw):
    """Six characters are the least."""
    assert list(texts(raw)) == []
