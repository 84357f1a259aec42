"""Is each process told with its own program, sockets and package, wherever it runs and whatever it does meanwhile?"""

import asyncio
import hashlib
import os
import shutil
import sys
import threading
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import patience, process_sockets
from stanch.agent.host import process_details as module
from stanch.agent.host.packages import Packages
from stanch.agent.host.patience import Patience
from stanch.agent.host.process_details import HANGS, NO_DETAILS, NOT_ASKED, TOO_LARGE, TOO_MANY_OPEN, ProcessReader
from stanch.agent.host.procfs import read_stat
from stanch.core.processes import Detail, Process
from tests.fakes.programs import MAIN_THREAD_ENDS
from tests.fakes.waiting import wait_until

WAITS = "print('ready', flush=True); input()"

IN_A_NAMESPACE = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare({flags}) == 0, ctypes.get_errno()
listener = socket.socket()
listener.bind(('0.0.0.0', 0))
listener.listen()
if os.fork() == 0:
    print('ready', listener.getsockname()[1], flush=True)
input()
"""
CAT = Path("/bin/cat").resolve()
NEWPID, NEWNET = 0x20000000, 0x40000000


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


async def told(table, pid, *details):
    """One process, with details."""
    one = await table.one(pid)
    assert one is not None
    (found,) = await table.detailed([one], details)
    return found


@pytest.fixture
def table(tmp_path):
    """Without packages."""
    return ProcessReader(packages=Packages(tmp_path))


@pytest.fixture
def program(tmp_path):
    """A program of our own, to be changed and removed."""
    path = tmp_path / "program"
    shutil.copy("/bin/cat", path)
    with path.open("ab") as file:
        file.write(os.urandom(16))
    return path


# --- hashes ----------------------------------------------------------------------------------------------------------


async def test_the_hash_is_of_the_program_that_runs(table, child, program):
    """Read from its first byte to its last."""
    assert (await told(table, child(None, command=[program]).pid, Detail.HASH)).sha256 == sha256(program)


async def test_a_program_that_was_deleted_or_replaced_is_hashed_all_the_same(table, child, program):
    """What lies at its path by now is another file, or none."""
    expected, process = sha256(program), child(None, command=[program])
    program.unlink()
    gone = await told(table, process.pid, Detail.HASH)
    program.write_bytes(b"harmless")
    replaced = await told(table, process.pid, Detail.HASH)
    assert (gone.sha256, gone.deleted) == (replaced.sha256, replaced.deleted) == (expected, True)


async def test_a_program_that_was_never_on_a_disk_is_hashed(table, child):
    """From memory (memfd) into memory: there is nothing at all on the disk."""
    runs = child(
        "import os\nfile = os.memfd_create('x')\nos.write(file, open('/bin/cat', 'rb').read())\n"
        "print('ready', flush=True)\nos.execv(f'/proc/self/fd/{file}', ['x'])",
        until=lambda pid: "memfd" in str(Path(f"/proc/{pid}/exe").readlink()),
    )
    found = await told(table, runs.pid, Detail.HASH)
    assert (found.deleted, found.sha256) == (True, sha256("/bin/cat"))


async def test_a_process_whose_main_thread_has_ended_is_told_too(table, child):
    """It looks like a zombie without a program, and runs: a good place to hide."""
    hidden = child(MAIN_THREAD_ENDS, until=lambda pid: read_stat(pid).state == "Z")
    found = await told(table, hidden.pid, Detail.HASH)
    assert found.sha256 == sha256(sys.executable)


async def test_each_content_is_read_once(table, child, program, monkeypatch):
    """A hundred processes of one program cost one hash."""
    read = []
    real = module._hash
    monkeypatch.setattr(module, "_hash", lambda version, *rest: (read.append(version), real(version, *rest))[1])
    ones = [await table.one(child(None, command=[program]).pid) for _ in range(3)]
    found = await table.detailed(ones, [Detail.HASH])
    assert [one.sha256 for one in found] == [sha256(program)] * 3
    assert len(read) == 1


async def test_of_one_that_has_ended_nothing_is_told(table, child, program):
    """It ended between the list and the hash: it is in the list as it was."""
    process = child(None, command=[program])
    one = await table.one(process.pid)
    process.kill()
    process.wait()
    assert list(await table.detailed([one], tuple(Detail))) == [one]


async def test_another_process_with_the_pid_is_not_taken_for_it(table, child, program):
    """The start time tells: the answer for one that has ended is nothing, not its successor's hash."""
    one = await table.one(child(None, command=[program]).pid)
    earlier = one.model_copy(update={"started": one.started - 1})
    assert list(await table.detailed([earlier], tuple(Detail))) == [earlier]


