"""Tests of stanch.core.ioc.items."""

from stanch.core.ioc.items import Cost, Item
from stanch.core.ioc.terms import DOCUMENTS


def test_dear_values_come_after_cheap_ones() -> None:
    """Names before looks, looks before hashes, hashes before strings."""
    assert sorted(Cost) == [Cost.FREE, Cost.LOOKUP, Cost.READ, Cost.DEEP]
    files = DOCUMENTS["FileItem"]
    assert files["FileName"].cost < files["Sha256sum"].cost < files["StringList/string"].cost


def test_an_item_needs_nothing_but_its_values() -> None:
    """What it takes to find it again is known only of some."""
    assert Item(document="DnsEntryItem", name="x", values={}).about == {}
