"""Patterns mean what XPath 2.0 says, in RE2, in bounded time; and what cannot be is said."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc import patterns
from stanch.core.ioc.patterns import Many, Misunderstood, One, translated


def found(pattern, value, *, preserve_case=False):
    """Is it in the value?"""
    return One(translated(pattern, preserve_case=preserve_case)).found(value)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("evil", "an EVIL one", "ewil"),
        (r"^/tmp/[^/]+$", "/tmp/x", "/tmp/x/y"),
        (r"\.(so|exe)$", "a.SO", "a.so.1"),
        (r"^\d{2}$", "٣4", "a4"),
        (r"^\w+$", "häß_1", "a-b"),
        (r"^\W$", "-", "_"),
        (r"^[\w.]+$", "a.b_", "a b"),
        (r"^[^\d\s]+$", "ab", "a1"),
        (r"^\i\c*$", "x:a-1.b", "1a"),
        (r"^[\i-]+$", "a-b", "1"),
        (r"^\I$", "1", "a"),
        (r"^\p{Lu}$", "Ä", "1"),
        (r"^\p{IsBasicLatin}+$", "abc", "ä"),
        (r"^\P{IsCyrillic}$", "a", "ж"),
        (r"^[\p{IsGreek}x]$", "λ", "y"),
        (r"a.b", "a b", "a\nb"),
        (r"^a[]b]$", "a]", "ac"),
        (r"^[a[b]c$", "[c", "xc"),
        (r"^[a[]]$", "[]", "a"),
        (r"\\Windows\\", "C:\\WINDOWS\\x", "/windows/"),
        (r"x{2,3}?$", "axx", "ax"),
    ],
)
def test_what_patterns_find(pattern, yes, no):
    """Anywhere in the value, without case unless it is preserved."""
    assert found(pattern, yes)
    assert not found(pattern, no)


def test_case_counts_if_preserved():
    """The flag governs patterns too."""
    assert found("Evil", "evil")
    assert not found("Evil", "evil", preserve_case=True)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a)\1", "earlier group"),
        (r"[a-z-[aeiou]]", "less another"),
        (r"[\W]", "within brackets"),
        (r"\p{IsTibetan}", "Tibetan"),
        (r"[[:alpha:]]", "POSIX"),
        (r"(?=a)b", "not understood"),
        ("(", "not understood"),
        ("a)(b", "not understood"),
        ("a\\", "backslash"),
        ("a{1,5000}", "not understood"),
        ("(((a{1,99}){1,9}){1,9}){1,99}", "steps|not understood"),
        ("a" * 9000, "characters"),
        ("\ud800", "half a character"),
    ],
)
def test_what_cannot_be_searched_is_said(pattern, why):
    """Never guessed, never an error of another kind."""
    with pytest.raises(Misunderstood, match=why):
        translated(pattern, preserve_case=False)


@given(st.text(r"ab\[]^-(){}*+?|.dwWicp{}:$1,L", max_size=20))
def test_no_text_breaks_the_translation(pattern):
    """There is a pattern that RE2 takes, or Misunderstood."""
    try:
        text = translated(pattern, preserve_case=True)
    except Misunderstood:
        return
    One(text).found("aab\n")


@given(st.text("ab.*+|()[]?", max_size=8), st.text("ab\n.", max_size=8))
def test_plain_patterns_agree_with_another_engine(pattern, value):
    """Where Python's engine takes the pattern too, both find the same."""
    try:
        text = translated(pattern, preserve_case=True)
        other = re.compile(pattern)
    except (Misunderstood, re.error):
        return
    if re.search(r"[+*?]{2}", pattern) or "[" in pattern:
        return  # possessive and nested quantifiers differ, as do sets within sets
    assert One(text).found(value) == bool(other.search(value))


literals = st.lists(st.text("abA", min_size=1, max_size=3), max_size=12)


@given(literals, st.text("abA", max_size=8), st.integers(1, 5))
def test_many_find_what_each_finds(texts, value, together):
    """Searched in sets of any size, the answer is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patterns, "SET_PATTERNS", together)
        many = Many((text, number) for number, text in enumerate(texts))

    assert sorted(many.found(value)) == [number for number, text in enumerate(texts) if text in value]


def test_many_find_the_same_without_memory(monkeypatch):
    """A set that runs out of memory, which answers nothing, is not believed."""
    texts = [f"(a|b).{{1,200}}x{number}" for number in range(40)]
    value = f"b{'-' * 150}x7"
    monkeypatch.setattr(patterns, "SET_MEMORY", 1 << 16)

    many = Many((text, number) for number, text in enumerate(texts))

    assert list(many.found(value)) == [7]
    assert any(one is None for one, _ in many._sets)


def test_a_set_that_forgets_is_searched_one_by_one():
    """The pattern that is always found tells that the answer is none."""

    class Forgetful:
        def Match(self, _):  # noqa: N802 - RE2's name
            return None

    many = Many([("a", 1), ("b", 2)])
    many._sets = [(Forgetful(), portion) for _, portion in many._sets]

    assert list(many.found("b")) == [2]


def test_catastrophic_patterns_are_harmless():
    """Nested repetitions end, on a long value, with the right answer."""
    assert not found("^(a+)+$", "a" * 100_000 + "b")
    assert found("(x+x+)+y", "x" * 50_000 + "y")
