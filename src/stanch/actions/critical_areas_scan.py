"""Look for malware where it must be to matter: what starts by itself, what runs, modules, boot files."""

from typing import Annotated

from pydantic import Field

from stanch.actions.malware_scan import restore_what_was_removed
from stanch.core.action import AfterCrash, Check, Concurrency, Pair, Plan, Risk, Undo, action
from stanch.core.host import Host
from stanch.core.malware import Hunt, Hunted, hunt, plan_hunt, verify_hunt
from stanch.core.scan_scope import LARGEST
from stanch.core.scanning import Area, Files
from stanch.core.types import Exclusion, Size, hours


class CriticalAreasScan(Hunt):
    """With what, and what is done about finds."""

    memory: bool = True
    """Look into the memory of processes, too."""

    exclude: Annotated[tuple[Exclusion, ...], Field(max_length=1000)] = ()
    """What to leave out, with everything below: a path or a pattern."""

    max_file_size: Annotated[Size, Field(ge=1, le=2**50)] = LARGEST
    """Skip larger files, and tell them."""


def _files(params: CriticalAreasScan) -> Files:
    return Files(area=Area.CRITICAL, exclude=params.exclude, max_size=params.max_file_size)


async def _plan(host: Host, params: CriticalAreasScan) -> Plan:
    """With what it would look, and what it would do about finds."""
    return await plan_hunt(host, params, _files(params), memory=params.memory)


async def _verify(host: Host, _params: CriticalAreasScan, result: Hunted | None) -> Check:
    """Is everything in the vault that was to go there?"""
    return await verify_hunt(host, result)


@action(
    "critical_areas_scan",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(12),
    plan=_plan,
    verify=_verify,
    undo=Undo("restore", restore_what_was_removed),
    openc2=Pair("scan", "device"),
    examples=(
        "web-01 --wait",
        "web-01 --quarantine --end-processes --reason 'INC-7' --wait",
        "--label env=prod --content implants --no-memory",
        "web-01 --rules ./rootkit.yar --dry-run",
    ),
)
async def critical_areas_scan(host: Host, params: CriticalAreasScan) -> Hunted:
    """Look for malware in what starts by itself, what runs and its libraries, kernel modules, boot files, and memory.

    Takes a minute or two where a scan of everything takes hours. Without --rules and --content, everything that is
    published to the endpoint is used, and a small set of rules that comes with Stanch. What is found can go into the
    vault, and the processes that run it can be ended; what the machine needs to run is never taken away: it is told.
    """
    return await hunt(host, params, _files(params), memory=params.memory)
