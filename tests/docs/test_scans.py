"""What the guide of scans says of YARA's external variables is so."""

import re
from pathlib import Path

from stanch.worker.scan import file_types
from tests.worker.scan.driving import scan

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "scans.md").read_text()


def test_the_rule_of_the_guide_finds_what_it_says(tmp_path: Path) -> None:
    """A script with the name of a picture; not a picture, nor a script that is called one."""
    (rule,) = re.findall(r"^```yara\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    (tmp_path / "a.jpg").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0 picture")
    (tmp_path / "c.sh").write_bytes(b"#!/bin/sh\n")
    assert scan(tmp_path, rules=rule.encode()).found == {("no_picture", str(tmp_path / "a.jpg"))}


def test_the_guide_lists_every_type() -> None:
    """All that `filetype` can be, and nothing else."""
    found = re.search(r"^`filetype` is (.*?)or empty", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert re.findall(r"`([A-Z0-9]+)`", found[1]) == [name for _, name in file_types._TYPES]
