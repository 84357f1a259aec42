"""Shapes stand for all trees that ask other values of the same; verdicts join as three truths do."""

from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc.expression import Operator, Truth
from stanch.core.ioc.shapes import FREE, NEVER, NO, YES, Shapes, Untouched, Verdict, joined

verdicts = st.sampled_from(
    [
        NO,
        YES,
        FREE,
        Verdict(Truth.UNKNOWN, Truth.UNKNOWN, frozenset("p"), frozenset("p")),
        Verdict(Truth.UNKNOWN, Truth.NO, frozenset("q"), strict=False),
    ]
)


@given(st.sampled_from(Operator), st.lists(verdicts, min_size=1, max_size=5))
def test_groups_hold_as_truths_are_joined(operator, parts):
    """What is proven holds; what is open says what decides it, and what is not open asks for nothing."""
    join = Truth.all if operator is Operator.AND else Truth.any
    whole = joined(operator, parts)
    assert (whole.holds is Truth.YES) == (join(part.holds for part in parts) is Truth.YES)
    assert whole.proven.value <= whole.holds.value
    assert bool(whole.to_hold) == (whole.holds is Truth.UNKNOWN)
    if whole.proven is Truth.UNKNOWN:
        assert whole.to_prove | whole.to_hold


def test_equal_shapes_are_one():
    """However often a part is there, and in whichever order."""
    shapes = Shapes()
    one, two = shapes.term(0, negated=False), shapes.term(1, negated=True)
    assert shapes.group(Operator.AND, [one, two, one]) == shapes.group(Operator.AND, [two, one])
    assert shapes.group(Operator.AND, [one, NEVER]) == NEVER
    assert shapes.group(Operator.OR, [NEVER]) == NEVER
    assert shapes.group(Operator.OR, [NEVER, one]) == shapes.group(Operator.OR, [one])
    both = shapes[shapes.group(Operator.AND, [one, two])]
    assert (both.columns, both.positives, both.negations) == ({0, 1}, {0}, {1})


def test_what_a_shape_comes_to_untouched():
    """Known: negations hold. Open: it asks. Neither: it cannot hold."""
    shapes = Shapes()
    has, lacks = shapes.term(0, negated=False), shapes.term(0, negated=True)
    assert (Untouched(shapes, frozenset({0}))[has], Untouched(shapes, frozenset({0}))[lacks]) == (NO, FREE)
    assert Untouched(shapes, frozenset())[lacks] == NO
    asking = Untouched(shapes, frozenset(), lambda _: "Md5sum")
    assert asking[has].to_prove == {"Md5sum"}
    assert (asking[lacks].to_hold, asking[lacks].to_prove) == ({"Md5sum"}, frozenset())
