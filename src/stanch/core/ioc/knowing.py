"""Which terms can be known here, and how each that can is asked; the others are counted, with why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stanch.core.ioc.comparing import Asked, How, asked
from stanch.core.ioc.expression import Condition, Term
from stanch.core.ioc.items import Kind, Supported
from stanch.core.ioc.patterns import program_of
from stanch.core.ioc.terms import DOCUMENTS

MAX_UNKNOWN = 10_000
"""Different ones that are listed; the others are counted as one."""
MAX_GUESSES = 20
"""Names for which one that is meant is looked for: it is slow."""
MAX_WHY = 300
MAX_STEPS = 5_000_000
"""Instructions of all patterns together; some seconds to make ready."""

SWITCHED_OFF = "switched off"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownTerm:
    """A term that cannot be known here."""

    name: str
    """FileItem/PEInfo/..."""
    why: str
    times: int
    """How often the indicators ask for it."""


class Knowledge:
    """What can be known of terms, with the documents that are switched on and off."""

    def __init__(self, switches: Mapping[str, bool]) -> None:
        self._switches = switches
        self._found: dict[tuple[str, str], tuple[str, Supported] | None] = {}
        self._why: dict[tuple[str, str], str] = {}
        self._unknown: Counter[tuple[int, str, str]] = Counter()
        self.place = 0
        """Of which file the terms are that are asked next."""
        self._guesses = 0
        self._steps = 0

    def asked(self, term: Term) -> tuple[str, Asked] | None:
        """The path as it is spelled here, and the question; None if it cannot be known, which is noted."""
        try:
            if term.condition is Condition.MATCHES:
                self._refuse_too_many()  # before one more is made ready: that takes its time, too
            known = self.question(term)
            self._pay(known[1])
        except ValueError as error:
            self.note(term, str(error))
            return None
        return known

    def question(self, term: Term) -> tuple[str, Asked]:
        """Likewise, without a note: ValueError with why."""
        found = self._known(term)
        if found is None:
            raise ValueError(self._why[term.document, term.path])
        path, supported = found
        return path, asked(term, supported.kind)

    def _pay(self, question: Asked) -> None:
        """Patterns are bounded all together: making them ready takes time and memory by their size."""
        if question.how is How.PATTERN:
            self._steps += program_of(str(question.key))
            self._refuse_too_many()
        elif question.how is How.PATTERN_FOLDED:  # a text as it is: a step for each of its bytes
            self._steps += len(str(question.key).encode())
            self._refuse_too_many()

    def _refuse_too_many(self) -> None:
        if self._steps > MAX_STEPS:
            raise ValueError(f"more patterns than can be searched: {MAX_STEPS} steps in all")

    def _known(self, term: Term) -> tuple[str, Supported] | None:
        key = (term.document, term.path)
        if key in self._found:
            return self._found[key]
        found = None
        if self._switches.get(term.document, True):
            found = _spelled(term)
            self._why[key] = "" if found else self._why_not(term)
        else:
            self._why[key] = SWITCHED_OFF
        self._found[key] = found
        return found

    def _why_not(self, term: Term) -> str:
        from stanch.core.ioc.official import known_of, official_terms

        if term.name not in official_terms():
            self._guesses += 1
            if self._guesses > MAX_GUESSES:
                return "no term of the official list"
        return known_of(term.name).what

    def note(self, term: Term, why: str) -> None:
        """Count a term that cannot be known."""
        key = (self.place, term.name[:MAX_WHY], why[:MAX_WHY])
        if len(self._unknown) >= MAX_UNKNOWN and key not in self._unknown:
            key = (self.place if len(self._unknown) < 2 * MAX_UNKNOWN else 0, "others", "too many")
        self._unknown[key] += 1

    @property
    def unknown(self) -> Sequence[UnknownTerm]:
        """Those that were noted, the most frequent first."""
        counted: Counter[tuple[str, str]] = Counter()
        for (_, name, why), times in self._unknown.items():
            counted[name, why] += times
        return tuple(UnknownTerm(name=name, why=why, times=n) for (name, why), n in counted.most_common())

    @property
    def unknown_in(self) -> Mapping[int, Sequence[UnknownTerm]]:
        """File to those that were noted in it, the most frequent first."""
        found: dict[int, list[UnknownTerm]] = {}
        for (place, name, why), times in self._unknown.most_common():
            found.setdefault(place, []).append(UnknownTerm(name=name, why=why, times=times))
        return found


def _spelled(term: Term) -> tuple[str, Supported] | None:
    """The term of this name; upper and lower case may differ, as they do in files that people write."""
    known = DOCUMENTS.get(term.document, {})
    if term.path in known:
        return term.path, known[term.path]
    return next(((path, one) for path, one in known.items() if path.lower() == term.path.lower()), None)


def kind_of(document: str, path: str) -> Kind | None:
    """The kind of a term as it is spelled here."""
    supported = DOCUMENTS.get(document, {}).get(path)
    return supported.kind if supported else None
