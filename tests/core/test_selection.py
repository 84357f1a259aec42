"""Are exactly the files chosen that were meant, each once, within the bound, and is what was left out told?"""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stanch.core.errors import ForbiddenHere, TargetGone, TooLarge, Unsupported
from stanch.core.files import HashKind, Kind
from stanch.core.selection import MAX_SKIPPED_TOLD, Selection, choose, described, total_size
from tests.fakes.host import FakeEndpoint

EVIL = b"evil"
SHA256, MD5 = hashlib.sha256(EVIL).hexdigest(), hashlib.md5(EVIL).hexdigest()
A, B, C, LINK = "/tmp/x/a.sh", "/tmp/x/sub/b.sh", "/tmp/c", "/tmp/x/link"


@pytest.fixture
def endpoint():
    endpoint = FakeEndpoint()
    for path, content in ((A, EVIL), (B, b"good"), (C, EVIL)):
        endpoint.files.add(path, content, user="eve")
    endpoint.files.add(LINK, C, kind=Kind.LINK)
    return endpoint


def which(**fields):
    return Selection.model_validate(fields)


async def paths(endpoint, selection, **options):
    return [str(one.path) for one in (await choose(endpoint.host, selection, **options)).files]


# --- the parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "--path, --glob, or a hash with --area"),
        ({"recursive": True}, "--path, --glob, or a hash with --area"),
        ({"area": ["/tmp"]}, "--sha256 or --md5 with --area"),
        ({"area": ["/tmp"], "path": ["/tmp/x"]}, "--sha256 or --md5 with --area"),
        ({"sha256": [SHA256]}, "--area, --path or --glob with the hash"),
        ({"md5": [MD5]}, "--area, --path or --glob with the hash"),
    ],
)
def test_what_does_not_say_which_is_refused(fields, expected):
    """With what is missing: nothing must never mean everything."""
    with pytest.raises(ValidationError, match=expected):
        which(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"path": ["relative"]},
        {"glob": ["/tmp/plain"]},
        {"glob": ["/tmp/a**"]},
        {"path": ["/x"], "max_files": 0},
        {"path": ["/x"], "max_files": 10_001},
        {"path": ["/x"] * 1001},
        {"path": ["/x"], "sha256": ["ab"]},
    ],
)
def test_wrong_parameters_are_refused(fields):
    """Each bound and each form."""
    with pytest.raises(ValidationError):
        which(**fields)


def test_only_hashes_that_are_asked_for_are_taken():
    """Each costs a pass."""
    assert which(path=["/x"]).hashes == ()
    assert which(path=["/x"], md5=[MD5]).hashes == (HashKind.MD5,)
    assert set(which(path=["/x"], md5=[MD5], sha256=[SHA256]).hashes) == {HashKind.MD5, HashKind.SHA256}


# --- choosing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"path": [A]}, [A]),
        ({"path": [C, A]}, [C, A]),
        ({"path": ["/tmp/x"], "recursive": True}, [A, B]),
        ({"path": [A, "/tmp/x"], "recursive": True}, [A, B]),
        ({"glob": ["/tmp/*/*.sh"]}, [A]),
        ({"glob": ["/tmp/**/*.sh", "/tmp/x/*"]}, [A, B]),
        ({"sha256": [SHA256], "area": ["/tmp"]}, [C, A]),
        ({"md5": [MD5], "area": ["/tmp/x", "/tmp"]}, [A, C]),
        ({"sha256": ["0" * 64], "md5": [MD5], "path": [A, B]}, [A]),
        ({"sha256": [SHA256], "glob": ["/tmp/**/*.sh"]}, [A]),
        ({"path": [A, A]}, [A]),
    ],
)
async def test_what_was_meant_is_chosen_once(endpoint, fields, expected):
    """By path, pattern, hash, and each of them together; links are not followed."""
    assert await paths(endpoint, which(**fields)) == expected
    assert endpoint.life.steps == []


async def test_kinds_decide_what_a_search_yields(endpoint):
    """A path that was named is given as it is: the action says what it cannot do."""
    assert await paths(endpoint, which(glob=["/tmp/x/*"]), kinds=(Kind.LINK,)) == [LINK]
    folder = (await choose(endpoint.host, which(path=["/tmp/x"]))).files[0]
    assert folder.info.kind is Kind.FOLDER
    everything = await paths(endpoint, which(path=["/tmp/x"], recursive=True), kinds=tuple(Kind))
    assert everything.index("/tmp/x/sub") < everything.index(B)


