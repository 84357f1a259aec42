"""Do indicators find the processes that they speak of, and no others?"""

import asyncio
import hashlib
import os
import pwd
import secrets
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stanch.agent.host import items_processes
from stanch.agent.host.items import Parts
from stanch.agent.host.items_processes import about, all_pids, outline, with_and_without_remark
from stanch.agent.host.patience import MOST_HANGING
from stanch.agent.host.procfs import read_stat
from stanch.core.errors import ForbiddenHere
from stanch.core.ioc.terms import DOCUMENTS
from stanch.core.scanning import Object
from stanch.core.types import MAX_PATH_BYTES, EndpointPath
from tests.agent.host.items_world import collect, found, only, pids, program_of
from tests.fakes.waiting import wait_until

WAITS = "import sys; print('ready', flush=True); sys.stdin.read()"
RICH = """
import ctypes, os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
file = open(sys.argv[1])
pipe = os.pipe()
kept = [os.urandom(8).hex() for _ in range(100)]
print("ready", flush=True)
sys.stdin.read()
"""
HOLDS = """
import os, sys
if os.fork() == 0:
    text = sys.argv[1][::-1]
    wide = text.swapcase().encode("utf-16-le")
    print("ready", flush=True)
sys.stdin.read()
"""
needs_root = pytest.mark.root


@pytest.fixture
def program(tmp_path) -> Path:
    """A program of its own content, under a name of its own."""
    made = tmp_path / f"planted-{secrets.token_hex(8)}"
    shutil.copy("/bin/sleep", made)
    with made.open("ab") as file:
        file.write(secrets.token_bytes(16))
    return made


def run(child, program: Path, *arguments: str):
    """Let it run."""
    return child(
        None,
        command=[program, *(arguments or ("1000",))],
        until=lambda pid: program_of(pid) == str(program),
    )


def text_of(pid: int, name: str) -> str:
    """A file below /proc."""
    return Path(f"/proc/{pid}/{name}").read_text("utf-8")


async def test_a_special_argument_is_found(child):
    """One process has it among its arguments, and only that one is found."""
    token = secrets.token_hex(12)
    planted = child(WAITS, f"--take={token}", "--and=more")
    child(WAITS, "--take=other")
    assert await pids(("ProcessItem/arguments", "contains", f"take={token} --and")) == {planted.pid}


async def test_a_program_is_found_by_path_and_name(child, program):
    """Its whole path, and the file name though the kernel cuts it in its own name."""
    planted = run(child, program)
    assert await pids(("ProcessItem/path", "is", program)) == {planted.pid}
    assert await pids(("ProcessItem/name", "is", program.name)) == {planted.pid}
    assert await pids(("ProcessItem/name", "is", program.name[:15])) == {planted.pid}


async def test_a_process_that_calls_itself_otherwise_is_found_by_both_names(child):
    """The name that it gave itself, and that of its program."""
    code = "open('/proc/self/comm', 'w').write('kworker/99:9'); " + WAITS
    planted = child(code)
    wanted = ("ProcessItem/name", "is", "kworker/99:9")
    assert await pids(wanted) == {planted.pid}
    own = program_of(planted.pid).rpartition("/")[2]
    assert await pids(wanted, ("ProcessItem/name", "is", own)) == {planted.pid}


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256"])
async def test_a_program_is_found_by_its_hash_after_it_was_deleted(child, program, kind):
    """The content that runs is hashed, whatever has become of its file."""
    digest = hashlib.new(kind, program.read_bytes(), usedforsecurity=False).hexdigest()
    planted = run(child, program)
    program.unlink()
    assert await pids((f"ProcessItem/{kind.title()}sum", "is", digest.upper())) == {planted.pid}
    (item,) = await found(("ProcessItem/path", "is", program))
    assert item.about["path"] == f"{program} (deleted)"


async def test_a_process_is_found_by_number_parent_user_and_start(child):
    """What the kernel says of it, all at once."""
    planted = child(WAITS)
    user = pwd.getpwuid(os.geteuid()).pw_name
    terms = (
        ("ProcessItem/pid", "is", planted.pid),
        ("ProcessItem/parentpid", "is", os.getpid()),
        ("ProcessItem/Username", "is", user),
        ("ProcessItem/SecurityID", "is", os.geteuid()),
        ("ProcessItem/startTime", "greater-than", "2020-01-01T00:00:00Z"),
        ("ProcessItem/parentPath", "is", program_of("self")),
    )
    (item,) = await found(*terms)
    stat = read_stat(planted.pid)
    assert item.about == {
        "pid": planted.pid,
        "started": stat.started,
        "user": user,
        "path": program_of(planted.pid),
    }
    assert await found(*terms[:2], ("ProcessItem/pid", "greater-than", planted.pid)) == []


