"""STIX bundles, read."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc import stix
from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.expression import terms_of
from stanch.core.ioc.stix import MAX_BYTES, MAX_NOTES, MAX_OBJECTS, MAX_PARTS, Bundle, is_over, read_stix

ID = "indicator--11111111-1111-4111-8111-111111111111"


def indicator(**changes: object) -> dict[str, Any]:
    """An indicator of 2.1; None takes a property away."""
    facts = {
        "type": "indicator",
        "spec_version": "2.1",
        "id": ID,
        "created_by_ref": "identity--1",
        "created": "2026-01-01T00:00:00Z",
        "modified": "2026-01-02T00:00:00Z",
        "name": "One",
        "description": "Long",
        "pattern": "[file:name = 'a']",
        "pattern_type": "stix",
        "valid_from": "2026-01-01T00:00:00Z",
    }
    return {key: value for key, value in (facts | changes).items() if value is not None}


def bundled(*objects: object, **more: object) -> bytes:
    """A bundle of these."""
    return json.dumps({"type": "bundle", "id": "bundle--1", "objects": objects, **more}).encode()


def test_an_indicator_of_21():
    """What it says about itself is kept."""
    (found,) = read_stix(bundled(indicator())).indicators
    assert (found.id, found.title, found.description, found.author) == (ID, "One", "Long", "identity--1")
    assert (found.format, found.created[:10], found.modified[:10]) == ("STIX 2.1", "2026-01-01", "2026-01-02")
    assert [str(one) for one in terms_of(found.root)] == ["FileItem/FileName is a"]
    assert found.ignored == ()


def test_an_indicator_of_20():
    """Its patterns have no type; the bundle or nobody says the version."""
    old = indicator(pattern_type=None, spec_version=None)
    for data in (bundled(old), bundled(old, spec_version="2.0")):
        assert [one.format for one in read_stix(data).indicators] == ["STIX 2.0"]


def test_a_single_indicator():
    """Without a bundle around it."""
    assert read_stix(json.dumps(indicator()).encode()).indicators[0].id == ID


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_encodings(encoding):
    """JSON comes in all of Unicode's."""
    text = json.dumps(indicator(name="é"), ensure_ascii=False)
    assert read_stix(text.encode(encoding)).indicators[0].title == "é"


def test_others_are_counted():
    """Objects that are no indicators, and patterns of other languages, which are named."""
    yara = [indicator(id=f"indicator--y{n}", pattern_type="yara", pattern="rule x {condition: true}") for n in range(3)]
    sigma = indicator(id="indicator--s", pattern_type="sigma", pattern="x")
    found = read_stix(bundled({"type": "malware"}, *yara, sigma, indicator()))
    assert len(found.indicators) == 1
    assert found.ignored == 5
    assert found.notes == ("3 times a pattern of the type yara", "a pattern of the type sigma")


def test_one_that_is_not_understood_is_a_problem_of_its_own():
    """The others count all the same."""
    wrong = [
        indicator(id="indicator--a", pattern="[file:name"),
        indicator(id="indicator--b", pattern="[file:name = 'a'] REPEATS 2 TIMES"),
        indicator(id="indicator--c", pattern=None),
        indicator(id="indicator--d", pattern=5),
        "text",
    ]
    found = read_stix(bundled(*wrong, indicator()))
    assert [one.id for one in found.indicators] == [ID]
    assert [error.message.partition(":")[0] for error in found.problems] == [
        "An object of the bundle is none",
        *(f"indicator--{letter}" for letter in "abcd"),
    ]
    assert all(error.got and error.expected for error in found.problems)


def test_what_its_author_took_back_is_left_out():
    """And named."""
    found = read_stix(bundled(indicator(revoked=True)))
    assert found.indicators == ()
    assert found.notes == (f"{ID}: revoked by its author",)


def test_how_long_it_is_valid_is_known():
    """There is no clock here: whoever shows it compares. A date that is none is never over."""
    (found,) = read_stix(bundled(indicator(valid_until="2026-02-01T00:00:00Z"))).indicators
    end = datetime(2026, 2, 1, tzinfo=UTC).timestamp()
    assert [is_over(found, now) for now in (end - 1, end, end + 1)] == [False, True, True]
    for odd in (None, "", "soon", 5, "9" * 600):
        (found,) = read_stix(bundled(indicator(valid_until=odd))).indicators
        assert not is_over(found, end)


def test_what_is_left_out_is_told_apart_from_what_is_there_again():
    """A newer version replaces an older one; what was taken back, or is of another language, nobody looks for."""
    yara = indicator(id="indicator--2", pattern_type="yara")
    found = read_stix(bundled(indicator(), indicator(modified="2026-01-03T00:00:00Z"), yara))
    assert set(found.notes) > set(found.unused) == {"a pattern of the type yara"}


