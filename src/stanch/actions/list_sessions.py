"""List who is logged in."""

from typing import Annotated

from pydantic import Field

from stanch.core.accounts import MAX_SESSIONS, AccountName, Session
from stanch.core.action import AfterCrash, Params, Result, Risk, action
from stanch.core.host import Host
from stanch.core.types import minutes


class ListSessions(Params):
    """Whose sessions."""

    user: Annotated[tuple[AccountName, ...], Field(max_length=100)] = ()
    """Only of these accounts; empty for all."""


class SessionTable(Result):
    """Who is logged in."""

    sessions: Annotated[tuple[Session, ...], Field(max_length=MAX_SESSIONS)]
    """Oldest first."""

    cut: bool = False
    """There are more than a thousand; `--user` narrows it."""


@action(
    "list_sessions",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    time_limit=minutes(1),
    examples=("web-01 --wait", "--label env=prod --user alice --wait --json"),
)
async def list_sessions(host: Host, params: ListSessions) -> SessionTable:
    """List who is logged in, from where and since when.

    By logind and utmp. The id beside each session is what end-sessions takes.
    """
    found = [one for one in await host.accounts.sessions() if not params.user or one.user in params.user]
    return SessionTable(sessions=tuple(found[:MAX_SESSIONS]), cut=len(found) > MAX_SESSIONS)
