"""The words of a terminal: bytes are neither lost nor doubled, bounds hold, and hostile messages are Invalid."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stanch.core.errors import Invalid
from stanch.core.terminal import Closed, Why
from stanch.core.terminal_wire import (
    MAX_DATA,
    MAX_WORD,
    Gone,
    HangUp,
    Have,
    Incoming,
    Joined,
    Outgoing,
    Over,
    Resize,
    Typed,
    pack,
    read_word,
    unpack,
)

CLOSED = Closed(why=Why.EXIT, code=0, pid=7, sent=1, received=2)
WORDS = [
    Joined(have=3, first=1),
    Have(have=7),
    Resize(columns=80, rows=24),
    HangUp(),
    Over(closed=CLOSED),
    Gone(error=Invalid("no").body()),
]
HOSTILE = [
    "",
    "null",
    "[]",
    '"joined"',
    "{}",
    '{"type": "run"}',
    '{"type": "joined"}',
    '{"type": "joined", "have": -1}',
    '{"type": "have", "have": 9223372036854775808}',
    '{"type": "have", "have": "7"x',
    '{"type": "resize", "columns": 0, "rows": 24}',
    '{"type": "resize", "columns": 80, "rows": 1001}',
    '{"type": "closed", "closed": {}}',
    "[" * 4000,
    "\udcff",
]


@pytest.mark.parametrize("word", WORDS, ids=lambda one: one.type)
def test_every_word_arrives_as_it_was_said(word):
    """What is said is read as the same."""
    assert read_word(word.model_dump_json()) == word


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_word_is_invalid(text):
    """What is none of ours is Invalid, whatever it is."""
    with pytest.raises(Invalid):
        read_word(text)


@given(st.text(max_size=200) | st.dictionaries(st.text(), st.integers() | st.text() | st.none()).map(json.dumps))
def test_any_text_is_a_word_or_invalid(text):
    """No text makes the reader fail in another way."""
    try:
        read_word(text)
    except Invalid:
        return


def test_a_word_that_is_too_long_is_not_parsed():
    """A long message costs no more than looking at its length."""
    with pytest.raises(Invalid, match="too long"):
        read_word(json.dumps({"type": "hang-up", "more": "x" * MAX_WORD}))


@given(st.integers(0, 2**63 - 1 - MAX_DATA), st.binary(min_size=1, max_size=100))
def test_data_arrives_with_its_number(offset, data):
    """Packing and unpacking are each other's inverse."""
    assert unpack(pack(offset, data)) == (offset, data)


@pytest.mark.parametrize("message", [b"", b"x" * 8, b"x" * (9 + MAX_DATA), b"\xff" * 9])
def test_hostile_data_is_invalid(message):
    """Nothing, too much, and numbers beyond all bounds are Invalid."""
    with pytest.raises(Invalid):
        unpack(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_data_or_invalid(message):
    """No message makes the reader fail in another way."""
    incoming = Incoming()
    try:
        new = incoming.take(message)
    except Invalid:
        new = b""
    assert incoming.have == len(new)


def test_what_cannot_have_arrived_is_invalid():
    """Neither less than was said before, nor more than there is, can have arrived."""
    outgoing = Outgoing()
    outgoing.put(b"abc")
    outgoing.acknowledge(2)
    for have in (1, 4):
        with pytest.raises(Invalid):
            outgoing.acknowledge(have)
        with pytest.raises(Invalid):
            outgoing.joined(have)


def test_no_more_is_kept_than_there_is_room_for():
    """Who puts in more than there is room for is told, and nothing of it is kept."""
    outgoing = Outgoing(limit=4)
    outgoing.put(b"abc")
    with pytest.raises(ValueError, match="room for 1"):
        outgoing.put(b"de")
    assert (outgoing.room, outgoing.end) == (1, 3)


def test_a_hole_is_invalid():
    """Bytes that follow others which never came are not taken for those."""
    with pytest.raises(Invalid, match="missing"):
        Incoming().take(pack(1, b"b"))
    with pytest.raises(Invalid, match="missing"):
        Typed().take(pack(1, b"b"))


def test_typing_is_bounded():
    """Who sends on without listening is cut off, and what had come before is still there."""
    typed = Typed(limit=4)
    typed.take(pack(0, b"abcd"))
    with pytest.raises(Invalid, match="on the way"):
        typed.take(pack(4, b"e"))
    assert (typed.first(10), typed.passed, typed.waiting) == (b"abcd", 0, 4)


def test_what_was_passed_on_makes_room():
    """Only what waits counts; what comes again is known by its number."""
    typed = Typed(limit=4)
    typed.take(pack(0, b"abcd"))
    typed.pass_on(3)
    typed.take(pack(3, b"def"))
    assert (typed.first(2), typed.first(9), typed.passed) == (b"de", b"def", 3)


class TwoSides(RuleBasedStateMachine):
    """One direction of a terminal over connections that break anywhere, in which messages are lost from the end."""

    def __init__(self):
        super().__init__()
        self.limit = 50
        self.outgoing, self.typed = Outgoing(limit=self.limit), Typed(limit=self.limit)
        self.written, self.read = bytearray(), bytearray()
        self.wire: list[bytes] | None = None
        self.words: list[int] = []

    @rule(data=st.binary(min_size=1, max_size=30))
    def write(self, data):
        data = data[: self.outgoing.room]
        self.outgoing.put(data)
        self.written += data

    @precondition(lambda self: self.wire is None)
    @rule()
    def connect(self):
        self.outgoing.joined(self.typed.passed)
        self.wire, self.words = [], []

    @precondition(lambda self: self.wire is not None)
    @rule()
    def send(self):
        message = self.outgoing.take()
        if message is not None:
            self.wire.append(message)

    @precondition(lambda self: self.wire)
    @rule()
    def arrive(self):
        self.typed.take(self.wire.pop(0))

    @rule(most=st.integers(1, 20))
    def pass_on(self, most):
        piece = self.typed.first(most)
        self.typed.pass_on(len(piece))
        self.read += piece

    @precondition(lambda self: self.wire is not None)
    @rule()
    def tell(self):
        self.words.append(self.typed.passed)

    @precondition(lambda self: self.words)
    @rule()
    def hear(self):
        self.outgoing.acknowledge(self.words.pop(0))

    @precondition(lambda self: self.wire is not None)
    @rule()
    def cut(self):
        self.wire, self.words = None, []

    @invariant()
    def nothing_is_lost_or_doubled(self):
        assert self.written.startswith(self.read)
        assert self.typed.passed == len(self.read)

    @invariant()
    def bounds_hold(self):
        assert 0 <= self.outgoing.room <= self.limit
        assert self.typed.waiting <= self.limit
        assert self.outgoing.acknowledged <= self.typed.passed <= self.outgoing.end == len(self.written)

    def teardown(self):
        """Whatever happened, one good connection brings the rest."""
        self.outgoing.joined(self.typed.passed)
        while (message := self.outgoing.take()) is not None:
            self.typed.take(message)
            self.read += self.typed.first(self.limit)
            self.typed.pass_on(self.typed.waiting)
        assert self.read == self.written


TestTwoSides = TwoSides.TestCase
TestTwoSides.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
