"""`stanch evidence list|get|verify|preview|delete`."""

import hashlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import click

from stanch.cli.command import Group, json_option
from stanch.cli.connect import connected
from stanch.cli.naming import endpoint_names
from stanch.cli.plain import plain
from stanch.cli.preview import show_preview
from stanch.cli.render import Note, human_size, table
from stanch.cli.screen import print_json, show_blocks, transfer_bar
from stanch.core.errors import Cancelled, Conflict, Invalid, StanchError, VerificationFailed
from stanch.core.rest_evidence import EvidenceView, PreviewKind

CHUNK = 1_048_576
LONGEST_NAME = 120
VERIFY_PATIENCE = 3600.0
"""Seconds: the server reads and decrypts all of it, and says nothing meanwhile."""


@click.group(cls=Group, examples=("evidence list", "evidence preview EVIDENCE", "evidence get EVIDENCE"))
def evidence() -> None:
    """List, look into, fetch, verify and delete what was taken from endpoints."""


@evidence.command(
    "list",
    examples=(
        "evidence list",
        "evidence list --order ORDER --json",
        "evidence list --endpoint web-01 --since 2026-11-24",
        "evidence list --deleted",
    ),
)
@click.option("--order", default="", metavar="ORDER", help="Only what this order took.")
@click.option("--task", default="", metavar="TASK", help="Only what this task took.")
@click.option("--endpoint", metavar="ENDPOINT", shell_complete=endpoint_names, help="Only what was taken there.")
@click.option("--since", metavar="MOMENT", help="Only what was begun since, such as 2026-11-24 or 2026-11-24T12:00Z.")
@click.option("--deleted", is_flag=True, help="What is left of deleted evidence: its hash, and who deleted it.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@json_option
def list_evidence(
    *, order: str, task: str, endpoint: str | None, since: str | None, deleted: bool, limit: int, as_json: bool
) -> None:
    """List evidence, the newest first."""
    begun = None if since is None else moment(since)
    with connected() as client:
        every = client.evidence(order=order, task=task, endpoint=endpoint, since=begun, deleted=deleted)
        found = list(islice(every, limit))
    if as_json:
        print_json(found)
    elif deleted:
        rows = ((one.id, one.endpoint, one.name, one.deleted, one.deleted_by, one.deleted_why) for one in found)
        show_blocks([table(("evidence", "endpoint", "name there", "deleted", "by", "why"), rows)])
    else:
        lines = ((one.id, one.endpoint, one.name, human_size(one.size), _state(one), one.created) for one in found)
        show_blocks([table(("evidence", "endpoint", "name there", "size", "state", "begun"), lines)])


def moment(text: str) -> datetime:
    """A moment as people type it, in UTC unless they say otherwise; Invalid if it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid("The moment is wrong", got=text, expected="2026-11-24 or 2026-11-24T12:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _state(one: EvidenceView) -> str:
    if one.damage is not None:
        return "damaged"
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
        with transfer_bar() as progress:
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


@evidence.command(examples=("evidence verify EVIDENCE", "evidence verify EVIDENCE FILE"))
@click.argument("key", metavar="EVIDENCE")
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@json_option
def verify(*, key: str, file: Path | None, as_json: bool) -> None:
    """Check that what the server keeps, or else a FILE, is byte for byte the evidence that the endpoint sent."""
    if file is None:
        _verify_there(key, as_json=as_json)
        return
    with connected() as client:
        found = client.find_evidence(key)
    check(found, file)
    if as_json:
        print_json({"evidence": found.id, "file": str(file), "sha256": found.sha256, "verified": True})
    else:
        show_blocks([Note(f"{plain(file)} is evidence {found.id}: SHA-256 {found.sha256}.")])


def _verify_there(key: str, *, as_json: bool) -> None:
    with connected(patience=VERIFY_PATIENCE) as client:
        verdict = client.verify_evidence(key)
    if not verdict.intact:
        raise VerificationFailed(
            f"What the server keeps is not whole: {verdict.problem}",
            got=f"SHA-256 {verdict.found}" if verdict.found else None,
            expected=f"SHA-256 {verdict.expected}",
            hint="Somebody changed it on the server's disk, or the disk did; fetch it from the endpoint again.",
        )
    if as_json:
        print_json(verdict)
    else:
        size = human_size(verdict.size)
        show_blocks([Note(f"Evidence {plain(verdict.evidence)} is whole: {size}, SHA-256 {plain(verdict.expected)}.")])


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


@evidence.command(
    examples=(
        "evidence preview EVIDENCE",
        "evidence preview EVIDENCE --as hex --offset 0 --length 512",
        "evidence preview EVIDENCE --as strings --json",
    )
)
@click.argument("key", metavar="EVIDENCE")
@click.option(
    "--as", "kind", type=click.Choice([str(one) for one in PreviewKind]), default="auto", show_default=True, help="How."
)
@click.option("--offset", type=click.IntRange(0), default=0, show_default=True, help="Where to begin, in bytes.")
@click.option("--length", type=click.IntRange(1), metavar="BYTES", help="How many bytes.  [default: what suits]")
@json_option
def preview(*, key: str, kind: str, offset: int, length: int | None, as_json: bool) -> None:
    """Look into evidence without fetching it: as text, as bytes, the strings in it, or the structure of a program.

    The server renders it in a process that can do nothing else. It may be hostile, and it may lie; nothing of it
    reaches your terminal but printable characters.
    """
    with connected() as client:
        found = client.preview_evidence(key, PreviewKind(kind), offset=offset, length=length)
    if as_json:
        print_json(found)
    else:
        show_preview(found)


@evidence.command(
    examples=("evidence delete EVIDENCE --reason 'case closed'", "evidence delete A B --reason test --yes")
)
@click.argument("keys", metavar="EVIDENCE...", nargs=-1, required=True)
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stands in the audit.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(*, keys: tuple[str, ...], reason: str, yes: bool, as_json: bool) -> int:
    """Remove evidence from the server for good. Its hash stays known, and who deleted it, when and why."""
    question = f"Delete {plain(', '.join(keys), longest=200)}? It cannot be brought back."
    if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        raise Cancelled("Nothing was deleted", hint="Answer yes, or give --yes.")
    gone: list[EvidenceView] = []
    failed: list[tuple[str, StanchError]] = []
    with connected() as client:
        for key in keys:
            try:
                gone.append(client.delete_evidence(key, reason=reason))
            except StanchError as error:
                if len(keys) == 1:
                    raise
                failed.append((key, error))
    if as_json:
        errors = [{"evidence": key, "error": error.body().model_dump()} for key, error in failed]
        print_json({"deleted": [one.model_dump(mode="json") for one in gone], "failed": errors})
    else:
        show_blocks(_deleted(gone, failed))
    return max((error.exit_code for _, error in failed), default=0)


def _deleted(gone: list[EvidenceView], failed: list[tuple[str, StanchError]]) -> Iterator[Note]:
    for one in gone:
        yield Note(f"Evidence {plain(one.id)} is deleted; it was SHA-256 {plain(one.sha256 or 'unknown: incomplete')}.")
    for key, error in failed:
        yield Note(f"{plain(key, longest=100)} was not deleted: {plain(error)}")
