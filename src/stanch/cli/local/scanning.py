"""`stanch local scan`: look for malware on this machine, by hand; needs no server and no agent."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.command import Group, json_option
from stanch.cli.scanning import (
    DURATION,
    ENDS,
    F,
    files_of,
    how_options,
    limits_of,
    run_scan,
    scope_options,
    told_of,
    where_options,
)
from stanch.core.errors import Invalid
from stanch.core.scanning import Area, Engine, Files, Scan

if TYPE_CHECKING:
    from stanch.core.scanning import Material

_HELP = """Without --rules, the rules and hashes that come with Stanch are used. ClamAV is asked, too, where its
    daemon runs. Nothing is changed: what is found is told. As root it sees everything."""


@click.group("scan", cls=Group, examples=("local scan critical", "local scan malware --path /var/www"))
def scan() -> None:
    """Look for malware on this machine, without agent and server."""


def _with_options(command: F) -> F:
    """With what it looks."""
    rules = click.option(
        "--rules",
        type=click.Path(path_type=Path, exists=True),
        multiple=True,
        metavar="FILE|FOLDER",
        help="YARA rules or hash lists; of a folder, all in it; several times.",
    )
    clamav = click.option("--clamav/--no-clamav", default=True, help="Ask ClamAV too, where its daemon runs.")
    limit = click.option(
        "--per-object",
        type=DURATION,
        default="1m",
        show_default=True,
        metavar="DURATION",
        help="For one file or process.",
    )
    return rules(clamav(limit(command)))


@scan.command(
    examples=(
        "local scan critical",
        "local scan critical --rules rootkits.yar --no-memory",
        "local scan critical --json",
    ),
    help=f"""Look for malware where it must be to matter.

    That is: what starts by itself, what runs and its libraries, kernel modules, boot files and sectors, and memory.
    {_HELP}

    {ENDS}
    """,
)
@_with_options
@click.option("--memory/--no-memory", default=True, help="Look into the memory of processes, too.")
@scope_options
@how_options
@json_option
def critical(*, memory: bool, **more: Any) -> int:
    """See the help above."""
    exclude, size = more.pop("exclude"), more.pop("max_file_size")
    return _run(Files(area=Area.CRITICAL, exclude=exclude, max_size=size), memory=memory, **more)


@scan.command(
    examples=("local scan malware --path /var/www --path /tmp", "local scan malware --area system --memory"),
    help=f"""Look for malware in files: everywhere, or where you say.

    {_HELP}

    {ENDS}
    """,
)
@_with_options
@click.option("--memory/--no-memory", default=False, help="Look into the memory of processes, too.")
@click.option("--only-memory", is_flag=True, help="Look into the memory of processes only.")
@where_options
@how_options
@json_option
def malware(*, memory: bool, only_memory: bool, **more: Any) -> int:
    """See the help above."""
    names = ("paths", "area", "exclude", "max_file_size", "network_drives", "one_file_system")
    where = {one: more.pop(one) for one in names}
    if only_memory and (where["paths"] or where["area"]):
        raise Invalid(
            "No files are looked at, but places of files are named", got="--only-memory with --path or --area"
        )
    files = None if only_memory else files_of(**where, default=Area.ALL)
    return _run(files, memory=memory or only_memory, **more)


def _run(
    files: Files | None,
    *,
    memory: bool,
    rules: tuple[Path, ...],
    clamav: bool,
    per_object: timedelta,
    cache: bool,
    **more: Any,
) -> int:
    told, limits = told_of(more), limits_of(more, per_object)
    found, engines = _materials(rules), {Engine.YARA, Engine.HASHES}
    if clamav:
        engines.add(Engine.CLAMAV)  # where it is not there, or does not answer, the scan says so
    wanted = Scan(
        materials=found,
        files=files,
        memory=memory,
        engines=frozenset(engines),
        cache=cache,
        limits=limits,
    )
    return run_scan(wanted, told)


def _materials(rules: tuple[Path, ...]) -> "tuple[Material, ...]":
    from stanch.agent.scan_alone import base, materials
    from stanch.core.content import ContentKind

    return materials(rules, frozenset({ContentKind.YARA, ContentKind.HASHES})) if rules else base()
