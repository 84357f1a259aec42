"""Letting endpoints in, the only requests that need no client certificate, and giving them new certificates later."""

from http import HTTPStatus

import structlog
from aiohttp import web

from stanch.core.frames import CA_PATH, ENROL_PATH, RENEW_PATH, Enrolled, EnrolRequest, Renewed, RenewRequest
from stanch.server.gateway.answers import answer, read_body
from stanch.server.gateway.identity import certificate_of, identify, remote_address
from stanch.server.services import Services

log = structlog.get_logger(__name__)


class Enrolment:
    """Hand out the CA to those who pin it, and certificates to those who have a token."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[web.RouteDef]:
        """What answers where."""
        return [web.get(CA_PATH, self.ca), web.post(ENROL_PATH, self.enrol), web.post(RENEW_PATH, self.renew)]

    async def ca(self, _request: web.Request) -> web.Response:
        """The CA certificate; whoever fetches it compares its hash with the pin."""
        return web.Response(text=self._services.authority.pem, content_type="application/x-pem-file")

    async def enrol(self, request: web.Request) -> web.Response:
        """A token and a key for an identity."""
        wanted = await read_body(request, EnrolRequest)
        endpoint, certificate = await self._services.fleet.enrol(wanted, self._issue)
        log.info("endpoint enrolled", endpoint=endpoint, address=remote_address(request))
        enrolled = Enrolled(
            endpoint=endpoint,
            certificate=certificate,
            ca=self._services.authority.pem,
            signing_keys=self._services.signer.public_keys,
            urls=self._services.addresses.urls,
        )
        return answer(enrolled, status=HTTPStatus.CREATED)

    async def renew(self, request: web.Request) -> web.Response:
        """A certificate for a new key, for whoever holds the one that is to be replaced."""
        identity = await identify(request, self._services.fleet)
        current = certificate_of(request)
        wanted = await read_body(request, RenewRequest)

        def issue(csr: str, endpoint: str) -> tuple[str, bytes]:
            issued = self._services.authority.renew_agent(csr, endpoint, current=current)
            return issued.pem, issued.der

        certificate = await self._services.fleet.renew(identity.endpoint, wanted.csr, issue)
        log.info("certificate issued", endpoint=identity.endpoint, address=remote_address(request))
        return answer(Renewed(certificate=certificate))

    def _issue(self, csr: str, endpoint: str) -> tuple[str, bytes]:
        issued = self._services.authority.issue_agent(csr, endpoint)
        return issued.pem, issued.der
