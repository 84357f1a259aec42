"""Whatever is there and however it is asked for: what is chosen fits, once, in a stable order, within the bound."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import TargetGone, TooLarge
from stanch.core.files import Skipped
from stanch.core.selection import MAX_REASONS, MAX_SKIPPED_TOLD, OTHER_REASONS, Chosen, LeftOut, Selection, choose
from stanch.core.types import EndpointPath
from tests.fakes.host import FakeEndpoint

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/srv/" + "/".join(parts) + ".bin")
TREES = st.dictionaries(PATHS, st.sampled_from([b"", b"one", b"two"]), min_size=1, max_size=12)
CONTENTS = st.sets(st.sampled_from([b"one", b"two", b"three"]), min_size=1)
GLOBS = st.lists(st.sampled_from(["/srv/*", "/srv/**/*.bin", "/srv/a*", "/srv/*/b.bin"]), max_size=3)


def endpoint_with(tree):
    endpoint = FakeEndpoint()
    for path, content in tree.items():
        endpoint.files.content[path] = content
    return endpoint


def hash_of(kind, contents):
    return tuple(hashlib.new(kind, one).hexdigest() for one in sorted(contents))


async def chosen(endpoint, which):
    """What was chosen, or nothing if nothing fits."""
    try:
        return await choose(endpoint.host, which)
    except TargetGone:
        return Chosen()


@given(TREES, GLOBS, st.booleans(), st.integers(1, 12))
async def test_never_more_than_allowed_and_never_one_twice(tree, globs, folder, most):
    """Overlapping patterns and folders find a file once; one more than allowed, and none is chosen."""
    endpoint = endpoint_with(tree)
    paths = (*sorted(tree)[:2], *(("/srv",) if folder else ()))
    which = Selection(path=paths, glob=tuple(globs), recursive=folder, max_files=most)
    try:
        found = [one.path for one in (await chosen(endpoint, which)).files]
    except TooLarge:
        found = [one.path for one in (await chosen(endpoint, which.model_copy(update={"max_files": 100}))).files]
        assert len(found) > most
    else:
        assert len(found) <= most
    assert len(set(found)) == len(found)
    assert not folder or set(found) == set(tree)


@given(TREES, CONTENTS, st.sampled_from(["md5", "sha256"]))
async def test_a_hash_filter_is_exact(tree, wanted, kind):
    """All files with one of the hashes, and no other."""
    which = Selection(area=("/srv",), **{kind: hash_of(kind, wanted)})
    found = await chosen(endpoint_with(tree), which)
    assert {one.path for one in found.files} == {path for path, content in tree.items() if content in wanted}
    assert {path: getattr(one, kind) for path, one in found.digests.items()} == {
        one.path: hashlib.new(kind, tree[one.path]).hexdigest() for one in found.files
    }


@given(TREES, CONTENTS, CONTENTS)
async def test_one_of_both_kinds_of_hashes_is_enough(tree, by_md5, by_sha256):
    """As lists of indicators mean it."""
    which = Selection(area=("/srv",), md5=hash_of("md5", by_md5), sha256=hash_of("sha256", by_sha256))
    found = await chosen(endpoint_with(tree), which)
    assert {one.path for one in found.files} == {path for path, one in tree.items() if one in by_md5 | by_sha256}


@given(TREES, GLOBS)
async def test_the_order_is_the_same_each_time(tree, globs):
    """A run after a crash goes on with what the first one meant."""
    endpoint = endpoint_with(tree)
    which = Selection(path=("/srv",), glob=tuple(globs), recursive=True)
    first, second = await chosen(endpoint, which), await chosen(endpoint, which)
    assert [one.path for one in first.files] == [one.path for one in second.files]
    assert endpoint.life.steps == []


@given(st.lists(st.integers(0, 300), max_size=400))
def test_what_is_left_out_is_counted_in_bounded_memory(reasons):
    """Every one counts; the reasons that are told apart and the files that are named are few."""
    left_out = LeftOut()
    for n in reasons:
        left_out.skip(Skipped(EndpointPath(f"/{n}"), f"reason {n}"))
    assert left_out.reasons.total() == len(reasons)
    assert len(left_out.reasons) <= MAX_REASONS + 1
    assert len(left_out.skipped) == min(len(reasons), MAX_SKIPPED_TOLD)
    assert (OTHER_REASONS in left_out.reasons) == (len(set(reasons)) > MAX_REASONS)


@pytest.mark.parametrize("raw", ["/x", ["/x"], ("/x",)])
def test_one_path_may_be_its_text(raw):
    """Old scripts send it so."""
    assert Selection.model_validate({"path": raw}).path == ("/x",)
