"""The judge against a slow evaluator that tries everything, on random trees and items."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.core.ioc.items import Item, the_rest
from stanch.core.ioc.judging import Judge
from stanch.core.ioc.terms import DOCUMENTS
from tests.core.ioc.judged import PATHS, indicator, items, matches, patterns, several, trees, worlds

forests = st.lists(st.one_of(trees, several, several, patterns), min_size=1, max_size=4)
crowds = st.one_of(st.lists(items(), min_size=5, max_size=7), st.lists(items(), max_size=4))


def sources(judge: Judge, seen: list[Item]) -> set[int]:
    """The indicators that match."""
    found = {match.source for item in seen for match in judge.see(item)}
    return found | {match.source for match in judge.finish()}


@settings(max_examples=250, deadline=None)
@given(forests, crowds)
def test_the_judge_agrees_with_trying_everything(roots, crowd):
    """An indicator matches exactly if some choice of items fulfils it, word by word."""
    judge = Judge([indicator(root) for root in roots])

    assert sources(judge, crowd) == {number for number, root in enumerate(roots) if matches(root, crowd)}


@settings(max_examples=250, deadline=None)
@given(worlds())
def test_the_judge_agrees_where_several_items_hold_together_and_some_are_denied(world):
    """Likewise, where nearly half of the indicators match, by several items, and by what none is."""
    roots, crowd = world
    judge = Judge([indicator(root) for root in roots])

    assert sources(judge, crowd) == {number for number, root in enumerate(roots) if matches(root, crowd)}
    assert judge.limited == []


@settings(max_examples=150, deadline=None)
@given(worlds(), st.data())
def test_asking_step_by_step_loses_nothing_of_several_items(world, data):
    """What one item lacks may be what another one needs."""
    roots, crowd = world
    whole = sources(Judge([indicator(root) for root in roots]), crowd)
    judge = Judge([indicator(root) for root in roots])

    learnt = [step_by_step(judge, item, data) for item in crowd]

    assert sources(judge, learnt) == whole


@settings(max_examples=150, deadline=None)
@given(forests, crowds, st.data())
def test_asking_step_by_step_gives_what_the_whole_items_give(roots, crowd, data):
    """Nothing is lost by learning only what is needed, in any order."""
    whole = sources(Judge([indicator(root) for root in roots]), crowd)
    judge = Judge([indicator(root) for root in roots])

    learnt = [step_by_step(judge, item, data) for item in crowd]

    assert sources(judge, learnt) == whole


def step_by_step(judge: Judge, item: Item, data) -> Item:
    """The item with what was asked for; what it lacks is known to be unknowable after it was asked for."""
    known, refused = {}, set()
    while wanted := judge.needs(replace(item, values=known)) - refused:
        assert wanted <= judge.wanted[item.document]
        path = data.draw(st.sampled_from(sorted(wanted)))
        if path in item.values:
            known[path] = item.values[path]
        else:
            refused.add(path)
    return replace(item, values=known)


@settings(max_examples=150, deadline=None)
@given(forests, items())
def test_what_is_not_needed_changes_nothing(roots, item):
    """Values of paths that are not asked for make no difference to what an item decides alone."""
    judge = Judge([indicator(root) for root in roots])
    first = {match.source for match in judge.see(item)}
    needed = judge.needs(item)
    missing = judge.wanted.get(item.document, frozenset()) - item.values.keys() - needed

    for value in ("a", "b", 1, 3):
        more = replace(item, values={**item.values, **dict.fromkeys(missing, (value,))})
        assert first == {match.source for match in judge.see(more)}


@settings(max_examples=100, deadline=None)
@given(forests, crowds)
def test_every_match_says_why(roots, crowd):
    """A branch begins at the top, names only items that are in the match, and has a positive term."""
    judge = Judge([indicator(root) for root in roots])
    found = [match for item in crowd for match in judge.see(item)] + list(judge.finish())

    for match in found:
        assert match.branch[0].depth == 0
        assert {line.item for line in match.branch} - {""} <= {item.name for item in match.items}
        assert any(line.item and " not " not in line.text for line in match.branch)
        assert len({item.name for item in match.items}) == len(match.items)


def test_the_documents_of_these_tests_can_be_known():
    """The random trees ask terms that are there, or the comparison would be empty."""
    from tests.core.ioc.judged import NOT_HERE

    assert all(path in DOCUMENTS[document] for document, paths in PATHS.items() for path in paths)
    assert NOT_HERE[1] not in DOCUMENTS[NOT_HERE[0]]


@settings(max_examples=250, deadline=None)
@given(worlds(), st.sampled_from(sorted(PATHS)), st.data())
def test_what_matches_without_the_rest_of_a_document_matches_whatever_the_rest_is(world, document, data):
    """Of a document that was not read, or not all of it, nothing that is denied holds."""
    roots, crowd = world
    there = [one for one in crowd if one.document != document or data.draw(st.booleans())]
    more = data.draw(st.lists(items(), max_size=3))
    partly = sources(Judge([indicator(root) for root in roots]), [*there, the_rest(document)])

    everything = [*crowd, *(one for one in more if one.document == document)]
    assert partly <= sources(Judge([indicator(root) for root in roots]), everything)
    assert partly <= sources(Judge([indicator(root) for root in roots]), there)


@settings(max_examples=100, deadline=None)
@given(worlds(), st.integers(0, 30))
def test_an_end_before_all_was_combined_invents_nothing_and_names_what_it_may_have_missed(world, steps):
    """Whoever wants it to end gets what was found until then; each indicator that is missing is limited."""
    roots, crowd = world
    whole, judge = (
        sources(Judge([indicator(root) for root in roots]), crowd),
        Judge([indicator(root) for root in roots]),
    )
    left = iter(range(steps))

    found = {match.source for item in crowd for match in judge.see(item)}
    found |= {match.source for match in judge.finishing(lambda: next(left, None) is not None)}

    assert found <= whole
    assert whole - found <= set(judge.limited)


def noted(judge: Judge) -> object:
    """All that it has taken note of."""
    scopes = judge._scopes.values()
    kept = [
        {who: [(one, len(of)) for one, of in some.items()] for who, some in scope._seen.items()} for scope in scopes
    ]
    return dict(judge._plain), kept, [(scope.limited, scope._compared) for scope in scopes]


@settings(max_examples=150, deadline=None)
@given(worlds(), st.data())
def test_an_item_that_is_of_no_concern_changes_nothing(world, data):
    """Whoever leaves it out loses no match, and to ask takes note of nothing."""
    roots, crowd = world
    judge = Judge([indicator(root) for root in roots])

    for item in data.draw(st.permutations([*crowd, *crowd])):
        before = noted(judge)
        concerns = judge.concerns(item)
        assert before == noted(judge)
        found = judge.see(item)
        if not concerns:
            assert (found, before) == ((), noted(judge))


@settings(max_examples=250, deadline=None)
@given(worlds(), st.integers(1, 3), st.data())
def test_judges_that_pass_on_what_concerns_them_come_to_the_same(world, hands, data):
    """As processes that look at files do it: the one who judges all hears only of what can matter."""
    roots, crowd = world
    indicators = [indicator(root) for root in roots]
    others, all_ = [Judge(indicators) for _ in range(hands)], Judge(indicators)
    passed_on = []
    for item in data.draw(st.permutations(crowd)):
        who = data.draw(st.sampled_from([None, *others]))
        if who is None or who.concerns(item):
            passed_on.append(item)
        if who is not None:
            who.see(item)

    assert sources(all_, data.draw(st.permutations(passed_on))) == sources(Judge(indicators), crowd)
