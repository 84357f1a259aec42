"""`stanch detections`."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import click

from stanch.cli.command import Command, json_option
from stanch.cli.connect import connected
from stanch.cli.naming import endpoint_names
from stanch.cli.render import Note, table
from stanch.cli.screen import print_json, show_blocks
from stanch.core.detections import DETECTIONS, Severity

MOST_FINDINGS = 3
"""Of one detection; `--json` has all that were told."""

_QUIET = "Nothing was detected. Agents tell when somebody tampers with an isolation, and more."
_NONE_LIKE_THAT = "Nothing like that was detected. `stanch detections` lists everything."


@click.command(
    cls=Command,
    examples=(
        "detections",
        "detections --endpoint web-01 --severity high",
        "detections --kind isolation-tampered --json",
    ),
)
@click.option("--endpoint", default="", metavar="ENDPOINT", shell_complete=endpoint_names, help="Only of this one.")
@click.option("--kind", type=click.Choice(sorted(DETECTIONS)), default=None, help="Only of this kind.")
@click.option(
    "--severity", type=click.Choice([str(one) for one in Severity]), default=None, help="Only these, and worse ones."
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@json_option
def detections(*, endpoint: str, kind: str | None, severity: str | None, limit: int, as_json: bool) -> None:
    """List what somebody should look at, the newest first: tampering, stolen identities, wrong release codes."""
    with connected() as client:
        found = list(islice(client.detections(endpoint=endpoint, kind=kind or "", severity=severity or ""), limit))
    if as_json:
        print_json(found)
    elif found:
        rows = ((one.at, one.hostname, one.severity, one.title, _brief(one.detail)) for one in found)
        show_blocks([table(("at", "endpoint", "severity", "what", "detail"), rows)])
    else:
        show_blocks([Note(_NONE_LIKE_THAT if endpoint or kind or severity else _QUIET)])


def _brief(detail: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in detail.items() if name != "findings"}
    told = [f"{name} {value}" for name, value in rest.items() if value not in (None, "", 0, False)]
    return ", ".join([*_findings(detail.get("findings")), *told])


def _findings(found: object) -> list[str]:
    """The first finds of a scan, each as: rule in place. It comes from an endpoint: nothing about it is sure."""
    rows = [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
    places = [_places(one.get("objects")) for one in rows[:MOST_FINDINGS]]
    told = [f"{one.get('rule')} in {place}" for one, place in zip(rows, places, strict=False)]
    return [*told, *(["..."] if len(rows) > MOST_FINDINGS else [])]


def _places(objects: object) -> str:
    rows = [one for one in objects if isinstance(one, Mapping)] if isinstance(objects, list) else []
    return " and ".join(str(one.get("name")) for one in rows[:MOST_FINDINGS]) or "an unknown place"
