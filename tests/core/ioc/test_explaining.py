"""Indicators, explained before they are used."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.core.ioc.explaining import LONGEST, Explained, explained, lines_of, words_of
from stanch.core.ioc.expression import Condition, Expression, Indicator, Operator
from stanch.core.ioc.judging import MAX_APART, Judge
from stanch.core.ioc.stix_pattern import read_pattern
from tests.core.ioc import judged
from tests.core.ioc.judged import patterns, several, trees
from tests.core.ioc.openioc_files import group, term

REGISTRY = term(document="RegistryItem", path="Path")
"""A term that Linux does not know."""


def told(*parts: Expression, operator: Operator = Operator.OR) -> Explained:
    """What is said of an indicator of these."""
    return explained(Indicator(id="i", title="t", format="OpenIOC 1.1", root=group(operator, *parts)))


def test_words():
    """Each condition and its denial; a very long content is cut."""
    assert words_of(term()) == "FileItem/FileName is x"
    assert words_of(term(condition=Condition.CONTAINS, negate=True)) == "FileItem/FileName does not contain x"
    assert words_of(term(preserve_case=True)) == "FileItem/FileName is x (upper and lower case differ)"
    assert words_of(term(content="x" * 9999)) == ("FileItem/FileName is " + "x" * 9999)[:LONGEST] + "…"
    assert all(words_of(term(condition=one)) != words_of(term(condition=one, negate=True)) for one in Condition)


def test_the_logic_as_a_tree():
    """Groups above what they join, in the order of the file."""
    tree = group(Operator.AND, group(Operator.OR, term(content="a"), term(content="b")), term(content="c"))
    assert [(line.depth, line.text) for line in lines_of(tree)] == [
        (0, "all of"),
        (1, "any of"),
        (2, "FileItem/FileName is a"),
        (2, "FileItem/FileName is b"),
        (1, "FileItem/FileName is c"),
    ]


def test_unknown_terms_are_counted_by_name():
    """Each once, with why and how often."""
    found = told(REGISTRY, term(), REGISTRY, term(path="FileNmae"))
    assert found.terms == 4
    assert [(one.term, one.times) for one in found.unknown] == [("RegistryItem/Path", 2), ("FileItem/FileNmae", 1)]
    assert all(one.why for one in found.unknown)


def test_terms_whose_condition_or_content_does_not_fit():
    """They are known, and can never match."""
    found = told(
        term(path="SizeInBytes", condition=Condition.CONTAINS),
        term(path="Md5sum", content="short"),
        term(condition=Condition.MATCHES, content="("),
        term(path="SizeInBytes", content="5 TO 10", type="int"),
    )
    assert [one.term for one in found.unfit] == [
        "FileItem/SizeInBytes contains x",
        "FileItem/Md5sum is short",
        "FileItem/FileName matches (",
    ]
    assert not found.unknown
    assert found.can_match


def test_branches_that_only_deny():
    """Alternatives without a positive term are told; a denial beside one is not."""
    no = term(negate=True, content="n")
    assert told(term(), no).without_positive == ("FileItem/FileName is not n",)
    assert told(term(), group(Operator.AND, no, no)).without_positive == (
        "FileItem/FileName is not n and FileItem/FileName is not n",
    )
    assert told(term(), no, operator=Operator.AND).without_positive == ()


def test_whether_it_can_match_here():
    """Some branch needs a positive term, and nothing that cannot be known."""
    no, yes = term(negate=True), term()
    assert told(REGISTRY, yes).can_match
    assert not told(REGISTRY, yes, operator=Operator.AND).can_match
    assert not told(REGISTRY, no).can_match
    assert told(yes, no, operator=Operator.AND).can_match
    assert not told(yes, group(Operator.AND, REGISTRY, REGISTRY), operator=Operator.AND).can_match
    assert told(yes, group(Operator.OR, REGISTRY, no), operator=Operator.AND).can_match


def test_it_says_what_the_judge_says():
    """What is too much for the judge only where it stands can never match here either, with the reason."""
    most = MAX_APART + 1
    wide = read_pattern(" AND ".join(f"[file:name = 'a{n}']" for n in range(most)))
    about = explained(Indicator(id="i", title="t", format="STIX 2.1", root=wide))
    assert not about.can_match
    assert [(one.term, one.times) for one in about.unfit] == [("FileItem/FileName", 1)]
    assert str(MAX_APART) in about.unfit[0].why


@settings(max_examples=150, deadline=None)
@given(st.one_of(trees, several, patterns))
def test_what_can_never_match_never_matches_in_a_scan(root):
    """For any tree, the explanation and the judge agree, and count the same terms."""
    one = Indicator(id="i", title="t", format="OpenIOC 1.1", root=judged.indicator(root).root)
    about, judge = explained(one), Judge([one])
    assert about.can_match != bool(judge.without_positive)
    assert sum(doubt.times for doubt in (*about.unknown, *about.unfit)) == sum(one.times for one in judge.unknown)
