"""An index over many terms answers as each of them alone."""

from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc import indexing
from stanch.core.ioc.comparing import MAX_VALUE, asked, single
from stanch.core.ioc.indexing import Column
from stanch.core.ioc.items import Kind
from tests.core.ioc.judged import term

conditions = st.sampled_from(["is", "contains", "matches", "starts-with", "ends-with", "greater-than", "less-than"])


def test_values_that_cannot_be_compared_are_not_clean():
    """A value of another kind, or a very long one, fits nothing and makes the answer incomplete."""
    column = Column(("X", 0), "y", Kind.STRING)
    column.add(asked(term("X/y", "contains", "a"), Kind.STRING), 1)
    column.close()
    assert column.found(("a" * (MAX_VALUE + 1),)) == (set(), False)
    assert column.found(("a" * MAX_VALUE, "b")) == ({1}, True)
    assert column.found(()) == (set(), True)


@given(
    st.lists(st.tuples(conditions, st.text("abA", max_size=3), st.booleans()), max_size=20), st.text("abA", max_size=5)
)
def test_an_index_answers_as_each_of_its_terms(terms, value):
    """Many terms at once give what each gives alone."""
    questions = []
    for condition, content, preserve_case in terms:
        try:
            questions.append(asked(term("X/y", condition, content, preserve_case=preserve_case), Kind.STRING))
        except ValueError:
            continue
    column = Column(("X", 0), "y", Kind.STRING)
    for number, question in enumerate(questions):
        column.add(question, number)
    column.close()

    assert column.found((value,))[0] == {n for n, question in enumerate(questions) if single(question)(value)}


def test_the_same_value_is_asked_by_many():
    """Each is answered; networks by any length of their prefix, with other addresses in between."""
    column = Column(("X", 0), "y", Kind.IP)
    for leaf, content in enumerate(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10.1.2.3", "::/0", "11.0.0.0/8"]):
        column.add(asked(term("X/y", "is", content), Kind.IP), leaf)
    column.close()
    assert column.found(("10.1.2.3",))[0] == {0, 1, 2, 3}
    assert column.found(("2001:db8::1", "11.1.1.1"))[0] == {4, 5}


def test_a_long_list_is_looked_at_in_part(monkeypatch):
    """What is found in the part counts; the rest is not known."""
    monkeypatch.setattr(indexing, "MAX_VALUES", 2)
    column = Column(("X", 0), "y", Kind.STRING)
    column.add(asked(term("X/y", "is", "a"), Kind.STRING), 1)
    column.close()
    assert column.found(("a", "b", "c")) == ({1}, False)
    assert column.found(("b", "c", "a")) == (set(), False)
