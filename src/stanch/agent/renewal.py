"""The endpoint's certificate renews itself, long before it ends, and over the connection that it vouches for.

The new credentials are a new file; then `identity.json` points at them, atomically; only when the server has welcomed
us with the new certificate is the old file removed. Whenever the agent is killed, one of the two is whole and accepted:
the server takes the old certificate until the new one was used.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Protocol

import structlog
from pydantic import ValidationError

from stanch.agent.backoff import Jitter, system_jitter
from stanch.agent.certificates import check_certificate, new_key, private_pem, signing_request, validity
from stanch.agent.clock import AgentClock
from stanch.agent.host.clock import wall_clock
from stanch.agent.identity import Identity
from stanch.agent.journal import Journal
from stanch.agent.spool import Spool
from stanch.core.errors import Expired, Invalid, StanchError, Unavailable, VerificationFailed
from stanch.core.frames import RENEW_PATH, Renewed, RenewRequest
from stanch.disk.atomic import atomic_write

LOOK_SECONDS = 3600.0
SOON_SECONDS = 60.0
AFTER = 2 / 3
"""Of its life, spread by `SPREAD` of it, so that a fleet that enrolled together does not renew together."""

SPREAD = 0.05
AT_LEAST = timedelta(days=7)
"""It is renewed when only so much is left, however short its life is."""

BACKDATED = timedelta(hours=24)
"""Certificates begin so long before they were issued: see the server's authority."""

TELL_SECONDS = 86_400.0
TOLD = "certificate-renewal-told"
"""The journal's entry: when, by the agent's clock, the server was last told that it fails."""

log = structlog.get_logger(__name__)


class Asking(Protocol):
    """As much of the gateway as a renewal needs."""

    async def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The body of a good answer."""
        ...


class Renewal:
    """Renews the certificate when it is time."""

    def __init__(
        self,
        *,
        identity: Identity,
        state: Path,
        gateway: Asking,
        change: Callable[[ssl.SSLContext], Awaitable[None]],
        proved: asyncio.Event,
        clock: AgentClock,
        journal: Journal,
        spool: Spool,
        wall: Callable[[], datetime] = wall_clock,
        jitter: Jitter = system_jitter,
    ) -> None:
        """`change` lets everybody use another TLS context; `proved`: the server has accepted the one in use."""
        self._identity = identity
        self._state = state
        self._gateway = gateway
        self._change = change
        self._proved = proved
        self._clock = clock
        self._journal = journal
        self._spool = spool
        self._wall = wall
        self._share = AFTER + SPREAD * (2 * jitter() - 1)
        self._until: datetime | None = None

    async def run(self, *, every: float = LOOK_SECONDS) -> None:
        """Look now, in a minute, when a link has told the time, and then every hour; until cancelled."""
        for pause in chain([min(SOON_SECONDS, every)], repeat(every)):
            try:
                await self.look()
            except (StanchError, OSError) as error:
                known = error if isinstance(error, StanchError) else Unavailable("A file cannot be used", got=error)
                await self._tell_failure(self.explain(known))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._proved.wait()
                    await self._tidy()
                    await asyncio.Event().wait()

    async def look(self) -> bool:
        """Renew if it is time; was it?"""
        since, self._until = await self._validity()
        now = self._clock.now()
        if now is None or now < due(since, self._until, share=self._share):
            return False
        await self._renew()
        return True

    async def _validity(self) -> tuple[datetime, datetime]:
        path = self._identity.credentials(self._state)
        return validity(await asyncio.to_thread(path.read_bytes))

    async def _renew(self) -> None:
        key = new_key()
        request = RenewRequest(csr=signing_request(key))
        answer = await self._gateway.request("POST", RENEW_PATH, request.model_dump_json().encode())
        certificate = _certificate_in(answer)
        check_certificate(certificate, ca=self._identity.ca, key=key, endpoint=self._identity.endpoint)
        until = self._check_valid(certificate)
        renewed = self._identity.renewed()
        tls = await asyncio.to_thread(_keep, renewed, self._state, private_pem(key) + certificate.encode())
        self._identity, self._until = renewed, until
        await self._change(tls)
        log.info("certificate-renewed", until=until.isoformat())

    def _check_valid(self, certificate: str) -> datetime:
        """Until when it is valid. In place of a good one, one that is not would cut the endpoint off for good."""
        (since, until), now = validity(certificate.encode()), self._clock.stamp()
        if not since <= now < until:
            got = f"valid from {since} to {until}"
            raise VerificationFailed("The server's new certificate is not valid now", got=got, expected=f"now, {now}")
        return until

    def explain(self, error: StanchError) -> StanchError:
        """Why the server does not answer: it ends every connection with a certificate whose time is over.

        The machine's own clock is asked too: after a long time without power the agent's stands still at what it knew.
        """
        newest = max(self._clock.stamp(), self._wall())
        if self._until is None or newest <= self._until:
            return error
        return Expired(
            "The certificate of this endpoint has expired",
            got=f"{self._until:%Y-%m-%d}; {error.message}",
            hint="Enrol it again: stanch agent enroll --again ...",
        )

    async def _tidy(self) -> None:
        """The certificate in use is accepted: nobody needs an earlier one."""
        try:
            await asyncio.to_thread(self._identity.remove_earlier, self._state)
        except OSError as error:
            log.warning("earlier-credentials-stay", error=str(error))

    async def _tell_failure(self, error: StanchError) -> None:
        """A line in the log each time, a notice once a day."""
        log.warning("certificate-renewal-failed", error=str(error), retry_seconds=LOOK_SECONDS)
        now, told = self._clock.stamp().timestamp(), self._journal.get(TOLD)
        if isinstance(told, int | float) and 0 <= now - told < TELL_SECONDS:
            return
        self._journal.stage(TOLD, now)
        with suppress(Unavailable):  # the journal cannot be written: told again next hour
            detail = {"error": error.body().model_dump(exclude_none=True)}
            await self._spool.put(self._spool.notice("certificate-renewal-failed", detail))


def due(since: datetime, until: datetime, *, share: float) -> datetime:
    """When a certificate with this validity is to be renewed, after this share of its life."""
    issued = min(since + BACKDATED, until)
    return min(issued + (until - issued) * share, until - AT_LEAST)


def _keep(renewed: Identity, state: Path, credentials: bytes) -> ssl.SSLContext:
    """Write them down, and the identity that points at them last: only credentials that TLS can use."""
    atomic_write(renewed.credentials(state), credentials)
    tls = renewed.tls(state)
    renewed.save(state)
    return tls


def _certificate_in(answer: bytes) -> str:
    try:
        return Renewed.model_validate_json(answer).certificate
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        got, expected = ".".join(map(str, first["loc"])), first["msg"]
        raise Invalid("The server's answer is malformed", got=got, expected=expected) from None