async def test_a_process_that_runs_another_program_by_now_is_told_without_its_hash(table, child, program):
    """The hash would stand beside the name of the program before."""
    process = child(f"print('ready', flush=True); input(); import os; os.execv({str(program)!r}, ['x'])")
    one = await table.one(process.pid)
    process.stdin.write(b"\n")
    process.stdin.flush()
    wait_until(lambda: Path(f"/proc/{process.pid}/exe").readlink() == program)
    (found,) = await table.detailed([one], [Detail.HASH])
    assert found == one
    assert (await told(table, process.pid, Detail.HASH)).sha256 == sha256(program)


async def test_a_program_that_changed_is_hashed_as_nothing(table, child, program, monkeypatch):
    """Between the look and the hash it was executed anew, as another program: neither is told as the other."""
    process = child(None, command=[program])
    one = await table.one(process.pid)
    real, looks = module._version, count()
    monkeypatch.setattr(module, "_version", lambda status: (*real(status)[:4], next(looks)))
    (found,) = await table.detailed([one], [Detail.HASH])
    assert found.sha256 is None


async def test_what_is_too_large_is_not_hashed_and_says_so(table, child, program, monkeypatch):
    """One by one and all together: the small ones are hashed first."""
    larger = program.with_name("larger")
    shutil.copy(program, larger)
    with larger.open("ab") as file:
        file.write(b"x")
    ones = [await table.one(child(None, command=[one]).pid) for one in (larger, program)]
    monkeypatch.setattr(module, "MAX_ALL", program.stat().st_size)
    large, small = await table.detailed(ones, [Detail.HASH])
    assert (large.sha256, large.note) == (None, TOO_LARGE)
    assert (small.sha256, small.note) == (sha256(program), "")
    monkeypatch.setattr(module, "MAX_PROGRAM", 1)
    assert [one.note for one in await table.detailed(ones, [Detail.HASH])] == [TOO_LARGE] * 2


async def test_progress_is_told_in_the_event_loop(table, child, program):
    """How many programs of how many; the last word is all of them."""
    heard = []
    ones = [await table.one(pid) for pid in (child(None, command=[program]).pid, os.getpid())]
    await table.detailed(ones, [Detail.HASH], lambda *count: heard.append((*count, threading.current_thread())))
    await asyncio.sleep(0)
    assert heard[-1] == (2, 2, threading.main_thread())


# --- sockets and namespaces ------------------------------------------------------------------------------------------


async def test_a_listener_is_told(table, child):
    """The socket of a process in our own namespace."""
    listens = child(
        "import socket; one = socket.socket(); one.bind(('127.0.0.1', 0)); one.listen()\n"
        "import os; os.environ['PORT'] = str(one.getsockname()[1]); print('ready', flush=True); input()"
    )
    found = await told(table, listens.pid, Detail.SOCKETS)
    (one,) = found.sockets
    assert (one.protocol, one.state, one.remote) == ("tcp", "LISTEN", "0.0.0.0:0")
    assert one.local.startswith("127.0.0.1:")


