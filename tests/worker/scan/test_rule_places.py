"""What is found stays found however often its strings are there, and costs no memory for that."""

import subprocess
import sys
from pathlib import Path

import pytest
import yara
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.worker.scan.rule_places import MAX_PLACES, firsts, hidden, probe
from stanch.worker.scan.rules import RuleSet, source_of
from tests.worker.scan.driving import scan

ODD = r"""
import "math" // rule no { strings: $x = "y" condition: $x }
private rule Helper : a b
{
    meta:
        about = "strings: $z = "
    strings:
        $a = "a\"b // $c = \\" nocase wide ascii // the first $d =
        $hex = { 61 ?? [2-4] ( 62 | 63 ) /* $e = */ }
        $re = /a{2,3}\/\$f = [^"]/is
        $ = "anonymous"
        $mine = "kept" private
    condition:
        any of them or math.entropy(0, 1) > 2
}
rule Without { condition: Helper and not false }
rule Tight{strings:$a="x"condition:$a}
"""
FLOODED = """
import resource, sys
from stanch.worker.scan.rules import RuleSet, TooOften, source_of
count = int(sys.argv[1])
strings = "".join(f"$s{n} = {{ {'00 ' * (n % 4)} 00 {'?? ' * (n // 4)} 00 }} " for n in range(count))
condition = " and ".join(f"#s{n} > 5" for n in range(count))
rules = RuleSet([source_of("x", f"rule A {{ strings: {strings} condition: {condition} }}".encode())],
    fast=False, tags=frozenset(), seconds=60)
rules.ready()
resource.setrlimit(resource.RLIMIT_DATA, (400 << 20, 400 << 20))
try:
    hits = rules.match(memoryview(bytes(999_000)), {})
    print("whole", [hit.rule for hit in hits], len(hits[0].strings))
except TooOften as error:
    print("beginning", [hit.rule for hit in error.hits])
"""


def found(rules: yara.Rules, data: bytes) -> set[str]:
    """Names of the rules that hold."""
    return {one.rule for one in rules.match(data=data)}


def flooded(strings: int) -> str:
    """What a process with little memory says of a file in which so many strings are nearly a million times each."""
    command = [sys.executable, "-c", FLOODED, str(strings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.strip()


def test_rules_are_the_same_with_their_strings_hidden() -> None:
    """In odd forms of text, too; none of their places is told, and lines keep their numbers."""
    plain_, quiet = yara.compile(source=ODD), yara.compile(source=hidden(ODD))
    assert hidden(ODD).count("\n") == ODD.count("\n")
    for data in (b'A"B // $c = \\', b"a1xxxb", b"aa/$f = x", b"anonymous", b"kept", b"x", b"", b"none of it"):
        assert found(plain_, data) == found(quiet, data)
        assert not any(string.instances for one in quiet.match(data=data) for string in one.strings)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["ab", "b", "aba", "c"]), min_size=1, max_size=5), st.text("abc", max_size=30))
def test_the_first_places_are_those_of_the_rule(strings: list[str], data: str) -> None:
    """Of every string that is there one place, which is its first; however it is asked for by the rule."""
    declared = " ".join(f'$s{n} = "{one}"' for n, one in enumerate(strings))
    rules = yara.compile(source=firsts(f"rule R {{ strings: {declared} condition: all of them }}", {"R"}))
    told = {s.identifier: s.instances for m in rules.match(data=data, fast=True) for s in m.strings if s.instances}
    assert {name: [one.offset for one in places] for name, places in told.items()} == {
        f"$s{n}": [data.index(one)] for n, one in enumerate(strings) if one in data
    }


def test_a_probe_tells_what_is_there_too_often() -> None:
    """Only of the rules that are named; rules without strings have no places."""
    text = 'rule A { strings: $a = "a" $ = "b" condition: any of them } rule B { strings: $b = "c" condition: $b }'
    rules = yara.compile(source=probe(text, {"A"}))
    assert not rules.match(data=b"a" * (MAX_PLACES // 2) + b"c" * (MAX_PLACES + 9))
    assert rules.match(data=b"a" * (MAX_PLACES // 2 + 1))
    assert (probe(text, {"C"}), probe("rule A { condition: true }", {"A"})) == ("", "")


@pytest.mark.slow
def test_many_strings_that_are_there_nearly_a_million_times_do_not_kill_the_worker() -> None:
    """A few are found in all of the file; many are given up where the memory ends, and the beginning is looked at."""
    assert flooded(4) == "whole ['A'] 4"
    assert flooded(40) == "beginning ['A']"


@pytest.mark.slow
def test_the_scan_goes_on_after_a_file_that_takes_all_the_memory(tmp_path: Path) -> None:
    """It is named as not looked at as a whole, what its beginning shows is found, and other files are looked at."""
    (tmp_path / "flood").write_bytes(bytes(999_000))
    (tmp_path / "small").write_bytes(bytes(100))
    strings = "".join(f"$s{n} = {{ {'00 ' * (n % 4)} 00 {'?? ' * (n // 4)} 00 }} " for n in range(60))
    condition = " and ".join(f"#s{n} > 5" for n in range(60))
    done = scan(tmp_path, rules=f"rule A {{ strings: {strings} condition: {condition} }}".encode())
    assert (done.error, done.tally["complete"]) == ("", True)
    assert done.found == {("A", str(tmp_path / "flood")), ("A", str(tmp_path / "small"))}
    assert [(one["name"], one["reason"]) for one in done.skips] == [(str(tmp_path / "flood"), "other")]
    assert "only its first" in done.skips[0]["detail"]


def test_fast_mode_tells_the_first_place_of_each_string() -> None:
    """Where a rule counts its strings, too."""
    rules = RuleSet(
        [source_of("x", b'rule A { strings: $a = "x" $ = "y" condition: #a > 3 and any of them }')],
        fast=True,
        tags=frozenset(),
        seconds=9,
    )
    (hit,) = rules.match(b"..xxxxyyy", {})
    assert [where for where, _ in hit.strings] == ["$a at 0x2, 1 bytes", "$_1 at 0x6, 1 bytes"]
