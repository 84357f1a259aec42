"""Parts as they leave: compressed where that helps, opened by the key's owner only; and which parts lie in holes."""

import hashlib
import secrets
from itertools import pairwise

import pyrage
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from pyrage import x25519

from stanch.agent.sealing import Sealer, compressed, empty_runs
from stanch.core.files import Extent
from stanch.core.frames import PART_BYTES, Encoding, EvidenceProgress, sealed_bound

MINE = x25519.Identity.generate()
NEW = EvidenceProgress(evidence="evd_1", parts=(), encodings=("age", "zstd+age"))
OLD = EvidenceProgress(evidence="evd_1", parts=())
NOISE = secrets.token_bytes(300_000)


@pytest.mark.parametrize("size", [1, 1000, 65_536, 65_537, 300_000])
def test_noise_is_only_encrypted(size):
    """Its owner opens it; it is hardly larger, and its hash is that of what is sent."""
    sealed = Sealer(str(MINE.to_public()), NEW).seal(NOISE[:size])
    assert sealed.encoding is Encoding.AGE
    assert pyrage.decrypt(bytes(sealed.body), [MINE]) == NOISE[:size]
    assert size < len(sealed.body) <= sealed_bound(size)
    assert sealed.sha256 == hashlib.sha256(sealed.body).hexdigest()


def test_the_largest_part_keeps_the_bound():
    """What the server accepts is at least what a full part needs."""
    sealed = Sealer(str(MINE.to_public()), NEW).seal(secrets.token_bytes(PART_BYTES))
    assert PART_BYTES < len(sealed.body) <= sealed_bound(PART_BYTES)


def test_text_is_compressed_first():
    """And comes out again."""
    text = b"Nov 24 12:00:00 web-01 sshd[4711]: Failed password for root\n" * 20_000
    sealed = Sealer(str(MINE.to_public()), NEW).seal(text)
    assert sealed.encoding is Encoding.ZSTD_AGE
    assert len(sealed.body) < len(text) / 10
    assert zstd.decompress(pyrage.decrypt(bytes(sealed.body), [MINE])) == text


def test_nobody_else_opens_it():
    """Another key does not."""
    sealed = Sealer(str(MINE.to_public()), NEW).seal(NOISE)
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(bytes(sealed.body), [x25519.Identity.generate()])


@pytest.mark.parametrize(
    ("key", "server"),
    [("", NEW), ("age1nonsense", NEW), (str(MINE.to_public()), OLD)],
    ids=["no key", "no such key", "old server"],
)
def test_without_a_key_or_for_an_old_server_it_stays_plain(key, server):
    """The hash is then that of the part."""
    sealer = Sealer(key, server)
    sealed = sealer.seal(NOISE)
    assert (sealed.body, sealed.encoding, sealer.seals) == (NOISE, Encoding.PLAIN, False)
    assert sealed.sha256 == hashlib.sha256(NOISE).hexdigest()


def test_compression_must_be_worth_it():
    """A part that looks well in its samples, and is not, is sent as it is; and noise is not even tried."""
    step = (len(NOISE) - 65_536) // 3
    lucky = bytearray(NOISE)
    for n in range(4):
        lucky[n * step : n * step + 8000] = bytes(8000)
    assert compressed(NOISE) is None
    assert compressed(bytes(lucky)) is not None
    assert compressed(NOISE[:100]) is None
    assert compressed(b"") is None


# --- holes -----------------------------------------------------------------------------------------------------------

EXTENTS = st.lists(st.builds(Extent, st.integers(0, 300), st.integers(0, 60)), max_size=8)


@given(extents=EXTENTS, size=st.integers(0, 300), part=st.integers(1, 70))
def test_a_part_is_empty_if_no_extent_touches_it(extents, size, part):
    """Whatever the extents are: out of order, over each other, empty, beyond the end."""
    count = -(-size // part)
    touched = {at // part for one in extents for at in range(one.offset, one.offset + one.length)}
    runs = empty_runs(extents, size=size, part_bytes=part)
    assert [n for run in runs for n in range(run.first, run.end)] == [n for n in range(count) if n not in touched]
    assert all(before.end < after.first for before, after in pairwise(runs))
