"""Look for indicators of compromise on an endpoint: OpenIOC, STIX patterns and hash lists."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Concurrency, Plan, Risk, action
from stanch.core.content import ContentKind
from stanch.core.host import Host
from stanch.core.scan_report import Report, Scanned, nothing_to_scan_with
from stanch.core.scan_scope import Named, Scope, Uploaded, materials_of, planned, planned_materials
from stanch.core.scanning import Area, Engine, Files, Material, Scan
from stanch.core.types import hours

KINDS = frozenset({ContentKind.OPENIOC, ContentKind.STIX, ContentKind.HASHES})


class Document(StrEnum):
    """What indicators ask about."""

    FILES = "FileItem"
    PROCESSES = "ProcessItem"
    PORTS = "PortItem"
    ARP = "ArpEntryItem"
    ROUTES = "RouteEntryItem"
    DNS = "DnsEntryItem"
    SERVICES = "ServiceItem"
    TASKS = "TaskItem"
    USERS = "UserItem"
    GROUPS = "GroupItem"
    MODULES = "ModuleItem"
    DISKS = "DiskItem"
    VOLUMES = "VolumeItem"
    SYSTEM = "SystemInfoItem"
    LOGINS = "LoginHistoryItem"
    SHELL_HISTORY = "ShellHistoryItem"


Documents = Annotated[tuple[Document, ...], Field(max_length=len(Document))]


class IocScan(Scope):
    """Which indicators, and where to look."""

    file: Uploaded = ()
    """Files of indicators: OpenIOC 1.0 or 1.1, STIX bundles, hash lists; from your side, uploaded with the order."""

    content: Named = ()
    """Published content to scan with."""

    only: Documents = ()
    """Look at these documents only: terms of the others never match."""

    without: Documents = ()
    """Do not look at these documents: their terms never match."""

    hint: Annotated[str, Field(max_length=1000)] = ""
    """A regular expression: of files, folders and links, look only at those whose whole path it finds. Processes, ports
    and the like are looked at all the same."""


def _switches(params: IocScan) -> dict[str, bool]:
    """Only those that are off are said: the others are looked at if the indicators name them."""
    off = set(params.without) | (set(Document) - set(params.only) if params.only else set())
    return {str(one): False for one in Document if one in off}


def _check_given(params: IocScan) -> None:
    if not (params.file or params.content):
        raise nothing_to_scan_with("--file or --content", hint="`stanch content list` shows what is published.")


async def _materials(host: Host, params: IocScan) -> tuple[Material, ...]:
    _check_given(params)
    return await materials_of(host, params.file, params.content, KINDS)


async def _plan(host: Host, params: IocScan) -> Plan:
    """With what it would look, and where."""
    _check_given(params)
    materials, switches = planned_materials(host, params.file, params.content, KINDS), _switches(params)
    named = [f"{one}, if the indicators ask for it" for one in Document if one not in switches]
    return planned(_files(params), materials, more=named)


def _files(params: IocScan) -> Files | None:
    if _switches(params).get(Document.FILES) is not False:
        return params.files(Area.ALL)
    params.refuse_places(f"without {Document.FILES}")
    return None


@action(
    "ioc_scan",
    version=1,
    risk=Risk.READ_ONLY,
    after_crash=AfterCrash.RERUN,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(24),
    plan=_plan,
    examples=(
        "web-01 --file ./apt.ioc --wait",
        "web-01 --content apt-indicators --area critical --wait",
        "--label env=prod --file ./hashes.txt --path /tmp --path /home --reason 'known dropper'",
        "web-01 --file ./c2.ioc --only PortItem --only ProcessItem --wait",
    ),
)
async def ioc_scan(host: Host, params: IocScan) -> Scanned:
    """Look for indicators of compromise: in files, processes, ports, accounts, and what else they name.

    Only what the indicators name is looked at, only the hashes they ask for are taken, and of a file with the wrong
    name or size nothing is read. Terms of an AND hold for one and the same object. A term that cannot be known here
    never matches, and is told. Each finding says which branch of the indicator holds, and for what.
    """
    report = Report(host=host, detection="ioc-found", named=frozenset(params.path))
    await report.run(
        Scan(
            materials=await _materials(host, params),
            files=_files(params),
            documents=_switches(params),
            engines=frozenset({Engine.IOC, Engine.HASHES}),
            hint=params.hint,
            cache=params.cache,
            limits=params.limits,
        )
    )
    return Scanned(**report.told())
