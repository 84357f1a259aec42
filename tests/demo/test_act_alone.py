"""The release code in the last act."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.isolation import CODE_ALPHABET, CODE_LENGTH, ReleaseCode, plain_code, show_code
from stanch.demo.act_alone import changed

codes = st.text(CODE_ALPHABET, min_size=CODE_LENGTH, max_size=CODE_LENGTH)


@given(code=codes, grouped=st.booleans())
def test_a_changed_code_is_well_formed_and_wrong(*, code: str, grouped: bool):
    """It has the form of a code, so that it costs an attempt, and opens nothing."""
    wrong = changed(show_code(code) if grouped else code)
    assert plain_code(wrong) == wrong
    assert len(wrong) == CODE_LENGTH
    assert not ReleaseCode.of(code, b"s" * 16, iterations=1).opens(wrong)


@pytest.mark.parametrize("last", [CODE_ALPHABET[0], CODE_ALPHABET[-1]])
def test_the_alphabet_goes_round(last: str):
    """The last of its letters is followed by the first."""
    assert changed("0" * (CODE_LENGTH - 1) + last)[-1] in CODE_ALPHABET