async def test_what_a_content_was_is_remembered(endpoint):
    """So that another content is not touched in its place later."""
    chosen = await choose(endpoint.host, which(path=[A, B], sha256=[SHA256]))
    assert {str(path): one.sha256 for path, one in chosen.digests.items()} == {A: SHA256}
    assert (await choose(endpoint.host, which(path=[A]))).digests == {}


@given(st.integers(1, 6), st.integers(1, 6))
async def test_the_bound_is_exact(there, most):
    """As many as allowed are chosen, one more refuses, and nothing is guessed."""
    endpoint = FakeEndpoint()
    for n in range(there):
        endpoint.files.add(f"/d/{n}", b"x")
    selection = which(path=["/d"], recursive=True, max_files=most)
    if there <= most:
        assert len(await paths(endpoint, selection)) == there
    else:
        with pytest.raises(TooLarge, match=f"got over {most}, expected at most {most}"):
            await choose(endpoint.host, selection)


# --- nothing, and what was left out ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"path": [A, "/tmp/nowhere"]}, "There is no file /tmp/nowhere"),
        ({"sha256": [SHA256], "area": ["/nowhere"]}, "There is no file /nowhere"),
        ({"glob": ["/opt/*"]}, "No file fits.*got 0 looked at"),
        ({"path": [A, B], "sha256": ["0" * 64]}, "No file fits.*got 2 looked at"),
    ],
)
async def test_what_is_not_there_is_said(endpoint, fields, error):
    """A named path, an area, or nothing that fits."""
    with pytest.raises(TargetGone, match=error):
        await choose(endpoint.host, which(**fields))


async def test_what_was_left_out_is_told_with_its_reason(endpoint):
    """Not readable, forbidden, larger than is hashed, gone while it was looked at."""
    endpoint.files.unreadable[A] = "no permission"
    endpoint.files.forbidden.add(B)
    endpoint.files.add("/tmp/big", b"evil and large")
    endpoint.files.content["/tmp/gone"] = Unsupported("it is gone")
    selection = which(sha256=[SHA256], area=["/tmp"])
    chosen = await choose(endpoint.host, selection, hash_at_most=len(EVIL))
    assert [str(one.path) for one in chosen.files] == [C]
    assert set(chosen.reasons) == {
        "no permission",
        "forbidden by the owner of the machine",
        "larger than is hashed",
        "it is gone",
    }
    assert len(chosen.skipped) == 4


async def test_if_all_is_left_out_the_error_says_why(endpoint):
    """Instead of an unexplained nothing."""
    with pytest.raises(TargetGone, match="1 larger than is hashed"):
        await choose(endpoint.host, which(path=[A], sha256=[SHA256]), hash_at_most=1)


async def test_a_forbidden_path_is_refused(endpoint):
    """It was named."""
    endpoint.files.forbidden.add(A)
    with pytest.raises(ForbiddenHere):
        await choose(endpoint.host, which(path=[A]))


async def test_what_is_told_one_by_one_is_bounded(endpoint):
    """The count goes on."""
    for n in range(MAX_SKIPPED_TOLD + 10):
        endpoint.files.add(f"/d/{n}", b"x")
        endpoint.files.unreadable[f"/d/{n}"] = "no permission"
    chosen = await choose(endpoint.host, which(path=["/d", A], recursive=True))
    assert (len(chosen.skipped), chosen.reasons["no permission"]) == (MAX_SKIPPED_TOLD, MAX_SKIPPED_TOLD + 10)


async def test_people_see_how_far_it_is(endpoint):
    """Looking for a hash takes long."""
    await choose(endpoint.host, which(sha256=[SHA256], area=["/tmp"]))
    assert [(done, unit) for done, _total, unit, _text in endpoint.progress.told] == [
        (1, "files"),
        (2, "files"),
        (3, "files"),
    ]


async def test_a_file_is_described_on_one_line(endpoint):
    """For a plan."""
    files = (await choose(endpoint.host, which(path=[A, B]))).files
    assert described(files[0].info) == "file, 4 bytes, eve, mode 0644"
    assert total_size(files) == 8
