"""Files of rules and indicators as material: safely opened, known by their content, bounded."""

import hashlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent import content_files
from stanch.agent.content_files import AT_ONCE, MASK, MAX_DEPTH, Part, local_material, local_materials
from stanch.core.content import ContentKind
from stanch.core.errors import ActionFailed, Invalid, NotFound, TooLarge
from stanch.core.scanning import Material

RULE = b"rule a { condition: false }\n"
IOC = b'<?xml version="1.0"?><ioc xmlns="http://schemas.mandiant.com/2010/ioc" id="a"/>'
STIX = b'{"type": "bundle", "id": "bundle--1", "objects": []}'
HASHES = b"# ours\n" + hashlib.sha256(b"x").hexdigest().encode() + b"\n"


async def bytes_of(one: Material) -> bytes:
    """All of a material, compared with its hash as a reader does it."""
    async with one.open() as content:
        data = await content.read(0, content.size)
    assert hashlib.sha256(data).hexdigest() == one.sha256
    assert len(data) == one.size
    return data


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (RULE, ContentKind.YARA),
        (IOC, ContentKind.OPENIOC),
        (STIX, ContentKind.STIX),
        (HASHES, ContentKind.HASHES),
    ],
)
async def test_the_kind_is_told_by_the_content(tmp_path: Path, data: bytes, kind: ContentKind) -> None:
    """Whatever the name says, the content decides, and the bytes are those of the file."""
    path = tmp_path / "anything.bin"
    path.write_bytes(data)
    one = local_material(path)
    assert (one.kind, one.name) == (kind, "anything.bin")
    assert await bytes_of(one) == data


def test_what_is_no_material_is_refused(tmp_path: Path) -> None:
    """A file that is neither rules nor indicators, or of another kind than asked for, is named."""
    path = tmp_path / "notes"
    path.write_bytes(b"just text")
    with pytest.raises(Invalid, match="neither rules nor indicators"):
        local_material(path)
    path.write_bytes(RULE)
    with pytest.raises(Invalid, match="got YARA rules, expected a list of hashes"):
        local_material(path, frozenset({ContentKind.HASHES}))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe, a device, a socket or a folder is never waited for, and nothing is told apart from not being there."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.fspath(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", Path("/dev/zero"), tmp_path):
            with pytest.raises(Invalid):
                local_material(path)
    with pytest.raises(NotFound):
        local_material(tmp_path / "nothing")
    with pytest.raises(Invalid):
        local_material(tmp_path / "a\0b")


def test_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file over the bound of its kind is refused while it is read, whatever its size was said to be."""
    path = tmp_path / "big.ioc"
    path.write_bytes(IOC + b" " * 3 * 2**20)
    with pytest.raises(TooLarge, match="3145728"):
        local_material(path)
    monkeypatch.setattr(content_files, "MAX_PACK_BYTES", 10)
    path.write_bytes(RULE)
    with pytest.raises(TooLarge):
        local_material(path)


async def test_a_folder_is_walked(tmp_path: Path) -> None:
    """All rules below a folder count, in the order of their names; other files and links are left out."""
    folder = tmp_path / "rules"
    (folder / "linux" / "deep").mkdir(parents=True)
    (folder / "b.yar").write_bytes(RULE)
    (folder / "linux" / "deep" / "a.YARA").write_bytes(RULE + b"//")
    (folder / "README.md").write_bytes(RULE)
    (folder / "list.txt").write_bytes(HASHES)
    (folder / "notes.txt").write_bytes(b"nothing")
    (folder / "link.yar").symlink_to(folder / "b.yar")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.yar")
    found = local_materials([folder])
    assert [one.name for one in found] == ["rules/b.yar", "rules/list.txt", "rules/linux/deep/a.YARA"]
    assert [await bytes_of(one) for one in found] == [RULE, HASHES, RULE + b"//"]
    assert [one.name for one in local_materials([folder], frozenset({ContentKind.HASHES}))] == ["rules/list.txt"]


def test_a_folder_without_rules_is_refused(tmp_path: Path) -> None:
    """A folder in which nothing is found is a mistake, and is told."""
    (tmp_path / "a.txt").write_bytes(b"nothing")
    with pytest.raises(Invalid, match="Nothing in this folder"):
        local_materials([tmp_path])


def test_a_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth, files and bytes of what is walked are bounded."""
    deep = tmp_path.joinpath(*["d"] * (MAX_DEPTH + 1))
    deep.mkdir(parents=True)
    (deep / "deep.yar").write_bytes(RULE)
    (tmp_path / "a.yar").write_bytes(RULE)
    (tmp_path / "b.yar").write_bytes(RULE)
    assert len(local_materials([tmp_path])) == 2
    monkeypatch.setattr(content_files, "MAX_PACK_FILES", 1)
    with pytest.raises(TooLarge):
        local_materials([tmp_path])
    monkeypatch.undo()
    monkeypatch.setattr(content_files, "MAX_PACK_BYTES", len(RULE) + 1)
    with pytest.raises(TooLarge):
        local_materials([tmp_path])


