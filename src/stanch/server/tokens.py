"""Enrolment tokens: limited in uses and time, kept only as hashes, and what they give."""

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Row, insert, select, update

from stanch.core.errors import NotFound, TokenSpent
from stanch.core.policy import Permission, Principal, reach
from stanch.core.rest import TokenCreate, TokenView
from stanch.server import audit
from stanch.server.clock import Clock
from stanch.server.ids import new_id
from stanch.server.store.database import Database
from stanch.server.store.tables import enrolment_tokens as tokens


class Tokens:
    """Make, list and withdraw enrolment tokens."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    async def create(self, principal: Principal, wanted: TokenCreate) -> tuple[TokenView, str]:
        """A new token and its secret, which is not kept. Denied if it would let in endpoints outside of its reach."""
        principal.require(Permission.ENROL)
        reach(principal, {"those that enrol with this token": frozenset(wanted.labels)})
        secret, now = secrets.token_urlsafe(24), self._now()
        token = new_id("tok", now)
        row = {
            "id": token,
            "secret_hash": _hash(secret),
            "uses_left": wanted.uses,
            "expires": now + wanted.valid_for,
            "labels": list(wanted.labels),
            "created_by": principal.name,
            "created": now,
            "revoked": False,
        }

        def unit(connection: Connection) -> None:
            connection.execute(insert(tokens), row)
            detail = {"uses": wanted.uses, "labels": list(wanted.labels)}
            entry = audit.Entry(at=now, who=principal.name, what="token", subject=token, detail=detail)
            audit.append(connection, entry)

        await self._database.write(unit)
        return TokenView.model_validate({**row, "labels": wanted.labels}), secret

    async def list(self, principal: Principal) -> Sequence[TokenView]:
        """All that have not expired, newest first."""
        principal.require(Permission.ENROL)
        query = select(tokens).where(tokens.c.expires > self._now()).order_by(tokens.c.id.desc()).limit(1000)
        views = await self._database.read(lambda connection: [_view(row) for row in connection.execute(query)])
        return [one for one in views if set(principal.labels) <= set(one.labels)]

    async def revoke(self, principal: Principal, token: str) -> None:
        """Withdraw a token; NotFound."""
        principal.require(Permission.ENROL)
        now = self._now()

        def unit(connection: Connection) -> None:
            labels = connection.execute(select(tokens.c.labels).where(tokens.c.id == token)).scalar()
            if labels is None:
                raise NotFound(f"There is no enrolment token {token[:100]}", hint="`stanch token list` lists them.")
            reach(principal, {"those that enrol with this token": frozenset(labels)})
            connection.execute(update(tokens).where(tokens.c.id == token).values(revoked=True))
            entry = audit.Entry(at=now, who=principal.name, what="token-revoke", subject=token, detail={})
            audit.append(connection, entry)

        await self._database.write(unit)


def spend(connection: Connection, secret: str, now: datetime) -> tuple[str, Sequence[str]]:
    """Use a token once, in the unit of work of the enrolment; its id and labels, or TokenSpent.

    The condition is part of the update: of two enrolments with the last use, one fails.
    """
    done = connection.execute(
        update(tokens)
        .where(
            tokens.c.secret_hash == _hash(secret),
            tokens.c.uses_left > 0,
            tokens.c.expires > now,
            tokens.c.revoked.is_(False),
        )
        .values(uses_left=tokens.c.uses_left - 1)
        .returning(tokens.c.id, tokens.c.labels)
    ).one_or_none()
    if done is None:
        raise TokenSpent("The enrolment token is unknown, used up, expired or withdrawn")
    return done.id, done.labels


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _view(row: Row[tuple[object, ...]]) -> TokenView:
    return TokenView.model_validate(dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's documented accessor
