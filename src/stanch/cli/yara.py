"""`stanch yara`: look for YARA rules on this machine, by hand; needs no server and no agent."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from stanch.cli.command import Group, json_option
from stanch.cli.scanning import DURATION, ENDS, files_of, how_options, limits_of, run_scan, told_of, where_options
from stanch.core.errors import Invalid
from stanch.core.scanning import Area, Engine, Files, Scan


@click.group(cls=Group, examples=("yara scan --rules webshells.yar --path /var/www",))
def yara() -> None:
    """YARA rules, on this machine."""


@yara.command(
    "scan",
    examples=(
        "yara scan --rules webshells.yar --path /var/www",
        "yara scan --rules rules/ --memory",
        "yara scan --rules implant.yar --pid 4711 --json",
        "yara scan --rules rules/ --area system --fast --exclude '/var/lib/docker/**'",
    ),
    help=f"""Look for YARA rules in files and in the memory of processes. Needs no server and no agent.

    Without --path, --area, --memory and --autoruns, every local file system is looked at. A rule that is wrong is told
    with its line, and the others still run. As root it sees everything; anybody else is told what could not be read.

    {ENDS}
    """,
)
@click.option(
    "--rules",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    required=True,
    metavar="FILE|FOLDER",
    help="YARA rules; of a folder, all in it; several times.",
)
@where_options
@click.option("--memory", is_flag=True, help="Look into the memory of processes, too; alone if nothing else is named.")
@click.option("--pid", "pids", type=click.IntRange(1, 2**22), multiple=True, help="Into that of this process only.")
@click.option("--process", "names", multiple=True, metavar="NAME", help="Into that of processes of this name only.")
@click.option("--autoruns", is_flag=True, help="Look at what starts by itself: its files, and programs they name.")
@click.option("--tag", "tags", multiple=True, help="Only rules with this tag; several times.")
@click.option("--fast", is_flag=True, help="The first place where a string is found is enough.")
@click.option(
    "--per-object", type=DURATION, default="1m", show_default=True, metavar="DURATION", help="For one file or process."
)
@click.option("--max-rules", type=click.IntRange(0), default=0, help="End when so many rules have found something.")
@how_options
@json_option
def scan(
    *,
    rules: tuple[Path, ...],
    memory: bool,
    pids: tuple[int, ...],
    names: tuple[str, ...],
    autoruns: bool,
    tags: tuple[str, ...],
    fast: bool,
    per_object: timedelta,
    max_rules: int,
    **more: Any,
) -> int:
    """See the help above."""
    from stanch.agent.scan_alone import materials
    from stanch.core.content import ContentKind

    told, cache, limits = told_of(more), more.pop("cache"), limits_of(more, per_object, max_rules)
    looks_into_memory = memory or bool(pids or names)
    return run_scan(
        Scan(
            materials=materials(rules, frozenset({ContentKind.YARA})),
            files=_files(more, autoruns=autoruns, default=None if looks_into_memory else Area.ALL),
            memory=looks_into_memory,
            pids=pids,
            names=names,
            engines=frozenset({Engine.YARA}),
            fast=fast,
            tags=frozenset(tags),
            cache=cache,
            limits=limits,
        ),
        told,
    )


def _files(more: dict[str, Any], *, autoruns: bool, default: Area | None) -> Files | None:
    """Which files; what starts by itself beside the places that are named."""
    if not autoruns:
        return files_of(**more, default=default)
    if more["area"] is not None:
        raise Invalid("What starts by itself is an area of its own", got=f"--autoruns with --area {more['area']}")
    named = files_of(**more, default=Area.ALL)
    from stanch.agent.scan_alone import autoruns as starting

    paths = (*more["paths"], *asyncio.run(starting()))
    return replace(named, area=Area.CUSTOM, paths=tuple(dict.fromkeys(paths))) if named and paths else None
