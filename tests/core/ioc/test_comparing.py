"""What terms ask is compared by the kind of the values, or said not to fit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc.comparing import asked, key_of, single
from stanch.core.ioc.indexing import Column
from stanch.core.ioc.items import CUT, Kind
from tests.core.ioc.judged import term


def fits(kind, condition, content, value, **more):
    """Does a value fit, asked alone and by an index?"""
    question = asked(term("X/Md5sum" if kind is Kind.HASH else "X/y", condition, content, **more), kind)
    column = Column(("X", 0), "y", question.kind)
    column.add(question, 7)
    column.close()
    found, clean = column.found((value,))
    if clean:
        assert (found == {7}) == single(question)(key_of(value, question.kind))
    return found == {7}


MD5 = "d41d8cd98f00b204e9800998ecf8427e"
DATE = 1408782169
"""2014-08-23T08:22:49Z"""


@pytest.mark.parametrize(
    ("kind", "condition", "content", "yes", "no"),
    [
        (Kind.STRING, "is", "Evil.SO", "evil.so", "evil.so.1"),
        (Kind.STRING, "is", "STRASSE", "straße", "strase"),
        (Kind.STRING, "is", "49600 TO 50700", "49600 to 50700", "50000"),
        (Kind.STRING, "contains", r"\System32\*", r"c:\system32\*x", r"c:/system32/x"),
        (Kind.STRING, "contains", "a.b", "xA.Bx", "axb"),
        (Kind.STRING, "starts-with", "/TMP/", "/tmp/x", "x/tmp/"),
        (Kind.STRING, "ends-with", ".so", "a.SO", "a.so\n"),
        (Kind.STRING, "ends-with", "so$", "xso$", "xso"),
        (Kind.STRING, "contains", "\0x", "a\0x", "ax"),
        (Kind.STRING, "matches", "^a.c$", "ABC", "abcd"),
        (Kind.STRING, "matches", ".", "x", ""),
        (Kind.STRING, "is", "", "", "x"),
        (Kind.STRING, "is", "true", True, False),
        (Kind.STRING, "is", "a\ufffd", "a\udcff", "a"),
        (Kind.INT, "is", "0x10", 16, 10),
        (Kind.INT, "is", "49600 TO 50700", 50700, 50701),
        (Kind.INT, "is", "[154192 TO 154192]", 154192, 154193),
        (Kind.INT, "greater-than", "5", 6, 5),
        (Kind.INT, "less-than", "5", 4, 5),
        (Kind.INT, "is", "7", "7", "x"),
        (Kind.INT, "is", "1", 1, True),
        (Kind.FLOAT, "is", "0.5", 0.5, 0.25),
        (Kind.FLOAT, "greater-than", "0.5", 1, float("nan")),
        (Kind.DATE, "is", "2014-08-23T08:22:49Z", DATE + 0.5, DATE + 1),
        (Kind.DATE, "is", "2014-08-23", DATE, DATE + 86400),
        (Kind.DATE, "greater-than", "0001-01-01T00:00:00", DATE, -62135596800),
        (Kind.DATE, "less-than", "2014-08-23", DATE - 86400, DATE),
        (Kind.DATE, "is", "2014-01-01T00:00:00Z TO 2014-12-31", DATE, 0),
        (Kind.DURATION, "greater-than", "PT1H", 3601, 3600),
        (Kind.DURATION, "is", "3600", 3600.9, 3601),
        (Kind.BOOL, "is", "True", True, False),
        (Kind.BOOL, "is", "0", False, True),
        (Kind.IP, "is", "10.0.0.0/8", "10.1.2.3", "11.0.0.1"),
        (Kind.IP, "is", "10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
        (Kind.IP, "is", "2001:DB8::1", "2001:db8:0:0::1", "2001:db8::2"),
        (Kind.IP, "is", "2001:db8::/32", "2001:db8::5", "10.0.0.1"),
        (Kind.IP, "contains", "103.41.124.", "103.41.124.9", "103.41.125.9"),
        (Kind.IP, "matches", r"^10\.", "10.0.0.1", "110.0.0.1"),
        (Kind.HASH, "is", f" {MD5.upper()} ", MD5, MD5[::-1]),
        (Kind.HASH, "is", MD5, MD5.upper(), "x"),
    ],
)
def test_comparisons(kind, condition, content, yes, no):
    """One value that fits and one that does not."""
    assert fits(kind, condition, content, yes)
    assert not fits(kind, condition, content, no)


def test_case_counts_if_it_is_preserved():
    """For texts, under every condition; never for hashes."""
    for condition in ("is", "contains", "starts-with", "ends-with", "matches"):
        assert fits(Kind.STRING, condition, "Ab", "Ab", preserve_case=True)
        assert not fits(Kind.STRING, condition, "Ab", "aB", preserve_case=True)
    assert fits(Kind.HASH, "is", MD5, MD5.upper(), preserve_case=True)


def test_texts_are_asked_for_numbers_if_the_indicator_says_so():
    """Greater, less and intervals of a type that has them."""
    assert fits(Kind.STRING, "greater-than", "9", "10", of="int")
    assert fits(Kind.STRING, "is", "9 TO 11", "10", of="xs:int")
    assert not fits(Kind.STRING, "greater-than", "9", "many", of="int")


@pytest.mark.parametrize(
    ("kind", "condition", "content", "why"),
    [
        (Kind.STRING, "greater-than", "a", "does not fit a text"),
        (Kind.STRING, "contains", "", "empty content"),
        (Kind.STRING, "matches", "(", "not understood"),
        (Kind.STRING, "is", "x" * 9000, "characters"),
        (Kind.INT, "contains", "4", "does not fit a whole number"),
        (Kind.INT, "is", "four", "no whole number"),
        (Kind.DATE, "matches", "2014", "does not fit a date"),
        (Kind.BOOL, "is", "maybe", "neither true nor false"),
        (Kind.BOOL, "less-than", "1", "does not fit"),
        (Kind.HASH, "contains", "abc", "does not fit a hash"),
        (Kind.HASH, "is", "abc", "no hash"),
        (Kind.HASH, "is", "ab" * 20, "40 digits where MD5 has 32"),
        (Kind.IP, "is", "evil.example", "IP"),
        (Kind.IP, "greater-than", "10.0.0.1", "does not fit an address"),
    ],
)
def test_what_does_not_fit_is_said(kind, condition, content, why):
    """With why, and never as another error."""
    with pytest.raises(ValueError, match=why):
        fits(kind, condition, content, "x")


conditions = st.sampled_from(["is", "contains", "matches", "starts-with", "ends-with", "greater-than", "less-than"])
values = st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans())


@given(st.sampled_from(Kind), conditions, st.text(max_size=20), values, st.booleans())
def test_nothing_but_value_errors(kind, condition, content, value, preserve_case):
    """Whatever indicators and items say, and the index agrees with asking alone."""
    try:
        fits(kind, condition, content, value, preserve_case=preserve_case)
    except ValueError:
        return


@pytest.mark.parametrize("kind", Kind)
def test_the_end_of_a_list_that_was_cut_fits_no_kind(kind):
    """So that the list is not clean, and a negated term unknown."""
    with pytest.raises(ValueError, match=r"\w"):
        key_of(CUT, kind)
    with pytest.raises(ValueError, match=r"\w"):
        key_of(json.loads(json.dumps(CUT)), kind)


@pytest.mark.parametrize(
    ("content", "value", "holds"),
    [
        ("{5 TO 5}", 5, False),
        ("{5 TO 5]", 5, False),
        ("[5 TO 5}", 5, False),
        ("[5 TO 5]", 5, True),
        ("{4 TO 6}", 5, True),
        ("{4 TO 6}", 4, False),
        ("{4 TO 6}", 6, False),
    ],
)
def test_an_interval_without_its_ends_may_hold_nothing(content, value, holds):
    """Braces leave the ends out, also where there is nothing else."""
    assert fits(Kind.INT, "is", content, value) is holds
