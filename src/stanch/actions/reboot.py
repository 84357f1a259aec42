"""Restart a machine, or switch it off."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from stanch.core.action import AfterCrash, Check, Irreversible, Params, Plan, Result, Risk, Step, action
from stanch.core.errors import ActionFailed, Expired, Protected, Unsupported
from stanch.core.host import Host
from stanch.core.machine import Ending, Hindrance
from stanch.core.types import SHORTEST, Duration, Text, hours, minutes, seconds, show_duration

MAX_DELAY = hours(1)

_END_WITHIN = minutes(2)
"""How long init may take to end the agent, once it has been asked."""

_LATE = minutes(10)
"""How long after its time it is still meant: an agent that stood still, or a machine that slept, asks no more then."""

_LIMIT = minutes(70)
"""The longest delay, the wait for the end, and some room."""


class Reboot(Params):
    """When, and what people are told."""

    message: Text = ""
    """Shown before on the terminals of those who are logged in; nothing is shown if it is empty."""

    delay: Annotated[Duration, Field(le=MAX_DELAY)] | None = None
    """Wait for so long first, at most an hour; a cancel stops it until then. Ten minutes after that it is too late."""

    even_if: bool = False
    """Do it even if packages are being changed, or a program asks not to."""


class Shutdown(Reboot):
    """When, and what people are told."""


class BroughtDown(Result):
    """The machine has been brought down, and its agent runs again."""

    boot_before: Text
    """The boot that was ended."""

    boot_now: Text
    """The boot in which this was told."""

    told: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Terminals on which the message was shown."""

    hindrances: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """What it was done in spite of."""


async def _refuse(host: Host, params: Reboot) -> tuple[Hindrance, ...]:
    """What stands in the way, but is no reason to refuse; Unsupported or Protected if something is."""
    why = await host.machine.why_not()
    if why:
        raise Unsupported("This machine cannot be brought down from here", got=why)
    found = await host.machine.hindrances()
    grave = [one.what for one in found if one.grave]
    if grave and not params.even_if:
        raise Protected(
            "Something on this machine must not be interrupted",
            got="; ".join(grave)[:2000],
            hint="Wait for it, or say even_if (--even-if).",
        )
    return found


async def _plan_reboot(host: Host, params: Reboot) -> Plan:
    """Would it be done, and who is disturbed?"""
    return await _plan(host, params)


async def _plan_shutdown(host: Host, params: Shutdown) -> Plan:
    """Would it be done, and who is disturbed?"""
    return await _plan(host, params)


async def _plan(host: Host, params: Reboot) -> Plan:
    found = await _refuse(host, params)
    sessions = await host.accounts.sessions()
    when = f" in {show_duration(params.delay)}" if params.delay else ""
    steps = [Step(what="Show a message on every terminal", target=params.message)] if params.message else []
    steps.append(Step(what=f"End all that runs{when}, and bring the machine down", target=await host.machine.boot_id()))
    users = ", ".join(dict.fromkeys(one.user for one in sessions))
    warnings = [one.what for one in found] + ([f"Logged in: {users}"] if users else [])
    return Plan(changes=True, steps=tuple(steps), warnings=tuple(one[:4000] for one in warnings[:100]))


async def _verify_reboot(host: Host, _params: Reboot, result: BroughtDown | None) -> Check:
    """Is this another boot than the one that was to end?"""
    return await _verify(host, result)


async def _verify_shutdown(host: Host, _params: Shutdown, result: BroughtDown | None) -> Check:
    """Is this another boot than the one that was to end?"""
    return await _verify(host, result)


async def _verify(host: Host, result: BroughtDown | None) -> Check:
    # Init, once asked, cannot be stopped: that counts as done, so that a cancel does not call it absent.
    recorded = host.journal.recorded() or {}
    before = result.boot_before if result is not None else recorded.get("boot")
    if before is None:
        return Check.of(False, "nothing was begun")
    now = await host.machine.boot_id()
    asked = result is None and bool(recorded.get("asked"))
    return Check.of(now != before or asked, f"boot {before} was to end, this is boot {now}; init was asked: {asked}")


_LOOK = "Something holds its end up: look at the console of the machine, or `systemctl list-jobs`."
_UNDO = Irreversible("What ran has ended, and what was only in memory is lost, evidence too.")
_BOTH: dict[str, Any] = {
    "version": 1,
    "risk": Risk.DESTRUCTIVE,
    "after_crash": AfterCrash.VERIFY_THEN_FINISH,
    # Shared: it may wait for an hour, and an isolation must not wait for it.
    "time_limit": _LIMIT,
    "undo": _UNDO,
    "typed": True,
}


