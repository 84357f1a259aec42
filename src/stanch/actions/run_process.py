"""Run a program on an endpoint."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from stanch.core.action import (
    AfterCrash,
    Check,
    Concurrency,
    Irreversible,
    Pair,
    Params,
    Plan,
    Result,
    Risk,
    Step,
    Verdict,
    action,
)
from stanch.core.errors import ActionFailed, StanchError, TimedOut
from stanch.core.host import Host
from stanch.core.processes import ProcessId
from stanch.core.programs import TASK_VARIABLE, Exit, Output, Program, Resources, Running
from stanch.core.types import (
    Duration,
    EndpointPath,
    EvidenceRef,
    Sha256,
    Size,
    Text,
    TypeInfo,
    hours,
    minutes,
    seconds,
    show_duration,
)

MAX_ARGUMENTS = 1000
MAX_ARGUMENT = 131_071
"""Characters of one argument; the kernel takes no more bytes, either."""

MEBIBYTE = 1_048_576
LOOK_EVERY = seconds(1)

_VARIABLE = r"^[^=\0]{1,1000}=[^\0]*$"


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("expected text without NUL")
    return text


def _parse_variable(text: str) -> str:
    """The same text; ValueError, in words, if it sets no variable that may be set."""
    name, equals, _value = text.partition("=")
    if not name or not equals or "\0" in text:
        raise ValueError(f"got {text[:100]!r}, expected NAME=VALUE without NUL")
    if name == TASK_VARIABLE:
        raise ValueError(f"got {TASK_VARIABLE}, expected another name: this one tells the task")
    return text


Argument = Annotated[str, StringConstraints(max_length=MAX_ARGUMENT), AfterValidator(_without_nul)]
"""One argument, as it is; nothing in it is expanded."""

Variable = Annotated[
    str,
    StringConstraints(max_length=MAX_ARGUMENT),
    AfterValidator(_parse_variable),
    WithJsonSchema({"type": "string", "pattern": _VARIABLE, "maxLength": MAX_ARGUMENT}),
    TypeInfo("variable", "LANG=C", "An environment variable as NAME=VALUE."),
]


class RunProcess(Params):
    """What to run, as whom, and how much of it."""

    path: EndpointPath
    """The program: an ELF file or a script with a `#!` line. Nothing is searched, and no shell takes part."""

    argument: Annotated[tuple[Argument, ...], Field(max_length=MAX_ARGUMENTS)] = ()
    """Its arguments, one each time, as they are; nothing is expanded."""

    folder: EndpointPath | None = None
    """Where it starts; without it, in `/`."""

    environment: Annotated[tuple[Variable, ...], Field(max_length=MAX_ARGUMENTS)] = ()
    """Variables beside PATH, LANG, HOME, USER, LOGNAME and SHELL; it gets none of the agent's own."""

    user: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """The account that it runs in, with its groups; without it, root's."""

    sha256: Sha256 | None = None
    """Run it only if the file is this one. Of one that others may write to, a copy is run that they cannot change."""

    time_limit: Annotated[Duration, Field(le=hours(24))] = minutes(5)
    """How long it may run, up to 24h; then it is ended, and the task has failed."""

    grace: Annotated[Duration, Field(le=minutes(10))] = seconds(5)
    """Between SIGTERM and SIGKILL when it is ended at its limit."""

    keep: Annotated[Size, Field(ge=0, le=2**30)] = Size(10 * MEBIBYTE)
    """Bytes of each of its two output streams that are kept, the first ones; the rest is counted only."""

    evidence: bool = True
    """Send what was kept of each stream as evidence; an empty one is not sent."""

    keep_children: bool = False
    """Let what it leaves running in the background go on; otherwise it is ended with it."""

    max_memory: Annotated[Size, Field(ge=MEBIBYTE, le=2**50)] | None = None
    """Memory that it and its descendants may use; needs a control group, and is refused where there is none."""

    max_cpu: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Percent of one processor that they may use; needs a control group."""

    max_processes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Processes and threads that they may be at a time; needs a control group."""

    def program(self) -> Program:
        """What the endpoint is asked for."""
        return Program(
            path=self.path,
            arguments=self.argument,
            folder=self.folder,
            environment=dict(_split(one) for one in self.environment),
            user=self.user,
            sha256=self.sha256,
            keep=self.keep,
            resources=Resources(memory=self.max_memory, cpu_percent=self.max_cpu, processes=self.max_processes),
            outlives=self.keep_children,
        )


class Ran(Result):
    """What became of the program."""

    process: ProcessId
    """Its process, as list-processes showed it."""

    exit: Exit
    """How it ended. An exit code other than 0 is told here; the task is done all the same."""

    stdout: Output
    """What it wrote."""

    stderr: Output
    """What it complained."""

    evidence: Annotated[tuple[EvidenceRef, ...], Field(max_length=2)] = ()
    """Where the kept output is now."""


def _split(variable: str) -> tuple[str, str]:
    name, _, value = variable.partition("=")
    return name, value


# --- before and after ------------------------------------------------------------------------------------------------


async def _plan(host: Host, params: RunProcess) -> Plan:
    """What would be run, as whom, and what is odd about it. Refused as the order would be."""
    found = await host.programs.examine(params.program())
    ends = f"{show_duration(params.time_limit)} at most"
    what = f"Run {found.kind} as {found.user}, {ends}; SHA-256 {found.sha256}"
    line = " ".join([str(found.path), *params.argument])
    return Plan(changes=True, steps=(Step(what=what, target=line[:4000]),), warnings=(*found.warnings, *_warn(params)))


