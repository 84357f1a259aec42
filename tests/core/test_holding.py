"""Is everybody known who holds a file that was taken, and nobody who merely holds another one?"""

import pytest

from stanch.core.files import FileId
from stanch.core.holding import MAX_HOLDERS, ended_of, holders_of, meant, still_held
from stanch.core.processes import Held
from stanch.core.types import EndpointPath
from tests.fakes.host import FakeEndpoint

PATH = EndpointPath("/tmp/evil")
FILE = FileId(device=1, inode=5)
PLACES = {FILE: PATH}


@pytest.fixture
def endpoint():
    return FakeEndpoint()


def holder(endpoint, pid, how, *, executable="/usr/bin/other", file=FILE):
    one = endpoint.processes.add(pid, name=f"n{pid}", executable=executable)
    endpoint.processes.hold(one, file, how)
    return one


async def test_who_runs_it_comes_first(endpoint):
    """Then who has it mapped, writes or reads it; who holds something else is not told."""
    for pid, how in ((100, Held.READS), (101, Held.WRITES), (102, Held.RUNS), (103, Held.MAPS)):
        holder(endpoint, pid, how)
    holder(endpoint, 104, Held.RUNS, file=FileId(device=2, inode=5))
    found = await holders_of(endpoint.host, PLACES)
    assert [one.process.pid for one in found] == [102, 103, 101, 100]
    assert await holders_of(endpoint.host, {}) == ()


async def test_how_many_are_told_is_bounded(endpoint):
    """Whoever runs it is not lost behind those who read it."""
    for pid in range(100, 100 + MAX_HOLDERS):
        holder(endpoint, pid, Held.READS)
    last = holder(endpoint, 5000, Held.RUNS)
    found = await holders_of(endpoint.host, PLACES)
    assert (len(found), found[0].process) == (MAX_HOLDERS, last)


@pytest.mark.parametrize(
    ("how", "executable", "there", "is_meant"),
    [
        (Held.RUNS, "/tmp/evil", False, True),
        (Held.RUNS, "/tmp/evil (deleted)", False, True),
        (Held.RUNS, "/tmp/evil", True, False),
        (Held.RUNS, "/usr/bin/other", False, False),
        (Held.RUNS, None, False, False),
        (Held.WRITES, "/tmp/evil", False, False),
    ],
)
async def test_a_newcomer_is_meant_only_if_it_runs_what_is_gone(endpoint, how, executable, there, is_meant):
    """The number of the file may be another file's by now."""
    if there:
        endpoint.files.add(PATH, b"new")
    newcomer = holder(endpoint, 100, how, executable=executable)
    found = await meant(endpoint.host, (), PLACES)
    assert [one.process for one in found] == ([newcomer] if is_meant else [])


async def test_who_held_it_before_is_meant(endpoint):
    """Whatever its program is called; another process with its pid is not."""
    holder(endpoint, 100, Held.READS)
    before = await holders_of(endpoint.host, PLACES)
    assert await meant(endpoint.host, before, PLACES) == list(before)
    holder(endpoint, 100, Held.READS)
    assert await meant(endpoint.host, before, PLACES) == []


async def test_who_ended_is_told_from_who_goes_on(endpoint):
    """With what they ran; a reason only for who should have been ended."""
    holder(endpoint, 100, Held.RUNS)
    lives = holder(endpoint, 101, Held.RUNS)
    endpoint.processes.hold(lives, FILE, Held.READS)
    known = await holders_of(endpoint.host, PLACES)
    del endpoint.processes.table[100]
    assert [(one.pid, one.name, one.path) for one in await ended_of(endpoint.host, known, PLACES)] == [
        (100, "n100", PATH)
    ]
    held = await still_held(endpoint.host, known, PLACES, {lives: "it is Stanch itself"})
    assert [(one.pid, one.how, one.why) for one in held] == [
        (101, Held.RUNS, "it is Stanch itself"),
        (101, Held.READS, ""),
    ]


async def test_who_held_what_was_not_taken_is_not_told(endpoint):
    """That file is still in its place."""
    holder(endpoint, 100, Held.RUNS)
    known = await holders_of(endpoint.host, PLACES)
    del endpoint.processes.table[100]
    assert await ended_of(endpoint.host, known, {}) == []
