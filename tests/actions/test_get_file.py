"""Does a file reach the server as it is, or not at all?"""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.get_file import GetFile, get_file
from stanch.core.errors import ActionFailed, TargetGone, TooLarge, Unsupported
from stanch.core.types import EndpointPath
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step

PATH = "/home/eve/dropper"
CONTENT = b"\x7fELF, or so it says"


async def with_file():
    endpoint = FakeEndpoint()
    endpoint.files.content[PATH] = CONTENT
    return endpoint


@pytest.fixture
async def endpoint():
    return await with_file()


def order(**fields):
    return GetFile.model_validate({"path": PATH, **fields})


async def test_the_file_is_evidence(endpoint):
    """Its bytes, hash, name and properties."""
    result = await get_file.run(endpoint.host, order())
    assert endpoint.evidence.kept[result.evidence.id] == CONTENT
    assert result.evidence.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (result.evidence.name, result.evidence.size) == (PATH, len(CONTENT))
    assert (result.info.size, result.info.mode) == (len(CONTENT), 0o644)
    assert endpoint.files.is_open == []


@given(st.binary(max_size=50), st.integers(1, 60))
async def test_any_content_in_parts_of_any_size_is_the_content(content, part):
    """Empty files and parts that do not divide the size included."""
    endpoint = await with_file()
    endpoint.files.content[PATH], endpoint.evidence.part = content, part
    result = await get_file.run(endpoint.host, order())
    assert endpoint.evidence.kept[result.evidence.id] == content


async def test_an_odd_name_stays_itself(endpoint):
    r"""A name that is no UTF-8 arrives in its `\xff` form."""
    path = EndpointPath.of(b"/tmp/\xff")
    endpoint.files.content[path] = CONTENT
    assert (await get_file.run(endpoint.host, order(path=path))).evidence.name == r"/tmp/\xff"


async def test_too_large_is_refused_before_anything_is_sent(endpoint):
    """The hint is the option that would allow it."""
    with pytest.raises(TooLarge, match=f"--max-size {len(CONTENT)}"):
        await get_file.run(endpoint.host, order(max_size=len(CONTENT) - 1))
    assert endpoint.life.steps == []
    assert endpoint.files.is_open == []


async def test_as_large_as_allowed_is_sent(endpoint):
    """The bound itself is inside."""
    assert (await get_file.run(endpoint.host, order(max_size=len(CONTENT)))).evidence.size == len(CONTENT)


async def test_a_file_that_shrinks_is_an_error(endpoint):
    """Half a file is never called the file."""

    def shrink():
        endpoint.files.content[PATH] = CONTENT[:6]

    endpoint.evidence.after_part = shrink
    with pytest.raises(ActionFailed, match="became shorter"):
        await get_file.run(endpoint.host, order())
    assert endpoint.evidence.kept == {}
    assert endpoint.files.is_open == []


async def test_a_file_that_grows_is_sent_as_large_as_it_was(endpoint):
    """A log that is written to is taken up to where it was when the order ran."""

    def grow():
        endpoint.files.content[PATH] += b"more"

    endpoint.evidence.after_part = grow
    result = await get_file.run(endpoint.host, order())
    assert endpoint.evidence.kept[result.evidence.id] == CONTENT


@pytest.mark.parametrize("error", [TargetGone("gone"), Unsupported("a FIFO")])
async def test_what_cannot_be_opened_comes_out_as_it_is(endpoint, error):
    """In the run and in the plan."""
    endpoint.files.content[PATH] = error
    for call in (get_file.run, get_file.plan):
        with pytest.raises(type(error)):
            await call(endpoint.host, order())


async def test_a_plan_tells_the_size_and_sends_nothing(endpoint):
    """Nothing changes on the endpoint either way."""
    plan = await get_file.plan(endpoint.host, order())
    assert (plan.changes, plan.steps[0].what, plan.warnings) == (False, f"Send {len(CONTENT)} bytes", ())
    assert endpoint.life.steps == []


async def test_a_plan_says_that_it_would_be_refused(endpoint):
    """With both sizes."""
    (warning,) = (await get_file.plan(endpoint.host, order(max_size=3))).warnings
    assert f"{len(CONTENT)} bytes, over --max-size 3" in warning


async def test_killed_anywhere_it_is_simply_sent_again():
    """After `kill -9` at any step, the second run brings the whole file, as one piece of evidence."""
    for endpoint in await killed_at_every_step(with_file, get_file, order()):
        result = await get_file.run(endpoint.host, order())
        assert endpoint.evidence.kept == {result.evidence.id: CONTENT}
