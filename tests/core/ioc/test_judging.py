"""Items are judged by indicators: what matches, with one item or several threads."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from stanch.core.ioc.expression import Indicator
from stanch.core.ioc.judging import Judge
from tests.core.ioc.judged import MD5, every, file, indicator, item, matched, md5, name, process, size, some, term


def test_terms_of_one_and_are_about_one_file():
    """Two files with half each are not one with both."""
    both = every(name("a"), size("1"))
    assert matched(both, file("a", SizeInBytes=1))
    assert not matched(both, file("a", SizeInBytes=2), file("b", SizeInBytes=1))


def test_an_or_within_an_and_is_about_the_same_file():
    """The file called a has the size or the hash."""
    root = every(name("a"), some(size("1"), md5()))
    assert not matched(root, file("a", SizeInBytes=2, Md5sum="00" * 16), file("b", SizeInBytes=1, Md5sum=MD5))
    assert matched(root, file("a", SizeInBytes=2, Md5sum=MD5))


def test_a_negation_beside_a_positive_term_is_about_the_same_file():
    """Another file that has it excludes nothing; what is not known excludes for now."""
    root = every(name("a"), size("1", negate=True))
    assert matched(root, file("a", SizeInBytes=2), file("b", SizeInBytes=1))
    assert not matched(root, file("a", SizeInBytes=1), file("b", SizeInBytes=2))
    assert not matched(root, file("a"))


def test_negations_alone_match_nothing():
    """Neither one, nor several, nor those that an OR offers beside a positive term."""
    assert not matched(name("a", negate=True), file("b"))
    assert not matched(every(name("a", negate=True), size("1", negate=True)), file("b", SizeInBytes=2))
    free = every(some(name("a", negate=True), size("2")), md5(negate=True))
    assert not matched(free, file("b", SizeInBytes=1, Md5sum="00" * 16))
    assert matched(free, file("b", SizeInBytes=2, Md5sum="00" * 16))


def test_lists_hold_with_one_element_and_negated_with_none():
    """And an element that cannot be compared makes the negation unknown."""
    text = term("FileItem/StringList/string", "is", "x")
    lacks = every(name("a"), replace(text, negate=True))
    assert matched(text, file("a", StringList__string=("y", "x")))
    assert not matched(lacks, file("a", StringList__string=("y", "x")))
    assert matched(lacks, file("a", StringList__string=("y", "z")))
    assert matched(lacks, file("a", StringList__string=()))
    assert not matched(lacks, file("a", StringList__string=("y", "z" * 2_000_000)))


def test_one_match_for_each_indicator_and_item():
    """However many of its alternatives hold; the same id twice is two indicators."""
    twice = [indicator(some(name("a"), size("1")), "same"), indicator(some(name("a")), "same")]
    found = Judge(twice).see(file("a", SizeInBytes=1))
    assert [(match.indicator, match.source, match.title) for match in found] == [
        ("same", 0, "title of same"),
        ("same", 1, "title of same"),
    ]


def test_what_cannot_change_anything_is_not_wanted():
    """Whatever stands in an AND with a term that cannot be known is left alone."""
    dead = every(md5(), term("FileItem/PEInfo/Type", "is", "Dll"))
    judge = Judge([indicator(some(name("a"), dead)), indicator(dead)])
    assert judge.wanted == {"FileItem": frozenset({"FileName"})}
    assert judge.without_positive == (1,)


def test_several_threads_see_what_one_sees():
    """The same matches, and the same combinations at the end."""
    roots = [every(name(f"n{n % 7}"), process(f"p{n}")) for n in range(20)] + [every(name("n1"), size("3"))]
    everything = [file(f"n{n % 9}", SizeInBytes=n % 5) for n in range(300)]
    everything += [item("ProcessItem", f"{n}", name=f"p{n % 30}") for n in range(300)]

    def told(workers):
        judge = Judge([indicator(root, f"i{n}") for n, root in enumerate(roots)])
        with ThreadPoolExecutor(workers) as pool:
            needs = list(pool.map(judge.needs, everything))
            seen = [match for some in pool.map(judge.see, everything) for match in some]
        return needs, sorted(m.indicator for m in seen), {m.indicator for m in judge.finish()}

    assert told(1) == told(8)


@pytest.mark.parametrize("form", ["OpenIOC 1.0", "OpenIOC 1.1", "STIX 2.1"])
def test_the_format_changes_nothing(form):
    """One tree, one meaning, wherever it was read."""
    root = some(term("FileItem/FullPath", "contains", "evil", preserve_case=form.startswith("STIX")))
    judge = Judge([Indicator(id="i", title="t", format=form, root=root)])
    assert judge.see(item("FileItem", FullPath="/x/evil/y"))
