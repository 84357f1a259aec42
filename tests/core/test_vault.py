"""Do the values of the vault say what they must, whoever sends them?"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stanch.core.files import FileInfo
from stanch.core.types import VaultId
from stanch.core.vault import MAX_NAMES, Item, Why, item_id
from tests.contract.bounds import undescribed

TASKS = st.text(alphabet=st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
INFO = FileInfo(size=1, mode=0o644, user="root", modified="2026-01-01T00:00:00Z", inode=7)
FIELDS = {"id": item_id("tsk_1", 0), "path": "/tmp/x", "why": "quarantine", "info": INFO, "taken": INFO.modified}


@given(TASKS, st.integers(0, 10_000))
def test_an_id_is_the_same_each_time_and_valid(task, n):
    """A run after a crash must find what the first one took."""
    found = item_id(task, n)
    assert found == item_id(task, n)
    assert TypeAdapter(VaultId).validate_python(found) == found


@given(st.lists(st.tuples(TASKS, st.integers(0, 10_000)), unique=True, max_size=50))
def test_ids_of_different_things_differ(things):
    """Also where a task's name ends in a number."""
    assert len({item_id(task, n) for task, n in things}) == len(things)
    assert item_id("tsk_1", 11) != item_id("tsk_11", 1)


def test_an_item_of_a_newer_version_can_be_read():
    """What it says beyond is ignored, so that an older agent can bring it back."""
    item = Item.model_validate({**FIELDS, "colour": "blue"})
    assert (item.why, item.original_kept, item.damage) == (Why.QUARANTINE, False, None)
    assert Item.model_validate_json(item.model_dump_json()) == item


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "../../etc/passwd"},
        {"path": "relative"},
        {"why": "because"},
        {"others": ["/tmp/x"] * (MAX_NAMES + 1)},
        {"names_left": -1},
        {"sha256": "ab"},
        {"reason": "x" * 4001},
    ],
)
def test_a_wrong_item_is_refused(fields):
    """A record on the disk may have been written by anybody."""
    with pytest.raises(ValidationError):
        Item.model_validate({**FIELDS, **fields})


def test_every_field_of_an_item_is_described():
    """Lists and pages show them."""
    assert not undescribed(Item.model_json_schema())
    assert re.fullmatch(r"qrt_[0-9a-f]{16}", FIELDS["id"])
