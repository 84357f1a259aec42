"""Only what can still change what matches is asked for."""

from stanch.core.ioc.judging import Judge
from tests.core.ioc.judged import MD5, every, file, indicator, item, md5, name, size, some


def test_the_name_is_tried_before_the_hash():
    """Only a file whose name fits is read."""
    judge = Judge([indicator(every(name("a"), size("1"), md5()))])
    assert judge.wanted == {"FileItem": frozenset({"FileName", "SizeInBytes", "Md5sum"})}
    assert judge.needs(item("FileItem")) == {"FileName", "SizeInBytes", "Md5sum"}
    assert judge.needs(file("b")) == set()
    assert judge.needs(file("a")) == {"SizeInBytes", "Md5sum"}
    assert judge.needs(file("a", SizeInBytes=2)) == set()
    assert judge.needs(file("a", SizeInBytes=1)) == {"Md5sum"}
    assert judge.needs(file("a", SizeInBytes=1, Md5sum=MD5)) == set()
    assert judge.needs(item("ProcessItem")) == set()


def test_what_matched_already_asks_for_nothing_more():
    """An alternative that holds settles its indicator, but no other one."""
    judge = Judge([indicator(some(name("a"), md5()))])
    assert judge.needs(file("a")) == set()
    assert judge.needs(file("b")) == {"Md5sum"}
    more = Judge([indicator(some(name("a"), md5())), indicator(md5("11" * 16))])
    assert more.needs(file("a")) == {"Md5sum"}


def test_a_negation_that_fails_saves_the_rest():
    """If every indicator of its shape is out, nothing is read."""
    judge = Judge([indicator(every(name("a", negate=True), md5()))])
    assert judge.needs(file("b")) == {"Md5sum"}
    assert judge.needs(file("a")) == set()


def test_what_holds_by_negations_still_asks_for_something_positive():
    """The positive term of an alternative is asked for though the negation beside it holds."""
    judge = Judge([indicator(every(some(name("a", negate=True), size("1")), name("z", negate=True)))])
    assert judge.needs(file("b")) == {"SizeInBytes"}
    assert judge.needs(file("z")) == set()
    assert judge.see(file("b", SizeInBytes=1))
    assert not judge.see(file("b", SizeInBytes=2))


def test_a_value_that_cannot_be_compared_settles_nothing():
    """What a negation cannot tell is asked for in the other alternative."""
    judge = Judge([indicator(some(every(name("a"), size("5", negate=True)), every(name("a"), md5())))])
    assert judge.needs(file("a", SizeInBytes=4)) == set()
    assert judge.needs(file("a", SizeInBytes="no number")) == {"Md5sum"}
    assert judge.see(file("a", SizeInBytes="no number", Md5sum=MD5))
