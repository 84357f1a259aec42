"""Rules, indicators and hash lists of one scan: each told with what does not count in it."""

from pathlib import Path

import pytest

from stanch.core.ioc.expression import Expression, Operator
from stanch.core.scanning import Loaded, Tally
from stanch.worker.scan import loading as loading_
from stanch.worker.scan.loading import Loading
from stanch.worker.scan.remembered import Memory
from tests.core.ioc.openioc_files import OR, file_11, group, term, written
from tests.core.ioc.test_stix import bundled, indicator
from tests.worker.scan.driving import FIND_EVIL, worker


def test_each_file_is_told_with_its_problems() -> None:
    """In order, whatever is in them; the others count all the same."""
    materials = [
        ("yara", "good.yar", FIND_EVIL),
        ("openioc", "bad.ioc", b"<nonsense"),
        ("hashes", "list.txt", b"00" * 16 + b" bad\nnonsense\n"),
        ("stix", "bad.json", b"[]"),
    ]
    with worker(materials) as driver:
        told = [Loaded.model_validate(one) for one in driver.done.loaded]
    assert [one.name for one in told] == [name for _, name, _ in materials]
    assert [bool(one.count) for one in told] == [True, False, True, False]
    assert [bool(one.problems) for one in told] == [False, True, True, True]


def test_what_the_scan_does_not_use_is_said() -> None:
    """Rules in a scan without that engine."""
    with worker([("yara", "good.yar", FIND_EVIL)], engines=["hashes"]) as driver:
        (loaded,) = driver.done.loaded
        assert (loaded["count"], driver.done.wants["files"]) == (0, False)
    assert loaded["problems"]


def test_indicators_say_what_they_want_and_find_it(tmp_path: Path) -> None:
    """By hash: only files whose other terms fit are read at all."""
    (tmp_path / "wanted").write_bytes(b"12345")
    (tmp_path / "other").write_bytes(b"123456")
    stix = b"""{"type": "indicator", "spec_version": "2.1", "id": "indicator--00000000-0000-4000-8000-000000000000",
    "created": "2024-01-01T00:00:00Z", "modified": "2024-01-01T00:00:00Z", "valid_from": "2024-01-01T00:00:00Z",
    "pattern_type": "stix", "name": "five",
    "pattern": "[file:size = 5 AND file:hashes.'MD5' = '827ccb0eea8a706c4c34a16891f84e7b']"}"""
    with worker([("stix", "one.json", stix)]) as driver:
        assert "Md5sum" in driver.done.wants["documents"]["FileItem"]
        driver.targets(tmp_path)
        done = driver.finish()
    assert [one["objects"][0]["name"] for one in done.findings] == [str(tmp_path / "wanted")]
    assert (done.tally["bytes"], done.tally["items"]) == (5, {"FileItem": 3})  # with the folder


def test_what_is_left_out_of_a_bundle_is_told() -> None:
    """Taken back by its author, or in a language that is not understood: nobody looks for it."""
    taken_back = indicator(id="indicator--2", revoked=True)
    yara = indicator(id="indicator--3", pattern_type="yara")
    with worker([("stix", "a.json", bundled(indicator(), taken_back, yara))]) as driver:
        (told,) = [Loaded.model_validate(one) for one in driver.done.loaded]
    assert told.count == 1
    assert [one.text for one in told.problems] == [
        "left out: indicator--2: revoked by its author",
        "left out: a pattern of the type yara",
    ]


def test_indicators_without_an_id_are_not_the_same(tmp_path: Path) -> None:
    """All of them are looked for."""
    (tmp_path / "two").write_bytes(b"")
    some = [("openioc", f"{name}.ioc", file_11(OR.replace(">x<", f">{name}<"), key="")) for name in ("one", "two")]
    with worker(some) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
    assert [(one["count"], one["duplicates"]) for one in done.loaded] == [(1, []), (1, [])]
    assert [one["material"] for one in done.findings] == ["two.ioc"]


def test_only_terms_that_cannot_be_known_are_counted_as_such() -> None:
    """Of several terms of one name, those whose content is wrong; and only in the file that has them."""
    bad = "[file:hashes.MD5 IN ('827ccb0eea8a706c4c34a16891f84e7b', '827ccb0eea8a706c4c34a16891f84e7c', 'nonsense')]"
    good = bad.replace(", 'nonsense'", "")
    some = [("stix", "bad.json", bundled(indicator(pattern=bad)))]
    some.append(("stix", "good.json", bundled(indicator(id="indicator--2", pattern=good))))
    with worker(some) as driver:
        told = [Loaded.model_validate(one).unknown for one in driver.done.loaded]
    assert [[(one.term, one.times) for one in some] for some in told] == [[("FileItem/Md5sum", 1)], []]


def test_a_find_by_an_indicator_that_is_over_says_so(tmp_path: Path) -> None:
    """It is looked for all the same: what it means is for people to say."""
    (tmp_path / "a").write_bytes(b"")
    some = [indicator(), indicator(id="indicator--2", valid_until="2026-02-01T00:00:00Z")]
    with worker([("stix", "a.json", bundled(*some))]) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
    by_rule = {one["rule"]: one for one in done.findings}
    assert [by_rule[one["id"]]["tags"] for one in some] == [[], ["expired"]]
    assert "2026-02-01" in by_rule["indicator--2"]["why"][0]["text"]


