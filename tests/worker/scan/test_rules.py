"""YARA rules in the worker: what is bad in them is named, and the rest counts; none of them takes for ever."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yara

from stanch.worker.scan.rules import MAX_PLACES, NotScanned, RuleSet, TooLong, source_of
from tests.worker.scan.driving import FIND_EVIL, scan, worker

GOOD = "rule Good { condition: true }\n"


def rule_set(*texts: str, seconds: float = 20, tags: frozenset[str] = frozenset(), fast: bool = False) -> RuleSet:
    """Rules, one file each."""
    sources = [source_of(f"{n}.yar", text.encode()) for n, text in enumerate(texts)]
    return RuleSet(sources, fast=fast, tags=tags, seconds=seconds)


def names(rules: RuleSet, data: bytes = b"some bytes") -> set[str]:
    """Rules that hold for it."""
    return {one.rule for one in rules.match(data, {})}


@pytest.mark.parametrize(
    ("bad", "line", "rule"),
    [
        ("rule Bad { condition: $nothing }\n", 2, "Bad"),
        ('rule Bad { strings: $a = "x" condition: $a and }\n', 2, "Bad"),
        ("rule Bad { strings: $a = /(/ condition: $a }\n", 2, "Bad"),
        ("rule Bad {\n strings:\n  $a = { 1 }\n condition:\n  $a\n}\n", 4, "Bad"),
        ('import "no_such_module"\n', 2, ""),
        ('include "other.yar"\n', 2, ""),
        ("rule Good { condition: true }\n", 2, "Good"),
    ],
)
def test_a_bad_rule_is_named_with_its_line_and_the_rest_counts(bad: str, line: int, rule: str) -> None:
    """Before and behind it, and in other files."""
    rules = rule_set(GOOD + bad + "rule Behind { condition: true }", "rule Other { condition: true }")
    assert names(rules) == {"Good", "Behind", "Other"}
    (source, other) = rules._sources
    assert [(one.line, one.rule) for one in source.problems] == [(line, rule)]
    assert (source.count, other.count, other.problems) == (2, 1, [])


def test_a_rule_that_needs_a_bad_one_goes_with_it() -> None:
    """Each is named."""
    rules = rule_set("rule A { condition: $x }\nrule B { condition: A }\nrule C { condition: true }")
    assert names(rules) == {"C"}
    assert {one.rule for one in rules._sources[0].problems} == {"A", "B"}


def test_includes_are_not_followed(tmp_path: Path) -> None:
    """Neither a file that is there nor one that includes itself: nothing is opened."""
    cycle = tmp_path / "cycle.yar"
    cycle.write_text(f'include "{cycle}"\nrule Mine {{ condition: true }}')
    with worker([("yara", "cycle.yar", cycle.read_bytes())]) as driver:
        (loaded,) = driver.done.loaded
    assert loaded["count"] == 1
    assert loaded["problems"][0]["line"] == 1
    assert "includes are not followed" in loaded["problems"][0]["text"]


def test_global_and_private_rules_keep_their_meaning() -> None:
    """A global rule binds its own file only; a private one is never told."""
    rules = rule_set(
        "global rule No { condition: false }\nrule Never { condition: true }",
        "private rule Hidden { condition: true }\nrule Shown { condition: Hidden }",
    )
    assert names(rules) == {"Shown"}


def test_only_rules_with_a_tag() -> None:
    """Others run for those that need them, and are not told."""
    assert names(rule_set("rule A : x { condition: true } rule B : y { condition: A }", tags=frozenset("y"))) == {"B"}


def test_rules_that_never_end_are_stopped(tmp_path: Path) -> None:
    """The file is named, and the next one looked at."""
    endless = b"rule Endless { condition: filesize > 3 and for all i in (1..99999999999) : (i > 0) }"
    (tmp_path / "long").write_bytes(b"12345")
    (tmp_path / "short").write_bytes(b"1")
    done = scan(tmp_path, rules=endless, per_object=1)
    assert done.skipped == {(str(tmp_path / "long"), "timed-out")}
    assert done.tally["files"] == 1


def test_a_catastrophic_expression_is_bounded() -> None:
    """It ends: with an answer, or with a limit of the engine."""
    rules = rule_set(r"rule R { strings: $a = /(a+a+)+b(.|\n)*c(x*)*y/ condition: $a }", seconds=3)
    with suppress(TooLong, NotScanned):
        assert not names(rules, b"a" * 100_000)


def test_strings_are_told_within_bounds() -> None:
    """A string that is there a million times is told a few times."""
    (hit,) = rule_set('rule R { strings: $a = "xy" condition: $a }').match(b"xy" * 100_000, {})
    assert 0 < len(hit.strings) <= 200
    assert hit.strings[1] == ("$a at 0x2, 2 bytes", "xy")


def test_externals_are_those_of_the_file(tmp_path: Path) -> None:
    """A rule may ask what it is called, what it is, and whose."""
    (tmp_path / "one.sh").write_text("#!/bin/sh\n")
    owner = "root" if os.geteuid() == 0 else ""
    rules = f"""rule R {{ condition: filename == "one.sh" and extension == ".sh" and filetype == "SCRIPT"
        and filepath == "{tmp_path}/one.sh" and owner contains "{owner}" }}"""
    assert scan(tmp_path, rules=rules.encode()).found == {("R", str(tmp_path / "one.sh"))}


def test_so_many_rules_end_it(tmp_path: Path) -> None:
    """When that many different ones have found something."""
    (tmp_path / "one").write_bytes(b"x")
    many = b"".join(b"rule R%d { condition: true }" % n for n in range(20))
    done = scan(tmp_path, rules=many)
    assert len(done.findings) == 20
    with worker([("yara", "many", many)], rules=3) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
    assert (len(done.findings), done.tally["complete"]) == (3, False)


def test_bytes_that_are_no_utf_8_are_rules_all_the_same() -> None:
    """In comments and meta, as old rules have them."""
    assert source_of("x", b"// \xe4\n" + FIND_EVIL).text.endswith("}")
    assert source_of("x", b"\xef\xbb\xbfrule").text == "rule"


def test_too_many_places_do_not_hide_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """If telling all of them takes too long, the rule has found something all the same."""
    rules = rule_set('rule A { strings: $a = "x" condition: $a }')
    asked = RuleSet._asked

    def short(self: RuleSet, *args: Any, fast: bool) -> Sequence[Any]:
        if not fast:
            raise TooLong
        return asked(self, *args, fast=fast)

    monkeypatch.setattr(RuleSet, "_asked", short)
    assert names(rules, b"xxxx") == {"A"}


def test_a_file_made_up_of_what_a_rule_looks_for_takes_no_memory() -> None:
    """The rule has found something; of places that could be a million only the first is told, of fewer all."""
    rules = rule_set('rule A { strings: $a = "x" condition: $a }')
    (many,), (few,) = rules.match(b"x" * (MAX_PLACES + 1), {}), rules.match(b"x" * 100, {})
    assert (len(many.strings), len(few.strings)) == (1, 100)


def test_one_bad_file_of_many_is_found_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """To compile each of thousands takes a minute."""
    compile_, asked = yara.compile, []
    monkeypatch.setattr(yara, "compile", lambda **what: (asked.append(1), compile_(**what))[1])
    rules = rule_set(*[GOOD] * 77, "rule Bad { condition: }", *[GOOD] * 50)
    assert rules.ready() is not None
    assert [n for n, one in enumerate(rules._sources) if not one.count] == [77]
    assert len(asked) < 25


def test_a_file_made_of_the_strings_of_a_rule_does_not_kill_the_scanner(tmp_path: Path) -> None:
    """It is found by its beginning, and told as not looked at as a whole."""
    rules = "rule Many { strings: " + "".join(f"$s{n} = /[ab]{{{n},{n + 1}}}/ " for n in range(4, 20))
    (tmp_path / "many").write_bytes(b"ab" * 2**21)
    done = scan(tmp_path, rules=f"{rules} condition: any of them }}".encode())
    assert (done.error, done.found) == ("", {("Many", str(tmp_path / "many"))})
    assert done.skipped == {(str(tmp_path / "many"), "other")}


def test_a_bad_file_that_is_huge_is_left_out_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of statements would take all memory, and the good files with them."""
    monkeypatch.setattr("stanch.worker.scan.rules.MAX_REPAIRED", 100)
    rules = rule_set("rule x " * 50, GOOD)
    assert names(rules) == {"Good"}
    assert "too large" in rules._sources[0].problems[-1].text
