"""Lock an account of an endpoint, and open it again as it was."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from stanch.core.accounts import MAX_SESSIONS, Account, AccountName, Before, Session
from stanch.core.action import AfterCrash, Check, Concurrency, Params, Plan, Result, Risk, Step, Undo, action
from stanch.core.errors import Protected, TargetGone, Unsupported
from stanch.core.hanging_up import SessionEnd, SessionEnds, hang_up, still_there
from stanch.core.host import Host
from stanch.core.types import SHORTEST, Duration, Instant, Text, minutes, seconds, show_duration

PREFIX = "account:"
"""Effects of locked accounts are called `account:NAME`."""

_MAX_EFFECT = 64
_GRACE = seconds(6)
_ROUNDS = 3


class LockAccount(Params):
    """Which account, and for how long."""

    name: AccountName
    """Account name."""

    duration: Duration | None = None
    """Unlock it again after this long, even if the server stays silent; `none` (in JSON: null) for never."""

    end_sessions: bool = True
    """End its sessions, once it is locked."""

    system_too: bool = False
    """Lock it even if it is an account of services, which may stop working."""


class AccountLocked(Result):
    """The account is locked."""

    changed: bool
    """False if it was locked already; then only its end is another one."""

    name: AccountName
    """Which account."""

    was: Before | None = None
    """How it was before Stanch locked it; null if it was locked already, not by Stanch."""

    until: Instant | None = None
    """When it unlocks itself; null for never."""

    sessions: SessionEnds = ()
    """Its sessions, and whether they have ended."""

    others: Annotated[int, Field(ge=0, le=4_194_304)] | None = None
    """Processes that have its rights still, outside of its sessions: services, jobs. `end-sessions --everything` ends
    them; null if they are not counted, for a user id of the machine itself."""


class UnlockAccount(Params):
    """Which account."""

    name: AccountName
    """Account name."""

    system_too: bool = False
    """Unlock it even if it is an account of services that Stanch has not locked."""


class AccountUnlocked(Result):
    """The account is as it was before it was locked."""

    changed: bool
    """False if it was not locked."""

    name: AccountName
    """Which account."""

    remaining: Duration | None = None
    """How long the lock would have lasted; null for never, or if Stanch had not locked it."""

    lost: Annotated[tuple[Text, ...], Field(max_length=10)] = ()
    """What is not as it was, in words."""


def effect_name(name: str) -> str:
    """The effect of a locked account; of a long name only the beginning, and a hash of all of it."""
    if len(PREFIX + name) <= _MAX_EFFECT:
        return PREFIX + name
    tail = "~" + hashlib.sha256(name.encode()).hexdigest()[:16]
    return (PREFIX + name)[: _MAX_EFFECT - len(tail)] + tail


def _kept(host: Host, name: str) -> Before | None:
    """How the account was before Stanch locked it; None if Stanch has not locked it."""
    effect = host.effects.current(effect_name(name))
    before = None if effect is None else effect.private.get("before")
    return Before.model_validate(before) if isinstance(before, Mapping) else None


async def _account(host: Host, name: str) -> Account:
    """The account; Unsupported if a directory has it, TargetGone if nobody has."""
    found = await host.accounts.find(name)
    if found is not None:
        return found
    if await host.accounts.is_known(name):
        raise Unsupported(
            f"The account {name} is not one of this machine's own: a directory has it",
            expected="a line in /etc/passwd",
            hint="Lock it in the directory (LDAP, Active Directory, IPA); end-sessions works here.",
        )
    raise TargetGone(f"There is no account {name}", expected="an account of this machine")


async def _refuse_protected(host: Host, account: Account, *, system_too: bool) -> None:
    why = await host.accounts.why_protected(account.name)
    if why:
        raise Protected(f"The account {account.name} must not be locked or unlocked", got=why)
    if account.system and not system_too:
        raise Protected(
            f"The account {account.name} is one of services",
            got=f"user id {account.uid}",
            expected="an account of people",
            hint="Say system_too (--system-too) if it is meant, and look first what runs with it.",
        )


async def _sessions(host: Host, name: str) -> list[Session]:
    return [one for one in await host.accounts.sessions() if one.user == name][:MAX_SESSIONS]


# --- lock ------------------------------------------------------------------------------------------------------------


async def _plan_lock(host: Host, params: LockAccount) -> Plan:
    """What would be locked, and whose sessions would end."""
    account = await _account(host, params.name)
    await _refuse_protected(host, account, system_too=params.system_too)
    lasts = "until it is unlocked" if params.duration is None else f"for {show_duration(params.duration)}"
    steps = (
        []
        if account.closed
        else [Step(what=f"Lock the password and let the account expire {lasts}", target=params.name)]
    )
    sessions = await _sessions(host, params.name) if params.end_sessions else []
    steps += [
        Step(what=f"End a session of {one.processes} processes", target=one.id) for one in sessions if not one.own
    ]
    kept = tuple(f"Session {one.id} is left: Stanch itself runs in it" for one in sessions if one.own)
    return Plan(changes=bool(steps), steps=tuple(steps), warnings=kept[:100])


async def _verify_lock(host: Host, params: LockAccount, result: AccountLocked | None) -> Check:
    """Is every way in closed, and has every session ended? After a crash, the first is what counts."""
    if result is None and (host.journal.recorded() or {}).get("renews"):
        # To call it absent would let a cancel open what was locked before.
        return Check.of(True, "a renewal was begun: it is finished")
    account = await host.accounts.find(params.name)
    if account is None or not account.closed:
        return Check.of(False, _shown(account))
    left = [] if result is None else await still_there(host, result.sessions)
    return Check.of(not left, f"{_shown(account)}; sessions left: {', '.join(left) or 'none'}"[:4000])


def _shown(account: Account | None) -> str:
    if account is None:
        return "the account is gone"
    return f"password locked: {account.locked}, expired: {account.expired}"


@action(
    "lock_account",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(5),
    plan=_plan_lock,
    verify=_verify_lock,
    undo=Undo(
        "unlock_account",
        lambda params, result: (
            UnlockAccount(name=result.name, system_too=params.system_too) if result.changed else None
        ),
    ),
    examples=(
        "web-01 --name alice --wait",
        "--label env=prod --name deploy --duration 12h --no-end-sessions --reason 'Key stolen'",
    ),
)
async def lock_account(host: Host, params: LockAccount) -> AccountLocked:
    """Close every way into an account: password, SSH keys and all others; its sessions are ended.

    The password is locked and the account expires, which login, sshd, su, sudo and cron respect. How it was before is
    kept, and comes back exactly. Only for accounts of the machine itself; one of a directory is locked there.
    """
    account = await _account(host, params.name)
    await _refuse_protected(host, account, system_too=params.system_too)
    record = dict(host.journal.recorded() or await _begin(host, account))
    before = None if record["before"] is None else Before.model_validate(record["before"])
    until = None if before is None else await _lock(host, params, before, renews=record["renews"])
    ends = await _hang_up(host, params.name) if params.end_sessions else ()
    return AccountLocked(
        changed=record["changed"],
        name=params.name,
        was=before,
        until=until,
        sessions=ends,
        others=await _others(host, params.name),
    )


async def _hang_up(host: Host, name: str) -> tuple[SessionEnd, ...]:
    """End its sessions, and those of whoever was being let in while it was locked."""
    ends: dict[tuple[str, Instant | None], SessionEnd] = {}
    for _ in range(_ROUNDS):
        found = [one for one in await _sessions(host, name) if (one.id, one.since) not in ends]
        if not found:
            break
        ends |= {(one.id, one.since): one for one in await hang_up(host, found, grace=_GRACE)}
    return tuple(ends.values())[:MAX_SESSIONS]


async def _others(host: Host, name: str) -> int | None:
    """How many processes have its rights outside of its sessions; None where that cannot be told."""
    try:
        everything = set(await host.accounts.processes_of(name))
    except Protected:
        return None
    inside = {one for ones in await host.accounts.processes(await _sessions(host, name)) for one in ones}
    return len(everything - inside)


async def _begin(host: Host, account: Account) -> dict[str, Any]:
    """Write down how it is: as Stanch keeps it, if Stanch locked it; null if somebody else did, and all is closed."""
    kept = _kept(host, account.name)
    before = kept if account.closed else _merged(kept, account, await host.accounts.before(account.name))
    record = {
        "before": None if before is None else before.model_dump(mode="json"),
        "changed": not account.closed,
        "renews": kept is not None,
    }
    await host.journal.record(record)
    return record


def _merged(kept: Before | None, account: Account, now: Before) -> Before:
    """How it was before Stanch locked it, but for what somebody else has opened since: of that, how it is now."""
    if kept is None:
        return now
    return Before(
        password_locked=account.locked and kept.password_locked,
        expires=kept.expires if account.expired else now.expires,
    )


async def _lock(host: Host, params: LockAccount, before: Before, *, renews: bool) -> Any:
    """Keep how it was, then lock it; when it ends. What cannot be locked is not kept, unless it was before."""
    if renews:
        # It is kept already: a renewal that fails must not have moved its end.
        await host.accounts.lock(params.name)
    effect = await host.effects.hold(
        effect_name(params.name),
        lift_action="unlock_account",
        lift_params={"name": params.name, "system_too": params.system_too},
        detail={"name": params.name},
        private={"before": before.model_dump(mode="json")},
        lasts=params.duration,
    )
    try:
        if not renews:
            await host.accounts.lock(params.name)
    except Exception:
        await host.effects.drop(effect.name)
        raise
    return effect.until


# --- unlock ----------------------------------------------------------------------------------------------------------


async def _plan_unlock(host: Host, params: UnlockAccount) -> Plan:
    """What would be put back."""
    kept = _kept(host, params.name)
    account = await _account(host, params.name)
    if kept is None:
        await _refuse_protected(host, account, system_too=params.system_too)
    changes = kept is not None or account.locked or account.expired
    what = "Put back how it was before Stanch locked it" if kept else "Unlock the password, and let it not be expired"
    warnings = () if kept or not changes else (NOT_OURS,)
    return Plan(changes=changes, steps=(Step(what=what, target=params.name),) if changes else (), warnings=warnings)


NOT_OURS = "Stanch has not locked this account, so nobody knows here how it was: it will not expire any more."


async def _verify_unlock(host: Host, params: UnlockAccount, result: AccountUnlocked | None) -> Check:
    """Is nothing kept any more, and is it as it was? After a crash, what is half open is finished."""
    if result is None:
        begun = (host.journal.recorded() or {}).get("changed", False)
        return Check.of(bool(begun), "it was begun: it is finished" if begun else "nothing was begun")
    account = await host.accounts.find(params.name)
    held = host.effects.current(effect_name(params.name)) is not None
    open_again = account is None or not account.closed or bool(result.lost) or not result.changed
    return Check.of(open_again and not held, f"{_shown(account)}, kept: {held}")


@action(
    "unlock_account",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(2),
    plan=_plan_unlock,
    verify=_verify_unlock,
    undo=Undo(
        "lock_account",
        lambda params, result: (
            LockAccount(name=result.name, duration=result.remaining, end_sessions=False, system_too=params.system_too)
            if result.changed
            else None
        ),
    ),
    examples=("web-01 --name alice --wait", "--label env=prod --name deploy --dry-run"),
)
async def unlock_account(host: Host, params: UnlockAccount) -> AccountUnlocked:
    """Put an account back as it was before it was locked.

    A password that was locked before stays locked, and an old date of expiry comes back. Of an account that Stanch has
    not locked, the password is unlocked and the expiry is taken away. An account without a password is never opened.
    """
    record = dict(host.journal.recorded() or await _look(host, params))
    if record["before"] is None:
        # Of an account that is gone nothing can come back, and nothing is to be kept.
        await host.effects.drop(effect_name(params.name))
        return AccountUnlocked(changed=False, name=params.name, lost=tuple(record["lost"]))
    lost = list(record["lost"])
    if record["changed"]:
        lost += await host.accounts.unlock(params.name, Before.model_validate(record["before"]))
    await host.effects.drop(effect_name(params.name))
    return AccountUnlocked(changed=record["changed"], name=params.name, remaining=record["remaining"], lost=tuple(lost))


async def _look(host: Host, params: UnlockAccount) -> dict[str, Any]:
    """What is to be put back, written down."""
    kept = _kept(host, params.name)
    if kept is not None and await host.accounts.find(params.name) is None:
        record: dict[str, Any] = {"before": None, "changed": False, "lost": ["The account is gone."], "remaining": None}
    else:
        record = await _look_at(host, params, kept)
    await host.journal.record(record)
    return record


async def _look_at(host: Host, params: UnlockAccount, kept: Before | None) -> dict[str, Any]:
    account = await _account(host, params.name)
    now = await host.accounts.before(params.name)
    changed = kept is not None or account.locked or account.expired
    if kept is None:
        await _refuse_protected(host, account, system_too=params.system_too)
    before = kept or Before(password_locked=False, expires="" if account.expired else now.expires)
    left = host.effects.remaining(effect_name(params.name))
    return {
        "before": before.model_dump(mode="json"),
        "changed": changed,
        "lost": [NOT_OURS] if changed and kept is None else [],
        "remaining": None if left is None else _text(left),
    }


def _text(left: timedelta) -> str:
    return show_duration(max(SHORTEST, left))
