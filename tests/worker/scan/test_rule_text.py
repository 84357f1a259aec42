"""Where statements begin in the text of rules, whatever it is."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stanch.worker.scan.rule_text import at_line, plain, statements, without


def test_statements_are_found_in_spite_of_what_is_in_texts() -> None:
    """The word in a comment, a text, an expression or a name of a string begins nothing."""
    text = '// rule no\nimport "pe"\n/* rule no */ private rule A : t { strings: $rule = "rule no" $b = /rule no/ '
    text += "condition: $rule }\nrule B{condition:true}"
    found = statements(plain(text))
    assert [(one.word, one.name, one.first, one.last) for one in found] == [
        ("import", "", 2, 3),
        ("rule", "A", 3, 4),
        ("rule", "B", 4, 4),
    ]
    assert at_line(found, 4) == found[2]
    assert without(text, found[1]).count("\n") == text.count("\n")


@given(st.text(alphabet='rule private{}/*"\\\n a$:import', max_size=200))
def test_any_text_is_taken_apart_without_a_gap(text: str) -> None:
    """Statements follow one another, and the plain text has the same length and lines."""
    bare = plain(text)
    assert len(bare) == len(text)
    assert [n for n, one in enumerate(bare) if one == "\n"] == [n for n, one in enumerate(text) if one == "\n"]
    found = statements(bare)
    assert all(one.end == other.begin for one, other in pairwise(found))
    assert all(one.first <= one.last for one in found)
