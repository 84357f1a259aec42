"""Trees of any width and depth are laid out, and only what is touched is walked."""

from stanch.core.ioc.judging import Judge
from tests.core.ioc.judged import every, file, indicator, matched, md5, name, some


def test_deep_and_wide_trees_are_bounded():
    """Too deep is unknown; wide is no problem; nothing at all matches nothing."""
    deep = name("a")
    for _ in range(500):
        deep = every(deep, some(deep, name("b"))) if _ < 3 else every(deep, name("a"))
    judge = Judge([indicator(deep), indicator(some(*(name(f"n{n}") for n in range(3000)))), indicator(every())])
    assert judge.without_positive == (0, 2)
    assert "nested" in judge.unknown[0].why
    assert [match.source for match in judge.see(file("n7"))] == [1]


def test_a_chain_of_single_parts_is_no_and():
    """AND of one part is that part, as deep as it may be within the bound."""
    root = name("a")
    for n in range(100):
        root = some(root) if n % 2 else every(root)
    assert matched(root, file("a"))


def test_many_hashes_are_one_look(monkeypatch):
    """What an item costs does not grow with what it does not fit: the same parts are walked."""
    wide = Judge([indicator(some(*(md5(f"{n:032x}") for n in range(3000))))])
    single = Judge([indicator(md5(f"{n:032x}"), f"i{n}") for n in range(3000)])
    for judge in (wide, single):
        walked = []
        monkeypatch.setattr(
            judge._forest, "verdict", lambda *a, walk=judge._forest.verdict, seen=walked: seen.append(a) or walk(*a)
        )
        assert judge.see(file("a", Md5sum="f" * 32)) == ()
        assert judge.needs(file("a")) == {"Md5sum"}
        assert walked == []
        assert len(judge.see(file("a", Md5sum=f"{77:032x}"))) == 1
        assert len(walked) == 1
