"""Records: what was written is read, each damaged byte is noticed, and what is no item does not disturb."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.metadata import capture
from stanch.agent.host.vault_items import Items, Record, Stage, parse, rendered
from stanch.core.errors import NotFound, VerificationFailed
from stanch.core.files import FileId, FileInfo, Kind
from stanch.core.types import EndpointPath
from stanch.core.vault import Item, Why, item_id

ID = item_id("t1", 1)
THEN = datetime(2026, 3, 1, tzinfo=UTC)


def record(path: str = "/tmp/evil", **more: object) -> Record:
    """A record of a folder."""
    descriptor = os.open("/", os.O_PATH)
    try:
        metadata = capture(descriptor)
    finally:
        os.close(descriptor)
    info = FileInfo(size=0, mode=0o755, user="root", modified=THEN, inode=1, kind=Kind.FOLDER)
    item = Item(id=ID, path=EndpointPath(path), why=Why.QUARANTINE, info=info, taken=THEN)
    file = FileId(device=1, inode=2)
    return Record(
        **{"item": item, "metadata": metadata, "stage": Stage.HELD, "number": 1, "modified_ns": 0, "file": file, **more}
    )


@pytest.fixture
def items(tmp_path: Path) -> Items:
    """A folder for records."""
    made = Items(tmp_path / "vault")
    made.prepare()
    return made


@given(st.binary(min_size=1, max_size=200).filter(lambda one: 0 not in one), st.integers(0, 2**60))
def test_what_was_written_is_read(name: bytes, number: int) -> None:
    """Paths of any bytes and all numbers come out of the bytes of a record as they went in."""
    written = record(EndpointPath.of(b"/" + name), number=number)
    assert parse(rendered(written), ID) == written


def test_each_damaged_byte_is_noticed() -> None:
    """Whichever bit of a record is another one, and wherever it is cut or continued, it is no record."""
    data = rendered(record())
    damaged = [data[:n] + bytes([data[n] ^ 1 << n % 8]) + data[n + 1 :] for n in range(len(data))]
    cut = [data[:n] for n in range(len(data))]
    for one in (*damaged, *cut, data + b" ", b" " + data, data + data):
        with pytest.raises(VerificationFailed):
            parse(one, ID)


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    """Whatever is in the file, the answer is that it is damaged."""
    with pytest.raises(VerificationFailed):
        parse(data, ID)


def test_what_is_no_item_is_not_listed(items: Items) -> None:
    """Other names in the folder are left out, and left alone."""
    items.write(record())
    for name in ("qrt_0.json", "note.json", f"{ID}.json.old", "QRT_0123456789abcdef.json", f"x{ID}.json"):
        (items.folder / name).write_bytes(b"{}")
    assert items.ids() == [ID]
    items.sweep()
    assert len(list(items.folder.iterdir())) == 6


def test_a_sweep_removes_what_is_half_written(items: Items) -> None:
    """Parts of content and of records go; items stay."""
    items.write(record())
    items.part_path(ID).write_bytes(b"x")
    (items.folder / ".stanch-0123456789abcdef").write_bytes(b"x")
    items.sweep()
    assert [one.name for one in items.folder.iterdir()] == [f"{ID}.json"]


def test_the_folder_is_shut_for_others(items: Items) -> None:
    """Whoever opened it, the next item shuts it."""
    items.folder.chmod(0o755)
    items.prepare()
    assert items.folder.stat().st_mode & 0o777 == 0o700


def test_a_vault_that_was_never_used_is_empty(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    items = Items(tmp_path / "none")
    assert (items.ids(), items.used(), items.orphans(), list(items.every())) == ([], 0, [], [])
    items.sweep()
    with pytest.raises(NotFound):
        items.read(ID)
    assert not items.folder.exists()


def test_a_record_that_cannot_be_read_is_damaged(items: Items) -> None:
    """A folder in its place is told as damage, and not followed by an error that nobody expects."""
    items.record_path(ID).mkdir()
    with pytest.raises(VerificationFailed, match="cannot be read"):
        items.find(ID)
    (listed,) = items.every()
    assert isinstance(listed, Item)
    assert listed.damage
