"""Uploads as the API shows them."""

from datetime import UTC, datetime

import pytest

from stanch.core.rest_uploads import UploadQuery, UploadView
from stanch.core.types import Upload

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def test_a_view_says_how_an_order_names_it() -> None:
    """With everything that the endpoint needs to check it."""
    view = UploadView(
        id="upl_1", name="tool", size=3, sha256="0" * 64, created=NOW, by="ada", used=NOW, orders=1, later="new"
    )
    assert view.named == Upload(id="upl_1", name="tool", size=3, sha256="0" * 64)


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        (UploadQuery(), {"sha256": None, "mine": None}),
        (UploadQuery(sha256="A" * 64, mine=True), {"sha256": "a" * 64, "mine": "true"}),
    ],
)
def test_a_query_sends_what_was_asked(query: UploadQuery, sent: dict) -> None:
    """What is left out is not sent."""
    assert query.sent() == sent
