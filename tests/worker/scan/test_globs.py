"""Patterns of the worker mean what those of the agent's searches mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.searching import Pattern
from stanch.core.types import Glob
from stanch.worker.scan.globs import finder, matcher

names = st.text(alphabet="ab.-", min_size=1, max_size=3).filter(lambda one: one not in {".", ".."})
parts = st.one_of(st.just("**"), st.text(alphabet="ab*?.-", min_size=1, max_size=3), st.sampled_from(["[ab]", "[!a]b"]))


@given(st.lists(parts, min_size=1, max_size=4), st.lists(names, min_size=1, max_size=4))
def test_they_fit_the_same_paths(pattern: list[str], path: list[str]) -> None:
    """As `searching.Pattern`, name by name; `**` at the end stands for something here."""
    text = "/" + "/".join(pattern)
    try:
        glob = Glob.parse(text)
    except ValueError:
        return
    asked, full = matcher([text]), "/" + "/".join(path)
    house = Pattern.of(glob)
    if pattern[-1] == "**" or "." in pattern or not full.startswith(house.start.decode().rstrip("/") + "/"):
        return
    at = house.begin()
    for name in full.encode()[len(house.start.rstrip(b"/")) :].strip(b"/").split(b"/"):
        at = house.step(at, name)
    assert asked is not None
    assert asked(full.encode()) == house.fits(at)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/a/**", b"/a/b/c", True),
        ("/a/**", b"/a", False),
        ("/a/**/*.sh", b"/a/x.sh", True),
        ("/a/*", b"/a/b/c", False),
        ("/a/\udcff*", b"/a/\xffb", True),
        ("/a[*]", b"/a*", True),
        ("/a[*]", b"/ab", False),
        ("/plain", b"/plain", True),
    ],
)
def test_patterns(pattern: str, path: bytes, fits: bool) -> None:  # noqa: FBT001 - a case
    """By example, odd bytes too."""
    asked = matcher([pattern, "/never"])
    assert asked is not None
    assert asked(path) is fits


def test_no_patterns_ask_nothing() -> None:
    """Nor does an empty hint."""
    assert matcher([]) is None
    assert finder("") is None


def test_a_pattern_takes_linear_time() -> None:
    """However it is made."""
    asked = matcher(["/" + "*a" * 30 + "b"])
    assert asked is not None
    assert not asked(b"/" + b"a" * 4000)
