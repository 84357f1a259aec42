"""Does a file reach the server as it is, or not at all?"""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.get_file import GetFile, get_file
from stanch.core.errors import ActionFailed, TargetGone, TooLarge, Unsupported
from stanch.core.files import Extent, Kind
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
    (got,) = result.files
    assert endpoint.evidence.kept[got.evidence.id] == CONTENT
    assert got.evidence.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (got.evidence.name, got.evidence.size) == (PATH, len(CONTENT))
    assert (got.info.size, got.info.mode, got.changed) == (len(CONTENT), 0o644, False)
    assert (result.count, result.size, result.not_sent, result.skipped) == (1, len(CONTENT), (), ())
    assert endpoint.files.is_open == []


@given(st.binary(max_size=50), st.integers(1, 60))
async def test_any_content_in_parts_of_any_size_is_the_content(content, part):
    """Empty files and parts that do not divide the size included."""
    endpoint = await with_file()
    endpoint.files.content[PATH], endpoint.evidence.part = content, part
    (got,) = (await get_file.run(endpoint.host, order())).files
    assert endpoint.evidence.kept[got.evidence.id] == content


async def test_an_odd_name_stays_itself(endpoint):
    r"""A name that is no UTF-8 arrives in its `\xff` form."""
    path = EndpointPath.of(b"/tmp/\xff")
    endpoint.files.content[path] = CONTENT
    assert (await get_file.run(endpoint.host, order(path=path))).files[0].evidence.name == r"/tmp/\xff"


async def test_too_large_is_refused_before_anything_is_sent(endpoint):
    """The hint is the option that would allow it."""
    with pytest.raises(TooLarge, match=f"--max-size {len(CONTENT)}"):
        await get_file.run(endpoint.host, order(max_size=len(CONTENT) - 1))
    assert endpoint.life.steps == []
    assert endpoint.files.is_open == []


async def test_as_large_as_allowed_is_sent(endpoint):
    """The bound itself is inside."""
    assert (await get_file.run(endpoint.host, order(max_size=len(CONTENT)))).size == len(CONTENT)


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
    (got,) = (await get_file.run(endpoint.host, order())).files
    assert endpoint.evidence.kept[got.evidence.id] == CONTENT
    assert got.changed


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
    assert f"{PATH}: {len(CONTENT)} bytes, over --max-size 3" in warning


async def test_killed_anywhere_it_is_simply_sent_again():
    """After `kill -9` at any step, the second run brings the whole file, as one piece of evidence."""
    for endpoint in await killed_at_every_step(with_file, get_file, order()):
        (got,) = (await get_file.run(endpoint.host, order())).files
        assert endpoint.evidence.kept == {got.evidence.id: CONTENT}


# --- several files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def many(endpoint):
    """Three files below one folder."""
    for n in range(3):
        endpoint.files.content[f"/srv/{n}"] = bytes([n]) * (n + 1)
    return endpoint


def names(result):
    return [one.path for one in result.files]


def test_the_text_of_a_path_is_a_list_of_one():
    """Scripts of before there were lists go on working."""
    assert order().path == (PATH,)
    with pytest.raises(ValueError, match="absolute"):
        order(path="relative")


async def test_each_file_is_evidence_under_its_own_name(many):
    """In the order in which they were found."""
    result = await get_file.run(many.host, GetFile(path=("/srv",), recursive=True))
    assert names(result) == ["/srv/0", "/srv/1", "/srv/2"]
    assert [one.evidence.name for one in result.files] == names(result)
    assert (result.count, result.size) == (3, 6)


async def test_a_file_of_several_names_is_sent_once(many):
    """Hard links, links that lead to it, and a path that was given twice."""
    many.files.link("/srv/also", "/srv/0")
    many.files.add("/srv/soft", "/srv/0", kind=Kind.LINK)
    result = await get_file.run(many.host, GetFile(path=("/srv/0", "/srv/soft", "/srv/also", "/srv/0")))
    assert names(result) == ["/srv/0"]
    assert list(many.evidence.kept.values()) == [b"\0"]


