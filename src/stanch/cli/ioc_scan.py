"""`stanch ioc scan`: look for indicators on this machine, by hand; needs no server and no agent."""

from pathlib import Path
from typing import Any

import click

from stanch.cli.command import Command, json_option
from stanch.cli.scanning import ENDS, files_of, how_options, limits_of, run_scan, told_of, where_options
from stanch.core.errors import Invalid
from stanch.core.scanning import Area, Engine, Scan


def _documents() -> list[str]:
    from stanch.core.ioc.terms import DOCUMENTS

    return sorted(DOCUMENTS)


@click.command(
    "scan",
    cls=Command,
    examples=(
        "ioc scan --path /home --path /tmp dropper.ioc",
        "ioc scan --area system indicators/ --exclude '/home/*/.cache/**'",
        "ioc scan --without FileItem c2.ioc",
        "ioc scan --path /srv bundle.json hashes.txt --json",
    ),
    help=f"""Look for indicators of compromise on this machine. Needs no server and no agent.

    FILE is OpenIOC 1.0 or 1.1, a STIX bundle, or a list of hashes; its content tells which. Of a folder, all such files
    in it are used. Without --path and --area, every local file system is looked at, if the indicators ask for files at
    all. Only what they name is looked at. As root it sees everything; anybody else is told what could not be read.

    {ENDS}
    """,
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@where_options
@click.option("--only", "only", multiple=True, metavar="DOCUMENT", help="Only at PortItem, ProcessItem, ...")
@click.option("--without", multiple=True, metavar="DOCUMENT", help="Not at FileItem, UserItem, ...; several times.")
@click.option("--hint", default="", metavar="REGEX", help="Only files (folders, links) whose whole path this finds.")
@how_options
@json_option
def scan(*, files: tuple[Path, ...], only: tuple[str, ...], without: tuple[str, ...], hint: str, **more: Any) -> int:
    """See the help above."""
    from stanch.agent.scan_alone import materials
    from stanch.core.content import ContentKind

    switches = switches_of(only, without)
    told, cache, limits = told_of(more), more.pop("cache"), limits_of(more)
    return run_scan(
        Scan(
            materials=materials(files, frozenset({ContentKind.OPENIOC, ContentKind.STIX, ContentKind.HASHES})),
            files=files_of(**more, default=Area.ALL) if switches.get("FileItem", True) else None,
            documents=switches,
            engines=frozenset({Engine.IOC, Engine.HASHES}),
            hint=hint,
            cache=cache,
            limits=limits,
        ),
        told,
    )


def switches_of(only: tuple[str, ...], without: tuple[str, ...]) -> dict[str, bool]:
    """Documents that are not looked at; Invalid for one that there is not."""
    known = _documents()
    wrong = next((one for one in (*only, *without) if one not in known), None)
    if wrong is not None:
        raise Invalid("There is no such document", got=wrong[:100], expected=", ".join(known))
    off = set(without) | (set(known) - set(only) if only else set())
    return {one: False for one in known if one in off}
