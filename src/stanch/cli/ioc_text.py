"""What `stanch ioc check` prints: for people, and for programs."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from time import time  # noqa: TID251 - compared with dates that files bear
from typing import Any

import click

from stanch.cli.ioc import Checked, error_of
from stanch.cli.plain import plain
from stanch.cli.render import Block, Fields, Listing, Note, table
from stanch.cli.screen import show_blocks
from stanch.core.errors import Invalid
from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.explaining import Doubt, Explained, explained, lines_of
from stanch.core.ioc.expression import Expression, Indicator, Term
from stanch.core.ioc.official import Standing
from stanch.core.ioc.stix import is_over

MOST_LINES = 40
"""Lines of logic, and rows of a table, of one indicator."""
MOST_INDICATORS = 50
"""Indicators of one file that are shown."""

_Found = dict[str, list[str]]


def duplicates(checked: Iterable[Checked]) -> _Found:
    """Ids that several indicators have, to the files they are in."""
    found: _Found = {}
    for one in checked:
        for indicator in one.bundle.indicators if one.bundle else ():
            if indicator.id:
                found.setdefault(indicator.id, []).append(str(one.file))
    return {key: files for key, files in found.items() if len(files) > 1}


# --- for people ------------------------------------------------------------------------------------------------------


def show_checked(checked: Sequence[Checked], *, full: bool) -> None:
    """Everything on standard output, wrong files on standard error."""
    terms = unknown = count = 0
    for one in checked:
        if one.error is not None:
            _show_error(str(one.file), one.error)
            continue
        indicators = one.bundle.indicators if one.bundle else ()
        for number, indicator in enumerate(indicators):
            about = explained(indicator)
            terms, unknown, count = terms + about.terms, unknown + _times(about.unknown), count + 1
            if full or number < MOST_INDICATORS:
                show_blocks(_blocks(one, indicator, about, full=full))
        show_blocks(_rest(one, full=full))
    twice = duplicates(checked)
    if twice:
        rows = ((key, len(files), ", ".join(sorted(set(files)))) for key, files in twice.items())
        show_blocks([table(("id", "times", "files"), islice(rows, _most(full=full)), title="ids that are there twice")])
    wrong = sum(one.error is not None for one in checked)
    show_blocks([Note(f"\n{len(checked)} files, {wrong} wrong: {count} indicators, {terms} terms, {unknown} unknown.")])


def _most(*, full: bool) -> int | None:
    return None if full else MOST_LINES


def _times(doubts: Iterable[Doubt]) -> int:
    return sum(one.times for one in doubts)


def _show_error(file: str, error: Unreadable) -> None:
    click.echo(f"error[{Invalid.code}]: {plain(file)}: {plain(error)}", err=True)


def _blocks(one: Checked, indicator: Indicator, about: Explained, *, full: bool) -> Iterator[Block]:
    """One indicator."""
    rows = {
        "file": str(one.file),
        "id": indicator.id,
        "title": indicator.title,
        "format": indicator.format,
        "author": indicator.author,
        "modified": indicator.modified,
        "valid until": _until(indicator),
        "terms": f"{about.terms}, {_times(about.unknown)} unknown on Linux, {_times(about.unfit)} that can never match",
        "on Linux": "it can match" if about.can_match else "it can never match: no branch of it can be known here",
        "left": "; ".join(indicator.ignored),
    }
    yield Note("")
    yield Fields(tuple((name, plain(value, longest=500)) for name, value in rows.items() if value))
    yield _logic(indicator, full=full)
    yield from _doubts("unknown on Linux", about.unknown, full=full)
    yield from _doubts("can never match", about.unfit, full=full)
    if about.without_positive:
        lines = tuple(plain(line) for line in islice(about.without_positive, _most(full=full)))
        yield Listing(lines, "branches that only deny, which count as no match")


def _until(indicator: Indicator) -> str:
    return (
        f"{indicator.valid_until}: over, but still looked for" if is_over(indicator, time()) else indicator.valid_until
    )


def _logic(indicator: Indicator, *, full: bool) -> Listing:
    lines = [f"{'  ' * line.depth}{plain(line.text)}" for line in lines_of(indicator.root)]
    shown = lines if full else lines[:MOST_LINES]
    left = len(lines) - len(shown)
    return Listing((*shown, *((f"... {left} more lines: --full shows them",) if left else ())), "logic")


def _doubts(title: str, doubts: Sequence[Doubt], *, full: bool) -> Iterator[Block]:
    if not doubts:
        return
    shown = doubts if full else doubts[:MOST_LINES]
    yield table(("term", "times", "why"), ((one.term, one.times, one.why) for one in shown), title=title)
    if len(shown) < len(doubts):
        yield Note(f"... {len(doubts) - len(shown)} more: --full shows them")


def _rest(one: Checked, *, full: bool) -> Iterator[Block]:
    """What a bundle has beside the indicators that were shown."""
    if one.bundle is None:
        return
    more = 0 if full else len(one.bundle.indicators) - MOST_INDICATORS
    if more > 0:
        yield Note(f"\n... {more} more indicators in {plain(one.file)}: --full shows them")
    if one.bundle.problems:
        rows = ((str(error),) for error in islice(one.bundle.problems, _most(full=full)))
        yield table(("why",), rows, title=f"{len(one.bundle.problems)} not understood in {plain(one.file)}")
    if one.bundle.ignored:
        notes = "".join(f"; {plain(note, longest=200)}" for note in one.bundle.notes)
        yield Note(f"\n{plain(one.file)}: {one.bundle.ignored} objects are left{notes}")
    if not one.bundle.indicators:
        yield Note(f"\n{plain(one.file)}: no indicator that can be looked for")


# --- for programs ----------------------------------------------------------------------------------------------------


def told_of(checked: Sequence[Checked]) -> dict[str, Any]:
    """Everything, as JSON."""
    return {"files": [_file(one) for one in checked], "duplicates": duplicates(checked)}


def _file(one: Checked) -> dict[str, Any]:
    if one.error is not None or one.bundle is None:
        return {"file": str(one.file), "error": error_of(one.error) if one.error else None}
    return {
        "file": str(one.file),
        "error": None,
        "indicators": [_indicator(indicator) for indicator in one.bundle.indicators],
        "problems": [error_of(problem) for problem in one.bundle.problems],
        "ignored": one.bundle.ignored,
        "notes": list(one.bundle.notes),
    }


def _indicator(indicator: Indicator) -> dict[str, Any]:
    about = explained(indicator)
    return {
        "id": indicator.id,
        "title": indicator.title,
        "description": indicator.description,
        "format": indicator.format,
        "author": indicator.author,
        "created": indicator.created,
        "modified": indicator.modified,
        "valid_until": indicator.valid_until or None,
        "expired": is_over(indicator, time()),
        "terms": about.terms,
        "can_match": about.can_match,
        "unknown": [_doubt(one) for one in about.unknown],
        "never": [_doubt(one) for one in about.unfit],
        "only_denying": list(about.without_positive),
        "ignored": list(indicator.ignored),
        "logic": _tree(indicator.root),
    }


def _doubt(one: Doubt) -> dict[str, Any]:
    official = one.standing is not Standing.UNOFFICIAL
    return {"term": one.term, "why": one.why, "times": one.times, "official": official}


def _tree(part: Expression) -> dict[str, Any]:
    if isinstance(part, Term):
        return {
            "id": part.id,
            "term": part.name,
            "condition": str(part.condition),
            "content": part.content,
            "type": part.type,
            "negate": part.negate,
            "preserve_case": part.preserve_case,
        }
    parts = [_tree(one) for one in part.parts]
    return {"id": part.id, "operator": str(part.operator), "apart": part.apart, "parts": parts}
