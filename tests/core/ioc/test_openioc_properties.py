"""Any OpenIOC file: what is written is what is read, and nothing else ever comes out."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.expression import Condition, Group, Operator, Term
from stanch.core.ioc.openioc import read_openioc
from tests.core.ioc.openioc_files import OR, file_11, written

SIGNS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
WORDS = st.text(alphabet="abcXYZ019_-.", min_size=1, max_size=12)
CONTENTS = st.text(alphabet=SIGNS | st.sampled_from("\n\t <>&'\"]"), max_size=40)

TERMS = st.builds(
    Term,
    id=WORDS,
    document=WORDS,
    path=st.lists(WORDS, min_size=1, max_size=3).map("/".join),
    condition=st.sampled_from(Condition),
    content=CONTENTS,
    type=st.sampled_from(["string", "int", "md5", "IP", "date", ""]),
    negate=st.booleans(),
    preserve_case=st.booleans(),
)


def groups(parts: st.SearchStrategy[Term | Group]) -> st.SearchStrategy[Group]:
    """A group of such parts."""
    several = st.lists(parts, min_size=1, max_size=4).map(tuple)
    return st.builds(Group, id=WORDS, operator=st.sampled_from(Operator), parts=several)


TREES = groups(st.recursive(TERMS, groups, max_leaves=20))


@given(TREES)
def test_what_is_written_is_what_is_read(tree):
    """Every tree, with any content that XML can carry."""
    assert read_openioc(file_11(written(tree))).root == tree


@given(st.binary(max_size=300))
def test_any_bytes_are_an_indicator_or_unreadable(data):
    """Nothing else comes out."""
    _read(data)


@given(st.integers(0, 400), st.binary(max_size=12), st.integers(0, 40))
def test_a_file_that_was_damaged_is_an_indicator_or_unreadable(at, instead, length):
    """Wherever something is put in or cut out."""
    data = file_11(OR)
    _read(data[:at] + instead + data[at + length :])


def _read(data: bytes) -> None:
    with suppress(Unreadable):
        assert read_openioc(data).root.parts
