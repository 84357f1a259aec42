"""What in a pack counts, as the confined process tells it: the real one, on packs of any origin."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stanch.core.content import ContentKind
from stanch.worker.ask_lint import Looked, ask_lint
from stanch.worker.lint import LINTERS, MAX_PER_FILE, Findings, together
from stanch.worker.scan.loading import Loading
from stanch.worker.scan.remembered import Memory
from tests.core.ioc.test_stix import bundled, indicator
from tests.fakes.packed import pack

INDICATOR = """<?xml version="1.0"?>
<ioc xmlns="http://schemas.mandiant.com/2010/ioc" id="{id}" last-modified="2026-01-01T00:00:00">
  <short_description>x</short_description>
  <definition><Indicator operator="OR" id="a"><IndicatorItem id="b" condition="is">
    <Context document="{document}" search="{document}/{path}" type="mir"/><Content type="string">x</Content>
  </IndicatorItem></Indicator></definition>
</ioc>"""


async def looked_through(tmp_path: Path, files: Mapping[str, bytes], kind: ContentKind = ContentKind.YARA) -> Looked:
    (tmp_path / "pack").write_bytes(pack(files, kind))
    descriptor = os.open(tmp_path / "pack", os.O_RDONLY)
    try:
        return await ask_lint(descriptor)
    finally:
        os.close(descriptor)


async def test_rules_are_compiled_file_by_file(tmp_path: Path) -> None:
    """A bad rule is named with its line; the others count."""
    files = {
        "a.yar": b"rule one { condition: true }\nrule two { condition: false }",
        "b.yar": b"rule fine { condition: true }\nrule bad {\n condition: nonsense }",
    }
    looked = await looked_through(tmp_path, files)
    assert looked.files == ((2, 0), (1, 1))
    (problem,) = looked.problems
    assert (problem.file, problem.line, problem.rule) == ("b.yar", 3, "bad")
    assert "nonsense" in problem.text
    assert looked.why_incomplete == ""


async def test_it_is_confined(tmp_path: Path) -> None:
    """Before it reads a byte of the pack; and memory for large rules is there."""
    looked = await looked_through(tmp_path, {"a.yar": b"rule a { condition: true }"})
    assert {looked.confined[one] for one in ("no_new_privileges", "limits", "seccomp")} == {"yes"}


async def test_nothing_is_included(tmp_path: Path) -> None:
    """Neither from the disk nor from the pack, and a file that includes itself ends nothing."""
    (tmp_path / "other.yar").write_bytes(b"rule secret { condition: true }")
    include = f'include "{tmp_path}/other.yar"\ninclude "a.yar"\nrule one {{ condition: true }}'
    looked = await looked_through(tmp_path, {"a.yar": include.encode()})
    assert looked.files[0][0] == 1
    assert looked.problems
    assert all("include" in one.text for one in looked.problems)


async def test_names_that_are_there_twice_are_told(tmp_path: Path) -> None:
    """Of rules in different files: both count, but who reads of one cannot tell which."""
    rule = b"rule same { condition: true }"
    looked = await looked_through(tmp_path, {"a.yar": rule, "b.yar": rule})
    assert looked.files == ((1, 0), (1, 1))
    assert [(one.file, one.rule) for one in looked.problems] == [("b.yar", "same")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"rule",
        b"rule a { strings: $a = /(/ condition: $a }",
        b"rule a { condition: " + b"(" * 20_000 + b"true" + b")" * 20_000 + b" }",
        b"rule a { strings: $a = /" + b"(a|b)*" * 500 + b"/ condition: $a }",
        b"\0" * 10_000,
    ],
)
async def test_hostile_rules_are_problems_of_their_own_file(tmp_path: Path, data: bytes) -> None:
    """Whatever they do, the other file counts."""
    looked = await looked_through(tmp_path, {"a.yar": data, "b.yar": b"rule fine { condition: true }"})
    assert looked.files[1][0] == 1


async def test_hash_lists(tmp_path: Path) -> None:
    """Each line that is no hash is told."""
    lines = b"# known\n" + b"a" * 32 + b" dropper\nnothing\n" + b"B" * 64 + b"\n"
    looked = await looked_through(tmp_path, {"h.txt": lines}, ContentKind.HASHES)
    assert looked.files == ((2, 1),)
    assert [one.line for one in looked.problems] == [3]


async def test_indicators(tmp_path: Path) -> None:
    """Those that cannot be read are told, an id that is there twice counts once, terms unknown on Linux are counted."""
    good = INDICATOR.format(id="one", document="RegistryItem", path="Path").encode()
    files = {"a.ioc": good, "b.ioc": good, "c.ioc": b"<ioc", "d.ioc": b'<!DOCTYPE a [<!ENTITY b "c">]><ioc>&b;</ioc>'}
    looked = await looked_through(tmp_path, files, ContentKind.OPENIOC)
    assert looked.files == ((1, 0), (0, 1), (0, 1), (0, 1))
    assert looked.unknown == (("RegistryItem/Path", 1),)
    assert "one" in looked.problems[0].rule


async def test_it_is_the_first_to_go(tmp_path: Path) -> None:
    """An agent is among the last that are killed when memory is short; what reads hostile rules for it is not."""
    looked = await looked_through(tmp_path, {"a.yar": b"rule a { condition: true }"})
    assert (looked.confined["oom"], looked.confined["nice"]) == ("yes", "yes")


def _in_file(*ids: str) -> bytes:
    return json.dumps(
        {
            "type": "bundle",
            "id": "bundle--00000000-0000-4000-8000-000000000000",
            "objects": [
                {
                    "type": "indicator",
                    "spec_version": "2.1",
                    "id": f"indicator--00000000-0000-4000-8000-00000000000{one}",
                    "pattern_type": "stix",
                    "pattern": f"[file:name = '{one}']",
                    "valid_from": "2026-01-01T00:00:00Z",
                }
                for one in ids
            ],
        }
    ).encode()


NAMELESS = INDICATOR.replace(' id="{id}"', "").format(document="FileItem", path="FileName").encode()
SAME = INDICATOR.format(id="one", document="FileItem", path="FileName").encode()


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("yara", [b"rule a { condition: true }", b"rule a { condition: nowhere } rule b { condition: true }", b"{"]),
        ("openioc", [SAME, SAME, NAMELESS, NAMELESS, b"<ioc"]),
        ("stix", [_in_file("1", "2"), _in_file("2", "3"), _in_file("4", "4"), b"{"]),
        ("hashes", [b"a" * 32 + b"\n" + b"a" * 32, b"a" * 32 + b"\n" + b"b" * 40, b"c" * 64, b"x"]),
    ],
)
def test_what_it_says_counts_is_what_a_scan_uses(
    monkeypatch: pytest.MonkeyPatch, kind: str, files: list[bytes]
) -> None:
    """File by file, for the very same bytes: what is there twice, what has no name, and what is beyond the bounds."""
    for module in ("stanch.worker.lint", "stanch.worker.scan.loading"):
        monkeypatch.setattr(f"{module}.MAX_INDICATORS", 3)
    monkeypatch.setattr("stanch.worker.scan.hash_lists.MAX_HASHES", 3)
    job = {
        "engines": ["yara", "ioc", "hashes"], "fast": True, "tags": [], "per_object": 1.0, "documents": {},
    }  # fmt: skip
    scan, found = Loading(job, Memory(None, None)), Findings()
    for number, data in enumerate(files):
        scan.add(kind, str(number), data)
        found.begin(str(number))
        LINTERS[kind](data, found)
        found.end()
    assert [count for count, _ in found.files] == [one["count"] for one in scan.finish()]


def test_rules_that_fit_one_by_one_must_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan compiles all of them at once: what takes too much memory then counts for nothing, and is told."""
    found = Findings()
    for name in ("a", "b"):
        found.begin(name)
        LINTERS["yara"](b"rule %s { condition: true }" % name.encode(), found)
        found.end()
    assert (together(found), found.files) == ("", [(1, 0), (1, 0)])

    def too_much(_rules: object) -> None:
        raise MemoryError

    monkeypatch.setattr("stanch.worker.lint.RuleSet.ready", too_much)
    assert "together" in together(found)
    assert found.files == [(0, 0), (0, 0)]


