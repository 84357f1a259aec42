"""Look for YARA rules on an endpoint: in files and in the memory of processes."""

from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Concurrency, Plan, Risk, action
from stanch.core.autoruns import Autorun, Place
from stanch.core.content import ContentKind
from stanch.core.errors import Invalid
from stanch.core.host import Host
from stanch.core.scan_report import Report, Scanned, nothing_to_scan_with
from stanch.core.scan_scope import Named, Scope, Uploaded, materials_of, planned, planned_materials
from stanch.core.scanning import Area, Engine, Files, Limits, Material, Scan
from stanch.core.types import Duration, EndpointPath, Pid, hours, minutes

KINDS = frozenset({ContentKind.YARA})


class YaraScan(Scope):
    """Which rules, and where to look."""

    rules: Uploaded = ()
    """Files of YARA rules, from your side, uploaded with the order."""

    content: Named = ()
    """Published content to scan with."""

    memory: bool = False
    """Look into the memory of processes; at files, too, only if --path or --area is given."""

    pid: Annotated[tuple[Pid, ...], Field(max_length=1000)] = ()
    """Into that of these processes only."""

    process: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=100)] = ()
    """Into that of processes of these names only."""

    autoruns: bool = False
    """Look at what starts by itself: its files and the programs that they name."""

    tag: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=100)] = ()
    """Only rules with one of these tags."""

    fast: bool = False
    """The first place where a string of a rule is found is enough: quicker, and tells fewer strings."""

    max_rules: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """End when so many different rules have found something; 0 for no limit."""

    per_object: Duration = minutes(1)
    """Skip a file or process, and tell it, when the rules take longer."""


def _check_given(params: YaraScan) -> None:
    if not (params.rules or params.content):
        raise nothing_to_scan_with("--rules or --content", hint="`stanch content list` shows what is published.")


async def _materials(host: Host, params: YaraScan) -> tuple[Material, ...]:
    _check_given(params)
    return await materials_of(host, params.rules, params.content, KINDS)


def _looks_into_memory(params: YaraScan) -> bool:
    return params.memory or bool(params.pid or params.process)


async def _files(host: Host, params: YaraScan) -> Files | None:
    """Which files; of memory or autoruns alone, no others."""
    if not params.autoruns:
        only_memory = _looks_into_memory(params) and not (params.area or params.path)
        return None if only_memory else params.files(Area.ALL)
    if params.area is not None:
        raise Invalid("What starts by itself is an area of its own", got=f"--autoruns with --area {params.area}")
    paths = [*params.path, *await _autoruns(host)]
    return params.model_copy(update={"path": tuple(dict.fromkeys(paths))}).files(Area.CUSTOM) if paths else None


async def _autoruns(host: Host) -> list[EndpointPath]:
    """The files that start something, and the programs that they name."""
    found = list[EndpointPath]()
    async for batch in host.autoruns.list(tuple(Place)):
        for one in batch:
            if isinstance(one, Autorun):
                found += [one.path, *([one.program] if one.program else [])]
    return found


async def _plan(host: Host, params: YaraScan) -> Plan:
    """With what it would look, and where."""
    _check_given(params)
    materials, files = planned_materials(host, params.rules, params.content, KINDS), await _files(host, params)
    return planned(files, materials, more=_memory(params))


def _memory(params: YaraScan) -> list[str]:
    if not _looks_into_memory(params):
        return []
    chosen = [*(f"memory of process {one}" for one in params.pid), *(f"memory of {one}" for one in params.process)]
    return chosen or ["memory of all processes"]


@action(
    "yara_scan",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan,
    examples=(
        "web-01 --rules ./webshells.yar --path /var/www --wait",
        "web-01 --content apt-rules --memory --autoruns --wait",
        "--label env=prod --content apt-rules --area system --exclude '/var/lib/docker/**' --fast",
        "web-01 --rules ./implant.yar --pid 4711 --wait",
    ),
)
async def yara_scan(host: Host, params: YaraScan) -> Scanned:
    """Look for YARA rules in files and in the memory of processes.

    The rules travel as source and are compiled on the endpoint; a rule that is wrong is told with its line, and the
    others still run. Each finding says which strings matched, and where. It shows how far it is, and can be paused,
    cancelled, and goes on after a restart of the agent.
    """
    files, memory = await _files(host, params), _looks_into_memory(params)
    named = frozenset([*params.path, *(f"process {one}" for one in (*params.pid, *params.process))])
    report = Report(host=host, detection="yara-found", unit="processes" if files is None else "files", named=named)
    limits = Limits(
        per_object=params.per_object, findings=params.max_findings, rules=params.max_rules, gentle=params.gentle
    )
    await report.run(
        Scan(
            materials=await _materials(host, params),
            files=files,
            memory=memory,
            pids=params.pid,
            names=params.process,
            engines=frozenset({Engine.YARA}),
            fast=params.fast,
            tags=frozenset(params.tag),
            cache=params.cache,
            limits=limits,
        )
    )
    return Scanned(**report.told())
