"""What the bodies about evidence bound."""

import pytest
from pydantic import ValidationError

from stanch.core.rest_evidence import MOST, UNSAID, ElfPreview, HexPreview, PreviewKind, StringsPreview
from stanch.worker import elf, shown


def test_every_kind_has_its_bounds() -> None:
    """What is looked at if nobody says how much is never more than the most."""
    kinds = set(PreviewKind) - {PreviewKind.AUTO}
    assert set(MOST) == set(UNSAID) == kinds
    assert all(UNSAID[kind] <= MOST[kind] for kind in kinds)


def test_the_worker_answers_no_more_than_is_taken() -> None:
    """Its bounds are at or below those of the models; it cannot import them, for it must start quickly."""
    found = StringsPreview.model_validate(shown.strings(b"abcd\0" * (shown.MAX_STRINGS + 1), offset=0))
    assert len(found.strings) == shown.MAX_STRINGS
    one = {"name": "", "type": "", "flags": "", "address": 0, "offset": 0, "size": 0, "entropy": None}
    assert ElfPreview.model_validate({"sections": [one] * elf.MAX_SECTIONS, "libraries": ["x"] * elf.MAX_LIBRARIES})


@pytest.mark.parametrize(
    "bad",
    [{"sections": [{}] * 201}, {"libraries": ["x" * 301]}, {"entry": -1}, {"entry": 2**64}, {"problems": ["x"] * 21}],
)
def test_more_is_refused(bad: dict[str, object]) -> None:
    """A worker that was taken over fills no memory of the server's."""
    with pytest.raises(ValidationError):
        ElfPreview.model_validate(bad)


def test_hex_is_hex() -> None:
    """Nothing else passes as digits."""
    with pytest.raises(ValidationError):
        HexPreview(data="<script>", ascii="")
