"""Framing of netlink: whatever the lengths say, reading gives messages or an error of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.netlink import Message, attributes, messages, pack
from stanch.core.errors import ActionFailed


@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 2**32 - 1), st.binary(max_size=50)), max_size=5))
def test_messages_come_back_as_packed(ones):
    """Packed messages, padded to four bytes each, are read back in order."""
    datagram = b"".join(_padded(pack(kind, 0, sequence, payload)) for kind, sequence, payload in ones)
    assert list(messages(datagram)) == [Message(*one) for one in ones]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


@given(st.binary(max_size=200))
def test_any_datagram_is_messages_or_an_error(datagram):
    """Hostile lengths neither loop for ever nor read beyond the end."""
    try:
        found = list(messages(datagram))
    except ActionFailed:
        return
    assert sum(16 + len(one.payload) for one in found) <= len(datagram)


@given(st.binary(max_size=200))
def test_any_bytes_are_attributes_or_an_error(data):
    """Hostile lengths of attributes are an error of ours."""
    try:
        found = attributes(data)
    except ActionFailed:
        return
    assert sum(4 + len(value) for value in found.values()) <= len(data)


@pytest.mark.parametrize("length", [0, 3, 15, 17, 2**32 - 1])
def test_an_impossible_length_is_refused(length):
    """A message shorter than its header, or longer than what came, is an error."""
    with pytest.raises(ActionFailed, match="makes no sense"):
        list(messages(length.to_bytes(4, "little") + bytes(12)))
