"""Does a keeper read everything, keep the first bytes, and never wait for anybody?"""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.program_keeping import CHUNK, Stream, last_line


@pytest.fixture
def ends():
    """Ends of a pipe that never waits, and an open file."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    for one in (reading, writing):
        try:
            os.close(one)
        except OSError:
            continue


@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(0, 200))
def test_the_first_bytes_are_kept_and_all_are_counted(tmp_path_factory, pieces, keep):
    """Whatever pieces they come in."""
    path = tmp_path_factory.mktemp("kept") / "stdout"
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    stream = Stream(reading, file, keep)
    for piece in pieces:
        os.write(writing, piece)
        stream.read()
    os.close(writing)
    stream.drain()
    os.close(file)
    whole = b"".join(pieces)
    assert (stream.written, stream.kept, stream.pipe) == (len(whole), min(keep, len(whole)), None)
    assert path.read_bytes() == whole[:keep]


def test_an_open_pipe_is_not_waited_for(ends):
    """Whoever holds the other end may say nothing for ever."""
    reading, _ = ends
    stream = Stream(reading, -1, 0)
    stream.drain()
    assert (stream.read(), stream.written) == (False, 0)
    assert stream.pipe is not None


def test_a_full_disk_ends_the_keeping_only(ends):
    """What is written goes on being read, and counted."""
    reading, writing = ends
    full = os.open("/dev/full", os.O_WRONLY)
    stream = Stream(reading, full, 1000)
    for _ in range(2):
        os.write(writing, b"x" * 100)
        stream.read()
    os.close(full)
    assert (stream.written, stream.kept) == (200, 0)


def test_what_is_forgotten_is_not_kept(ends, tmp_path):
    """Nobody waits for it any more."""
    reading, writing = ends
    file = os.open(tmp_path / "stdout", os.O_RDWR | os.O_CREAT)
    stream = Stream(reading, file, CHUNK)
    stream.forget()
    os.write(writing, b"x")
    stream.read()
    os.close(file)
    assert (stream.written, stream.kept) == (1, 0)


@pytest.mark.parametrize(
    ("tail", "line"),
    [(b"", ""), (b"one\ntwo", "two"), (b"one\ntwo\n\n \n", "two"), (b"a\xffb\x1b[0m", r"a\xffb?[0m"), (bytes(400), "")],
)
def test_the_last_line_can_be_shown(tail, line):
    """Without what would play with a terminal."""
    assert last_line(tail) == line


@given(st.binary(max_size=400))
def test_the_last_line_is_short_and_printable(tail):
    """Whatever a program writes."""
    line = last_line(tail)
    assert len(line) <= 200
    assert line.isprintable()