async def test_times_are_those_of_the_clock(child):
    """A process that was just started says so, and has used as much of the processor as the kernel says."""
    before = time.time()
    planted = child("x = sum(range(10**6)); " + WAITS)
    (item,) = [
        one
        for one in await collect("ProcessItem", {"startTime", "userTime", "kernelTime"})
        if one.about["pid"] == planted.pid
    ]
    assert before - 1 < item.values["startTime"][0] < time.time() + 1
    used = text_of(planted.pid, "stat").rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    assert item.values["userTime"] == (int(used[11]) / ticks,)
    assert item.values["kernelTime"] == (int(used[12]) / ticks,)


@needs_root
async def test_every_term_is_filled_for_a_process_that_has_everything(child, tmp_path):
    """Nothing in the catalogue is without a value where there is one; and nothing else is told."""
    (tmp_path / "open").write_text("content")
    planted = child(RICH, tmp_path / "open")
    parts = only(tmp_path / "proc", planted.pid, os.getpid())
    (item,) = [one for one in await collect("ProcessItem", parts=parts) if one.about["pid"] == planted.pid]
    empty = {path for path in DOCUMENTS["ProcessItem"] if not item.values.get(path)}
    assert empty == {"StringList/string"}  # of the agent's own children it is not looked for
    assert item.values.keys() <= DOCUMENTS["ProcessItem"].keys()


@needs_root
async def test_a_text_in_memory_is_found_and_the_scanner_itself_is_not(child, tmp_path):
    """Only the process that has made the text has it in its memory, and nobody finds the text of the indicator."""
    token = secrets.token_hex(16)
    outer = child(HOLDS, token[::-1])
    (inner,) = [pid for pid in all_pids("/proc") if (one := read_stat(pid)) and one.parent == outer.pid]
    parts = only(tmp_path / "proc", outer.pid, inner, os.getpid())
    for text in (token, token.swapcase()):
        assert await pids(("ProcessItem/StringList/string", "contains", text), parts=parts) == {inner}


async def test_a_kernel_thread_or_zombie_has_no_arguments(child):
    """That there are none is known: it is no question without an answer."""
    code = "import os\nif os.fork() == 0: os._exit(0)\n" + WAITS
    outer = child(code)
    (inner,) = [pid for pid in all_pids("/proc") if (one := read_stat(pid)) and one.parent == outer.pid]
    wait_until(lambda: read_stat(inner).state == "Z")
    (item,) = [one for one in await collect("ProcessItem", {"arguments", "path"}) if one.about["pid"] == inner]
    assert item.values == {"arguments": (), "path": ()}


async def test_odd_bytes_come_as_surrogates(child):
    """Name and arguments are bytes, and none of them is lost."""
    code = "open('/proc/self/comm', 'wb').write(b'a) R 1 \\xff('); " + WAITS
    planted = child(None, command=[sys.executable, "-c", code, b"\xfe\xff \n"])
    planted.stdout.readline()
    (item,) = [one for one in await collect("ProcessItem", {"name", "arguments"}) if one.about["pid"] == planted.pid]
    assert item.values["name"][0].encode("utf-8", "surrogateescape") == b"a) R 1 \xff("
    assert item.values["arguments"][0].encode("utf-8", "surrogateescape").endswith(b" \xfe\xff \n")


async def test_the_path_of_a_find_leads_back_to_its_bytes(child, tmp_path):
    """Whatever a program is called, the path by which it is put away is that of this file and of no other."""
    odd = tmp_path / os.fsdecode(b"odd \xff \\x41")
    shutil.copy("/bin/sleep", odd)
    planted = run(child, odd)
    (item,) = await found(("ProcessItem/path", "ends-with", "\\x41"), ("ProcessItem/pid", "is", planted.pid))
    found_ = Object.model_validate({"document": item.document, "name": "odd", **item.about})
    assert found_.path.raw == os.fsencode(odd)


@pytest.mark.parametrize("path", ["(unreachable)/x", "/" + "a" * MAX_PATH_BYTES])
def test_what_is_no_path_is_not_told_as_one(path):
    """The kernel may name a program so that nobody can open it by that name."""
    one = outline("/proc", os.getpid())
    assert "path" in about(one, None)
    assert "path" not in about(replace(one, program=(path,)), None)


async def test_long_arguments_are_cut(child):
    """A command line of a megabyte costs no more than its first part."""
    planted = child(WAITS, *["x" * 100_000] * 5)
    (item,) = [one for one in await collect("ProcessItem", {"arguments"}) if one.about["pid"] == planted.pid]
    assert len(item.values["arguments"][0]) == items_processes.MAX_ARGUMENTS


