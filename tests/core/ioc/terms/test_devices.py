"""Terms of devices and modules."""

from pathlib import Path

import pytest

from stanch.core.ioc.terms import DOCUMENTS
from stanch.core.ioc.terms.devices import DEVICES
from tests.core.ioc.terms.official import check


@pytest.mark.shared
def test_terms_are_those_of_the_official_list(shared_data: Path) -> None:
    """As they are spelt there, of that kind, and none for Linux is forgotten."""
    check(DEVICES, shared_data, without_sense=frozenset())


def test_they_are_in_the_catalogue() -> None:
    """Under these documents."""
    assert set(DEVICES) == {"ModuleItem", "DiskItem", "VolumeItem"}
    assert all(DOCUMENTS[document] == terms for document, terms in DEVICES.items())
