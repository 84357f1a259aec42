"""The gateway: the one port of the agents, put together."""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from stanch.server.gateway.answers import MAX_BODY_BYTES, errors_as_json, hide_software
from stanch.server.gateway.content import ContentPacks
from stanch.server.gateway.enrolment import Enrolment
from stanch.server.gateway.evidence import EvidenceParts
from stanch.server.gateway.inbox import Inbox
from stanch.server.gateway.links import HEARTBEAT_SECONDS, AgentLinks
from stanch.server.gateway.terminals import TerminalLinks
from stanch.server.gateway.uploads import UploadContent
from stanch.server.services import Services


@dataclass(frozen=True, slots=True)
class Gateway:
    """The web application, and what must run beside it."""

    app: web.Application
    links: AgentLinks
    inbox: Inbox


def create_gateway(
    services: Services, *, monotonic: Callable[[], float], heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> Gateway:
    """The gateway over these services."""
    inbox = Inbox(orders=services.orders, fleet=services.fleet)
    links = AgentLinks(services, inbox, monotonic=monotonic, heartbeat_seconds=heartbeat_seconds)
    parts = EvidenceParts(evidence=services.evidence, fleet=services.fleet)
    uploads = UploadContent(uploads=services.uploads, fleet=services.fleet)
    packs = ContentPacks(packs=services.content.packs, way=services.content_way, fleet=services.fleet)
    terminals = TerminalLinks(terminals=services.terminals, fleet=services.fleet)
    app = web.Application(middlewares=[errors_as_json], client_max_size=MAX_BODY_BYTES)
    app.add_routes(
        [
            *Enrolment(services).routes(),
            *links.routes(),
            *parts.routes(),
            *uploads.routes(),
            *packs.routes(),
            *terminals.routes(),
        ]
    )
    app.on_response_prepare.append(hide_software)
    app.on_shutdown.append(links.say_goodbye)
    return Gateway(app, links, inbox)
