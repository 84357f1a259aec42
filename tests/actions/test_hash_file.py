"""Are the hashes those of the files, and nothing else done?"""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.hash_file import HashFile, hash_file
from stanch.core.errors import TargetGone, TooLarge, Unsupported
from stanch.core.files import HashKind
from tests.fakes.host import FakeEndpoint


def with_files(*contents):
    endpoint = FakeEndpoint()
    for n, content in enumerate(contents):
        endpoint.files.content[f"/srv/{n}"] = content
    return endpoint


@given(st.binary(max_size=50), st.sets(st.sampled_from(HashKind), min_size=1))
async def test_the_hashes_are_those_of_the_content(content, kinds):
    """Of the kinds that were asked for, and of no other."""
    result = await hash_file.run(with_files(content).host, HashFile(path=("/srv/0",), kinds=tuple(kinds)))
    (row,) = result.files
    seen = {kind: getattr(row, kind.value) for kind in HashKind}
    assert seen == {kind: hashlib.new(kind.value, content).hexdigest() if kind in kinds else None for kind in HashKind}
    assert row.info.size == len(content)


async def test_it_takes_sha256_and_md5_unless_told_otherwise():
    """What other systems look for."""
    (row,) = (await hash_file.run(with_files(b"x").host, HashFile(path=("/srv/0",)))).files
    assert (row.sha256 is None, row.md5 is None, row.sha1) == (False, False, None)


async def test_one_that_fails_does_not_keep_the_others():
    """Too large, unreadable and left out are told apart."""
    endpoint = with_files(b"a", b"bb", Unsupported("odd"), b"d")
    endpoint.files.unreadable["/srv/3"] = "unreadable"
    result = await hash_file.run(endpoint.host, HashFile(glob=("/srv/*",), max_size=1))
    assert [one.path for one in result.files] == ["/srv/0"]
    assert [one.path for one in result.not_hashed] == ["/srv/1", "/srv/2"]
    assert [(one.why, one.files) for one in result.skipped] == [("unreadable", 1)]


@pytest.mark.parametrize(("content", "error"), [(b"xx", TooLarge), (TargetGone("gone"), TargetGone)])
async def test_if_none_can_be_hashed_the_task_fails(content, error):
    """With the error of the one, or of each."""
    params = HashFile(glob=("/srv/*",), max_size=1)
    with pytest.raises(error):
        await hash_file.run(with_files(content).host, params)
    with pytest.raises(error, match="None of 2"):
        await hash_file.run(with_files(content, content).host, params)


async def test_a_plan_names_what_would_be_read():
    """And what is too large for it."""
    plan = await hash_file.plan(with_files(b"a", b"bb").host, HashFile(glob=("/srv/*",), max_size=1))
    assert (plan.changes, len(plan.steps)) == (False, 1)
    assert plan.warnings == ("/srv/1: larger than --max-size",)


async def test_nothing_is_changed_or_sent():
    """Files are closed again, no evidence is made."""
    endpoint = with_files(b"a", b"b")
    await hash_file.run(endpoint.host, HashFile(glob=("/srv/*",)))
    assert (endpoint.life.steps, endpoint.files.is_open) == ([], [])
