"""Uploads on the command line."""

import pytest

from stanch.core.errors import Conflict
from stanch.core.rest_uploads import UploadView
from tests.client.stub import NOW


@pytest.fixture
def one(signed_in) -> UploadView:
    """An upload that orders have used, with a name that tries something."""
    view = UploadView(
        id="upl_1", name="tool\x1b[2J", size=2048, sha256="0" * 64, created=NOW, by="alice", used=NOW, orders=3
    )
    signed_in.uploads["upl_1"] = view
    return view


def test_uploads_are_listed(run, signed_in, one):
    """With their size and how many orders named them; nothing in a name reaches the terminal."""
    ended = run("uploads", "list")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["UPLOAD", "NAME", "SIZE", "BY", "ORDERS", "LAST", "USED"]
    assert "upl_1" in lines[1]
    assert "\x1b" not in ended.out
    assert [view["orders"] for view in run("uploads", "list", "--mine", "--json").json] == [3]
    assert signed_in.asked("GET /uploads")[-1]["mine"] == "true"


def test_an_upload_is_deleted(run, signed_in, one):
    """It is said, or why it is not."""
    signed_in.errors["DELETE /uploads/upl_1"] = Conflict("An order that is not finished needs this upload")
    assert run("uploads", "delete", "upl_1").code != 0
    signed_in.errors.clear()
    assert run("uploads", "delete", "upl_1", "--json").json == {"upload": "upl_1", "deleted": True}
    assert signed_in.uploads == {}
    assert run("uploads", "delete", "upl_1").code != 0
