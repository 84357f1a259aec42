"""The accounts of an endpoint and who is logged in with them.

A part of `core.host`, which says what these protocols are for.
"""

from collections.abc import Sequence
from typing import Annotated, Protocol

from pydantic import Field, StringConstraints

from stanch.core.model import LooseModel, Model
from stanch.core.processes import ProcessId
from stanch.core.types import Instant, Name, Text, TypeInfo

MAX_SESSIONS = 1000
"""Sessions of one endpoint that are looked at."""

AccountName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_.][A-Za-z0-9_.@+$\\ -]{0,127}$"),
    TypeInfo("account", "alice", "The name of an account on the endpoint."),
]
"""What an account may be called in an order: never an option of a program, never two fields of a file."""

SessionId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_:/.-]{1,64}$"),
    TypeInfo("session", "c2", "A session as list-sessions names it: logind's id, or the terminal."),
]
"""What a session may be called."""


class Account(Model):
    """An account of this machine's own files."""

    name: Name
    """Account name."""

    uid: Annotated[int, Field(ge=0, le=2**32 - 1)]
    """User id."""

    shell: Text = ""
    """Login shell."""

    locked: bool
    """Its password is locked."""

    expired: bool
    """It has expired: no way in is open, SSH keys included."""

    system: bool = False
    """It is for services, by its user id."""

    @property
    def closed(self) -> bool:
        """Is every way in closed?"""
        return self.locked and self.expired


class Before(LooseModel):
    """What locking changes, as it was before: all that it takes to put it back exactly."""

    password_locked: bool
    """Was the password locked already?"""

    expires: Annotated[str, Field(max_length=20)]
    """The expiry field as it was: days since 1970, or empty."""


class Session(Model):
    """Somebody who is logged in."""

    id: SessionId
    """Names it on this endpoint: logind's id, or the terminal."""

    user: Name
    """Account name."""

    terminal: Text = ""
    """Terminal, such as pts/0."""

    remote: Text = ""
    """From where, for one that came over the network."""

    service: Text = ""
    """What let it in: sshd, login, ..."""

    since: Instant | None = None
    """When it began; null where nobody wrote it down."""

    leader: ProcessId | None = None
    """Its first process; null if that has ended."""

    processes: Annotated[int, Field(ge=0, le=4_194_304)] = 0
    """How many processes belong to it."""

    own: bool = False
    """Stanch runs in it."""


class Accounts(Protocol):
    """Accounts in this machine's own files, and sessions of all accounts.

    Nothing here ends a process: that is done through `core.processes`, which protects what must stay.
    """

    async def find(self, name: str) -> Account | None:
        """The account; None if this machine's own files do not have it (a directory service may)."""
        ...

    async def is_known(self, name: str) -> bool:
        """Does the name service know it, from wherever?"""
        ...

    async def before(self, name: str) -> Before:
        """What `lock` would change, as it is now; TargetGone if there is no such account."""
        ...

    async def lock(self, name: str) -> None:
        """Lock its password and let it expire, in one step; repeating it changes nothing."""
        ...

    async def unlock(self, name: str, before: Before) -> tuple[str, ...]:
        """Put back what was before it was locked; what of it could not be, in words. Repeating it changes nothing."""
        ...

    async def why_protected(self, name: str) -> str | None:
        """The reason why it must not be locked (root, the accounts that Stanch runs as), or None."""
        ...

    async def sessions(self) -> Sequence[Session]:
        """Everybody who is logged in."""
        ...

    async def processes(self, sessions: Sequence[Session]) -> Sequence[Sequence[ProcessId]]:
        """All processes of each session now, its leader first; without those of Stanch and what started it."""
        ...

    async def processes_of(self, user: str) -> Sequence[ProcessId]:
        """All processes that have the rights of an account, in a session or not; without the same ones."""
        ...
