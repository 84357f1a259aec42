"""The API as a whole: which routes there are."""

import pytest

from stanch.server.api.app import create_api
from tests.server.live import Live

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTES = """
DELETE /content/{name}/versions/{version}
DELETE /groups/{name}
DELETE /tokens/{token}
DELETE /uploads/{upload}
GET /actions
GET /audit
GET /audit/verify
GET /ca
GET /content
GET /content/{name}
GET /content/{name}/versions/{version}
GET /content/{name}/versions/{version}/pack
GET /content-room
GET /detections
GET /endpoints
GET /endpoints/{name}
GET /endpoints/{name}/release-codes
GET /endpoints/{name}/policy
GET /endpoints/{name}/release-codes
GET /events
GET /evidence
GET /evidence/{evidence}
GET /evidence/{evidence}/content
POST /evidence/{evidence}/verify
GET /evidence/{evidence}/preview
DELETE /evidence/{evidence}
GET /groups
GET /groups/{name}
GET /groups/{name}/policy
GET /health
GET /orders
GET /orders/{order}
GET /server/addresses
GET /tasks/{task}
GET /tokens
GET /uploads
GET /uploads/{upload}
GET /whoami
PATCH /endpoints/{name}/labels
PATCH /groups/{name}
POST /content
POST /content-check
POST /content/{name}/prune
POST /content/{name}/publish
POST /content/{name}/rollback
POST /content/{name}/unpublish
POST /endpoints/{name}/revoke
POST /groups
POST /login
POST /logout
POST /orders/{order}/cancel
POST /orders/{order}/undo
POST /tokens
POST /uploads
PUT /groups/{name}/policy
PUT /server/addresses
"""


async def test_its_routes_are_those_of_the_contract(live: Live) -> None:
    """Besides those of the actions, no more and no less."""
    paths = create_api(live.services).openapi()["paths"]
    found = {f"{method.upper()} {path.removeprefix('/api/v1')}" for path, one in paths.items() for method in one}
    orders = {f"POST /actions/{name}/orders" for name in live.services.registry}
    assert found - orders == set(ROUTES.split("\n")) - {""}
    assert orders <= found


async def test_every_operation_says_what_it_does(live: Live) -> None:
    """A summary and an id of its own."""
    operations = [one for path in create_api(live.services).openapi()["paths"].values() for one in path.values()]
    assert all(one.get("description") for one in operations)
    assert len({one["operationId"] for one in operations}) == len(operations)