def test_a_match_that_may_be_missed_makes_the_scan_incomplete(tmp_path: Path) -> None:
    """More different items than can be combined: the indicator is named."""
    names = [f"f{n}" for n in range(300)]
    for one in names:
        (tmp_path / one).write_bytes(b"")
    either = ", ".join(f"'{one}'" for one in names)
    pattern = f"[file:name IN ({either})] AND [process:name = 'there is no such']"
    with worker([("stix", "a.json", bundled(indicator(pattern=pattern)))]) as driver:
        driver.targets(tmp_path)
        tally = Tally.model_validate(driver.finish().tally)
    assert not tally.complete
    assert indicator()["id"] in tally.why_incomplete


def test_more_problems_than_are_told_are_cut(tmp_path: Path) -> None:
    """However many there are, what is told can be read by the agent."""
    wrong = [indicator(id=f"indicator--{n}", pattern="nonsense") for n in range(300)]
    never = [indicator(id=f"indicator--never-{n}", pattern="[x-y:z = 1]") for n in range(300)]
    with worker([("stix", "a.json", bundled(*wrong, *never))]) as driver:
        (told,) = [Loaded.model_validate(one) for one in driver.done.loaded]
    assert (told.count, len(told.problems)) == (300, 200)


def loaded(*files: bytes) -> list[Loaded]:
    """What becomes of these bundles."""
    job = {"engines": ["ioc"], "documents": {}}
    loading = Loading(job, Memory(None, None))
    for n, data in enumerate(files):
        loading.add("stix", f"{n}.json", data)
    return [Loaded.model_validate(one) for one in loading.finish()]


def several(begin: int, count: int, terms: int) -> bytes:
    """A bundle of so many indicators with so many terms each."""
    pattern = f"[file:name IN ({', '.join(repr(str(n)) for n in range(terms))})]"
    return bundled(*(indicator(id=f"indicator--{n}", pattern=pattern) for n in range(begin, begin + count)))


def test_the_terms_of_all_files_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file may have few, and all together too many: what is left out is told of its file, with the bound."""
    monkeypatch.setattr(loading_, "MAX_TERMS", 10)
    first, second, third = loaded(several(0, 2, 3), several(2, 3, 3), several(5, 1, 1))
    assert [one.count for one in (first, second, third)] == [2, 1, 1]
    assert [len(one.problems) for one in (first, second, third)] == [0, 1, 0]
    assert "10 terms of all files" in second.problems[0].text
    assert "of the 3 indicators and 9 terms here, 2 indicators are left out" in second.problems[0].text


def test_the_bytes_of_all_files_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they say besides their terms takes memory, too; a small file that follows still has its place."""
    data = several(0, 1, 1)
    monkeypatch.setattr(loading_, "MAX_BYTES", 2 * len(data) + 10)
    told = loaded(data, several(1, 1, 300), several(2, 1, 1))
    assert [one.count for one in told] == [1, 0, 1]
    assert str(2 * len(data) + 10) in told[1].problems[0].text


ALONE = term(document="RegistryItem", path="Path", content="x")
NEGATED = group(Operator.AND, term(), term(document="RegistryItem", path="Path", content="x", negate=True))
KNOWN = ("openioc", "k.ioc", file_11(written(group(Operator.OR, term())), key="known"))
HASH = ("hashes", "h.txt", b"0" * 32)


def ioc(part: Expression) -> tuple[str, str, bytes]:
    """A file of indicators with this in it."""
    return "openioc", "u.ioc", file_11(written(group(Operator.OR, part)), key="unknown")


@pytest.mark.parametrize(
    ("materials", "off", "can"),
    [
        ([ioc(ALONE)], [], False),
        ([ioc(NEGATED)], [], False),
        ([ioc(term(negate=True))], [], False),
        ([KNOWN], ["FileItem"], False),
        ([HASH], ["FileItem"], False),
        ([HASH], ["PortItem"], True),
        ([KNOWN], [], True),
        ([ioc(ALONE), KNOWN], [], True),
        ([ioc(ALONE), HASH], [], True),
        ([ioc(ALONE), ("yara", "e", FIND_EVIL)], [], True),
        ([ioc(ALONE), ("yara", "e", b"rule {")], [], False),
    ],
)
def test_a_scan_that_could_find_nothing_is_not_complete(
    tmp_path: Path,
    materials: list[tuple[str, str, bytes]],
    off: list[str],
    can: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Every term unknown, or every document left out: then nothing found says nothing, and that is said."""
    with worker(materials, documents=dict.fromkeys(off, False)) as driver:
        driver.targets(tmp_path)
        done = driver.finish()
    assert not done.findings
    assert done.tally["complete"] is can
    assert ("could have found anything" in done.tally["why_incomplete"]) is not can


def test_why_an_indicator_can_never_match_is_said_rightly() -> None:
    """A name that is known, and a denied key of a registry: the name is not the reason."""
    with worker([ioc(NEGATED)]) as driver:
        (told,) = driver.done.loaded
    assert [one["term"] for one in told["unknown"]] == ["RegistryItem/Path"]
    (problem,) = told["problems"]
    assert (
        problem["text"] == "it can never match here: each way to fulfil it takes a term that is unknown, or only denies"
    )