def test_the_latest_version_counts_to_the_part_of_a_second():
    """Whether a moment is written with parts of a second or without."""
    early, late = indicator(modified="2026-01-02T00:00:00Z"), indicator(modified="2026-01-02T00:00:00.5Z", name="new")
    for some in ((early, late), (late, early)):
        assert [one.title for one in read_stix(bundled(*some)).indicators] == ["new"]


def test_the_latest_version_of_an_object_counts():
    """Wherever it stands in the bundle."""
    older, newer = indicator(name="older"), indicator(name="newer", modified="2026-03-01T00:00:00Z")
    for some in ((older, newer), (newer, older)):
        found = read_stix(bundled(*some))
        assert [one.title for one in found.indicators] == ["newer"]
        assert found.notes == ("an earlier version of an indicator",)


def test_indicators_without_id_are_all_read():
    """They are wrong, but not each other's versions."""
    assert len(read_stix(bundled(indicator(id=None), indicator(id=None))).indicators) == 2


def test_half_a_character_is_made_whole():
    """JSON can say what no wire carries."""
    (found,) = read_stix(bundled(indicator(name="\ud800", pattern="[file:name = '\ud800']"))).indicators
    assert (found.title, next(terms_of(found.root)).content) == ("?", "?")


def test_texts_are_bounded():
    """A description does not fill a report."""
    (found,) = read_stix(bundled(indicator(name="x" * 9999, description="x" * 99_999))).indicators
    assert (len(found.title), len(found.description)) == (500, 20_000)


def test_notes_are_bounded():
    """Thousands of types are told as a few, and others."""
    some = [indicator(id=f"indicator--{n}", pattern_type=f"t{n}") for n in range(MAX_NOTES + 10)]
    found = read_stix(bundled(*some))
    assert found.ignored == MAX_NOTES + 10
    assert len(found.notes) == MAX_NOTES + 1
    assert found.notes[-1] == "10 times others"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no JSON"),
        (b"\n\n{", "no JSON, at line 3"),
        (b"\xff\xff", "no JSON"),
        (b"[]", "no STIX, got list"),
        (b"5", "no STIX, got int"),
        (b"{}", "no STIX, got the type none"),
        (b'{"type": "malware"}', "no STIX, got the type malware"),
        (b'{"type": ["bundle"]}', "no STIX"),
        (b'{"type": "bundle", "objects": {}}', "no STIX"),
        (b"[" * 100_000, "nests too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "no JSON"),
        (b" " * (MAX_BYTES + 1), "too large"),
        (b'{"type": "bundle", "objects": [' + b"0," * MAX_OBJECTS + b"0]}", "too large, got 200001 objects"),
        (b'{"a": [' + b"{}," * MAX_PARTS + b"0]}", "too large, got 1500003 parts"),
        (b'{"a": [' + b"1.5," * (MAX_PARTS + 1) + b"0]}", "too large, got 1500001 parts"),
        (b'{"a": [' + b'"",' * MAX_PARTS + b"0]}", "too large, got 1500003 parts"),
    ],
    ids=range(16),
)
def test_what_is_no_bundle(data, said):
    """Is named, with line where there is one."""
    with pytest.raises(Unreadable, match=said):
        read_stix(data)


def test_an_empty_bundle():
    """Holds nothing, and is right."""
    assert read_stix(b'{"type": "bundle"}') == Bundle(indicators=(), problems=(), ignored=0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PROPERTIES = st.sampled_from([*sorted(indicator()), "revoked", "valid_until"])


@given(st.dictionaries(PROPERTIES, JSON, max_size=4))
def test_any_indicator_is_read_left_or_a_problem(changes):
    """Whatever its properties are."""
    found = read_stix(bundled(indicator() | changes))
    assert len(found.indicators) + len(found.problems) + found.ignored == 1


@given(st.binary(max_size=100) | JSON.map(json.dumps).map(str.encode))
def test_any_bytes_are_a_bundle_or_unreadable(data):
    """Nothing else comes out."""
    with suppress(Unreadable):
        assert isinstance(read_stix(data), Bundle)


def test_more_terms_than_one_file_may_have(monkeypatch):
    """Each takes memory, however short it is: what comes later is a problem of its own."""
    monkeypatch.setattr(stix, "MAX_TERMS", 3)
    some = [indicator(id=f"indicator--{n}", pattern="[file:size IN (1, 2, 3, 4)]") for n in range(3)]
    found = read_stix(bundled(*some))
    assert ([one.id for one in found.indicators], len(found.problems)) == (["indicator--0"], 2)
    assert "more than 3 terms" in str(found.problems[0])
