"""The accounts of this machine: `core.accounts` by shadow-utils, and by who is logged in.

What an account is, is read from this machine's own files; it is changed by `usermod` alone, which takes the locks that
every other program on the machine respects, and tells caches and the audit of the machine.
"""

import asyncio
import os
import pwd
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from stanch.agent.host.account_files import (
    Entry,
    Shadow,
    first_uid,
    passwd_entries,
    passwd_entry,
    read_file,
    shadow_entry,
)
from stanch.agent.host.clock import wall_clock
from stanch.agent.host.run import Finished, find, run
from stanch.agent.host.sessions import Logins
from stanch.agent.host.slow_questions import SlowQuestions
from stanch.core.accounts import Account, Before, Session
from stanch.core.errors import ActionFailed, TargetGone, TimedOut, Unavailable, Unsupported
from stanch.core.processes import ProcessId
from stanch.core.types import seconds

LONG_PAST = "1"
"""The day on which a locked account expired: 2 January 1970."""

PATIENCE = seconds(30)
"""How long usermod may take; it waits 15 seconds itself for whoever else changes accounts."""

ASK_WITHIN_SECONDS = 20
_NO_SUCH_ACCOUNT = 6
_DAY = 86_400
_WORKER = 65_534
"""The user id of the process that opens hostile bytes; see stanch.worker."""


def known_uid(name: str) -> int | None:
    """The user id of an account by the name service, be it of a directory; None if there is none. May take long."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


class LinuxAccounts:
    """The accounts below one root folder, and the sessions of the running machine.

    `root` is the machine's own but in tests, as are the rest: how long to wait for usermod, what the name service says,
    and who is logged in.
    """

    def __init__(
        self,
        *,
        root: Path = Path("/"),
        patience: timedelta = PATIENCE,
        known: Callable[[str], int | None] = known_uid,
        logins: Logins | None = None,
    ) -> None:
        self._root = root
        self._patience = patience
        self._known = known
        self._logins = logins or Logins()
        self._slow = SlowQuestions[int | None]("account")

    # --- accounts ----------------------------------------------------------------------------------------------------

    async def find(self, name: str) -> Account | None:
        """The account; None if this machine's own files do not have it (a directory service may)."""
        return await asyncio.to_thread(self._find, name)

    async def is_known(self, name: str) -> bool:
        """Does the name service know it, from wherever? Unavailable if it does not answer."""
        return await self._uid(name) is not None

    async def before(self, name: str) -> Before:
        """What `lock` would change, as it is now."""
        shadow = await asyncio.to_thread(self._shadow, name)
        return Before(password_locked=shadow.locked, expires=shadow.expires)

    async def lock(self, name: str) -> None:
        """Lock its password and let it expire, in one step."""
        await asyncio.to_thread(self._shadow, name)  # usermod makes of a broken line whatever it likes
        await self._usermod(name, "-L", "-e", LONG_PAST)

    async def unlock(self, name: str, before: Before) -> tuple[str, ...]:
        """Put back what was before it was locked; what of it could not be, in words."""
        now = await asyncio.to_thread(self._shadow, name)
        opens = now.locked and not before.password_locked
        changes = [*(["-U"] if opens and not now.bare else []), *_expiry(now, before)]
        if changes:
            await self._usermod(name, *changes)
        after = await asyncio.to_thread(self._shadow, name)
        return tuple(_lost(after, before))

    async def why_protected(self, name: str) -> str | None:
        """The reason why it must not be locked, or None."""
        entry = await asyncio.to_thread(self._entry, name)
        if name == "root":
            return "it is root: nobody could repair the machine"
        if entry is not None and name in await asyncio.to_thread(self._first_names, {os.geteuid(), _WORKER}):
            return "Stanch itself runs as it"
        return None

    def _find(self, name: str) -> Account | None:
        entry = self._entry(name)
        if entry is None:
            return None
        shadow = self._shadow(name)
        return Account(
            name=name,
            uid=entry.uid,
            shell=entry.shell,
            locked=shadow.locked,
            expired=shadow.expired(_today()),
            system=entry.uid < first_uid(self._file("login.defs")) or entry.uid == _WORKER,
        )

    def _file(self, name: str) -> bytes:
        return read_file(self._root / "etc" / name)

    def _entry(self, name: str) -> Entry | None:
        return passwd_entry(self._file("passwd"), name)

    def _first_names(self, uids: set[int]) -> set[str]:
        names: dict[int, str] = {}
        for one in passwd_entries(self._file("passwd")):
            # Another account with the user id of root may well be what an intruder left, be it above root itself.
            if one.uid not in names or (one.uid == 0 and one.name == "root"):
                names[one.uid] = one.name
        return {name for uid, name in names.items() if uid in uids}

    def _shadow(self, name: str) -> Shadow:
        entry = self._entry(name)
        if entry is None:
            raise TargetGone(f"There is no account {name} in the files of this machine", expected="a local account")
        if not entry.shadowed:
            # PAM then asks etc/shadow for nothing at all: keys would go on to open it.
            raise Unsupported(
                f"The password of {name} stands in etc/passwd, where anybody may read it, so the account cannot expire",
                expected="x in its place, and the password in etc/shadow",
                hint="`pwconv` on the endpoint moves it. Few but intruders write one there.",
            )
        return shadow_entry(self._file("shadow"), name)

    async def _usermod(self, name: str, *changes: str) -> None:
        """Change an account in one call, which writes all of it or nothing."""
        _refuse_without_usermod()
        where = [] if self._root == Path("/") else ["--prefix", str(self._root)]
        try:
            done = await run(["usermod", *where, *changes, "--", name], within=self._patience)
        except TimedOut as error:
            raise _busy(name, str(error.got)) from None
        if done.returncode != 0:
            raise _refused(name, done)

    async def _uid(self, name: str) -> int | None:
        try:
            async with asyncio.timeout(ASK_WITHIN_SECONDS):
                return await self._slow.ask(name, lambda: self._known(name))
        except TimeoutError:
            raise Unavailable(
                "The name service of the endpoint does not answer",
                got=f"nothing in {ASK_WITHIN_SECONDS} seconds",
                hint="Its directory server may be down, or cut off by an isolation.",
            ) from None

    # --- sessions ----------------------------------------------------------------------------------------------------

    async def sessions(self) -> Sequence[Session]:
        """Everybody who is logged in."""
        return await asyncio.to_thread(self._logins.sessions)

    async def processes(self, sessions: Sequence[Session]) -> Sequence[Sequence[ProcessId]]:
        """All processes of each session now, its leader first."""
        return await asyncio.to_thread(self._logins.processes, sessions)

    async def processes_of(self, user: str) -> Sequence[ProcessId]:
        """All processes that have the rights of an account."""
        entry = await asyncio.to_thread(self._entry, user)
        uid = entry.uid if entry is not None else await self._uid(user)
        return () if uid is None else await asyncio.to_thread(self._logins.processes_of, uid)


