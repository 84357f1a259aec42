"""Accounts and sessions in memory: the fake of `core.accounts`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stanch.core.accounts import Account, Before, Session
from stanch.core.errors import Protected, TargetGone
from stanch.core.processes import ProcessId
from tests.fakes.life import Life
from tests.fakes.processes import FakeProcesses

SINCE = datetime(2026, 11, 24, 9, tzinfo=UTC)


@dataclass
class FakeAccounts:
    """Accounts by name, each with the fields of its line in etc/shadow; sessions with the pids of their processes."""

    here: FakeProcesses = field(default_factory=FakeProcesses)
    life: Life = field(default_factory=Life)
    shadow: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Account to its password field and its expiry field."""
    uids: dict[str, int] = field(default_factory=dict)
    directory: set[str] = field(default_factory=set)
    """Accounts that only a directory service knows."""
    protected: dict[str, str] = field(default_factory=lambda: {"root": "it is root"})
    logged_in: list[Session] = field(default_factory=list)
    pids: dict[str, list[int]] = field(default_factory=dict)
    """Session to the pids that belong to it."""
    fails: Exception | None = None
    """What `lock` and `unlock` raise instead of changing anything."""

    def add(self, name: str, *, uid: int = 1000, password: str = "$6$hash", expires: str = "") -> None:
        """A new account."""
        self.shadow[name], self.uids[name] = (password, expires), uid

    def log_in(self, user: str, pid: int, *, session: str = "", **more: Any) -> Session:
        """A session with one process, whose children belong to it too."""
        leader = self.here.add(pid, user=user)
        known = {"id": session or f"s{pid}", "user": user, "terminal": f"pts/{pid}", "leader": leader, "since": SINCE}
        made = Session.model_validate({**known, **more})
        self.logged_in.append(made)
        self.pids[made.id] = [pid]
        return made

    def _line(self, name: str) -> tuple[str, str]:
        if name not in self.shadow:
            raise TargetGone(f"There is no account {name}")
        return self.shadow[name]

    async def find(self, name: str) -> Account | None:
        if name not in self.shadow:
            return None
        password, expires = self.shadow[name]
        uid = self.uids[name]
        return Account(name=name, uid=uid, locked=password.startswith("!"), expired=expires == "1", system=uid < 1000)

    async def is_known(self, name: str) -> bool:
        return name in self.shadow or name in self.directory

    async def before(self, name: str) -> Before:
        password, expires = self._line(name)
        return Before(password_locked=password.startswith("!"), expires=expires)

    async def lock(self, name: str) -> None:
        self.life.step(f"accounts.lock {name}")
        if self.fails is not None:
            raise self.fails
        password, _ = self._line(name)
        self.shadow[name] = (password if password.startswith("!") else f"!{password}", "1")

    async def unlock(self, name: str, before: Before) -> tuple[str, ...]:
        self.life.step(f"accounts.unlock {name}")
        if self.fails is not None:
            raise self.fails
        password, _ = self._line(name)
        opens = password.startswith("!") and not before.password_locked
        self.shadow[name] = (password[1:] if opens and password != "!" else password, before.expires)
        return ("The password stays locked",) if opens and password == "!" else ()

    async def why_protected(self, name: str) -> str | None:
        return self.protected.get(name)

    async def sessions(self) -> Sequence[Session]:
        counted = [
            one.model_copy(update={"processes": len(found)})
            for one, found in zip(self.logged_in, await self.processes(self.logged_in), strict=True)
        ]
        return [one for one in counted if one.processes or one.own]

    async def processes(self, sessions: Sequence[Session]) -> Sequence[Sequence[ProcessId]]:
        return [await self._processes(one) for one in sessions]

    async def _processes(self, session: Session) -> Sequence[ProcessId]:
        pids = self.pids.get(session.id, [])
        there = await self.here.list()
        for one in there:  # parents come first
            if one.parent in pids and one.pid not in pids:
                pids.append(one.pid)
        return [one.id for one in there if one.pid in pids]

    async def processes_of(self, user: str) -> Sequence[ProcessId]:
        if user in {"root", *self.protected}:
            raise Protected("The machine itself runs with this user id")
        stanch = {pid for one in self.logged_in if one.own for pid in self.pids[one.id]}
        return [one.id for one in await self.here.list() if one.user == user and one.pid not in stanch]