def test_problems_of_one_file_do_not_hide_the_others() -> None:
    """Of each only so many are told; all are counted."""
    found = Findings()
    for name in ("a", "b"):
        found.begin(name)
        LINTERS["hashes"](b"nothing\n" * 1000, found)
        found.end()
    assert {one["file"] for one in found.problems} == {"a", "b"}
    assert len(found.problems) <= 2 * MAX_PER_FILE


@pytest.mark.parametrize("data", [b"", b"no json\n", b'{"files": 1}\n', b'{"kind": "exe", "files": [{"name": 1}]}\n'])
def test_what_is_no_pack_is_told(data: bytes) -> None:
    """The server has looked at the list before; the worker relies on nothing."""
    line = [sys.executable, "-I", "-m", "stanch.worker.lint"]
    ended = subprocess.run(line, input=data, capture_output=True, check=True, timeout=60)
    assert b"the pack cannot be read" in ended.stdout


async def test_indicators_without_an_id_are_not_the_same(tmp_path: Path) -> None:
    """As in a scan: all of them count."""
    one = INDICATOR.format(id="", document="FileItem", path="FileName").encode()
    looked = await looked_through(tmp_path, {"a.ioc": one, "b.ioc": one}, ContentKind.OPENIOC)
    assert looked.files == ((1, 0), (1, 0))


async def test_what_is_left_out_of_a_bundle_is_a_problem(tmp_path: Path) -> None:
    """Taken back, or in another language: it does not count. A newer version of an indicator is none."""
    some = [indicator(), indicator(modified="2026-01-09T00:00:00Z"), indicator(id="i--2", pattern_type="snort")]
    looked = await looked_through(tmp_path, {"a.json": bundled(*some)}, ContentKind.STIX)
    assert looked.files == ((1, 1),)
    assert [one.text for one in looked.problems] == ["left out: a pattern of the type snort"]


async def test_names_of_terms_in_another_case_are_known(tmp_path: Path) -> None:
    """As a scan knows them."""
    one = INDICATOR.format(id="x", document="FileItem", path="filename").encode()
    assert not (await looked_through(tmp_path, {"a.ioc": one}, ContentKind.OPENIOC)).unknown
