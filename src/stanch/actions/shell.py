"""Open an interactive terminal on an endpoint."""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

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
from stanch.core.host import Host
from stanch.core.processes import ProcessId
from stanch.core.terminal import Shell, Why
from stanch.core.types import Duration, EndpointPath, Name, hours, minutes, show_duration

MAX_SIDE = 1000
LONGEST = hours(23)
"""Less than the limit of the task: a terminal is closed, not cut off."""

_COUNT = Field(ge=0, le=2**63 - 1)


def _not_too_long(lasts: timedelta) -> timedelta:
    if lasts > LONGEST:
        raise ValueError(f"expected at most {show_duration(LONGEST)}")
    return lasts


class OpenShell(Params):
    """Which shell, as whom, for how long."""

    user: Name = "root"
    """Account to act as; its groups and home come with it."""

    program: EndpointPath | None = None
    """What to run; without it, the account's login shell, or /bin/sh where that lets nobody in."""

    folder: EndpointPath | None = None
    """Where it starts; without it, in the account's home."""

    columns: Annotated[int, Field(ge=1, le=MAX_SIDE)] = 80
    """Characters in a line of the window, to begin with."""

    rows: Annotated[int, Field(ge=1, le=MAX_SIDE)] = 24
    """Lines of the window, to begin with."""

    idle: Duration = minutes(15)
    """Close it when nobody has typed for so long."""

    lasts: Annotated[Duration, AfterValidator(_not_too_long)] = hours(8)
    """Close it after so long, whatever happens; at most 23 hours."""


class ClosedShell(Result):
    """How it ended."""

    why: Why
    """Why it was closed."""

    code: Annotated[int, Field(ge=0, le=255)] | None = None
    """Exit code of the shell; null if a signal ended it."""

    signal: Annotated[str, Field(max_length=20)] | None = None
    """The signal that ended it."""

    process: ProcessId
    """Which process it was."""

    sent: Annotated[int, _COUNT]
    """Bytes that it wrote."""

    received: Annotated[int, _COUNT]
    """Bytes that were typed."""


def _shell(params: OpenShell) -> Shell:
    return Shell(
        program=params.program,
        user=None if params.user == "root" else params.user,
        folder=params.folder,
        columns=params.columns,
        rows=params.rows,
        idle=params.idle,
        lasts=params.lasts,
    )


async def _plan(host: Host, params: OpenShell) -> Plan:
    """Which shell, as whom, and could it be opened? Whether it is switched on at all, the agent has said by now."""
    why_not = await host.terminals.why_not(_shell(params))
    program = params.program or "the login shell"
    return Plan(
        changes=why_not is None,
        steps=(Step(what=f"Open a terminal as {params.user} with", target=program),),
        warnings=(
            *((f"Will fail: {why_not}"[:4000],) if why_not else ()),
            "What is typed and shown is recorded, and kept as evidence.",
            "Whoever sits there may do everything that this account may; nothing of it can be undone from here.",
        ),
    )


async def _verify(host: Host, _params: OpenShell, result: ClosedShell | None) -> Check:
    """Has everything ended that ran in it? After a crash, the record says which shell it was."""
    shell = result.process if result else _recorded(host)
    if shell is None:
        return Check.of(False, "no shell was started")
    left = [one.pid for one in await host.processes.of_task(host.task)]
    if await host.processes.alive(shell):
        left.append(shell.pid)
    if left:
        pids = ", ".join(map(str, sorted(set(left))[:20]))
        return Check.of(False, f"still running: pids {pids}")
    return Check.of(True, f"shell {shell.pid} and what it started have ended")


@action(
    "shell",
    version=1,
    risk=Risk.DESTRUCTIVE,
    after_crash=AfterCrash.UNKNOWN,
    concurrency=Concurrency.SHARED,
    time_limit=hours(24),
    plan=_plan,
    verify=_verify,
    undo=Irreversible("What a person did in a shell is theirs to undo; the recording shows what it was."),
    opt_in=True,
    interactive=True,
    examples=("web-01", "web-01 --user www-data --program /bin/bash --folder /srv/www --idle 5m --lasts 1h"),
)
async def shell(host: Host, params: OpenShell) -> ClosedShell:
    """Open an interactive terminal on one endpoint.

    It is refused unless the owner of the machine has switched it on. All that is typed and shown is recorded with its
    timing. When it is closed, everything that ran in it is ended.
    """
    processes: list[ProcessId] = []

    async def started(one: ProcessId) -> None:
        processes.append(one)
        await host.journal.record({"shell": one.model_dump()})
        host.progress(0, None, "bytes", f"the shell is process {one.pid}")

    closed = await host.terminals.open(_shell(params), started=started)
    return ClosedShell(
        why=closed.why,
        code=closed.code,
        signal=closed.signal,
        process=processes[0],
        sent=closed.sent,
        received=closed.received,
    )


def _recorded(host: Host) -> ProcessId | None:
    recorded = (host.journal.recorded() or {}).get("shell")
    return None if recorded is None else ProcessId.model_validate(recorded)
