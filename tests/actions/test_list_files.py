"""Is everything listed that is there, once, and never more in memory than a bounded piece?"""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions import list_files as module
from stanch.actions.list_files import ListFiles, list_files
from stanch.core.errors import Invalid, TargetGone, Unsupported
from stanch.core.files import Kind
from tests.fakes.files import MODIFIED
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step


@pytest.fixture
def endpoint():
    """A folder with a file, a link, a pipe, and a folder with one more file."""
    endpoint = FakeEndpoint()
    endpoint.files.add("/srv/a", b"four", user="eve", group="staff", mode=0o4755)
    endpoint.files.add("/srv/b", "/srv/a", kind=Kind.LINK)
    endpoint.files.add("/srv/c", kind=Kind.FIFO)
    endpoint.files.add("/srv/sub/d", b"deep", modified=MODIFIED + timedelta(days=1))
    return endpoint


def filled(count):
    endpoint = FakeEndpoint()
    for n in range(count):
        endpoint.files.content[f"/srv/{n:05}"] = b""
    return endpoint


def lines_of(endpoint, result):
    """What the evidence says, in the order of the answer."""
    content = b"".join(endpoint.evidence.kept[one.id] for one in result.evidence)
    return [json.loads(line)["path"] for line in content.splitlines()]


async def listed(endpoint, **fields):
    return await list_files.run(endpoint.host, ListFiles(**fields))


def paths(result):
    return [one.path for one in result.files]


async def test_a_folder_has_its_own_entries(endpoint):
    """Of every kind, not itself, and nothing of what is deeper."""
    result = await listed(endpoint, folder=("/srv",))
    assert paths(result) == ["/srv/a", "/srv/b", "/srv/c", "/srv/sub"]
    assert [one.kind for one in result.files] == [Kind.FILE, Kind.LINK, Kind.FIFO, Kind.FOLDER]
    assert (result.count, result.complete, result.evidence) == (4, True, ())


async def test_an_entry_tells_all_that_is_known(endpoint):
    """Size, owner, mode, times, names; no hashes unless asked for."""
    row = (await listed(endpoint, glob=("/srv/a*",))).files[0]
    assert (row.size, row.user, row.group, row.mode, row.links) == (4, "eve", "staff", 0o4755, 1)
    assert (row.modified, row.changed) == (MODIFIED, MODIFIED)
    assert (row.sha256, row.md5, row.sha1) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"depth": None}, ["/srv/a", "/srv/b", "/srv/c", "/srv/sub", "/srv/sub/d"]),
        ({"kinds": ("link", "fifo")}, ["/srv/b", "/srv/c"]),
        ({"owner": "eve"}, ["/srv/a"]),
        ({"min_size": 4, "kinds": ("file",)}, ["/srv/a"]),
        ({"max_size": 3, "kinds": ("file", "fifo")}, ["/srv/c"]),
        ({"depth": None, "modified_after": MODIFIED}, ["/srv/sub/d"]),
        ({"depth": None, "kinds": ("file",), "modified_before": MODIFIED + timedelta(seconds=1)}, ["/srv/a"]),
        ({"modified_before": datetime(1970, 1, 1, tzinfo=UTC)}, []),
    ],
)
async def test_only_what_was_asked_for(endpoint, fields, found):
    """Depth, kind, owner, size and times narrow it, bounds of sizes included, those of times not."""
    assert paths(await listed(endpoint, folder=("/srv",), **fields)) == found


async def test_what_several_searches_find_is_listed_once(endpoint):
    """Overlapping folders and patterns, each named twice."""
    result = await listed(
        endpoint, folder=("/srv/sub", "/srv", "/srv"), glob=("/srv/**/d", "/srv/**/d", "/srv/*"), depth=None
    )
    assert sorted(paths(result)) == ["/srv/a", "/srv/b", "/srv/c", "/srv/sub", "/srv/sub/d"]


async def test_a_file_that_is_named_as_a_folder_is_listed_itself(endpoint):
    """It is what the person wanted to know about."""
    assert paths(await listed(endpoint, folder=("/srv/a",))) == ["/srv/a"]


