"""The REST API, put together: for people and programs, thin, and generic over the registry."""

from fastapi import APIRouter, FastAPI

from stanch.server.api import (
    accounts,
    addresses,
    audit,
    content,
    detections,
    endpoints,
    evidence,
    groups,
    orders,
    terminals,
    tokens,
    uploads,
)
from stanch.server.api.actions import action_routes
from stanch.server.api.boundary import BoundedBodies, SafeHeaders, answer_errors
from stanch.server.services import Services

PREFIX = "/api/v1"


def create_api(services: Services) -> FastAPI:
    """The application over these services."""
    app = FastAPI(
        title="Stanch",
        summary="Open threat response for Linux fleets.",
        version="1",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    v1 = APIRouter(prefix=PREFIX)
    for router in (accounts.router, action_routes(services.registry), endpoints.router, orders.router):
        v1.include_router(router)
    v1.include_router(tokens.router)
    v1.include_router(addresses.router)
    v1.include_router(groups.router)
    v1.include_router(evidence.router)
    v1.include_router(uploads.router)
    v1.include_router(content.router)
    v1.include_router(terminals.router)
    v1.include_router(audit.router)
    v1.include_router(detections.router)
    app.include_router(v1)
    answer_errors(app)
    app.add_middleware(
        BoundedBodies,
        streamed=frozenset(
            {("POST", f"{PREFIX}/uploads"), ("POST", f"{PREFIX}/content"), ("POST", f"{PREFIX}/content-check")}
        ),
    )
    app.add_middleware(SafeHeaders)
    return app
