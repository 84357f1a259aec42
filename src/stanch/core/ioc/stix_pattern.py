"""STIX patterns into the expression tree.

Comparisons of one observation are about one item; observations that are joined by AND have items of their own, and so
stand apart in the tree (`Group.apart`). What asks for an order in time, or for how often, is Unreadable, with the
reason: one look at an endpoint cannot answer that.

The grammar is that of `stix2-patterns`, generated from the standard's. It takes time in proportion to the pattern, and
nests by its parentheses only, which are counted before. The commonest pattern by far, one property that equals one
text, is read without it: a bundle may have tens of thousands of these.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from stanch.core.ioc.errors import Unreadable
from stanch.core.ioc.expression import Condition, Expression, Group, Operator, Term
from stanch.core.ioc.stix_paths import Places, places_of

MAX_PATTERN = 200_000
"""Characters of one pattern."""
MAX_DEPTH = 30
"""Parentheses within one another."""

_SIMPLE = re.compile(
    r"\s*\[\s*([a-z][a-z0-9-]*):([a-z][a-z0-9_]*(?:\.(?:[a-zA-Z_][a-zA-Z0-9_]*|'[^'\\]*'))*)\s*=\s*'([^'\\]*)'\s*\]\s*"
)
_WORDS = {
    ("", word)
    for word in (
        *("AND", "OR", "NOT", "FOLLOWEDBY", "LIKE", "MATCHES", "ISSUPERSET", "ISSUBSET", "EXISTS", "LAST", "IN"),
        *("START", "STOP", "SECONDS", "true", "false", "WITHIN", "REPEATS", "TIMES"),
    )
}
"""Words of the grammar: no step of a path may be called so, unless in quotes."""
_STEP = re.compile(r"'([^']*)'|([^.']+)")
_PIECE = re.compile(
    r"(?P<text>'[^'\\]*(?:\\['\\][^'\\]*)*')|(?P<comment>/\*.*?\*/|//[^\r\n]*)|(?P<plain>[\w\s.:,=!<>()\[\]*+-]+)",
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BACKWARDS = {"<": ">=", ">": "<=", "<=": ">", ">=": "<"}
_ORDER = {">": Condition.GREATER_THAN, "<": Condition.LESS_THAN}
_TIMES = {
    "ObservationExpressionWithinContext": "WITHIN",
    "ObservationExpressionRepeatedContext": "REPEATS",
    "ObservationExpressionStartStopContext": "START and STOP",
}
_WHOLE_LIKE = re.compile(r"(%?)([^%_]*)(%?)", re.DOTALL)
_LIKE = {
    ("", ""): Condition.IS,
    ("%", "%"): Condition.CONTAINS,
    ("", "%"): Condition.STARTS_WITH,
    ("%", ""): Condition.ENDS_WITH,
}


def read_pattern(pattern: str) -> Group:
    """The tree of a pattern; Unreadable if it is none, too much, or cannot be judged by looking at an endpoint."""
    if len(pattern) > MAX_PATTERN:
        raise Unreadable(
            "The pattern is too long", got=f"{len(pattern)} characters", expected=f"at most {MAX_PATTERN} characters"
        )
    simple = _SIMPLE.fullmatch(pattern)
    if simple is not None and _WORDS.isdisjoint(path := _STEP.findall(simple[2])):
        kind, _, content = simple.groups()
        steps = tuple(quoted or bare for quoted, bare in path)
        sides = (_Question(kind, steps, turned=turned).put(Condition.IS, content) for turned in (False, True))
        return _grouped(_sides(*sides))
    return _grouped(_observations(_parsed(pattern)))


def _grouped(one: Expression) -> Group:
    return one if isinstance(one, Group) else Group(id="", operator=Operator.OR, parts=(one,))


def _parsed(pattern: str) -> Any:  # a context of the generated parser, which has no types
    from stix2patterns.exceptions import ParseException
    from stix2patterns.v21.pattern import Pattern

    cleaned = _cleaned(pattern)
    try:
        return Pattern(cleaned).visit(_Itself())
    except ParseException as error:
        raise Unreadable("The pattern is not understood", got=str(error)[:300], expected="a STIX pattern") from None
    except RecursionError:
        raise _too_deep("more parentheses than can be read") from None


class _Itself:
    """A visitor that wants the tree only."""

    @staticmethod
    def visit(tree: object) -> object:
        """The tree."""
        return tree


def _cleaned(pattern: str) -> str:
    """The pattern without its comments, if each of its signs can be of a pattern.

    The lexer of the grammar would look for the end of every text and comment that has none, over and over again: of a
    hostile pattern it would never come back.
    """
    pieces: list[str] = []
    place = depth = 0
    while place < len(pattern):
        piece = _PIECE.match(pattern, place)
        if piece is None:
            got = f"{pattern[place : place + 20]!r} at character {place + 1}"
            raise Unreadable("The pattern is not understood", got=got, expected="a STIX pattern")
        pieces.append(" " if piece["comment"] else piece[0])
        depth = _depth_after(piece["plain"] or "", depth)
        place = piece.end()
    return "".join(pieces)


def _depth_after(plain: str, depth: int) -> int:
    for sign in plain:
        depth += (sign in "([") - (sign in ")]")
        if depth > MAX_DEPTH:
            raise _too_deep(f"more than {MAX_DEPTH}")
    return depth


def _too_deep(got: str) -> Unreadable:
    return Unreadable("The pattern nests too deeply", got=got, expected=f"at most {MAX_DEPTH} parentheses deep")


def _name(context: Any) -> str:
    return type(context).__name__


def _below(context: Any) -> list[Any]:
    """The rules right below, without the words between them."""
    return [one for one in context.getChildren() if hasattr(one, "getRuleIndex")]


def _chain(context: Any) -> Iterator[Any]:
    """The links of `a OR b OR c`, which the grammar nests into one another."""
    waiting = [context]
    while waiting:
        one = waiting.pop()
        if type(one) is type(context):
            waiting += reversed(_below(one))
        else:
            yield one


def _joined(operator: Operator, parts: list[Expression], *, apart: bool = False) -> Expression:
    return parts[0] if len(parts) == 1 else Group(id="", operator=operator, parts=tuple(parts), apart=apart)


# --- observations ----------------------------------------------------------------------------------------------------


def _observations(context: Any) -> Expression:
    """What is between brackets, and how that is joined."""
    match _name(context):
        case "PatternContext" | "ObservationExpressionCompoundContext":
            return _observations(_below(context)[0])
        case "ObservationExpressionsContext":
            if context.FOLLOWEDBY():
                raise _needs_time("FOLLOWEDBY")
            return _observations(context.observationExpressionOr())
        case "ObservationExpressionOrContext":
            return _joined(Operator.OR, [_observations(one) for one in _chain(context)])
        case "ObservationExpressionAndContext":
            return _joined(Operator.AND, [_observations(one) for one in _chain(context)], apart=True)
        case "ObservationExpressionSimpleContext":
            inside = context.comparisonExpression()
            return _sides(_comparisons(inside, turned=False), _comparisons(inside, turned=True))
    raise _needs_time(_TIMES.get(_name(context), "a qualifier"))


def _sides(outgoing: Expression, incoming: Expression) -> Expression:
    """An observation of a connection, seen from either end of it; of anything else once."""
    return outgoing if outgoing == incoming else Group(id="", operator=Operator.OR, parts=(outgoing, incoming))


def _needs_time(word: str) -> Unreadable:
    return Unreadable(
        "The pattern cannot be judged by one look at an endpoint",
        got=word,
        expected="observations that are joined by AND and OR only",
    )


# --- comparisons -----------------------------------------------------------------------------------------------------


def _comparisons(context: Any, *, turned: bool) -> Expression:
    """What is asked of one item."""
    match _name(context):
        case "ComparisonExpressionContext":
            return _joined(Operator.OR, [_comparisons(one, turned=turned) for one in _chain(context)])
        case "ComparisonExpressionAndContext":
            return _joined(Operator.AND, [_comparisons(one, turned=turned) for one in _chain(context)])
        case "PropTestParenContext":
            return _comparisons(context.comparisonExpression(), turned=turned)
    return _test(context, turned=turned)


def _test(context: Any, *, turned: bool) -> Expression:
    kind, steps = _path(context.objectPath())
    asking = _TESTS.get(_name(context))
    if asking is None:
        raise Unreadable("The pattern is not understood", got=context.getText(), expected="a comparison")
    return asking(_Question(kind, steps, turned=turned, deny=_denied(context)), context)


def _denied(context: Any) -> bool:
    """Does it ask that something is not so? Not less is greater or equal, and so denies nothing."""
    if _name(context) == "PropTestOrderContext":
        return False
    unequal = _name(context) == "PropTestEqualContext" and context.NEQ() is not None
    return unequal != (context.NOT() is not None)


def _equal(question: "_Question", context: Any) -> Expression:
    return question.put(Condition.IS, _literal(context.primitiveLiteral()))


def _order(question: "_Question", context: Any) -> Expression:
    sign = (context.GT() or context.LT() or context.GE() or context.LE()).getText()
    return question.ordered(_BACKWARDS[sign] if context.NOT() else sign, _literal(context.orderableLiteral()))


def _set(question: "_Question", context: Any) -> Expression:
    return question.one_of([_literal(one) for one in _below(context.setLiteral())])


def _like(question: "_Question", context: Any) -> Expression:
    return question.like(_literal(context.StringLiteral()))


def _regex(question: "_Question", context: Any) -> Expression:
    return question.put(Condition.MATCHES, _literal(context.StringLiteral()))


def _subset(question: "_Question", context: Any) -> Expression:
    return question.put(Condition.IS, _literal(context.StringLiteral()))


def _superset(question: "_Question", context: Any) -> Expression:
    return question.put(Condition.IS, _single(_literal(context.StringLiteral())))


def _exists(question: "_Question", _context: Any) -> Expression:
    return question.there()


_TESTS: Mapping[str, Callable[["_Question", Any], Expression]] = {
    "PropTestEqualContext": _equal,
    "PropTestOrderContext": _order,
    "PropTestSetContext": _set,
    "PropTestLikeContext": _like,
    "PropTestRegexContext": _regex,
    "PropTestIsSubsetContext": _subset,
    "PropTestIsSupersetContext": _superset,
    "PropTestExistsContext": _exists,
}
"""The rule of the grammar to how it is asked."""


def _single(network: str) -> str:
    """What holds a network as a whole can only be a network, unless that is one address."""
    try:
        one = ip_network(network.strip(), strict=False)
    except ValueError:
        raise Unreadable("The pattern is not understood", got=network, expected="a network in CIDR notation") from None
    if one.num_addresses != 1:
        raise Unreadable(
            "The pattern cannot be judged by one look at an endpoint",
            got=f"ISSUPERSET of a network of {one.num_addresses} addresses",
            expected="ISSUBSET, or one address",
        )
    return str(one.network_address)


def _path(context: Any) -> tuple[str, tuple[str, ...]]:
    """Kind of object, and the names on the way; numbers of lists do not count: any element will do."""
    steps = [context.firstPathComponent()]
    below = context.objectPathComponent()
    if below is not None:
        steps += (one for one in _chain_of_steps(below) if _name(one) == "KeyPathStepContext")
    return context.objectType().getText(), tuple(_step(one) for one in steps)


def _chain_of_steps(context: Any) -> Iterator[Any]:
    waiting = [context]
    while waiting:
        one = waiting.pop()
        if _name(one) == "PathStepContext":
            waiting += reversed(_below(one))
        else:
            yield one


def _step(context: Any) -> str:
    quoted = context.StringLiteral()
    return _literal(quoted) if quoted is not None else str(context.IdentifierWithoutHyphen().getText())


def _literal(context: Any) -> str:
    """A literal as text, without its quotes; a number or truth as it is written. Unreadable for bytes.

    The digits of a hash may be written as bytes: compared with a text, they would be the text that writes them.
    """
    text = str(context.getText())
    begin = text.find("'")
    if begin > 0 and (text[0] == "b" or (text[0] == "h" and "hashes." not in context.parentCtx.getText())):
        raise Unreadable("Bytes cannot be compared here", got=text[:100], expected="a text, a number or a time")
    return _ESCAPED.sub(r"\1", text[begin + 1 : -1]) if begin >= 0 else text


class _Question:
    """One property, asked wherever it may be here."""

    def __init__(self, kind: str, steps: tuple[str, ...], *, turned: bool = False, deny: bool = False) -> None:
        self._deny = deny
        self._any = Operator.AND if deny else Operator.OR
        self._places: Places = places_of(kind, steps)
        self._names = (turned and self._places.turned) or self._places.terms

    def put(self, condition: Condition, content: str) -> Expression:
        """In one of the places, or (denied) in none of them."""
        terms: list[Expression] = [self._term(name, condition, content) for name in self._names]
        return _joined(self._any, terms)

    def _term(self, name: str, condition: Condition, content: str) -> Term:
        document, _, path = name.partition("/")
        return Term(
            id="",
            document=document,
            path=path,
            condition=condition,
            content=content,
            type=self._places.type,
            negate=self._deny,
            preserve_case=self._places.exact and self._places.type == "string",
        )

    def ordered(self, sign: str, content: str) -> Expression:
        """Greater or less; or equal, too."""
        more = self.put(_ORDER[sign[0]], content)
        if len(sign) == 1:
            return more
        return _joined(Operator.OR, [more, self.put(Condition.IS, content)])

    def one_of(self, contents: list[str]) -> Expression:
        """One of several, or none of them."""
        if not contents:
            raise Unreadable("The pattern is not understood", got="IN ()", expected="at least one literal")
        some = [self.put(Condition.IS, one) for one in contents]
        return _joined(self._any, some)

    def like(self, wildcards: str) -> Expression:
        """`%` is any text, `_` any character."""
        plain = _WHOLE_LIKE.fullmatch(wildcards)
        if plain is not None and plain[2]:
            return self.put(_LIKE[plain[1], plain[3]], plain[2])
        signs = {"%": r"(.|\n)*", "_": r"(.|\n)"}
        body = "".join(signs.get(one) or _quoted(one) for one in wildcards)
        return self.put(Condition.MATCHES, f"^{body}$")

    def there(self) -> Expression:
        """It has any value."""
        match self._places.type:
            case "int" | "date":
                return self.put(Condition.IS, "* TO *")
            case "IP":
                every = [self.put(Condition.IS, one) for one in ("0.0.0.0/0", "::/0")]
                return _joined(self._any, every)
        return self.put(Condition.MATCHES, "^")


def _quoted(sign: str) -> str:
    return f"\\{sign}" if sign.isascii() and not sign.isalnum() and not sign.isspace() else sign