# --- usermod ---------------------------------------------------------------------------------------------------------


def _expiry(now: Shadow, before: Before) -> list[str]:
    """Somebody may have set another date since; only one that keeps the account closed goes."""
    return ["-e", before.expires] if now.expires != before.expires and now.expired(_today()) else []


def _lost(after: Shadow, before: Before) -> list[str]:
    """What is not as it was."""
    found = []
    if after.locked and not before.password_locked:
        found.append(_BARE if after.bare else _TWICE)
    if after.expires != before.expires:
        found.append(
            f"It expires on day {after.expires or 'never'} since 1970, not on day {before.expires or 'never'}."
        )
    return found


_BARE = "The password stays locked: there is none, and the account would be open to everybody. Set one with passwd."
_TWICE = "The password stays locked: it was locked a second time, by somebody else."


def _today() -> int:
    """Days since 1970 by the machine's own clock, as login asks; the day that we set is over by any clock."""
    return int(wall_clock().timestamp()) // _DAY


def _refuse_without_usermod() -> None:
    try:
        find("usermod")
    except Unsupported as error:
        raise Unsupported(
            "The program usermod is not installed, so no account can be locked here",
            expected=error.expected,
            hint="Install the package passwd (Debian), shadow-utils (Fedora, SUSE) or shadow (Alpine).",
        ) from None


def _busy(name: str, got: str) -> ActionFailed:
    return ActionFailed(
        f"The account {name} was not changed: another program holds the lock of the account files",
        got=got,
        expected="a free /etc/.pwd.lock",
        hint="Order it again when that program has ended; `fuser /etc/.pwd.lock` names it.",
    )


def _refused(name: str, done: Finished) -> ActionFailed:
    said = done.stderr[-500:].decode("utf-8", "backslashreplace").strip() or f"exit status {done.returncode}"
    if done.returncode == _NO_SUCH_ACCOUNT:
        return TargetGone(f"There is no account {name} in the files of this machine", got=said)
    if "lock" in said and "try again" in said:
        return _busy(name, said)
    return ActionFailed(f"usermod could not change the account {name}", got=said)
