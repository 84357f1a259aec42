"""Release codes: what lifts the effect of a task at the endpoint itself, without the server.

No code is stored: each follows from the task and one master key, so that it can be told again at any time, and a
redelivered order carries the same. An endpoint gets only what recognises the code.
"""

import asyncio
import hmac
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, select

from stanch.core.action import Registry
from stanch.core.errors import NotFound
from stanch.core.isolation import CODE_ALPHABET, CODE_LENGTH, ReleaseCode
from stanch.core.policy import Permission, Principal, reach
from stanch.core.rest import EndpointView, ReleaseCodeEntry, ReleaseCodes
from stanch.core.task import State
from stanch.server import audit
from stanch.server.clock import Clock
from stanch.server.fleet import Fleet
from stanch.server.store.database import Database
from stanch.server.store.tables import orders, tasks
from stanch.server.targets import labels_of

MAX_CODES = 5
SALT_BYTES = 16
REMEMBERED = 10_000
"""Verifiers that need not be computed again when an endpoint comes back."""

THREADS = min(4, os.cpu_count() or 1)
"""They compute without Python's lock, so each takes a core to itself."""

_REACHED = (State.SENT, State.RUNNING, State.DONE, State.UNKNOWN)
"""States of a task whose effect may be in force: its order has left, and it has not failed. One that has, may still
have left something; then the endpoint tells it."""


class CodeBook:
    """The code of each task, and what recognises it. Pure computing: about 0.3 ms for a verifier on one core."""

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="release-code")
        self.verifier = lru_cache(maxsize=REMEMBERED)(self._verifier)

    def code(self, task: str) -> str:
        """The code: 16 characters, 80 bits, that nobody without the master key can compute."""
        number = int.from_bytes(self._derived("code", task), "big") >> (256 - 5 * CODE_LENGTH)
        return "".join(CODE_ALPHABET[number >> shift & 31] for shift in range(5 * (CODE_LENGTH - 1), -1, -5))

    def _verifier(self, task: str) -> ReleaseCode:
        """What recognises it at the endpoint; the same at each delivery."""
        return ReleaseCode.of(self.code(task), self._derived("salt", task)[:SALT_BYTES])

    async def verifiers(self, wanted: Iterable[str]) -> dict[str, ReleaseCode]:
        """The verifiers of these tasks, computed beside the event loop, a few at a time."""
        loop = asyncio.get_running_loop()
        named = tuple(wanted)
        computed = (loop.run_in_executor(self._threads, self.verifier, task) for task in named)
        return dict(zip(named, await asyncio.gather(*computed), strict=True))

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(cancel_futures=True)

    def _derived(self, label: str, task: str) -> bytes:
        return hmac.digest(self._master, f"stanch release {label}\0{task}".encode(), "sha256")


class CodeDesk:
    """Tells codes to those who may know them, and writes down that it did."""

    def __init__(self, *, codes: CodeBook, fleet: Fleet, registry: Registry, database: Database, now: Clock) -> None:
        self._codes = codes
        self._fleet = fleet
        self._database = database
        self._now = now
        self._coded = tuple(one.name for one in registry.values() if one.release_code)

    async def look(self, principal: Principal, endpoint: str, reason: str) -> ReleaseCodes:
        """The newest codes of an endpoint, once the look is in the audit; NotFound if it has none, Denied."""
        principal.require(Permission.RELEASE_CODE)
        found = await self._fleet.get(endpoint)
        in_force = _in_force(found)
        now = self._now()

        def unit(connection: Connection) -> Sequence[Row[Any]]:
            reach(principal, labels_of(connection, [found.id]))
            rows = self._tasks(connection, found.id, in_force)
            if rows:
                audit.append(connection, _entry(now, principal, found.id, rows, reason))
            return rows

        rows = await self._database.write(unit)
        if not rows:
            raise NotFound(
                "This endpoint has no release code",
                got=found.hostname,
                hint="A code comes with an isolation that the server orders. On the endpoint itself, as root: "
                "stanch local isolation off",
            )
        codes = tuple(self._shown(row, in_force) for row in rows)
        return ReleaseCodes(endpoint=found.id, hostname=found.hostname, codes=codes)

    def _tasks(self, connection: Connection, endpoint: str, in_force: frozenset[str]) -> Sequence[Row[Any]]:
        """The newest tasks that carry a code, newest first; those in force before any other."""
        query = (
            select(tasks.c.id, tasks.c.order_id, tasks.c.created, orders.c.action)
            .join(orders, orders.c.id == tasks.c.order_id)
            .where(tasks.c.endpoint == endpoint, tasks.c.state.in_(_REACHED) | tasks.c.id.in_(sorted(in_force)))
            .where(orders.c.action.in_(self._coded), orders.c.dry_run.is_(False))
            .order_by(tasks.c.id.in_(sorted(in_force)).desc(), tasks.c.id.desc())
            .limit(MAX_CODES)
        )
        return sorted(connection.execute(query), key=lambda row: str(row.id), reverse=True)

    def _shown(self, row: Row[Any], in_force: frozenset[str]) -> ReleaseCodeEntry:
        return ReleaseCodeEntry(
            task=row.id,
            order=row.order_id,
            action=row.action,
            code=self._codes.code(row.id),
            in_force=row.id in in_force,
            created=row.created,
        )


def _in_force(endpoint: EndpointView) -> frozenset[str]:
    """The tasks whose effects the endpoint last told."""
    told = {effect.task for effect in endpoint.effects}
    return frozenset(told if endpoint.isolation is None else told | {endpoint.isolation.task})


def _entry(now: datetime, principal: Principal, endpoint: str, rows: Sequence[Row[Any]], reason: str) -> audit.Entry:
    detail = {"tasks": [row.id for row in rows], "reason": reason}
    return audit.Entry(at=now, who=principal.name, what="release-code", subject=endpoint, detail=detail)
