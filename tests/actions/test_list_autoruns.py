"""Is everything told that starts by itself, only what was asked for, and within what an answer may hold?"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions import list_autoruns as module
from stanch.actions.disable_autorun import DisableAutorun, disable_autorun
from stanch.actions.list_autoruns import ListAutoruns, list_autoruns
from stanch.core.autoruns import CHANGED_PROGRAM, UNPACKAGED_PROGRAM, Place, Unread
from stanch.core.types import EndpointPath
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step


@pytest.fixture
def endpoint():
    """A unit of a package, one that was changed, a job of nobody's package, and a packaged job of another program."""
    endpoint = FakeEndpoint()
    add = endpoint.autoruns.add
    add("good.service", "/usr/lib/systemd/system/good.service", package="good", differs=False, user="root")
    add("changed.service", "/usr/lib/systemd/system/changed.service", package="good", differs=True, user="alice")
    cron = {"place": Place.CRON, "line": 1, "user": "root"}
    add("job", "/etc/cron.d/job", command="* * * * * /tmp/X", program=EndpointPath("/tmp/X"), **cron)
    add("other", "/etc/cron.d/other", command="0 1 * * * /opt/y", package="other", notes=(UNPACKAGED_PROGRAM,), **cron)
    endpoint.autoruns.unread = [Unread(path=EndpointPath("/etc/pipe"), why="it is a FIFO")]
    return endpoint


def filled(count):
    endpoint = FakeEndpoint()
    for n in range(count):
        endpoint.autoruns.add(f"u{n}.service", f"/etc/systemd/system/u{n}.service")
    return endpoint


def lines_of(endpoint, result):
    """What the evidence says, in the order of the answer."""
    content = b"".join(endpoint.evidence.kept[one.id] for one in result.evidence)
    return [json.loads(line)["name"] for line in content.splitlines()]


async def listed(endpoint, **fields):
    return await list_autoruns.run(endpoint.host, ListAutoruns(**fields))


def names(result):
    return [one.name for one in result.autoruns]


async def test_everything_is_told_if_nothing_is_asked_for(endpoint):
    """With how many there are of each place, and what could not be read."""
    result = await listed(endpoint)
    assert names(result) == ["good.service", "changed.service", "job", "other"]
    assert (result.total, result.cut, result.evidence, result.complete) == (4, False, (), True)
    assert {one.place: one.count for one in result.by_place} == {Place.SYSTEMD_UNIT: 2, Place.CRON: 2}
    assert (result.unread_total, result.unread[0].why) == (1, "it is a FIFO")
    assert result.autoruns[2] == endpoint.autoruns.there[2]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"place": ("cron",)}, ["job", "other"]),
        ({"place": ("at",)}, []),
        ({"match": "/tmp/x"}, ["job"]),
        ({"match": "SYSTEMD"}, ["good.service", "changed.service"]),
        ({"match": "no package"}, ["other"]),
        ({"user": "alice"}, ["changed.service"]),
        ({"unpackaged": True}, ["changed.service", "job", "other"]),
        ({"unpackaged": True, "user": "root", "place": ("cron", "systemd-unit")}, ["job", "other"]),
    ],
)
async def test_only_what_was_asked_for(endpoint, fields, found):
    """Places, a text wherever it stands, a user, what is of no package."""
    result = await listed(endpoint, **fields)
    assert (names(result), result.total) == (found, len(found))


async def test_an_id_is_matched_too(endpoint):
    """So that one can be looked at alone."""
    one = endpoint.autoruns.there[1]
    assert names(await listed(endpoint, match=one.id)) == ["changed.service"]


async def test_a_program_that_was_changed_counts_as_of_no_package():
    """Though the unit is as its package brought it."""
    endpoint = FakeEndpoint()
    endpoint.autoruns.add("a.service", "/a", package="a", differs=False, notes=(CHANGED_PROGRAM,))
    assert names(await listed(endpoint, unpackaged=True)) == ["a.service"]


async def test_people_see_at_which_place_it_is(endpoint):
    """Once for each."""
    await listed(endpoint)
    assert [(one[0], one[3]) for one in endpoint.progress.told] == [(1, "systemd-unit"), (3, "cron")]


@given(st.integers(0, 30), st.integers(1, 3000), st.integers(0, 20))
async def test_the_answer_or_the_evidence_has_all(count, piece, inline):
    """Whatever the bounds: if the answer is cut, the pieces have every one, once, in order."""
    endpoint = filled(count)
    endpoint.evidence.part = 10**6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", piece)
        patch.setattr(module, "INLINE", inline)
        result = await listed(endpoint)
    expected = [f"u{n}.service" for n in range(count)]
    assert (result.total, names(result)) == (count, expected[:inline])
    assert result.cut is (count > inline)
    assert lines_of(endpoint, result) == (expected if result.evidence else [])
    assert result.evidence or not result.cut


async def test_an_answer_is_cut_by_its_bytes(monkeypatch):
    """A few large ones are as many as fit."""
    endpoint = filled(10)
    one = len(endpoint.autoruns.there[0].model_dump_json())
    monkeypatch.setattr(module, "INLINE_BYTES", 3 * one)
    endpoint.evidence.part = 10**6
    result = await listed(endpoint)
    assert (len(result.autoruns), result.cut, len(lines_of(endpoint, result))) == (3, True, 10)


async def test_more_than_the_evidence_may_hold_is_said(monkeypatch):
    """It ends there, and says that it is not complete."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(module, "MAX_CHUNKS", 4)
    endpoint = filled(10)
    endpoint.evidence.part = 10**6
    result = await listed(endpoint)
    assert (result.complete, result.total, len(result.evidence)) == (False, 3, 3)


async def test_what_could_not_be_read_is_bounded(endpoint, monkeypatch):
    """The first are named, all are counted."""
    monkeypatch.setattr(module, "MAX_UNREAD", 2)
    endpoint.autoruns.unread *= 5
    result = await listed(endpoint)
    assert (result.unread_total, len(result.unread)) == (5, 2)


async def test_the_plan_names_the_places(endpoint):
    """And changes nothing."""
    plan = await list_autoruns.plan(endpoint.host, ListAutoruns(place=("cron", "at")))
    assert ([one.target for one in plan.steps], plan.changes) == (["cron", "at"], False)
    assert len((await list_autoruns.plan(endpoint.host, ListAutoruns())).steps) == len(Place)


async def test_a_run_that_was_killed_says_the_same_when_it_runs_again(monkeypatch):
    """Pieces that were sent already are the same evidence."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(module, "INLINE", 1)

    async def prepare():
        endpoint = filled(3)
        endpoint.evidence.part = 10**6
        return endpoint

    whole = await listed(await prepare())
    for endpoint in await killed_at_every_step(prepare, list_autoruns, ListAutoruns()):
        assert await listed(endpoint) == whole
        assert set(endpoint.evidence.kept) == {one.id for one in whole.evidence}


async def test_a_unit_that_stanch_masked_says_by_which_task(endpoint):
    """A mask itself cannot say who made it; what is written down does."""
    one = endpoint.autoruns.add("worker.service", "/usr/lib/systemd/system/worker.service")
    await disable_autorun.run(endpoint.host, DisableAutorun(autorun=(one.id,)))
    result = await list_autoruns.run(endpoint.host, ListAutoruns(match="worker.service"))
    assert [(row.enabled, row.disabled_by) for row in result.autoruns] == [(False, endpoint.task)]