@pytest.mark.root
async def test_the_sockets_of_every_network_namespace_are_told(table, child):
    """A process in a namespace of its own, as in a container, and one in ours, in one answer."""
    ours = child("import socket; one = socket.create_server(('127.0.0.1', 0)); print('ready', flush=True); input()")
    theirs = child(IN_A_NAMESPACE.format(flags=NEWNET))
    ones = [await table.one(pid) for pid in (ours.pid, theirs.pid)]
    here, there = await table.detailed(ones, [Detail.SOCKETS])
    assert [one.local.split(":")[0] for one in here.sockets] == ["127.0.0.1"]
    assert [(one.local.split(":")[0], one.state) for one in there.sockets] == [("0.0.0.0", "LISTEN")]


@pytest.mark.root
async def test_a_process_in_a_pid_namespace_has_its_inner_pid(table, child):
    """The first process of a namespace is 1 in there; whoever made it is not inside."""
    maker = child(IN_A_NAMESPACE.format(flags=NEWPID))
    rows = await table.all()
    (inside,) = [one for one in rows if one.parent == maker.pid]
    assert inside.inner_pid == 1
    assert {one.inner_pid for one in rows if one.pid in {maker.pid, os.getpid()}} == {0}


# --- packages --------------------------------------------------------------------------------------------------------


class Everything:
    """A database that owns every file."""

    def owners(self, names):
        return dict.fromkeys(names, "everything")

    def brought(self, names):
        return {}


async def test_a_program_at_its_place_has_its_package(child, program):
    """One that was replaced has none: what runs is not what the package's file is now."""
    table = ProcessReader(packages=Packages(databases=[Everything()]))
    process = child(None, command=[program])
    assert (await told(table, process.pid, Detail.PACKAGE)).package == "everything"
    program.unlink()
    shutil.copy("/bin/cat", program)
    assert (await told(table, process.pid, Detail.PACKAGE)).package == ""


@pytest.mark.root
async def test_a_program_of_a_container_has_no_package_of_ours(child, program):
    """In its own view of the files it is called as a file of ours is called, and is another one."""
    table = ProcessReader(packages=Packages(databases=[Everything()]))
    starts = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && exec "$1"', str(program), str(CAT)]
    inside = child(None, command=starts, until=lambda pid: Path(f"/proc/{pid}/exe").readlink() == CAT)
    found = await told(table, inside.pid, *Detail)
    assert (found.executable, found.sha256, found.package) == (str(CAT), sha256(program), "")


# --- what does not answer --------------------------------------------------------------------------------------------


@pytest.fixture
def gate():
    """Whatever waits for it hangs until the test is over."""
    made = threading.Event()
    yield made
    made.set()


async def test_a_process_that_does_not_answer_is_listed_with_what_the_kernel_says(child, gate, monkeypatch):
    """One that hangs inside the kernel keeps its command line locked: it is told so, and all others are listed."""
    stuck = child(WAITS)
    real = module.read_process
    monkeypatch.setattr(
        module, "read_process", lambda pid, *rest: gate.wait() if pid == stuck.pid else real(pid, *rest)
    )
    table = ProcessReader()
    table._reading = Patience("test", seconds=0.2)
    rows = {one.pid: one for one in await table.all()}
    found = rows[stuck.pid]
    assert (found.note, found.executable, found.arguments) == (HANGS, rows[os.getpid()].executable, "")
    assert (found.parent, found.started) == (os.getpid(), read_stat(stuck.pid).started)
    assert rows[os.getpid()].note == ""


