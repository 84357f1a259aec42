"""End the sessions of people who are logged in."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from stanch.core.accounts import MAX_SESSIONS, AccountName, Session, SessionId
from stanch.core.action import (
    AfterCrash,
    Check,
    Concurrency,
    Irreversible,
    Params,
    Plan,
    Result,
    Risk,
    Step,
    action,
)
from stanch.core.errors import Invalid, Protected, TargetGone
from stanch.core.hanging_up import MAX_LEFT, SessionEnds, end_all, hang_up, still_there
from stanch.core.host import Host
from stanch.core.processes import ProcessId
from stanch.core.types import Duration, Text, minutes, seconds

MAX_NAMED = 100


class EndSessions(Params):
    """Which sessions."""

    session: Annotated[tuple[SessionId, ...], Field(max_length=MAX_NAMED)] = ()
    """By id, as list-sessions shows it."""

    user: Annotated[tuple[AccountName, ...], Field(max_length=MAX_NAMED)] = ()
    """All sessions of these accounts."""

    everything: bool = False
    """End all other processes of these accounts, too: services, jobs, and what has left its session; but not those of
    containers, which kill-container ends."""

    grace: Annotated[Duration, Field(le=minutes(2))] = seconds(6)
    """How long they may take to end by themselves, at most 2 minutes; then they are killed."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not (self.session or self.user):
            raise ValueError("expected sessions or accounts to be named")
        if self.everything and not self.user:
            raise ValueError("expected accounts to be named, if everything of them is to end")
        return self


class SessionsEnded(Result):
    """What became of them."""

    sessions: SessionEnds
    """Each session that was meant, and whether it has ended."""

    others: Annotated[int, Field(ge=0, le=4_194_304)] = 0
    """Processes outside of a session that were meant."""

    left: Annotated[tuple[ProcessId, ...], Field(max_length=MAX_LEFT)] = ()
    """Those of them that have not ended, at most 100."""

    why: Text = ""
    """Why not."""


async def _meant(host: Host, params: EndSessions) -> list[Session]:
    """The sessions; TargetGone if one of the named ones is not there, Protected if Stanch runs in it."""
    there = await host.accounts.sessions()
    ids = {one.id for one in there}
    missing = [one for one in params.session if one not in ids]
    if missing:
        raise TargetGone("There is no such session", got=", ".join(missing)[:300], hint="Look again: list-sessions.")
    for one in there:
        if one.id in params.session and one.own:
            raise Protected(f"Stanch itself runs in session {one.id}", hint="Start the agent as a service.")
    found = [one for one in there if one.id in params.session or one.user in params.user]
    if len(found) > MAX_SESSIONS:
        raise Invalid("Too many sessions", got=len(found), expected=f"at most {MAX_SESSIONS}")
    await _refuse_unknown(host, params, found)
    return found


async def _refuse_unknown(host: Host, params: EndSessions, found: Sequence[Session]) -> None:
    """A name that means nobody is a mistake; somebody who is not logged in is not."""
    for user in params.user:
        if not any(one.user == user for one in found) and not await host.accounts.is_known(user):
            raise TargetGone(f"There is no account {user}, and nobody is logged in with it", expected="an account")


async def _others(host: Host, params: EndSessions) -> list[ProcessId]:
    """All processes of the accounts, if all are meant."""
    if not params.everything:
        return []
    return [process for user in params.user for process in await host.accounts.processes_of(user)]


async def _plan(host: Host, params: EndSessions) -> Plan:
    """The sessions as they are now."""
    sessions, others = await _meant(host, params), await _others(host, params)
    inside = {process for ones in await host.accounts.processes(sessions) for process in ones}
    alone = len(set(others) - inside)
    steps = [_step(one) for one in sessions if not one.own]
    if alone:
        steps.append(Step(what=f"End {alone} processes outside of a session", target=", ".join(params.user)[:4000]))
    kept = tuple(f"Session {one.id} is left: Stanch itself runs in it" for one in sessions if one.own)
    return Plan(changes=bool(steps), steps=tuple(steps), warnings=kept[:100])


def _step(one: Session) -> Step:
    where = " ".join(filter(None, [one.terminal, one.remote and f"from {one.remote}"]))
    return Step(
        what=f"End a session of {one.processes} processes", target=f"{one.id} {one.user} {where}".strip()[:4000]
    )


async def _verify(host: Host, params: EndSessions, result: SessionsEnded | None) -> Check:
    """Does no process of them run any more? After a crash, the record says which sessions were meant."""
    running = [one.pid for one in await _others(host, params)]
    if result is not None:
        left = await still_there(host, result.sessions)
        return Check.of(not (left or running), _seen(left, running))
    sessions = _recorded(host)
    if sessions is None:
        return Check.of(False, "nothing was begun")
    left = [one.id for one, ones in zip(sessions, await host.accounts.processes(sessions), strict=True) if ones]
    return Check.of(not (left or running), _seen(left, running))


def _seen(left: Sequence[str], running: Sequence[int]) -> str:
    return f"sessions left: {', '.join(left) or 'none'}, other processes left: {len(running)}"[:4000]


def _recorded(host: Host) -> list[Session] | None:
    recorded = host.journal.recorded()
    return None if recorded is None else [Session.model_validate(one) for one in recorded["sessions"]]


@action(
    "end_sessions",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(5),
    plan=_plan,
    verify=_verify,
    undo=Irreversible("Who was thrown out has to log in again, and what was not saved is lost."),
    examples=(
        "web-01 --user alice --wait",
        "web-01 --session c2 --session 17 --grace 1s --wait",
        "--label env=prod --user alice --everything --dry-run",
    ),
)
async def end_sessions(host: Host, params: EndSessions) -> SessionsEnded:
    """End sessions of people who are logged in, and see that their processes are gone.

    They are hung up on, then asked, then killed. The session in which Stanch itself runs is never ended. This keeps
    nobody out: lock-account does.
    """
    sessions = _recorded(host)
    if sessions is None:
        sessions = await _meant(host, params)
        outside = await _outside(host, params, sessions)
        record = {"sessions": [one.model_dump(mode="json") for one in sessions], "others": outside}
        await host.journal.record(record)
    else:
        outside = int((host.journal.recorded() or {})["others"])
    host.progress(0, len(sessions), "sessions")
    ends = await hang_up(host, sessions, grace=params.grace)
    left = await end_all(host, lambda: _others(host, params), grace=params.grace)
    host.progress(len(sessions), len(sessions), "sessions")
    return SessionsEnded(sessions=ends, others=outside, left=left.ones[:MAX_LEFT], why=left.why(left.ones))


async def _outside(host: Host, params: EndSessions, sessions: Sequence[Session]) -> int:
    """How many processes of the accounts are in no session."""
    inside = {process for ones in await host.accounts.processes(sessions) for process in ones}
    return len(set(await _others(host, params)) - inside)
