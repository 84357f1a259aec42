"""STIX patterns, read and judged, against the matcher of the standard's own authors.

Each object is observed as often as a pattern has observations, since one item may be seen twice. Two differences are
left out, both meant: what is only denied matches nothing here (every observation below has something positive), and
dots of a path have no second meaning.
"""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from stix2matcher.matcher import match

from stanch.core.ioc.expression import Indicator
from stanch.core.ioc.items import Item
from stanch.core.ioc.judging import Judge
from stanch.core.ioc.stix_pattern import read_pattern

TEXTS = ["a", "B", "ab", "a.b", "ba"]
NUMBERS = [0, 1, 2, 3]
DATES = ["2020-01-01T00:00:00Z", "2020-01-02T10:00:00Z"]
HASHES = ["d41d8cd98f00b204e9800998ecf8427e", "00" * 16]
KINDS = {
    "file": {"name": TEXTS, "size": NUMBERS, "mtime": DATES, "hashes.MD5": HASHES},
    "process": {"pid": NUMBERS, "command_line": TEXTS},
}
PLACES = {
    ("file", "name"): "FileName",
    ("file", "size"): "SizeInBytes",
    ("file", "mtime"): "Modified",
    ("file", "hashes.MD5"): "Md5sum",
    ("process", "pid"): "pid",
    ("process", "command_line"): "arguments",
}
DOCUMENTS = {"file": "FileItem", "process": "ProcessItem"}


def literal(value) -> str:
    """A value as patterns write it."""
    if isinstance(value, int):
        return str(value)
    return f"t'{value}'" if value in DATES else f"'{value}'"


@st.composite
def positives(draw, kind):
    """A comparison that asks for something."""
    path = draw(st.sampled_from(sorted(KINDS[kind])))
    choice = KINDS[kind][path]
    value = draw(st.sampled_from(choice))
    ways = [
        f"= {literal(value)}",
        f"IN ({', '.join(map(literal, draw(st.lists(st.sampled_from(choice), min_size=1))))})",
    ]
    if choice is NUMBERS or choice is DATES:
        ways += [f"{sign} {literal(value)}" for sign in ("<", ">", "<=", ">=")]
    if choice is TEXTS:
        ways += [f"LIKE '{like}'" for like in ("%", "a%", "%b", "%a%", "a_b", "_%")]
        ways += [f"MATCHES '{regex}'" for regex in ("^a", "b$", "a.b", "[ab]+", "B", "x?")]
    return f"{kind}:{path} {draw(st.sampled_from(ways))}"


@st.composite
def denials(draw, kind):
    """A comparison that asks that something is not so."""
    path = draw(st.sampled_from(sorted(KINDS[kind])))
    value = literal(draw(st.sampled_from(KINDS[kind][path])))
    return f"{kind}:{path} {draw(st.sampled_from([f'!= {value}', f'NOT = {value}', f'NOT IN ({value})']))}"


@st.composite
def observations(draw, kind):
    """What is between brackets, with something positive whichever way it is fulfilled."""
    first = draw(positives(kind))
    rest = draw(st.lists(st.one_of(positives(kind), denials(kind)), max_size=2))
    more = f" {draw(st.sampled_from(['AND', 'OR']))} ".join(rest)
    other = f" OR {draw(positives(kind))}" if draw(st.booleans()) else ""
    return f"[({first} AND ({more})){other}]" if rest else f"[{first}{other}]"


MOST = 3
"""Observations of one pattern."""


@st.composite
def stix_patterns(draw):
    """Observations of files and processes, several of one kind too, joined in every way."""
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=MOST))
    parts = [draw(observations(kind)) for kind in kinds]
    joints = draw(st.lists(st.sampled_from(["AND", "AND", "OR"]), min_size=len(parts), max_size=len(parts)))
    if len(parts) == MOST and draw(st.booleans()):
        return f"{parts[0]} {joints[0]} ({parts[1]} {joints[1]} {parts[2]})"
    return " ".join(word for pair in zip(parts, joints, strict=True) for word in pair).rpartition(" ")[0]


@st.composite
def objects(draw):
    """A file or process with some of its properties."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    values = {
        path: draw(st.sampled_from(some)) for path, some in sorted(KINDS[kind].items()) if draw(st.integers(0, 4))
    }
    return kind, values


def bundle(things):
    """Each object, with as many observations of its own as a pattern may have."""
    shown = []
    for number, (kind, values) in enumerate(things):
        name = f"{kind}--00000000-0000-4000-8000-{number:012d}"
        properties = {path: value for path, value in values.items() if "." not in path}
        hashes = {"hashes": {"MD5": values["hashes.MD5"]}} if "hashes.MD5" in values else {}
        times = dict.fromkeys(("created", "modified", "first_observed", "last_observed"), "2020-01-01T00:00:00Z")
        shown.append({"type": kind, "id": name, "spec_version": "2.1", **properties, **hashes})
        shown += (
            {
                "type": "observed-data",
                "id": f"observed-data--00000000-0000-4000-8000-{number * MOST + again:012d}",
                "spec_version": "2.1",
                "number_observed": 1,
                "object_refs": [name],
                **times,
            }
            for again in range(MOST)
        )
    return {"type": "bundle", "id": "bundle--00000000-0000-4000-8000-000000000000", "objects": shown}


def item(number, thing) -> Item:
    """The object as an item."""
    kind, values = thing
    known = {PLACES[kind, path]: (_value(value),) for path, value in values.items()}
    return Item(document=DOCUMENTS[kind], name=f"{kind} {number}", values=known)


def _value(value):
    return datetime.fromisoformat(value).astimezone(UTC).timestamp() if value in DATES else value


def judged(pattern, things) -> bool:
    """Does the pattern match here?"""
    judge = Judge([Indicator(id="i", title="t", format="STIX 2.1", root=read_pattern(pattern))])
    assert judge.unknown == ()
    seen = [match for number, thing in enumerate(things) for match in judge.see(item(number, thing))]
    return bool(seen or judge.finish())


@settings(max_examples=400, deadline=None)
@given(stix_patterns(), st.lists(objects(), min_size=1, max_size=5))
def test_the_judge_agrees_with_the_matcher_of_the_standard(pattern, things):
    """A pattern matches the items of an endpoint exactly if it matches the same objects as observations."""
    assert judged(pattern, things) == bool(match(pattern, [bundle(things)], stix_version="2.1"))
