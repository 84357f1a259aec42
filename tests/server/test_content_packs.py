"""Packs on the disk: whole under their hash, or not there."""

import hashlib
import os
from pathlib import Path

import pytest

from stanch.core.errors import Invalid, TooLarge
from stanch.server import content_packs as module
from stanch.server.content_packs import Packs, opened
from tests.fakes.packed import GOOD, chunks, index, pack

DATA = pack({"a.yar": GOOD, "b.yar": b""})
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
async def packs(tmp_path: Path) -> Packs:
    """An empty folder."""
    made = Packs(tmp_path / "content")
    await made.remove_all_but(())
    return made


def names(packs: Packs) -> list[str]:
    return sorted(path.name for path in packs.folder.iterdir())


async def test_a_pack_arrives_and_is_kept(packs: Packs) -> None:
    """First under a name of ours, then under its own; its files are where the list says."""
    arrived = await packs.take("pck_1", chunks(DATA, 3), sha256=DIGEST)
    assert names(packs) == ["pck_1"]
    assert arrived.index == index({"a.yar": GOOD, "b.yar": b""})
    assert DATA[arrived.places[0].start : arrived.places[0].end] == GOOD
    await packs.keep(arrived)
    assert names(packs) == [DIGEST]
    with opened(packs.path(DIGEST)) as descriptor:
        assert os.read(descriptor, 10_000) == DATA


async def test_what_is_no_pack_is_not_left(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what is too much of one; and the hint fits."""
    with pytest.raises(Invalid):
        await packs.take("pck_1", chunks(DATA + b"x"), sha256=None)
    monkeypatch.setattr(module, "MAX_PACK_BYTES", 10)
    with pytest.raises(TooLarge) as caught:
        await packs.take("pck_1", chunks(DATA), sha256=None)
    assert "several names" in str(caught.value.hint)
    assert names(packs) == []


async def test_what_nobody_knows_is_removed(packs: Packs) -> None:
    """Half-written ones, and whole ones of no version."""
    for name in (".half-1", "pck_1", DIGEST, "f" * 64):
        (packs.folder / name).write_bytes(b"x")
    assert await packs.remove_all_but({DIGEST}) == 3
    assert names(packs) == [DIGEST]


async def test_a_link_is_not_followed(packs: Packs, tmp_path: Path) -> None:
    """Whatever is put in a pack's place, the worker is handed a file of ours."""
    (tmp_path / "secret").write_bytes(b"x")
    packs.path(DIGEST).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError), opened(packs.path(DIGEST)):
        pytest.fail("it was opened")
