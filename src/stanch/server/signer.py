"""The one seam that signs: envelopes for endpoints, at the moment of their delivery."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from joserfc.jwk import OKPKey

from stanch.core.envelope import VERSIONED, Body, Envelope, sign
from stanch.server.clock import Clock
from stanch.server.ids import new_id
from stanch.server.store.counters import Counter


class Signer:
    """Holds the signing key; nothing else does."""

    def __init__(self, key: OKPKey, versions: Counter, now: Clock) -> None:
        self._key = key
        self._versions = versions
        self._now = now

    @property
    def public_keys(self) -> tuple[Mapping[str, str], ...]:
        """The public half, as endpoints pin it at enrolment."""
        public = {
            name: str(value) for name, value in self._key.as_dict(private=False).items() if isinstance(value, str)
        }
        return ({**public, "kid": str(self._key.kid)},)

    async def envelope(self, endpoint: str, body: Body, *, valid_until: datetime | None = None) -> str:
        """A signed envelope for one endpoint, valid from now."""
        return self.sign(endpoint, body, version=await self._version(body), valid_until=valid_until)

    async def envelopes(self, bodies: Sequence[tuple[str, Body]]) -> list[str]:
        """Envelopes for several endpoints, signed beside the event loop; they may be large."""
        numbered = [(one, body, await self._version(body)) for one, body in bodies]

        def all_of_them() -> list[str]:
            return [self.sign(one, body, version=version, valid_until=None) for one, body, version in numbered]

        return await asyncio.to_thread(all_of_them) if numbered else []

    async def _version(self, body: Body) -> int | None:
        return await self._versions.next() if body.kind in VERSIONED else None

    def sign(self, endpoint: str, body: Body, *, version: int | None, valid_until: datetime | None) -> str:
        """The same, with a version that was drawn already."""
        now = self._now()
        envelope = Envelope(
            endpoint=endpoint,
            id=new_id("env", now),
            iat=int(now.timestamp()),
            exp=None if valid_until is None else int(valid_until.timestamp()),
            version=version,
            body=body,
        )
        return sign(envelope, self._key)
