"""Terms of what starts by itself."""

from pathlib import Path

import pytest

from stanch.core.ioc.terms import DOCUMENTS
from stanch.core.ioc.terms.services import SERVICES
from tests.core.ioc.terms.official import check


@pytest.mark.shared
def test_terms_are_those_of_the_official_list(shared_data: Path) -> None:
    """As they are spelt there, of that kind, and none for Linux is forgotten."""
    check(SERVICES, shared_data, without_sense=frozenset())


def test_they_are_in_the_catalogue() -> None:
    """Under these documents."""
    assert set(SERVICES) == {"ServiceItem", "TaskItem"}
    assert all(DOCUMENTS[document] == terms for document, terms in SERVICES.items())
