"""The engines of one scan, taken together."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from stanch.core.ioc.items import Item
from stanch.worker.scan.engines import Engines


class Quiet:
    """A ClamAV that never finds anything."""

    key = b"k" * 16

    def scan(self, _file: int) -> str | None:
        """Nothing."""
        return None


def test_what_is_clean_for_one_engine_is_not_so_for_two(tmp_path: Path) -> None:
    """The name under which a file is clean is that of all engines that search content; without one there is none."""
    status = os.stat(tmp_path)  # noqa: PTH116 - the status itself is wanted
    assert Engines().key(b"/x", status) == b""
    assert Engines(clamd=Quiet()).key(b"/x", status) == b"k" * 16


def test_only_who_asks_for_verdicts_alone_is_served_by_a_glance() -> None:
    """Whoever wants hashes or facts of files has to look at each."""
    assert Engines(clamd=Quiet()).only_clean
    assert not Engines(clamd=Quiet(), wanted=frozenset({"FileName"})).only_clean
    assert not Engines().only_clean


class Silent:
    """A judge that finds nothing."""

    def needs(self, _item: Item) -> frozenset[str]:
        """Nothing."""
        return frozenset()

    def concerns(self, _item: Item) -> bool:
        """No."""
        return False

    def see(self, _item: Item) -> Sequence[object]:
        """Nothing."""
        return ()


@pytest.mark.parametrize(
    ("wanted", "all_kinds"),
    [({"Md5sum", "StringList/string", "ELFInfo/Type"}, False), ({"Md5sum", "FileName"}, True), (set(), False)],
)
def test_who_asks_for_content_alone_need_not_meet_folders(wanted: set[str], all_kinds: bool) -> None:  # noqa: FBT001 - a parameter
    """Nothing can hold for them then; without indicators, neither."""
    assert Engines(judge=Silent(), wanted=frozenset(wanted)).all_kinds is all_kinds
    assert not Engines(wanted=frozenset(wanted)).all_kinds
