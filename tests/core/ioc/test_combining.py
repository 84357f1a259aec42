"""Scopes over several documents: items are kept by what counts of them, and combined at the end."""

from stanch.core.ioc import combining
from stanch.core.ioc.judging import Judge
from tests.core.ioc.judged import MD5, apart, every, file, indicator, item, matched, md5, name, process, size, some


def test_several_documents_are_independent_and_combined_at_the_end():
    """Some file and some process, in whichever order they come."""
    judge = Judge([indicator(every(name("a"), process("p")))])
    assert judge.see(item("ProcessItem", "p 7", name="p")) == ()
    assert judge.see(file("a")) == ()
    assert judge.see(file("b")) == ()

    (match,) = judge.finish()

    assert [one.name for one in match.items] == ["/a", "p 7"]
    assert [(line.depth, line.text, line.item, line.got) for line in match.branch] == [
        (0, "all of", "", ""),
        (1, str(name("a")), "/a", "a"),
        (1, str(process("p")), "p 7", "p"),
    ]


def test_each_of_several_files_is_told_with_the_process():
    """Up to a bound, not only the first that fits."""
    judge = Judge([indicator(every(md5(), process("p")))])
    for one in ("a", "b", "c"):
        judge.see(file(one, Md5sum=MD5))
    judge.see(item("ProcessItem", "p 7", name="p"))

    assert sorted(match.items[0].name for match in judge.finish()) == ["/a", "/b", "/c"]


def test_only_negations_of_a_document_mean_none_of_it():
    """A process, and no file of that name: one file that has it, or of which it is not known, is enough."""
    root = every(process("p"), name("marker", negate=True))
    found = item("ProcessItem", "p 7", name="p")
    assert matched(root, found)
    assert matched(root, found, file("a"), file("b"))
    assert not matched(root, found, file("a"), file("marker"))
    assert not matched(root, found, file("a"), item("FileItem", "?"))
    assert not matched(root, file("a"))


def test_observations_that_stand_apart_have_items_of_their_own():
    """Two files may fulfil it together, or one alone; both must be there."""
    root = apart(every(name("a"), size("1")), name("b"))
    assert matched(root, file("a", SizeInBytes=1), file("b", SizeInBytes=2))
    assert not matched(root, file("a", SizeInBytes=2), file("b", SizeInBytes=1))
    assert not matched(root, file("a", SizeInBytes=1))
    judge = Judge([indicator(apart(name("a"), size("1")))])
    assert [match.items[0].name for match in judge.see(file("a", SizeInBytes=1))] == ["/a"]
    assert judge.finish() == ()


def test_an_item_that_fits_nothing_can_count():
    """Where an alternative of the document only denies, any item that lacks it fulfils the scope."""
    root = every(process("p"), some(name("a", negate=True), size("1")))
    found = item("ProcessItem", "p 7", name="p")
    assert matched(root, found, file("b"))
    assert not matched(root, found, file("a"))
    assert not matched(root, found)


def test_no_item_alone_speaks_for_all_others():
    """Where an observation only denies, the item that fulfils the other one does not decide it."""
    root = apart(name("a"), size("5", negate=True))
    assert Judge([indicator(root)]).see(file("a", SizeInBytes=4)) == ()
    assert matched(root, file("a", SizeInBytes=4), file("b", SizeInBytes=4))
    assert not matched(root, file("a", SizeInBytes=4), file("b", SizeInBytes=5))


def test_as_many_observations_as_are_allowed_are_all_found():
    """However many stand apart, all of them together are found, and one that is missing is no match and no doubt."""
    for count in (13, 40):
        judge = Judge([indicator(apart(*(name(f"f{n}") for n in range(count))))])
        for n in range(count):
            assert (judge.finish(), judge.limited) == ((), [])
            judge.see(file(f"f{n}"))
        (match,) = judge.finish()
        assert len(match.items) == count
        assert judge.limited == []


def test_a_long_list_in_one_observation_is_one_observation():
    """However many values it may have: only observations count, not what is within them."""
    listed = some(*(name(f"f{n}") for n in range(60)))
    root = apart(listed, process("p"))
    assert Judge([indicator(root)]).without_positive == ()
    assert matched(root, file("f59"), item("ProcessItem", "p 7", name="p"))
    assert not matched(root, file("f59"))


def test_many_negations_are_decided_without_trying_everything():
    """Documents of which no item may have something: one bad item among very many spoils it, none does not."""
    root = apart(process("p"), *(name(f"x{n}", negate=True) for n in range(12)))
    crowd = [item("ProcessItem", "p 7", name="p"), *(file(f"f{n}") for n in range(20))]
    for bad, found in ((), True), ((file("x0"),), False), ((file("x11"),), False), ((item("FileItem", "?"),), False):
        judge = Judge([indicator(root)])
        for one in (*crowd, *bad):
            judge.see(one)
        assert (bool(judge.finish()), judge.limited) == (found, [])


def test_after_many_items_that_fit_nothing_one_that_does_still_counts():
    """Items that are alike are noted up to a bound only; what differs from them is noted later too."""
    root = every(process("p"), name("marker", negate=True))
    crowd = [item("ProcessItem", "p 7", name="p"), *(file(f"f{n}") for n in range(combining.MAX_EXAMPLES * 3))]
    assert matched(root, *crowd)
    assert not matched(root, *crowd, file("marker"))
    assert not matched(root, *crowd, item("FileItem", "?"))


def test_a_scope_is_not_told_the_same_without_end(monkeypatch):
    """It is told of items that fit nothing until it has examples, and is left alone afterwards: files are many."""
    noted = []
    note = combining.Scope.note
    monkeypatch.setattr(combining.Scope, "note", lambda self, *more: (noted.append(more), note(self, *more))[1])
    judge = Judge([indicator(every(process(f"p{n}"), name("marker", negate=True))) for n in range(3)])
    for n in range(100):
        judge.see(file(f"f{n}"))
    assert len(noted) == 3 * combining.MAX_EXAMPLES


def test_so_much_is_compared_and_then_the_loss_is_told(monkeypatch):
    """Items that differ in very many terms cost bounded time, and the indicator says that it may miss something."""
    monkeypatch.setattr(combining, "MAX_VECTORS", 2)
    monkeypatch.setattr(combining, "MAX_COMPARED", 10)
    judge = Judge([indicator(every(some(*(size(str(n)) for n in range(9))), process("p")))])
    for n in range(9):
        judge.see(file(f"f{n}", SizeInBytes=n))
    assert judge.limited == [0]


def test_more_kinds_of_items_than_can_be_combined_are_told(monkeypatch):
    """Beyond the bound what cannot be kept is said, and what another makes needless is no loss."""
    monkeypatch.setattr(combining, "MAX_VECTORS", 2)
    root = every(some(*(size(str(n)) for n in range(5))), process("p"))
    judge = Judge([indicator(root)])
    for n in range(5):
        judge.see(file(f"f{n}", SizeInBytes=n))
    assert judge.limited == [0]
    judge.see(item("ProcessItem", "p 7", name="p"))
    assert {match.items[0].name for match in judge.finish()} == {"/f0", "/f1"}