async def test_a_link_is_measured_by_what_it_leads_to(many):
    """A short link to a large file is a large file."""
    many.files.add("/srv/soft", PATH, kind=Kind.LINK)
    with pytest.raises(TooLarge):
        await get_file.run(many.host, GetFile(path=("/srv/soft",), max_size=len(PATH) + 1))


async def test_one_that_is_too_large_stops_all_before_anything_is_sent(many):
    """Each is named, and the hint allows the largest."""
    with pytest.raises(TooLarge) as refused:
        await get_file.run(many.host, GetFile(path=("/srv",), recursive=True, max_size=1))
    assert refused.value.got == "/srv/1: 2 bytes; /srv/2: 3 bytes"
    assert "--max-size 3" in refused.value.hint
    assert many.life.steps == []


async def test_one_that_fails_does_not_keep_the_others(many):
    """One cannot be opened, one vanishes meanwhile; both are told with the reason."""
    many.files.content["/srv/0"] = Unsupported("odd")

    def vanish():
        many.files.tree.pop("/srv/2", None)

    many.evidence.after_part = vanish
    result = await get_file.run(many.host, GetFile(glob=("/srv/*",)))
    assert names(result) == ["/srv/1"]
    assert [(one.path, one.why) for one in result.not_sent] == [
        ("/srv/0", "odd"),
        ("/srv/2", "There is no file /srv/2"),
    ]


async def test_if_all_fail_the_task_fails(many):
    """Each is named."""
    for n in range(3):
        many.files.content[f"/srv/{n}"] = TargetGone(f"gone {n}")
    with pytest.raises(TargetGone, match="None of 3") as failed:
        await get_file.run(many.host, GetFile(glob=("/srv/*",)))
    assert "gone 2" in failed.value.got


async def test_one_that_grew_after_the_look_is_not_sent(many):
    """The bound holds for what is sent, not only for what was seen first."""

    def grow():
        many.files.content["/srv/2"] = bytes(100)

    many.evidence.after_part = grow
    result = await get_file.run(many.host, GetFile(glob=("/srv/*",), max_size=10))
    assert names(result) == ["/srv/0", "/srv/1"]
    assert "grown" in result.not_sent[0].why


async def test_what_is_left_out_is_counted(many):
    """By reason."""
    many.files.unreadable["/srv/0"] = "unreadable"
    result = await get_file.run(many.host, GetFile(glob=("/srv/*",)))
    assert [(one.why, one.files) for one in result.skipped] == [("unreadable", 1)]


async def test_holes_are_neither_read_nor_sent(endpoint):
    """The evidence is asked for the pieces that hold data alone, and has the zeros between them."""
    content = bytes(1000) + b"data" + bytes(1000)
    endpoint.files.add("/srv/sparse", content, extents=(Extent(1000, 4),))
    (got,) = (await get_file.run(endpoint.host, order(path="/srv/sparse"))).files
    assert endpoint.life.steps == ["evidence.part", "evidence.finish"]
    assert endpoint.evidence.kept[got.evidence.id] == content
    assert (got.info.allocated, got.info.size) == (4, 2004)


async def test_the_answer_tells_the_first_bytes_and_the_type(endpoint):
    """Before anybody fetches it."""
    (got,) = (await get_file.run(endpoint.host, order())).files
    assert (got.type.name, got.type.first) == ("ELF 64-bit executable", CONTENT.hex())


async def test_a_plan_of_many_names_what_cannot_be_sent(many):
    """And sends nothing."""
    many.files.content["/srv/1"] = Unsupported("odd")
    plan = await get_file.plan(many.host, GetFile(glob=("/srv/*",)))
    assert [one.target for one in plan.steps] == ["/srv/0", "/srv/2"]
    assert plan.warnings == ("Cannot be sent: /srv/1: odd",)