def _warn(params: RunProcess) -> tuple[str, ...]:
    told = {
        "What it does cannot be undone by Stanch": True,
        "What it leaves running goes on; kill-process --task ends it": params.keep_children,
        "Its output is counted, and not kept as evidence": not params.evidence,
    }
    return tuple(text for text, holds in told.items() if holds)


async def _verify(host: Host, params: RunProcess, result: Ran | None) -> Check:
    """Does it still run? After a crash, the record says which process it was, and how far it had come."""
    if result is None:
        return await _look_after_crash(host)
    left = await host.processes.of_task(host.task)
    if left and not params.keep_children:
        return Check(Verdict.CANNOT_TELL, f"still running: {', '.join(str(one.pid) for one in left[:20])}")
    return Check.of(True, f"it has ended; {len(left)} processes of it go on" if left else "it has ended, nothing runs")


async def _look_after_crash(host: Host) -> Check:
    recorded = host.journal.recorded()
    if recorded is None:
        return Check.of(False, "nothing was run")
    one = ProcessId.model_validate(recorded["process"])
    left = list(await host.processes.of_task(host.task))
    if await host.processes.alive(one) or left:
        pids = ", ".join(str(each.pid) for each in (left or [one])[:20])
        return Check(Verdict.CANNOT_TELL, f"it still runs (pids {pids}): kill-process --task {host.task} ends it")
    return Check(Verdict.CANNOT_TELL, f"process {one.pid} has ended; what it did until then stays")


# --- the deed --------------------------------------------------------------------------------------------------------


@action(
    "run_process",
    version=1,
    risk=Risk.DESTRUCTIVE,
    after_crash=AfterCrash.UNKNOWN,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(26),
    plan=_plan,
    verify=_verify,
    undo=Irreversible(
        "What a program did cannot be undone by Stanch; what still runs of it is ended with kill-process --task TASK."
    ),
    openc2=Pair("start", "process"),
    examples=(
        "web-01 --path /opt/incident/collect --argument=--all --wait",
        "web-01 --path /usr/bin/ss --argument=-tunap --user nobody --time-limit 30s",
        "web-01 --path /opt/incident/scan.sh --folder /srv --environment DEPTH=3 --keep 100MiB --max-memory 512MiB",
    ),
)
async def run_process(host: Host, params: RunProcess) -> Ran:
    """Run a program, and keep what it writes as evidence.

    It gets an empty input, a session and an environment of its own, and no shell. Whatever it starts ends with it,
    unless asked otherwise. Output is kept up to a limit and counted beyond it; it never holds the program up. The task
    is done when the program has ended, whatever its exit code: the result tells that one.
    """
    async with host.programs.run(params.program()) as running:
        await host.journal.record({"process": running.id.model_dump()})
        await running.begin()
        exit_ = await _watch(host, running, params.time_limit)
        if exit_ is None:
            ended = await running.end(grace=params.grace)
            raise await _timed_out(host, params, running, ended)
        evidence = await _send(host, params, running, exit_)
        return Ran(process=running.id, exit=exit_, stdout=running.stdout(), stderr=running.stderr(), evidence=evidence)


async def _watch(host: Host, running: Running, limit: timedelta) -> Exit | None:
    """Wait for its end, telling what it writes meanwhile; None if it does not come within the limit."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit.total_seconds()):
            while True:
                exit_ = await running.wait(within=min(LOOK_EVERY, limit))
                if exit_ is not None:
                    return exit_
                _tell(host, running)
    return None


def _tell(host: Host, running: Running) -> None:
    written = running.stdout().written + running.stderr().written
    host.progress(written, None, "bytes", running.last_line())


async def _send(host: Host, params: RunProcess, running: Running, exit_: Exit) -> tuple[EvidenceRef, ...]:
    """What was kept, as evidence. ActionFailed, whatever the cause was called: the program has been run by now."""
    if not params.evidence:
        return ()
    try:
        return tuple([await host.evidence.send(one) for one in running.kept() if one.size])
    except StanchError as error:
        raise ActionFailed(
            f"{params.path} was run and has ended, but what it wrote could not be sent as evidence",
            got=f"{_end(exit_)}; the last line: {running.last_line() or 'none'}; {error}",
            hint="What it did is done. Its output is lost: order it again only if it may run twice.",
        ) from error


def _end(exit_: Exit) -> str:
    return f"exit code {exit_.code}" if exit_.signal is None else f"ended by {exit_.signal}"


async def _timed_out(host: Host, params: RunProcess, running: Running, ended: Exit) -> StanchError:
    """The error, with what it wrote until then."""
    hint = "Order it again with a longer --time-limit."
    try:
        sent = await _send(host, params, running, ended)
    except ActionFailed as error:
        sent, hint = (), f"What it wrote could not be sent as evidence, and is lost: {error.got}."
    names = ", ".join(f"{one.id} ({one.name}, {one.size} bytes)" for one in sent)
    left = "" if ended.left_ended else f"; {ended.left_behind} processes of it could not be ended"
    written: Text = f"{running.stdout().written} and {running.stderr().written} bytes on its two streams"
    return TimedOut(
        f"{params.path} did not end within its time limit, and was ended{left}",
        got=f"{written}; the last line: {running.last_line() or 'none'}",
        expected=f"an end within {show_duration(params.time_limit)}",
        hint=f"What it wrote is kept as evidence: {names}." if names else hint,
    )
