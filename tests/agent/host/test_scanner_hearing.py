"""What the worker says is believed only as far as it fits."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.scanner_hearing import Ended, LooksAt, Wanted, heard
from stanch.core.errors import ActionFailed
from stanch.core.scanning import (
    Skip,
)
from tests.agent.host.scanner_bench import BEGIN, END, Bench, events, run


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    "step",
    [
        ["raw", "no json\n"],
        ["raw", "[1]\n"],
        ["raw", "[" * 200_000 + "\n"],
        ["raw", "\xff\xfe\n"],
        ["long", 600_000],
        ["say", {"type": "order"}],
        ["say", {"type": "events", "events": {}}],
        ["say", {"type": "events", "events": [["finding", {}]] * 501}],
        events(["finding", {"engine": "yara", "rule": "a", "objects": []}]),
        events(["finding", {"engine": "magic", "rule": "a", "objects": [{"document": "F", "name": "a"}]}]),
        events(["tally", {"complete": True}]),
        events(["advance", {"files": -1}]),
        events(["skip", {"name": "x" * 5000, "reason": "gone"}]),
        events("finding"),
        ["say", {"type": "at", "names": [1]}],
        ["say", {"type": "wants", "documents": {"FileItem": "all"}, "files": True}],
        ["say", {"type": "end", "tally": {"seconds": "long"}, "error": ""}],
        ["say", {"type": "loaded", "loaded": {"name": "a", "kind": "virus", "count": 1}}],
    ],
)
async def test_nonsense_ends_the_scan(bench, step):
    """A worker that says what it cannot have to say is believed in nothing more."""
    with pytest.raises(ActionFailed, match="nonsense"):
        await run(bench.scanner([*BEGIN, step, ["hang", None]]))


async def test_names_of_odd_bytes_are_told_as_escapes(bench):
    """A lone surrogate in what a worker says does not end the scan."""
    said = events(["skip", {"name": "/tmp/\udcff", "reason": "gone"}])
    told = await run(bench.scanner([*BEGIN, said, ["all", None], END]))
    assert [one.name for one in told if isinstance(one, Skip)] == ["/tmp/\\xff"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from(["events", "loaded", "wants", "at", "end", "job"])
KEYS = ("events", "loaded", "documents", "files", "names", "tally", "error")


@given(TYPES, st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_message_is_believed_or_refused(kind, fields):
    """Whatever a worker says, nothing but our own error comes of it."""
    line = json.dumps({"type": kind, **fields}).encode()

    async def hear():
        return [one async for one in heard(line)]

    try:
        told = asyncio.run(hear())
    except ActionFailed:
        return
    assert kind != "job"
    assert all(isinstance(one, Wanted | LooksAt | Ended | list) for one in told)


@given(st.binary(max_size=200))
def test_any_line_is_believed_or_refused(line):
    """Bytes that are no JSON, too."""

    async def hear():
        return [one async for one in heard(line)]

    with pytest.raises(ActionFailed):
        asyncio.run(hear())
