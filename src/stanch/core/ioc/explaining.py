"""Explain an indicator before it is used: its logic in words, and what of it can never hold on Linux."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from stanch.core.ioc.expression import Expression, Group, Indicator, Operator, Term, terms_of
from stanch.core.ioc.judging import Judge
from stanch.core.ioc.knowing import MAX_WHY
from stanch.core.ioc.official import Standing, known_of, supported_of

LONGEST = 200
"""Characters of a term in words."""
MAX_GUESSES = 200
"""Different names of one indicator for which a right one is suggested: a hostile file has tens of thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the logic."""

    depth: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Something that is asked and cannot be answered here."""

    term: str
    why: str
    times: int
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What one should know of an indicator."""

    terms: int
    unknown: Sequence[Doubt]
    """Names that cannot be known here, with how many terms ask for them."""
    unfit: Sequence[Doubt]
    """Terms that can never match, as their condition or content does not fit the values."""
    without_positive: Sequence[str]
    """Branches that only deny. They would fit nearly everything, so they count as no match."""
    can_match: bool
    """Is there a branch of which every term can be known here, at least one of them positive?"""


def explained(indicator: Indicator) -> Explained:
    """Look through all of it."""
    doubts: dict[str, Doubt] = {}
    names: dict[str, Doubt | None] = {}
    for term in terms_of(indicator.root):
        if term.name not in names:
            names[term.name] = _of_name(term, suggest=len(names) < MAX_GUESSES)
        doubt = names[term.name]
        if doubt is None:
            doubt = _of_term(term)
        if doubt is not None:
            before = doubts.get(doubt.term)
            doubts[doubt.term] = doubt if before is None else _once_more(before)
    judge = Judge([indicator])  # it, and nobody else, says what can match
    unfit = [one for one in doubts.values() if one.standing is Standing.SUPPORTED]
    return Explained(
        terms=sum(1 for _ in terms_of(indicator.root)),
        unknown=tuple(one for one in doubts.values() if one.standing is not Standing.SUPPORTED),
        unfit=(*unfit, *_beyond_bounds(judge, doubts.values())),
        without_positive=tuple(_only_denying(indicator.root)),
        can_match=not judge.without_positive,
    )


def _beyond_bounds(judge: Judge, told: Collection[Doubt]) -> Iterator[Doubt]:
    """What could be known by itself, and is too much where it stands: of too many observations, patterns, groups."""
    names = {one.term[:MAX_WHY] for one in told}
    reasons = {one.why[:MAX_WHY] for one in told}
    for one in judge.unknown:
        if one.name not in names and one.why not in reasons:
            yield Doubt(term=one.name, why=one.why, times=one.times, standing=Standing.SUPPORTED)


def _once_more(doubt: Doubt) -> Doubt:
    return Doubt(term=doubt.term, why=doubt.why, times=doubt.times + 1, standing=doubt.standing)


def _of_name(term: Term, *, suggest: bool) -> Doubt | None:
    known = known_of(term.name, suggest=suggest)
    if known.standing is Standing.SUPPORTED:
        return None
    return Doubt(term=term.name, why=known.what, times=1, standing=known.standing)


def _of_term(term: Term) -> Doubt | None:
    from stanch.core.ioc.comparing import asked

    supported = supported_of(term.document, term.path)
    if supported is None:
        return None
    try:
        asked(term, supported.kind)
    except ValueError as error:
        return Doubt(term=words_of(term), why=str(error), times=1, standing=Standing.SUPPORTED)
    return None


def words_of(part: Expression) -> str:
    """A term or the head of a group, in words."""
    if isinstance(part, Term):
        text = str(part)
        cased = " (upper and lower case differ)" if part.preserve_case else ""
        return (text if len(text) <= LONGEST else f"{text[:LONGEST]}…") + cased
    if part.operator is Operator.OR:
        return "any of"
    return "all of, each of an item of its own or of one item" if part.apart else "all of"


def lines_of(root: Expression) -> Iterator[Line]:
    """The logic as an indented tree, line by line."""
    waiting = [(root, 0)]
    while waiting:
        part, depth = waiting.pop()
        yield Line(depth=depth, text=words_of(part))
        if isinstance(part, Group):
            waiting += [(one, depth + 1) for one in reversed(part.parts)]


def _only_denying(part: Expression) -> Iterator[str]:
    """Alternatives without a positive term, in words."""
    if isinstance(part, Group) and part.operator is Operator.OR:
        for one in part.parts:
            yield from _only_denying(one)
    elif all(term.negate for term in terms_of(part)):
        yield " and ".join(words_of(term) for term in terms_of(part))[: 2 * LONGEST]
