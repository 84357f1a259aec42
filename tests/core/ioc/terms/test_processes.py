"""Terms of processes."""

from pathlib import Path

import pytest

from stanch.core.ioc.items import Cost
from stanch.core.ioc.terms import DOCUMENTS
from stanch.core.ioc.terms.processes import PROCESSES
from tests.core.ioc.terms.official import check, official

OURS = {"parentName", "parentPath", "Md5sum", "Sha1sum", "Sha256sum"}


@pytest.mark.shared
def test_terms_are_those_of_the_official_list(shared_data: Path) -> None:
    """As they are spelt there, of that kind, and none for Linux is forgotten."""
    listed = {path: one for path, one in PROCESSES["ProcessItem"].items() if path not in OURS}
    check({"ProcessItem": listed}, shared_data, without_sense=frozenset())


@pytest.mark.shared
def test_our_own_terms_say_that_they_are(shared_data: Path) -> None:
    """Whoever writes an indicator for other systems too learns it from the reference."""
    listed = official(shared_data)
    for path in OURS:
        assert f"ProcessItem/{path}" not in listed
        assert "not in the official list" in PROCESSES["ProcessItem"][path].what


def test_they_are_in_the_catalogue() -> None:
    """Under this document."""
    assert PROCESSES.items() <= DOCUMENTS.items()
    assert set(PROCESSES) == {"ProcessItem"}


def test_hashes_and_strings_are_dear() -> None:
    """They are looked for only if they can still decide something."""
    for path, one in PROCESSES["ProcessItem"].items():
        wanted = Cost.READ if path.endswith("sum") else Cost.DEEP if "String" in path else one.cost
        assert one.cost == wanted, path
