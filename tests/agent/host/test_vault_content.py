"""The content of a vault's item: what comes out is what went in, holes included, and damage never passes."""

import hashlib
import os
import threading
from itertools import pairwise
from pathlib import Path

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.host.vault_content import (
    BLOCK,
    Changed,
    Watch,
    own_key,
    recipients,
    seal,
    sealed_size,
    unseal,
)
from stanch.core.errors import Cancelled, VerificationFailed
from stanch.core.files import Extent
from tests.agent.host.vault_sealed import IDENTITY, filled, sealed, streamed


@st.composite
def sparse(draw: st.DrawFn) -> tuple[bytes, tuple[Extent, ...]]:
    """Content with holes, and where its data is."""
    size = draw(st.integers(0, 3 * BLOCK))
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=6, unique=True)))
    pieces = tuple(Extent(begin, end - begin) for begin, end in list(pairwise(cuts))[::2])
    content = bytearray(size)
    for n, piece in enumerate(pieces):
        content[piece.offset : piece.offset + piece.length] = bytes([n + 1]) * piece.length
    return bytes(content), pieces


@settings(max_examples=40, deadline=None)
@given(sparse())
def test_what_comes_out_is_what_went_in(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[bytes, tuple[Extent, ...]]
) -> None:
    """A file of any size with any holes has its true hashes, and comes out the same, as a file and as a stream."""
    content, pieces = made
    one = sealed(tmp_path_factory.mktemp("content"), content, pieces, md5=True)
    assert one.hashes.sha256 == hashlib.sha256(content).hexdigest()
    assert one.hashes.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert one.age.stat().st_size <= sealed_size(sum(piece.length for piece in pieces))
    assert filled(one) == content
    assert b"".join(streamed(one, 700_001)) == content


def test_the_age_file_is_an_ordinary_one(tmp_path: Path) -> None:
    """Whoever has the key opens it with age alone: it holds the plain bytes and nothing of Stanch's."""
    one = sealed(tmp_path, b"evil" * 100_000)
    assert pyrage.decrypt(one.age.read_bytes(), [IDENTITY]) == one.content


REGIONS = {"first": 3, "stanza": 40, "mac": 290, "body": 70_000, "last": -20, "end": -1}


@pytest.mark.parametrize("region", REGIONS)
def test_a_damaged_byte_anywhere_is_noticed(tmp_path: Path, region: str) -> None:
    """One flipped bit in any region of the age file is a failed verification, for a file and for a stream."""
    one = sealed(tmp_path, os.urandom(300_000))
    data = bytearray(one.age.read_bytes())
    data[REGIONS[region]] ^= 1
    one.age.write_bytes(data)
    with pytest.raises(VerificationFailed):
        filled(one)
    with pytest.raises(VerificationFailed):
        list(streamed(one, 100_000))


@pytest.mark.parametrize("left", [0, 10, 200, 65_536, 131_000, -1])
def test_a_cut_age_file_is_noticed(tmp_path: Path, left: int) -> None:
    """Cut at any place, at a chunk's end too, it is not taken for the whole."""
    one = sealed(tmp_path, os.urandom(200_000))
    one.age.write_bytes(one.age.read_bytes()[:left])
    with pytest.raises(VerificationFailed):
        filled(one)
    with pytest.raises(VerificationFailed):
        list(streamed(one, 100_000))


def test_more_than_the_record_says_is_noticed(tmp_path: Path) -> None:
    """A whole age file of other content, longer or shorter, is not the item."""
    one = sealed(tmp_path, b"a" * 300_000)
    one.pieces = (Extent(0, 100_000),)
    with pytest.raises(VerificationFailed, match="more content"):
        filled(one)
    one.content = one.content[:100_000]
    with pytest.raises(VerificationFailed, match="more content"):
        list(streamed(one, 50_000))
    one.content, one.pieces = bytes(400_000), (Extent(0, 400_000),)
    with pytest.raises(VerificationFailed, match="less content"):
        list(streamed(one, 100_000))


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    """An item for other keys says so, and how it may still be opened."""
    one = sealed(tmp_path, b"x" * 1000)
    source = one.source()
    with pytest.raises(VerificationFailed, match="ordinary age file"):
        unseal(source, str(pyrage.x25519.Identity.generate()), lambda block: None)
    os.close(source)


def test_a_file_that_ends_too_early_has_changed(tmp_path: Path) -> None:
    """A file that is cut while it is copied is not copied as something shorter."""
    with pytest.raises(Changed):
        sealed(tmp_path, b"x" * 1000, (Extent(0, 5000),))


def test_a_full_disk_is_told_as_what_it_is(tmp_path: Path) -> None:
    """What the disk says comes out, not what the library makes of it."""
    (tmp_path / "plain").write_bytes(b"x" * 100_000)
    source, target = os.open(tmp_path / "plain", os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"):
        seal(source, target, pieces=[Extent(0, 100_000)], size=100_000, to=[str(IDENTITY.to_public())], watch=Watch())
    os.close(source)
    os.close(target)


def test_a_cancelled_copy_ends_between_two_blocks(tmp_path: Path) -> None:
    """Nobody waits for the rest of a large file, in or out, nor for the hash of a huge hole."""
    watch = Watch(stop=threading.Event())
    watch.stop.set()
    one = sealed(tmp_path, b"x" * (3 * BLOCK))
    with pytest.raises(Cancelled):
        filled(one, watch)
    source, target = os.open(one.folder / "plain", os.O_RDONLY), os.open(tmp_path / "out", os.O_WRONLY | os.O_TRUNC)
    for pieces, size in (([Extent(0, 3 * BLOCK)], 3 * BLOCK), ([], 2**50)):
        with pytest.raises(Cancelled):
            seal(source, target, pieces=pieces, size=size, to=[str(IDENTITY.to_public())], watch=watch)
    os.close(source)
    os.close(target)
    assert (tmp_path / "out").stat().st_size < BLOCK + BLOCK


def test_the_own_key_is_made_once_for_root_alone(tmp_path: Path) -> None:
    """The first use makes it, readable by its owner only; each later one finds the same."""
    first = own_key(tmp_path / "vault.key")
    assert first.startswith("AGE-SECRET-KEY-1")
    assert own_key(tmp_path / "vault.key") == first
    assert (tmp_path / "vault.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", [b"", b"AGE-SECRET-KEY-1", b"\xff\xfe", b"x" * 5000])
def test_a_damaged_key_is_never_replaced(tmp_path: Path, text: bytes) -> None:
    """With a new key nothing that is in the vault could be opened again: it fails, and stays for somebody to look."""
    (tmp_path / "vault.key").write_bytes(text)
    with pytest.raises(VerificationFailed, match="key of the vault"):
        own_key(tmp_path / "vault.key")
    assert (tmp_path / "vault.key").read_bytes() == text


def test_content_is_for_both_keys(tmp_path: Path) -> None:
    """The endpoint and the server can open it; a key of the server's that is none is left out."""
    own, server = str(IDENTITY), str(pyrage.x25519.Identity.generate().to_public())
    assert recipients(own, server) == [str(IDENTITY.to_public()), server]
    assert recipients(own, "") == recipients(own, "age1nonsense") == [str(IDENTITY.to_public())]
