"""Do the values about files hold what the kernel may say, and nothing else?"""

import pytest
from pydantic import ValidationError

from stanch.core.files import Digests, FileId, FileInfo, FileType, Kind, Placing, Search

FIELDS = {"size": 1, "mode": 0o644, "user": "root", "modified": "2026-01-01T00:00:00Z", "inode": 7}


def test_a_file_is_known_by_device_and_number():
    """The same under each of its names; the number alone is not enough."""
    one, same, other = (FileInfo(**FIELDS, device=device, links=links) for device, links in ((1, 1), (1, 2), (2, 1)))
    assert one.id == same.id == FileId(device=1, inode=7)
    assert one.id != other.id
    assert len({one.id, same.id, other.id}) == 2


def test_an_answer_of_an_older_agent_can_be_read():
    """What came later has a default."""
    assert FileInfo(**FIELDS).kind is Kind.FILE


@pytest.mark.parametrize(("inode", "device"), [(0, 0), (2**64 - 1, 2**64 - 1)])
def test_numbers_of_the_kernel_fit(inode, device):
    """All 64 bits."""
    info = FileInfo(**{**FIELDS, "inode": inode, "device": device})
    assert FileInfo.model_validate_json(info.model_dump_json()) == info


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (FileInfo, {**FIELDS, "size": -1}),
        (FileInfo, {**FIELDS, "inode": 2**64}),
        (FileInfo, {**FIELDS, "links": -1}),
        (FileInfo, {**FIELDS, "kind": "door"}),
        (Digests, {"sha1": "ab"}),
        (Digests, {"sha256": "g" * 64}),
        (FileType, {"name": "x", "first": "zz"}),
        (FileType, {"name": "x", "first": "0" * 130}),
    ],
)
def test_what_no_kernel_says_is_refused(model, fields):
    """An answer crosses a boundary."""
    with pytest.raises(ValidationError):
        model.model_validate(fields)


def test_what_is_put_or_looked_for_is_safe_unless_said_otherwise():
    """Only root may read a new file; a search yields files only, and ends."""
    assert (Placing(path="/x").mode, Placing(path="/x").make_folders) == (0o600, False)
    assert (Search().kinds, Search().most_looked_at) == ((Kind.FILE,), 5_000_000)