@action(
    "reboot",
    examples=(
        "web-01 --confirm web-01 --wait",
        "web-01 --delay 5m --message 'This machine is restarted in five minutes.'",
        "--label env=prod --dry-run",
    ),
    plan=_plan_reboot,
    verify=_verify_reboot,
    **_BOTH,
)
async def reboot(host: Host, params: Reboot) -> BroughtDown:
    """Restart the machine in order, and see that it has come up again.

    Its memory is lost: take what you need first. It is refused while packages are being changed. The answer comes when
    the agent runs again.
    """
    return await _bring_down(host, params, Ending.REBOOT)


@action(
    "shutdown",
    examples=("web-01 --confirm web-01", "web-01 --even-if --confirm web-01 --reason 'Wiper'", "web-01 --dry-run"),
    plan=_plan_shutdown,
    verify=_verify_shutdown,
    **_BOTH,
)
async def shutdown(host: Host, params: Shutdown) -> BroughtDown:
    """Switch the machine off in order. Nobody can switch it on again from here.

    Its memory is lost: take what you need first. It is refused while packages are being changed. The answer comes when
    somebody has switched it on again; until then the task runs, and the endpoint is offline.
    """
    return await _bring_down(host, params, Ending.SHUTDOWN)


async def _bring_down(host: Host, params: Reboot, ending: Ending) -> BroughtDown:
    """Write down which boot is to end, end it, and tell in the next one."""
    record = dict(host.journal.recorded() or {})
    if not record:
        found = await _refuse(host, params)
        record = {"boot": await host.machine.boot_id(), "hindrances": [one.what for one in found], "told": 0}
        record["up"] = host.machine.up_for().total_seconds()
        await host.journal.record(record)
    if await host.machine.boot_id() == record["boot"]:
        _refuse_late(host, params, record)
        record = await _announce(host, params, record)
        await host.machine.bring_down(ending)
        host.progress(0, None, "", "init was asked")
        # Init ends the agent meanwhile: this run goes on in the next boot, from the record.
        await host.machine.await_end(within=_END_WITHIN)
    now = await host.machine.boot_id()
    if now == record["boot"]:
        raise ActionFailed(
            "Init was asked to bring the machine down, and it is still up",
            got=f"boot {now}, {show_duration(_END_WITHIN)} later",
            hint=_LOOK,
        )
    told = [str(one)[:4000] for one in record["hindrances"][:100]]
    return BroughtDown(boot_before=record["boot"], boot_now=now, told=record["told"], hindrances=tuple(told))


def _since(host: Host, record: Mapping[str, Any]) -> timedelta:
    """How long ago it was begun, in this boot."""
    return host.machine.up_for() - seconds(record["up"])


def _refuse_late(host: Host, params: Reboot, record: Mapping[str, Any]) -> None:
    """Nobody expects it any more, once its time is long over: the agent stood still meanwhile, or the machine slept."""
    passed, meant = _since(host, record), params.delay or timedelta()
    if passed <= meant + _LATE:
        return
    got = f"begun {show_duration(passed)} ago, in this boot"
    if record.get("asked"):
        raise ActionFailed("Init was asked to bring the machine down, and it is still up", got=got, hint=_LOOK)
    raise Expired(
        "The machine was not brought down: its time was over before the agent could do it",
        got=got,
        expected=f"at most {show_duration(meant + _LATE)}",
        hint="Order it anew, if it is still meant.",
    )


async def _announce(host: Host, params: Reboot, record: dict[str, Any]) -> dict[str, Any]:
    """Tell people and wait, unless init was asked already; then write down that it is being asked."""
    if record.get("asked"):
        return record
    if params.message:
        record = {**record, "told": await host.users.tell(params.message)}
    left = (params.delay or timedelta()) - _since(host, record)
    if params.delay and left > timedelta():
        host.progress(0, None, "", f"waits for {show_duration(max(SHORTEST, left))}")
        await asyncio.sleep(left.total_seconds())
        _refuse_late(host, params, record)
    # Again: meanwhile somebody may have begun to change packages.
    await _refuse(host, params)
    record = {**record, "asked": True}
    await host.journal.record(record)
    return record