async def test_hashes_on_demand(endpoint):
    """Of regular files within the bound; what could not be hashed is listed all the same, and told."""
    endpoint.files.content["/srv/large"] = bytes(100)
    endpoint.files.content["/srv/odd"] = Unsupported("odd")
    result = await listed(endpoint, folder=("/srv",), hashes=("md5", "sha1"), hash_at_most=10)
    rows = {one.path: one for one in result.files}
    assert rows["/srv/a"].md5 == "8cbad96aced40b3838dd9f07f6ef5772"
    assert (rows["/srv/a"].sha1 is None, rows["/srv/a"].sha256) == (False, None)
    assert [rows[one].md5 for one in ("/srv/large", "/srv/odd", "/srv/b")] == [None] * 3
    assert {one.why for one in result.skipped} == {"not hashed: odd", "not hashed: larger than --hash-at-most"}
    assert {one.path for one in result.first_skipped} == {"/srv/large", "/srv/odd"}


async def test_what_was_left_out_is_counted_and_the_first_named(endpoint):
    """A thousand reasons are not a thousand rows."""
    for n in range(300):
        endpoint.files.add(f"/srv/x{n:03}")
        endpoint.files.unreadable[f"/srv/x{n:03}"] = f"reason {n}"
    result = await listed(endpoint, folder=("/srv",))
    assert (len(result.skipped), sum(one.files for one in result.skipped)) == (100, 300)
    assert len(result.first_skipped) == 100


async def test_it_ends_after_so_many_and_says_so():
    """What is left is not looked at."""
    result = await listed(filled(10), folder=("/srv",), max_files=4)
    assert (result.count, result.complete, len(result.files)) == (4, False, 4)
    assert (await listed(filled(4), folder=("/srv",), max_files=4)).complete


async def test_more_than_fits_into_the_answer_comes_as_evidence():
    """All of them, the first ones too, in one piece if it is small."""
    endpoint = filled(module.INLINE + 1)
    result = await listed(endpoint, folder=("/srv",), max_files=1_000_000)
    assert (result.count, len(result.files), result.complete) == (1001, 1000, True)
    assert lines_of(endpoint, result) == sorted(endpoint.files.content)
    assert result.evidence[0].name.startswith("files-0001-")


@given(st.integers(0, 40), st.integers(1, 2000), st.integers(0, 20), st.integers(1, 50))
async def test_the_pieces_are_the_list(count, piece, inline, most):
    """Whatever the bounds: the pieces have every entry once, in order, or the answer has."""
    endpoint = filled(count) if count else FakeEndpoint()
    endpoint.files.add("/srv", kind=Kind.FOLDER)
    endpoint.evidence.part = 10**6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", piece)
        patch.setattr(module, "INLINE", inline)
        result = await listed(endpoint, folder=("/srv",), max_files=most)
    expected = sorted(endpoint.files.content)[: min(count, most)]
    assert (result.count, result.complete) == (len(expected), count <= most)
    assert paths(result) == expected[:inline]
    assert lines_of(endpoint, result) == (expected if result.evidence else [])
    assert result.evidence or len(result.files) == result.count
    assert len({one.name for one in result.evidence}) == len(result.evidence)


async def test_no_more_than_a_piece_is_in_memory(monkeypatch):
    """Each piece is sent as soon as it is full, before the search goes on."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    endpoint = filled(500)
    await listed(endpoint, folder=("/srv",))
    assert len(endpoint.evidence.kept) > 50
    assert max(map(len, endpoint.evidence.kept.values())) < 1500


async def test_killed_anywhere_the_second_run_has_all(monkeypatch):
    """What the first one had sent is the same evidence; nothing is missing or in it twice."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 500)
    monkeypatch.setattr(module, "INLINE", 3)

    async def prepare():
        endpoint = filled(8)
        endpoint.evidence.part = 400
        return endpoint

    params = ListFiles(folder=("/srv",))
    for endpoint in await killed_at_every_step(prepare, list_files, params):
        result = await list_files.run(endpoint.host, params)
        assert lines_of(endpoint, result) == sorted(endpoint.files.content)
        assert set(endpoint.evidence.kept) == {one.id for one in result.evidence}


def test_it_must_be_said_where():
    """An order without a place would list nothing."""
    with pytest.raises(Invalid, match="wrong") as refused:
        list_files.parse({})
    assert "--folder or --glob" in refused.value.expected


async def test_a_folder_that_is_not_there_fails(endpoint):
    """An empty list would say that nothing is in it."""
    with pytest.raises(TargetGone):
        await listed(endpoint, folder=("/nowhere",))


async def test_a_plan_says_where_it_would_look(endpoint):
    """Without looking: whether it is there is found out by the run."""
    plan = await list_files.plan(endpoint.host, ListFiles(folder=("/nowhere",), glob=("/tmp/*",), depth=None))
    assert [(one.what, one.target) for one in plan.steps] == [
        ("List, all levels", "/nowhere"),
        ("List what fits", "/tmp/*"),
    ]