async def test_a_process_that_makes_us_wait_does_not_hide_the_others(child, gate, monkeypatch):
    """When too many hang, the rest is told with its program, and with the true reason; root's are asked before."""
    hostile, other = child(WAITS), child(WAITS)
    monkeypatch.setattr(patience, "MOST_HANGING", 1)
    monkeypatch.setattr(module, "_users", lambda _wanted: [(hostile.pid, 7), (other.pid, 7), (os.getpid(), 0)])
    real = module.read_process
    monkeypatch.setattr(
        module, "read_process", lambda pid, *rest: gate.wait() if pid == hostile.pid else real(pid, *rest)
    )
    table = ProcessReader()
    table._reading = Patience("test", seconds=0.2)
    rows = {one.pid: one for one in await table.all()}
    assert [rows[pid].note for pid in (os.getpid(), hostile.pid, other.pid)] == ["", HANGS, NOT_ASKED]
    assert rows[other.pid].executable == rows[os.getpid()].executable


async def test_a_silent_name_service_is_not_taken_for_a_process_that_hangs(child, gate, monkeypatch):
    """The directory of accounts is not reached, as on an isolated machine: numbers stand for names."""
    monkeypatch.setattr(module, "_account", lambda _user: gate.wait())
    table = ProcessReader()
    table._naming = Patience("test", seconds=0.05)
    process = child(WAITS)
    found = await table.one(process.pid)
    assert (found.user, found.note) == (str(os.geteuid()), "")
    assert found.arguments


async def test_what_is_open_beyond_the_bound_is_told(table, child, monkeypatch):
    """Who opens many files could have a socket behind them."""
    process = child(WAITS)
    assert (await told(table, process.pid, Detail.SOCKETS)).note == ""
    monkeypatch.setattr(process_sockets, "MAX_DESCRIPTORS", 1)
    assert (await told(table, process.pid, Detail.SOCKETS)).note == TOO_MANY_OPEN


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 3))))
def test_root_is_first_and_then_one_of_each_user(pairs):
    """Nobody waits for more than one process of each other user and his own before."""
    users = dict(pairs)
    order = [users[pid] for pid in module._in_turn(users)]
    mine = [user for user in order if user]
    assert order == [0] * (len(order) - len(mine)) + mine
    assert all(
        mine[:at].count(other) <= mine[:at].count(user) + 1 for at, user in enumerate(mine) for other in set(mine)
    )


async def test_a_program_on_a_disk_that_does_not_answer_says_so(child, gate, program, monkeypatch):
    """Its server is gone, or somebody means us to wait: the others are hashed."""
    stuck = child(WAITS)
    real = module._status
    monkeypatch.setattr(module, "_status", lambda path: gate.wait() if f"/{stuck.pid}/" in str(path) else real(path))
    table = ProcessReader()
    table._asking = Patience("test", seconds=0.2)
    ones = [await table.one(pid) for pid in (stuck.pid, child(None, command=[program]).pid)]
    hangs, other = await table.detailed(ones, [Detail.HASH])
    assert (hangs.sha256, hangs.note) == (None, NO_DETAILS)
    assert (other.sha256, other.note) == (sha256(program), "")


async def test_the_event_loop_goes_on_meanwhile(child, gate, monkeypatch):
    """Whatever hangs, the agent answers its server."""
    monkeypatch.setattr(module, "read_process", lambda *_: gate.wait())
    asked = asyncio.create_task(ProcessReader().one(child(WAITS).pid))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not asked.done()
    asked.cancel()


async def test_a_process_that_may_not_be_read_is_told_with_the_reason(monkeypatch):
    """One error hides nobody else."""

    def refused(pid, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "read_process", refused)
    one = await ProcessReader().one(os.getpid())
    assert "Permission denied" in one.note


async def test_nothing_is_asked_of_the_kernels_own(table):
    """Threads of the kernel and zombies have no program: they stay as they are."""
    kernel = Process(
        pid=2, parent=0, started=0, user="root", name="kthreadd", executable=None, arguments="", state="S", memory=0
    )
    assert list(await table.detailed([kernel], tuple(Detail))) == [kernel]


async def test_without_any_process_there_is_nothing_to_do(table):
    """An empty list stays empty."""
    assert list(await table.detailed([], tuple(Detail))) == []
