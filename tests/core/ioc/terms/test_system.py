"""Terms of the machine."""

from pathlib import Path

import pytest

from stanch.core.ioc.terms import DOCUMENTS
from stanch.core.ioc.terms.system import SYSTEM
from tests.core.ioc.terms.official import check

WITHOUT_SENSE = frozenset(
    f"SystemInfoItem/{path}"
    for path in (
        "appCreated", "clockSkew", "containmentState", "stateAgentStatus",
        "networkArray/networkInfo/dhcpLeaseObtained",
    )
)  # fmt: skip
"""Of another agent; or nobody writes it down."""


@pytest.mark.shared
def test_terms_are_those_of_the_official_list(shared_data: Path) -> None:
    """As they are spelt there, of that kind, and none for Linux is forgotten but these."""
    check(SYSTEM, shared_data, without_sense=WITHOUT_SENSE)


def test_they_are_in_the_catalogue() -> None:
    """Under this document."""
    assert SYSTEM.items() <= DOCUMENTS.items()
    assert set(SYSTEM) == {"SystemInfoItem"}
