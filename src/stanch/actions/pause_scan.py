"""Let scans on an endpoint wait, and go on."""

from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Concurrency, Params, Plan, Result, Risk, Step, action
from stanch.core.errors import TargetGone
from stanch.core.host import Host
from stanch.core.types import Id, minutes

MAX_SCANS = 100


class WhichScan(Params):
    """Which scan."""

    task: Id | None = None
    """The task whose scan is meant; all scans that run there, if none is named."""


class PauseScan(WhichScan):
    """Which scans wait."""


class ResumeScan(WhichScan):
    """Which scans go on."""


class ScanPaused(Result):
    """Which scans wait, or go on."""

    scans: Annotated[tuple[Id, ...], Field(max_length=MAX_SCANS)]
    """The tasks that are meant."""

    changed: Annotated[tuple[Id, ...], Field(max_length=MAX_SCANS)]
    """Of them, those that did otherwise before."""


def _meant(host: Host, params: WhichScan) -> tuple[str, ...]:
    running = tuple(host.scanner.running())[:MAX_SCANS]
    if params.task is None:
        return running
    if params.task not in running:
        raise TargetGone(
            "No such scan runs here",
            got=params.task,
            expected=", ".join(running) or "none runs",
            hint="It may be over.",
        )
    return (params.task,)


async def _set(host: Host, params: WhichScan, *, paused: bool) -> ScanPaused:
    meant = _meant(host, params)
    changed = [one for one in meant if await host.scanner.pause(one, paused=paused)]
    return ScanPaused(scans=meant, changed=tuple(changed))


def _planned(host: Host, params: WhichScan, what: str) -> Plan:
    return Plan(changes=False, steps=tuple(Step(what=what, target=one) for one in _meant(host, params)))


async def _plan_pause(host: Host, params: PauseScan) -> Plan:
    """Which scans would wait."""
    return _planned(host, params, "Let the scan wait")


async def _plan_resume(host: Host, params: ResumeScan) -> Plan:
    """Which scans would go on."""
    return _planned(host, params, "Let the scan go on")


@action(
    "pause_scan",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.SHARED,
    time_limit=minutes(1),
    plan=_plan_pause,
    examples=("web-01 --wait", "--label env=prod --reason 'peak hours'", "web-01 --task tsk_01 --wait"),
)
async def pause_scan(host: Host, params: PauseScan) -> ScanPaused:
    """Let scans wait where they are, between two files; `resume-scan` lets them go on.

    The time limit of the scan's own order goes on. A restart of the agent lets a scan go on, too.
    """
    return await _set(host, params, paused=True)


@action(
    "resume_scan",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.SHARED,
    time_limit=minutes(1),
    plan=_plan_resume,
    examples=("web-01 --wait", "web-01 --task tsk_01 --wait"),
)
async def resume_scan(host: Host, params: ResumeScan) -> ScanPaused:
    """Let scans go on that were paused.

    They go on with the file at which they stopped.
    """
    return await _set(host, params, paused=False)
