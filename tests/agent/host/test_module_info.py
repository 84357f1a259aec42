"""What files of kernel modules say: whole ones, compressed ones, damaged ones."""

import gzip
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.host import module_info as module
from stanch.agent.host.module_info import fields, unpacked
from tests.agent.host.made_module import made

SAID = ("license=GPL", "alias=pci:v1*", "alias=b", "depends=x,y", "no sign", "parm=debug:on=off", "=empty")
PLAIN = made(*SAID)


def test_fields_are_read() -> None:
    """Each with all its values; what is no field is left out."""
    assert fields(PLAIN) == {
        "license": ["GPL"],
        "alias": ["pci:v1*", "b"],
        "depends": ["x,y"],
        "parm": ["debug:on=off"],
        "": ["empty"],
    }


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_compressed_modules_are_unpacked(pack: object) -> None:
    """With gzip and xz; a plain one is as it is."""
    assert callable(pack)
    assert unpacked(pack(PLAIN)) == PLAIN


@pytest.mark.parametrize(
    "raw", [b"", b"\x28\xb5\x2f\xfd rest", gzip.compress(PLAIN)[:-20], lzma.compress(PLAIN)[:-20], b"\x1f\x8b", b"text"]
)
def test_what_cannot_be_unpacked_is_not_known(raw: bytes) -> None:
    """zstd, and whatever is cut off."""
    assert unpacked(raw) is None


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_bomb_is_not_unpacked(pack: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes larger than the bound is not known."""
    assert callable(pack)
    monkeypatch.setattr(module, "MAX_MODULE", 100_000)
    assert unpacked(pack(bytes(100_001))) is None
    assert unpacked(pack(bytes(10_000))) is not None


def test_a_module_without_the_section_says_nothing() -> None:
    """It is not known."""
    assert fields(PLAIN.replace(b".modinfo", b".nothing")) is None


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 460), st.binary(min_size=1, max_size=8)), max_size=6), st.integers(0, 460))
def test_no_damage_raises(changes: list[tuple[int, bytes]], cut: int) -> None:
    """A module that was changed in a few places and cut off."""
    raw = bytearray(PLAIN)
    for where, what in changes:
        raw[where : where + len(what)] = what
    data = bytes(raw[: len(raw) - cut])
    if len(data) > 6:
        said = fields(data)
        assert said is None or all(isinstance(one, str) for values in said.values() for one in values)
    assert unpacked(data) in {None, data}
