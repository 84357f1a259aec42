"""Local accounts and their sessions: who somebody is, and nothing about what they may do.

Passwords are hashed with argon2 on threads of their own. An unknown name costs as much as a wrong password, so that
the time tells nothing. A session is 32 random bytes of which only the SHA-256 is stored: a stolen database signs
nobody in.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Row, bindparam, delete, insert, select

from stanch.core.errors import Conflict, Invalid, NotAuthenticated, TooManyRequests
from stanch.core.policy import Origin, Principal, Role
from stanch.core.rest import LoginRequest, Session
from stanch.server import audit
from stanch.server.attempts import Attempts
from stanch.server.clock import Clock
from stanch.server.store.database import Database
from stanch.server.store.tables import accounts, sessions

T = TypeVar("T")

ADMINISTRATOR = "admin"
SESSION_LASTS = timedelta(hours=12)
SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 1000
MAX_TOKEN = 200
HASHERS = 2
"""Hashes at a time: each takes a tenth of a second of a core and 64 MB."""
MAX_WAITING = 20
FAILURES_PER_NAME = 10
"""A minute, from one address: nobody can lock somebody else out."""
FAILURES_PER_ADDRESS = 60
"""A minute, whatever the names: many people may share an address."""

_LOOK_AGAIN = (
    f"The account is {ADMINISTRATOR} unless another was named; its password was printed once, at the first start."
)


class Accounts:
    """Make accounts, sign in and out, and recognise the bearer of a token."""

    def __init__(
        self, *, database: Database, now: Clock, monotonic: Callable[[], float], hasher: PasswordHasher | None = None
    ) -> None:
        self._database = database
        self._now = now
        self._hasher = hasher or PasswordHasher()
        self._threads = ThreadPoolExecutor(HASHERS, thread_name_prefix="stanch-argon2")
        self._waiting = 0
        self._by_name = Attempts(allowed=FAILURES_PER_NAME, seconds=60, monotonic=monotonic)
        self._by_address = Attempts(allowed=FAILURES_PER_ADDRESS, seconds=60, monotonic=monotonic)
        self._nobody = self._hasher.hash(secrets.token_hex())

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown()

    # --- accounts ----------------------------------------------------------------------------------------------------

    async def create(self, name: str, password: str, roles: Sequence[Role], *, by: str = "server") -> None:
        """Make an account; Conflict if the name is taken, Invalid if the password is too short."""
        _check_new_password(password)
        row = {
            "name": name,
            "password_hash": await self._in_thread(lambda: self._hasher.hash(password)),
            "roles": list(roles),
            "labels": [],
            "created": self._now(),
            "disabled": False,
        }
        await self._database.write(lambda connection: _insert_account(connection, row, by))

    async def any(self) -> bool:
        """Is there an account yet?"""
        return await self._database.read(_has_accounts)

    # --- sessions ----------------------------------------------------------------------------------------------------

    async def login(self, request: LoginRequest, *, address: str) -> Session:
        """A new session; NotAuthenticated for a wrong name or password, TooManyRequests after too many of them."""
        name_there = f"{address} {request.name}"
        self._by_address.check(address)
        self._by_name.check(name_there)
        account = await self._database.read(lambda connection: _find_account(connection, request.name))
        try:
            await self._check_password(account, request.password)
        except NotAuthenticated:
            self._by_address.failed(address)
            self._by_name.failed(name_there)
            await self._audit(request.name, "login failed", address)
            raise
        self._by_name.succeeded(name_there)
        return await self._open_session(request.name, address)

    async def logout(self, token: str) -> None:
        """End the session of this token."""
        await self._database.write(
            lambda connection: connection.execute(delete(sessions).where(sessions.c.token_hash == _hashed(token)))
        )

    async def authenticate(self, token: str, origin: Origin) -> Principal:
        """Whose token it is; NotAuthenticated if it is nobody's, or no longer."""
        if not token or len(token) > MAX_TOKEN:
            raise NotAuthenticated("The request carries no valid token")
        row = await self._database.read(lambda connection: _find_session(connection, _hashed(token), self._now()))
        if row is None:
            raise NotAuthenticated("The token is unknown or has expired")
        return Principal(name=row.name, roles=tuple(row.roles), origin=origin, labels=tuple(row.labels))

    async def _open_session(self, name: str, address: str) -> Session:
        token, now = secrets.token_urlsafe(32), self._now()
        row = {"token_hash": _hashed(token), "account": name, "created": now, "expires": now + SESSION_LASTS}
        account = await self._database.write(lambda connection: _insert_session(connection, row, address))
        return Session(token=token, expires=row["expires"], name=name, roles=tuple(account.roles))

    async def _audit(self, name: str, what: str, address: str) -> None:
        entry = audit.Entry(at=self._now(), who=name, what=what, subject=name, detail={"address": address})
        await self._database.write(lambda connection: audit.append(connection, entry))

    # --- passwords ---------------------------------------------------------------------------------------------------

    async def _check_password(self, account: Row[Any] | None, password: str) -> None:
        """Raise NotAuthenticated unless it is the account's; always at the price of one hash."""
        stored = self._nobody if account is None else account.password_hash
        matches = await self._in_thread(lambda: self._matches(stored, password))
        if account is None or account.disabled or not matches:
            raise NotAuthenticated("The name or the password is wrong", hint=_LOOK_AGAIN)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise TooManyRequests("Too many sign-ins at once", hint="Try again in a few seconds.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def made_up_password() -> str:
    """A password that nobody guesses."""
    return secrets.token_urlsafe(18)


def password_in(text: str) -> str:
    """The password in a file: its first line; Invalid if it is none that we would accept."""
    password = text.partition("\n")[0].strip()
    _check_new_password(password)
    return password


def _check_new_password(password: str) -> None:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise Invalid(
            "The password does not fit",
            got=f"{len(password)} characters",
            expected=f"{SHORTEST_PASSWORD} to {LONGEST_PASSWORD}",
        )


def _hashed(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _has_accounts(connection: Connection) -> bool:
    return connection.execute(select(accounts.c.name).limit(1)).first() is not None


def _find_account(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(accounts).where(accounts.c.name == name)).one_or_none()


def _insert_account(connection: Connection, row: dict[str, Any], by: str) -> None:
    if _find_account(connection, row["name"]) is not None:
        raise Conflict(f"There is an account {row['name']} already")
    connection.execute(insert(accounts), row)
    detail = {"roles": row["roles"]}
    entry = audit.Entry(at=row["created"], who=by, what="account created", subject=row["name"], detail=detail)
    audit.append(connection, entry)


def _insert_session(connection: Connection, row: dict[str, Any], address: str) -> Row[Any]:
    """The session, its audit entry, and away with those that are over. The account as it is now."""
    account = _find_account(connection, row["account"])
    if account is None or account.disabled:
        raise NotAuthenticated("The name or the password is wrong", hint=_LOOK_AGAIN)
    connection.execute(delete(sessions).where(sessions.c.expires <= row["created"]))
    connection.execute(insert(sessions), row)
    detail = {"address": address}
    entry = audit.Entry(at=row["created"], who=account.name, what="login", subject=account.name, detail=detail)
    audit.append(connection, entry)
    return account


def _find_session(connection: Connection, token_hash: str, now: datetime) -> Row[Any, Any, Any] | None:
    return connection.execute(_SESSION, {"token_hash": token_hash, "now": now}).one_or_none()


_SESSION = (
    select(accounts.c.name, accounts.c.roles, accounts.c.labels)
    .join(sessions, sessions.c.account == accounts.c.name)
    .where(
        sessions.c.token_hash == bindparam("token_hash"),
        sessions.c.expires > bindparam("now"),
        accounts.c.disabled.is_(False),
    )
)
