"""Terms that cannot be known are counted with why, and others are found by their names."""

from stanch.core.ioc import comparing, knowing
from stanch.core.ioc.judging import Judge
from tests.core.ioc.judged import file, indicator, matched, name, process, size, some, term


def test_switches():
    """Off: its terms are unknown. On: it is looked at though nothing names it."""
    judge = Judge(
        [indicator(some(name("a"), process("p")))], switches={"FileItem": False, "PortItem": True, "ProcessItem": True}
    )
    assert judge.wanted == {"PortItem": frozenset(), "ProcessItem": frozenset({"name"})}
    assert [(one.name, one.why, one.times) for one in judge.unknown] == [("FileItem/FileName", "switched off", 1)]
    assert judge.see(file("a")) == ()


def test_unknown_terms_are_counted_with_why():
    """Another system's, misspelt, unfit, not understood."""
    odd = [
        term("RegistryItem/KeyPath", "is", "x"),
        term("RegistryItem/KeyPath", "is", "y"),
        term("FileItem/FileNam", "is", "x"),
        size("x", "contains"),
        term("FileItem/FileName", "matches", r"(a)\1"),
    ]
    judge = Judge([indicator(some(*odd)), indicator(some(name("a"), *odd[:1]))])
    why = {one.name: (one.why, one.times) for one in judge.unknown}
    assert why["RegistryItem/KeyPath"][1] == 3
    assert "FileItem/FileName" in why["FileItem/FileNam"][0]
    assert "does not fit" in why["FileItem/SizeInBytes"][0]
    assert "earlier group" in why["FileItem/FileName"][0]
    assert judge.without_positive == (0,)


def test_patterns_beyond_the_bound_are_not_even_made_ready(monkeypatch):
    """They are told as too many; that costs no time, however many follow."""
    asked = []
    monkeypatch.setattr(knowing, "MAX_STEPS", 1)
    monkeypatch.setattr(knowing, "asked", lambda one, kind: (asked.append(one), comparing.asked(one, kind))[1])
    judge = Judge([indicator(some(*(term("FileItem/FileName", "matches", f"a{n}") for n in range(9))))])
    assert len(asked) == 1
    assert [(one.why.partition(":")[0], one.times) for one in judge.unknown] == [
        ("more patterns than can be searched", 9)
    ]


def test_texts_to_be_contained_are_bounded_as_patterns_are(monkeypatch):
    """A million of them would take gigabytes; those that are compared as a whole cost nothing."""
    monkeypatch.setattr(knowing, "MAX_STEPS", 20)
    judge = Judge(
        [
            indicator(some(*(term("FileItem/FileName", "contains", "0123456789") for _ in range(5)))),
            indicator(some(*(term("FileItem/FileName", "is", "0123456789") for _ in range(5)))),
        ]
    )
    assert [one.times for one in judge.unknown] == [3]


def test_unknown_terms_are_told_by_file():
    """Each file with its own: terms of one name may be fine in one and wrong in another."""
    roots = [indicator(some(size("x", "contains"), size("1"))), indicator(size("1")), indicator(size("x", "contains"))]
    judge = Judge(roots, files=[3, 5, 7])
    assert {at: [one.times for one in some] for at, some in judge.unknown_in.items()} == {3: [1], 7: [1]}
    assert [one.times for one in judge.unknown] == [2]


def test_names_of_terms_in_another_case_are_understood():
    """People write them by hand."""
    assert matched(term("FileItem/filename", "is", "a"), file("a"))
