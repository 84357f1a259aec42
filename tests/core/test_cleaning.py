"""Tests of stanch.core.cleaning: what is done about malware that was found."""

import hashlib

import pytest

from stanch.core.cleaning import Cleaned, clean, meant_by
from stanch.core.processes import Held
from stanch.core.scanning import Object
from stanch.core.types import EndpointPath
from tests.fakes.host import FakeEndpoint

EVIL = b"evil"


@pytest.fixture
def endpoint() -> FakeEndpoint:
    """Two files of malware, and a process that runs the first."""
    endpoint = FakeEndpoint()
    endpoint.files.content.update({"/tmp/a": EVIL, "/tmp/b": b"worse"})
    endpoint.processes.add(200)
    endpoint.processes.hold(endpoint.processes.table[200].id, id_at(endpoint, "/tmp/a"), Held.RUNS)
    return endpoint


def id_at(endpoint: FakeEndpoint, path: str):
    return endpoint.files.info_of(endpoint.files.tree[path]).id


def found(path: str, content: bytes = EVIL, **more) -> Object:
    """A file, as a scan has seen it."""
    sha256 = hashlib.sha256(content).hexdigest()
    return Object(document="FileItem", name=path, path=EndpointPath(path), **{"sha256": sha256, **more})


async def meant(endpoint: FakeEndpoint, *objects: Object, quarantine: bool = True, end: bool = False) -> Cleaned:
    return await meant_by(endpoint.host, objects, quarantine=quarantine, end_processes=end)


async def test_each_file_is_meant_once(endpoint: FakeEndpoint):
    """Several rules that find one file take it once."""
    plan = await meant(endpoint, found("/tmp/a"), found("/tmp/a", size=4), found("/tmp/b", b"worse"))
    assert [one.path for one in plan.targets] == ["/tmp/a", "/tmp/b"]
    assert len({one.id for one in plan.targets}) == 2


async def test_nothing_is_meant_by_a_report(endpoint: FakeEndpoint):
    """Who only wants to know changes nothing."""
    assert await meant(endpoint, found("/tmp/a"), quarantine=False) == Cleaned()


async def test_what_is_gone_is_told(endpoint: FakeEndpoint):
    """A file that vanished since is no target, and the answer does not keep silent about it."""
    plan = await meant(endpoint, found("/tmp/gone"))
    assert not plan.targets
    assert [(one.path, one.why) for one in plan.refused] == [("/tmp/gone", "nothing is there any more")]


async def test_what_the_scan_could_not_hash_is_not_taken(endpoint: FakeEndpoint):
    """Only its hash tells that a file is the one in which something was found, and not another that has its place."""
    plan = await meant(endpoint, found("/tmp/a", sha256=None))
    assert not plan.targets
    assert "hash" in plan.refused[0].why


async def test_other_objects_are_no_files(endpoint: FakeEndpoint):
    """A port or a process with a path is not taken away as a file, whatever the scanner says."""
    odd = Object(document="ProcessItem", name="x", path=EndpointPath("/tmp/a"), pid=0)
    plan = await meant(endpoint, odd, end=True)
    assert not plan.targets
    assert not plan.processes


async def test_one_that_cannot_be_taken_does_not_keep_the_others(endpoint: FakeEndpoint):
    """What fails is told, and the rest is done."""
    plan = await meant(endpoint, found("/tmp/a"), found("/tmp/b", b"worse"))
    del endpoint.files.content["/tmp/a"]
    outcome = await clean(endpoint.host, plan, end_processes=False)
    assert [one.path for one in outcome.removed] == ["/tmp/b"]
    assert [one.path for one in outcome.not_removed] == ["/tmp/a"]


async def test_processes_end_though_their_file_stays(endpoint: FakeEndpoint):
    """`--end-processes` alone ends who runs the file, and leaves the file."""
    plan = await meant(endpoint, found("/tmp/a"), quarantine=False, end=True)
    outcome = await clean(endpoint.host, plan, end_processes=True)
    assert [one.pid for one in outcome.ended] == [200]
    assert 200 not in endpoint.processes.table
    assert endpoint.files.content["/tmp/a"] == EVIL
    assert not outcome.removed


async def test_who_runs_another_file_at_that_place_goes_on(endpoint: FakeEndpoint):
    """A path that leads to something else by now ends no innocent process."""
    endpoint.files.content["/tmp/a"] = b"a shell, say"
    plan = await meant(endpoint, found("/tmp/a"), quarantine=False, end=True)
    outcome = await clean(endpoint.host, plan, end_processes=True)
    assert not outcome.ended
    assert 200 in endpoint.processes.table


async def test_who_runs_what_the_machine_needs_goes_on_and_is_told(endpoint: FakeEndpoint):
    """A rule that is wrong about a shell ends nobody's shell, and the answer says that they go on."""
    endpoint.files.protected["/tmp/a"] = "it is a shell"
    for quarantine in (False, True):
        plan = await meant(endpoint, found("/tmp/a"), quarantine=quarantine, end=True)
        outcome = await clean(endpoint.host, plan, end_processes=True)
        assert [(one.pid, one.why) for one in outcome.left_running] == [(200, "it is a shell")]
        assert 200 in endpoint.processes.table


async def test_who_runs_a_file_that_could_not_be_taken_is_told(endpoint: FakeEndpoint):
    """It changed meanwhile: its process goes on, and the answer says so."""
    plan = await meant(endpoint, found("/tmp/a"), end=True)
    endpoint.files.content["/tmp/a"] = b"changed"
    outcome = await clean(endpoint.host, plan, end_processes=True)
    assert [one.path for one in outcome.not_removed] == ["/tmp/a"]
    assert [one.pid for one in outcome.left_running] == [200]
    assert outcome.left_running[0].why.startswith("its file was not removed: ")


async def test_malware_that_deleted_itself_is_ended(endpoint: FakeEndpoint):
    """A program without a path is named by a process that runs it: that one ends, and every other that runs it."""
    one, other = endpoint.processes.add(300), endpoint.processes.add(301)
    endpoint.files.content["/proc/300/exe"] = EVIL
    for process in (one, other):
        endpoint.processes.hold(process, id_at(endpoint, "/proc/300/exe"), Held.RUNS)
    plan = await meant(endpoint, found("/tmp/self (deleted)", pid=300, started=one.started), quarantine=False, end=True)
    outcome = await clean(endpoint.host, plan, end_processes=True)
    assert outcome.ended_pids == (300,)
    assert {row.pid for row in outcome.ended} == {300, 301}
    assert not {300, 301} & endpoint.processes.table.keys()


async def test_a_protected_process_goes_on_and_is_told(endpoint: FakeEndpoint):
    """Init is not ended for what somebody found in its memory."""
    one = endpoint.processes.add(300)
    endpoint.processes.protected[one.pid] = "it is ours"
    seen = Object(document="ProcessItem", name="x", pid=one.pid, started=one.started)
    plan = await meant(endpoint, seen, quarantine=False, end=True)
    outcome = await clean(endpoint.host, plan, end_processes=True)
    assert [(row.pid, row.why) for row in outcome.left_running] == [(300, "it is ours")]
    assert not outcome.ended_pids