async def test_only_what_is_wanted_is_read(child, monkeypatch):
    """For a name, no process is asked anything."""

    def ask(*_arguments):
        raise AssertionError("it was asked")

    monkeypatch.setattr(items_processes, "_ask", ask)
    planted = child(WAITS)
    items = await collect("ProcessItem", {"name", "Username"})
    assert planted.pid in {one.about["pid"] for one in items}
    assert all(one.values.keys() <= {"name", "Username"} for one in items)


async def test_a_process_that_ends_between_two_looks_is_told_as_far_as_it_was_seen(child, monkeypatch):
    """It was there, and what was not read of it is not known; the others are told."""
    planted, other = child(WAITS), child(WAITS)
    asked = items_processes._ask

    def ask(question, one, parts, sign):
        if one.stat.pid == planted.pid:
            planted.kill()
            planted.wait()
        return asked(question, one, parts, sign)

    monkeypatch.setattr(items_processes, "_ask", ask)
    items = {one.about["pid"]: one for one in await collect("ProcessItem", {"pid", "arguments"})}
    assert items[planted.pid].values == {"pid": (planted.pid,)}
    assert items[other.pid].values["arguments"]


async def test_a_process_that_hangs_is_told_without_what_it_does_not_answer(child, monkeypatch):
    """Whoever is silent does not hold up the scan, which tells it."""
    monkeypatch.setattr(items_processes, "PATIENCE", 0.2)
    planted, over = child(WAITS), asyncio.Event()
    loop = asyncio.get_running_loop()
    asked = items_processes._ask

    def ask(question, one, parts, sign):
        if one.stat.pid == planted.pid:
            asyncio.run_coroutine_threadsafe(over.wait(), loop).result()
        return asked(question, one, parts, sign)

    monkeypatch.setattr(items_processes, "_ask", ask)
    missed = list[str]()
    try:
        found_ones = await collect("ProcessItem", {"pid", "arguments"}, missed=missed)
    finally:
        over.set()
    items = {one.about["pid"]: one for one in found_ones}
    assert missed == [f"process {planted.pid} does not answer"]
    assert items[planted.pid].values == {"pid": (planted.pid,)}
    assert items[os.getpid()].values["arguments"]


async def test_when_many_hang_no_more_are_asked(child):
    """Threads that hang from earlier scans count, so that they do not pile up."""
    over = threading.Event()
    hanging = [threading.Thread(target=over.wait, name="item-process") for _ in range(MOST_HANGING)]
    for thread in hanging:
        thread.start()
    missed = list[str]()
    try:
        items = await collect("ProcessItem", {"pid", "arguments"}, missed=missed)
    finally:
        over.set()
        for thread in hanging:
            thread.join()
    assert items
    assert all(one.values.keys() == {"pid"} for one in items)
    assert "was not asked, as too many others do not answer" in missed[0]


def test_a_number_that_nobody_has_is_nobody(tmp_path):
    """A process that is gone, and a folder of something else, are passed over."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("nothing of that kind")
    (tmp_path / "irq").mkdir()
    assert all_pids(str(tmp_path)) == [7]
    assert outline(str(tmp_path), 7) is None
    assert outline(str(tmp_path), 8) is None


async def test_a_folder_without_processes_has_no_items(tmp_path):
    """Nothing is told of a system that has none."""
    assert await collect("ProcessItem", {"name"}, Parts(proc=tmp_path)) == []


def test_the_remark_of_a_deleted_file_is_taken_off_and_kept():
    """An indicator names the path, and the kernel's words may be asked for too."""
    assert with_and_without_remark("/tmp/x (deleted)") == ("/tmp/x", "/tmp/x (deleted)")
    assert with_and_without_remark("/tmp/x") == ("/tmp/x",)


@needs_root
async def test_of_a_forbidden_program_neither_memory_nor_content_is_read(child, tmp_path):
    """The process is there, without what the owner of the machine keeps to himself; that something lacks is told."""
    outer = child(HOLDS, "a text")
    (inner,) = [pid for pid in all_pids("/proc") if (one := read_stat(pid)) and one.parent == outer.pid]

    def forbid(path: EndpointPath) -> None:
        if path == program_of(inner):
            raise ForbiddenHere("not here", got=path)

    asked, missed = {"pid", "Sha256sum", "StringList/string"}, list[str]()
    parts = only(tmp_path / "proc", inner)
    (allowed,) = await collect("ProcessItem", asked, parts)
    (one,) = await collect("ProcessItem", asked, replace(parts, forbidden=forbid), missed=missed)
    assert (allowed.values.keys(), one.values.keys()) == (asked, {"pid"})
    assert f"process {inner} runs a program that the local policy forbids" in missed[0]
    assert "was not hashed" in missed[0]
