"""The bytes of a pack: the same files make the same bytes, and what is no pack is refused where it goes wrong."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core import pack as module
from stanch.core.content import ContentKind, PackIndex
from stanch.core.errors import Invalid, StanchError, TooLarge
from stanch.core.pack import PackCheck, first_line, index_of, places, read_line, refuse_large_file
from tests.fakes.packed import file_of, index, pack

NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)
FILES = st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=6)
SOME = {"b.yar": b"second", "a.yar": b"first", "empty": b""}


def checked(data: bytes, size: int = 7) -> PackIndex:
    """What a check says of bytes that come in pieces of this size."""
    check = PackCheck()
    for at in range(0, len(data), size):
        check.feed(data[at : at + size])
    return check.end()


@given(FILES, st.integers(1, 300))
def test_what_is_packed_is_read(files: Mapping[str, bytes], size: int) -> None:
    """Whatever is in it, and in whatever pieces it comes; and each file is where its place says."""
    data = pack(files)
    found = checked(data, size)
    assert found == index(files)
    where = places(found, data.index(b"\n") + 1)
    assert {one.file.name: data[one.start : one.end] for one in where} == files


@given(FILES)
def test_the_order_of_files_does_not_matter(files: Mapping[str, bytes]) -> None:
    """The same files make the same bytes."""
    assert pack(files) == pack(dict(reversed(files.items())))


@given(FILES, st.data())
def test_no_file_is_another_than_the_list_says(files: Mapping[str, bytes], data: st.DataObject) -> None:
    """Whatever byte is changed: in a file it is always found, and in the list the files are still what that says."""
    whole = pack(files)
    line_bytes = whole.index(b"\n") + 1
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    try:
        found = checked(changed)
    except StanchError:
        return
    assert at < line_bytes
    where = places(found, changed.index(b"\n") + 1)
    assert [file_of(one.file.name, changed[one.start : one.end]) for one in where] == list(found.files)


@pytest.mark.parametrize("cut", [0, 1, 20, -1, -6])
def test_a_pack_that_ends_too_early(cut: int) -> None:
    """In the list of files, or in a file."""
    with pytest.raises(Invalid):
        checked(pack(SOME)[:cut])


def test_a_pack_that_goes_on() -> None:
    """A single byte more is refused."""
    with pytest.raises(Invalid, match="longer"):
        checked(pack(SOME) + b"x")


def test_a_file_that_is_another_one_is_named() -> None:
    """So that who made the pack can find it."""
    with pytest.raises(Invalid, match=r"a\.yar is not"):
        checked(pack(SOME).replace(b"first", b"FIRST"))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"stanch_pack": 2, "kind": "yara", "files": []}',
        b'{"stanch_pack": 1, "kind": "exe", "files": [{"name": "a", "size": 0, "sha256": "00"}]}',
        b'{"stanch_pack": 1, "kind": "yara", "files": []}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_list(line: bytes) -> None:
    """It is said what is wrong with it."""
    with pytest.raises(Invalid):
        read_line(line)


def odd_line(*names: str, kind: str = "yara", size: int = 0) -> bytes:
    files = [{"name": name, "size": size, "sha256": "0" * 64} for name in names]
    return json.dumps({"stanch_pack": 1, "kind": kind, "files": files}).encode()


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a"), ("a", "c", "b")])
def test_files_are_listed_once_and_in_order(names: tuple[str, ...]) -> None:
    """Otherwise the same files could make two packs, and one file could hide another."""
    with pytest.raises(Invalid, match="order"):
        read_line(odd_line(*names))


@pytest.mark.parametrize("name", ["", "a\nb", "\0", "x" * 256])
def test_odd_names_are_refused(name: str) -> None:
    """Names are for people: one line, and not too long."""
    with pytest.raises(Invalid):
        read_line(odd_line(name))


def test_what_is_too_large() -> None:
    """One file of its kind, all files together, and the list."""
    with pytest.raises(TooLarge, match="a is too large"):
        read_line(odd_line("a", kind="openioc", size=3 * 2**20 + 1))
    assert read_line(odd_line("a", kind="openioc", size=3 * 2**20))
    with pytest.raises(TooLarge):
        read_line(odd_line("a", "b", size=200 * 2**20))
    with pytest.raises(TooLarge):
        read_line(b" " * (module.MAX_LINE_BYTES + 1))


def test_a_list_without_an_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds the first line only, and no more of that than it may have."""
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 100)
    check = PackCheck()
    check.feed(b"x" * 50)
    with pytest.raises(TooLarge):
        check.feed(b"x" * 50)


def test_a_pack_that_cannot_be() -> None:
    """No files, or too many bytes of them."""
    with pytest.raises(Invalid):
        index_of(ContentKind.YARA, [])
    large = file_of("a", b"").model_copy(update={"size": 200 * 2**20})
    with pytest.raises(TooLarge):
        first_line(PackIndex(kind=ContentKind.YARA, files=(large, large.model_copy(update={"name": "b"}))))


def test_a_list_of_hashes_has_a_bound_of_its_own() -> None:
    """A scan holds all of it in memory, beside the hashes of all others."""
    refuse_large_file(ContentKind.HASHES, "a.txt", 64 * 2**20)
    with pytest.raises(TooLarge) as caught:
        refuse_large_file(ContentKind.HASHES, "a.txt", 64 * 2**20 + 1)
    assert "Split" in (caught.value.hint or "")
    refuse_large_file(ContentKind.YARA, "a.yar", 64 * 2**20 + 1)
