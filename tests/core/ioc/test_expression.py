"""Three truths follow Kleene; trees tell their terms and their depth."""

from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc.expression import Truth, depth_of, terms_of
from tests.core.ioc.judged import every, name, size, some

truths = st.sampled_from(Truth)


@given(truths, truths, truths)
def test_the_laws_of_three_truths(a, b, c):
    """De Morgan, double negation, absorption and distribution hold with three values."""
    assert ~~a is a
    assert ~Truth.all((a, b)) is Truth.any((~a, ~b))
    assert Truth.all((a, Truth.any((a, b)))) is a
    assert Truth.all((a, Truth.any((b, c)))) is Truth.any((Truth.all((a, b)), Truth.all((a, c))))
    assert Truth.any((a, ~a)) is not Truth.NO
    assert Truth.all(()) is Truth.YES
    assert Truth.any(()) is Truth.NO


def test_terms_come_in_order_and_depth_counts_groups():
    """However they nest."""
    one, two, three = name("a"), size("1"), name("b")
    root = every(one, some(two, every(three)))
    assert list(terms_of(root)) == [one, two, three]
    assert depth_of(root) == 4
    assert depth_of(one) == 1
