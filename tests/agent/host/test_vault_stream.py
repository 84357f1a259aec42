"""Content as a stream: in order, no further than its end, and its thread ends with it."""

import os
import threading
from pathlib import Path

import pytest

from stanch.agent.host.vault_content import BLOCK
from stanch.agent.host.vault_stream import Stream
from stanch.core.errors import ActionFailed, VerificationFailed
from tests.agent.host.vault_sealed import IDENTITY, sealed, streamed


def test_a_stream_is_read_in_order_and_no_further(tmp_path: Path) -> None:
    """Another place than the next, or more than there is, is refused: it cannot be given."""
    one = sealed(tmp_path, b"x" * 1000)
    source = one.source()
    stream = Stream(source, str(IDENTITY), pieces=one.pieces, size=1000, data_sha256=None)
    for offset, length in ((1, 10), (0, 1001), (0, -1)):
        with pytest.raises(ActionFailed, match="in order"):
            stream.read(offset, length)
    stream.close()
    os.close(source)


def test_a_stream_that_nobody_reads_to_its_end_stops(tmp_path: Path) -> None:
    """Closing it ends its thread, which waits for nobody."""
    one = sealed(tmp_path, b"x" * (12 * BLOCK))
    before = set(threading.enumerate())
    part = streamed(one, 1000)
    assert next(part) == b"x" * 1000
    part.close()  # type: ignore[attr-defined]  # a generator has it
    assert not set(threading.enumerate()) - before


def test_other_content_than_expected_is_no_content(tmp_path: Path) -> None:
    """A whole age file for the right key whose hash is another one fails before its last byte is given."""
    one = sealed(tmp_path, b"x" * (2 * BLOCK))
    source = one.source()
    stream = Stream(source, str(IDENTITY), pieces=one.pieces, size=2 * BLOCK, data_sha256="0" * 64)
    assert stream.read(0, BLOCK) == b"x" * BLOCK
    with pytest.raises(VerificationFailed):
        stream.read(BLOCK, BLOCK)
    stream.close()
    os.close(source)