async def test_a_change_is_noticed(tmp_path: Path) -> None:
    """A file that becomes shorter is an error for whoever reads it, and one that is exchanged has another hash."""
    path = tmp_path / "a.yar"
    path.write_bytes(RULE)
    one = local_material(path)
    path.write_bytes(RULE[:5])
    async with one.open() as content:
        with pytest.raises(ActionFailed, match="changed while it was read"):
            await content.read(0, content.size)
    path.write_bytes(RULE.replace(b"false", b"true "))
    async with one.open() as content:
        assert hashlib.sha256(await content.read(0, one.size)).hexdigest() != one.sha256
    path.unlink()
    with pytest.raises(NotFound):
        async with one.open():
            pass


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
async def test_a_part_is_never_left(start: int, size: int, offset: int, length: int) -> None:
    """Reading a part gives exactly its own bytes, or an error."""
    data = bytes(range(30))
    file = os.memfd_create("part")
    try:
        os.write(file, data)
        part = Part(file, start, size)
        if offset + length <= size:
            assert await part.read(offset, length) == data[start + offset : start + offset + length]
        else:
            with pytest.raises(ActionFailed):
                await part.read(offset, length)
    finally:
        os.close(file)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [1, AT_ONCE, AT_ONCE + 1])
async def test_a_part_of_a_file_is_read_at_once_or_by_a_thread(tmp_path: Path, size: int, *, masked: bool) -> None:
    """Whichever it is, the bytes are the same; one that has become shorter is an error."""
    content = bytes(n % 251 for n in range(size + 10))
    (tmp_path / "file").write_bytes(content.translate(MASK) if masked else content)
    file = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        part = Part(file, 5, size, masked)
        assert await part.read(0, size) == content[5 : 5 + size]
        os.truncate(tmp_path / "file", size + 4)
        with pytest.raises(ActionFailed):
            await part.read(0, size)
    finally:
        os.close(file)


@pytest.mark.parametrize(
    ("content", "got", "todo"),
    [
        (b"", "an empty file", "rule NAME"),
        (b"\x1f\x8b\x08\0rules", "a packed file", "Unpack it first"),
        (b"\x7fELF\0\0", "a binary file", "rule NAME"),
        (b"# What these rules are\n", "text that is neither rules nor indicators", "rule NAME"),
        (b"0" * 64, "a list of hashes", "local scan malware"),
    ],
)
def test_a_file_that_is_of_no_use_is_told(tmp_path, content, got, todo):
    """What it is, what this very scan could use, and what to do: not every kind that there is."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(Invalid) as caught:
        local_materials([path], frozenset({ContentKind.YARA}))
    assert (caught.value.got, caught.value.expected) == (got, "YARA rules")
    assert todo in caught.value.hint


def test_a_folder_without_what_the_scan_needs_is_told(tmp_path):
    """Indicators are of no use to who asks for rules, however many there are."""
    (tmp_path / "hashes.txt").write_text("0" * 64)
    (tmp_path / "README.md").write_text("rule of thumb")
    with pytest.raises(Invalid, match="YARA rules, in files") as caught:
        local_materials([tmp_path], frozenset({ContentKind.YARA}))
    assert ".yar" in caught.value.hint
