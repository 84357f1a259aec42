"""Rules are left out only for files for which they cannot hold."""

from pathlib import Path

import pytest

from stanch.worker.scan.narrowing import CLASSES, Narrowing, class_of
from stanch.worker.scan.rules import RuleSet, source_of

MZ = "uint16(0) == 0x5A4D"


def rule_set(*texts: str, seconds: float = 20, tags: frozenset[str] = frozenset(), fast: bool = False) -> RuleSet:
    """Rules, one file each."""
    sources = [source_of(f"{n}.yar", text.encode()) for n, text in enumerate(texts)]
    return RuleSet(sources, fast=fast, tags=tags, seconds=seconds)


def names(rules: RuleSet, data: bytes = b"some bytes") -> set[str]:
    """Rules that hold for it."""
    return {one.rule for one in rules.match(data, {})}


@pytest.mark.parametrize(
    ("condition", "class_", "left_out"),
    [
        (f"{MZ} and true", "other", True),
        (f"{MZ} and true", "elf", True),
        (f"{MZ} and true", "pe", False),
        (MZ, "other", True),
        (f"{MZ} and (true or false)", "other", True),
        (f"{MZ} and true or true", "other", False),
        (f"({MZ}) or true", "other", False),
        (f"not {MZ} and true", "other", False),
        ("uint16(0) == 0x5A4D or true", "other", False),
        ("uint16(1) == 0x5A4D and true", "other", False),
        ("uint16(0) != 0x5A4D and true", "other", False),
        ("uint32(0) == 0x464C457F and true", "elf", False),
        ("uint32(0) == 0x464c457f and true", "other", True),
        ("uint32be(0) == 0x7F454C46 and true", "elf", False),
        ("uint16be(0) == 0x4D5A and true", "pe", False),
        ("uint16(0) == 0x457f and true", "elf", False),
        ("uint32(0) == 0x00905A4D and true", "pe", False),
        ("uint16(0) == 0x4B50 and true", "other", False),
        ("uint16(0) == 0x15A4D and true", "other", False),
    ],
)
def test_rules_are_left_out_only_where_they_cannot_hold(condition: str, class_: str, left_out: bool) -> None:  # noqa: FBT001 - a case
    """The first part of the condition decides, if all others are joined to it by `and`."""
    text = f"rule A {{ condition: {condition} }}\nrule B {{ condition: true }}"
    kept = Narrowing(text).text_for(class_)
    assert ("rule A" not in kept) is left_out
    assert "rule B" in kept


@pytest.mark.parametrize(
    "text",
    [
        f"global rule G {{ condition: {MZ} and true }} rule B {{ condition: true }}",
        f"rule A {{ condition: {MZ} and true }} rule B {{ condition: not A }}",
        f"rule A1 {{ condition: {MZ} and true }} rule A2 {{ condition: true }} rule B {{ condition: all of (A*) }}",
        f"rule A1 {{ condition: {MZ} and true }} rule B {{ condition: none of (A*) }}",
        f'import "pe" rule A {{ condition: {MZ} and pe.is_pe }} rule B {{ condition: not pe.is_pe }}',
        f'import "pe" rule A {{ condition: {MZ} and pe.is_pe }}',
        f'rule A {{ strings: $a = ") or (" condition: {MZ} and $a }} rule B {{ condition: filesize > 2 }}',
    ],
)
@pytest.mark.parametrize("data", [b"", b"M", b"MZ", b"MZ" + bytes(100), b"\x7fELF" + bytes(100), b"text ) or ("])
def test_narrowed_rules_find_the_same(text: str, data: bytes) -> None:
    """As all of them together do, for every kind of file."""
    rules = rule_set(text)
    everything = rules.ready()
    assert everything is not None
    assert names(rules, data) == {one.rule for one in everything.match(data=data)}


def test_no_rules_that_can_hold_need_no_content() -> None:
    """Then nothing is searched."""
    rules = rule_set(f"rule A {{ condition: {MZ} and true }}")
    assert [rules.can_match(first) for first in (b"text", b"\x7fELF", b"MZ\x90\0")] == [False, False, True]
    assert {class_of(first) for first in (b"text", b"\x7fELF", b"MZ")} == set(CLASSES)


def test_the_public_rules_find_the_same_narrowed() -> None:
    """For a program of this system and for bytes of each kind."""
    folder = Path(__file__).parents[4] / "shared/data/yara"
    if not folder.is_dir():
        pytest.skip("no rules beside the checkout")
    texts = [path.read_text() for path in sorted(folder.rglob("*.yar*"))]
    rules = rule_set(*texts)
    everything = rules.ready()
    assert everything is not None
    for data in (Path("/bin/sh").read_bytes(), b"MZ" + bytes(1000), b"text", bytes(64)):
        assert names(rules, data) == {one.rule for one in everything.match(data=data)}
