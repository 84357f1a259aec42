"""What content may be called, and what an endpoint is told of it."""

import pytest
from pydantic import TypeAdapter, ValidationError

from stanch.core.content import MAX_FILE_BYTES, MAX_PACKS, ContentKind, ContentName, PackRef
from stanch.core.envelope import MAX_ENVELOPE_BYTES, ContentBody

NAME = TypeAdapter(ContentName)


@pytest.mark.parametrize("name", ["a", "apt-rules", "0.x_y", "a" * 64])
def test_names(name: str) -> None:
    """Plain ones, that can stand in a path and on a command line."""
    assert NAME.validate_python(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "..", "a/b", "a b", "a\n", "ä", "a" * 65])
def test_other_names_are_refused(name: str) -> None:
    """Among them all that could lead out of a folder, or be an option."""
    with pytest.raises(ValidationError):
        NAME.validate_python(name)


def test_all_packs_of_an_endpoint_fit_into_an_envelope() -> None:
    """However long their names are."""
    one = PackRef(name="a" * 64, kind=ContentKind.OPENIOC, version=2**31, sha256="f" * 64, size=256 * 2**20)
    assert len(ContentBody(packs=(one,) * MAX_PACKS).model_dump_json()) < MAX_ENVELOPE_BYTES // 10
    with pytest.raises(ValidationError):
        ContentBody(packs=(one,) * (MAX_PACKS + 1))


def test_an_indicator_is_small() -> None:
    """3 MB, as the readers take it."""
    assert MAX_FILE_BYTES[ContentKind.OPENIOC] == 3 * 2**20
