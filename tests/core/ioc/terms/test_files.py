"""Terms of files."""

from pathlib import Path

import pytest

from stanch.core.ioc.terms import DOCUMENTS
from stanch.core.ioc.terms.files import FILES
from tests.core.ioc.terms.official import check

WITHOUT_SENSE = frozenset(
    f"FileItem/StringMatchList/StringMatch/{one}"
    for one in ("MatchedString", "StringsAfter/string", "StringsBefore/string")
)
"""What a search of another agent returned, not what is in a file."""


@pytest.mark.shared
def test_terms_are_those_of_the_official_list(shared_data: Path) -> None:
    """As they are spelt there, of that kind, and none for Linux is forgotten."""
    check(FILES, shared_data, ours="ELFInfo/", without_sense=WITHOUT_SENSE)


def test_they_are_in_the_catalogue() -> None:
    """Under these documents."""
    assert set(FILES) == {"FileItem"}
    assert all(DOCUMENTS[document] == terms for document, terms in FILES.items())
