"""`stanch evidence list|get|verify`."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import click

from stanch.cli.command import Group, json_option
from stanch.cli.connect import connected
from stanch.cli.plain import plain
from stanch.cli.render import Note, human_size, table
from stanch.cli.screen import console, print_json, show_blocks
from stanch.client.download import Progress, silent
from stanch.core.errors import Conflict, VerificationFailed
from stanch.core.rest import EvidenceView

CHUNK = 1_048_576
LONGEST_NAME = 120


@click.group(cls=Group, examples=("evidence list", "evidence get EVIDENCE"))
def evidence() -> None:
    """List, fetch and verify what was taken from endpoints."""


@evidence.command("list", examples=("evidence list", "evidence list --order ORDER --json"))
@click.option("--order", default="", metavar="ORDER", help="Only what this order took.")
@click.option("--task", default="", metavar="TASK", help="Only what this task took.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@json_option
def list_evidence(*, order: str, task: str, limit: int, as_json: bool) -> None:
    """List evidence, the newest first."""
    with connected() as client:
        found = list(islice(client.evidence(order=order, task=task), limit))
    if as_json:
        print_json(found)
        return
    rows = ((one.id, one.endpoint, one.name, human_size(one.size), _state(one), one.created) for one in found)
    show_blocks([table(("evidence", "endpoint", "name there", "size", "state", "begun"), rows)])


def _state(one: EvidenceView) -> str:
    return "complete" if one.complete else f"{one.received * 100 // max(1, one.size)} %"


@evidence.command(examples=("evidence get EVIDENCE", "evidence get EVIDENCE --output dropper.bin"))
@click.argument("key", metavar="EVIDENCE")
@click.option("--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Where to; a new file.")
@json_option
def get(*, key: str, output: Path | None, as_json: bool) -> None:
    """Bring evidence into a file and verify its SHA-256. A download that was cut goes on where it ended.

    It may be the attacker's own program: the file is made readable by you only, and not executable.
    """
    with connected() as client:
        found = client.find_evidence(key)
        into = output or Path(safe_name(found))
        with _bar(found) as progress:
            client.download(found, into, progress=progress)
    if as_json:
        print_json({"evidence": found.id, "file": str(into), "size": found.size, "sha256": found.sha256})
    else:
        show_blocks([Note(f"{plain(into)}: {human_size(found.size)}, SHA-256 {found.sha256} verified.")])


def safe_name(found: EvidenceView) -> str:
    """A file name in this folder: the endpoint chose the last part, so only harmless characters of it stay."""
    last = found.name.rsplit("/", 1)[-1][-LONGEST_NAME:]
    kept = "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "_" for one in last)
    return f"{found.id}-{kept}".strip(".-_") or found.id


@contextmanager
def _bar(found: EvidenceView) -> Iterator[Progress]:
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    with Bars(
        BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console(stderr=True), transient=True
    ) as bars:
        bar = bars.add_task("", total=found.size)
        yield lambda done, total, /: bars.update(bar, completed=done, total=total)


@evidence.command(examples=("evidence verify EVIDENCE FILE",))
@click.argument("key", metavar="EVIDENCE")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
def verify(*, key: str, file: Path, as_json: bool) -> None:
    """Check that a file is, byte for byte, the evidence that the endpoint sent."""
    with connected() as client:
        found = client.find_evidence(key)
    check(found, file)
    if as_json:
        print_json({"evidence": found.id, "file": str(file), "sha256": found.sha256, "verified": True})
    else:
        show_blocks([Note(f"{plain(file)} is evidence {found.id}: SHA-256 {found.sha256}.")])


def check(found: EvidenceView, file: Path) -> None:
    """Raise VerificationFailed unless the file is the evidence; Conflict while that is incomplete."""
    if found.sha256 is None:
        raise Conflict("The evidence is not complete yet", got=f"{found.received} of {found.size} bytes")
    with file.open("rb") as opened:
        digest = hashlib.sha256()
        while piece := opened.read(CHUNK):
            digest.update(piece)
    if digest.hexdigest() != found.sha256:
        raise VerificationFailed(
            "The file is not this evidence", got=f"SHA-256 {digest.hexdigest()}", expected=f"SHA-256 {found.sha256}"
        )
