"""A list that was cut, and a document of which not all was looked at, make no negated term true."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stanch.agent.host import items, items_batches, items_handles, items_processes, items_sections
from stanch.agent.host.items import Parts, collectors
from stanch.agent.host.items_batches import bounded, in_batches, not_all, up_to
from stanch.agent.host.patience import MOST_HANGING
from stanch.core.errors import ActionFailed
from stanch.core.ioc.expression import Condition, Group, Indicator, Operator, Term
from stanch.core.ioc.items import CUT, Item, the_rest
from stanch.core.ioc.judging import Judge
from stanch.core.ioc.terms import DOCUMENTS
from tests.agent.host.items_world import collect, only
from tests.fakes.waiting import wait_until

HANDLE = "HandleList/Handle/Name"
SECTION = "SectionList/MemorySection/Name"
SOCKETS = """
import socket, sys
kept = socket.socket(int(sys.argv[1]), socket.SOCK_RAW if sys.argv[1] == "16" else socket.SOCK_STREAM, 0)
if sys.argv[2]: kept.bind((0, 0))
print("ready", flush=True)
sys.stdin.read()
"""
LONG_NAMES = """
import socket, sys
kept = [open(f"{sys.argv[1]}/{n}", "w") for n in range(50)]
last = socket.create_server(("127.0.0.1", 0))
print("ready", flush=True)
sys.stdin.read()
"""


def asked(name: str, content: str, *, negate: bool = False) -> Term:
    """A term that asks for exactly that."""
    document, _, path = name.partition("/")
    kind = DOCUMENTS[document][path].kind.value
    return Term(
        id=name, document=document, path=path, condition=Condition.IS, content=content, type=kind, negate=negate
    )


def matches(*terms: Term, of: list[Item]) -> list[str]:
    """The names of the items for which all of these hold."""
    judge = Judge([Indicator(id="i", title="i", format="test", root=Group(id="g", operator=Operator.AND, parts=terms))])
    found = [match for one in of for match in judge.see(one)]
    return [one.name for match in (*found, *judge.finish()) for one in match.items]


def without(path: str, item: Item) -> list[str]:
    """Is it certain that it has no such thing there?"""
    pid = str(item.values["pid"][0])
    return matches(
        asked("ProcessItem/pid", pid), asked(f"ProcessItem/{path}", "/not/there", negate=True), of=[item]
    )  # fmt: skip


@pytest.fixture
def parts(tmp_path) -> Parts:
    """A system with this process only."""
    return only(tmp_path / "proc", os.getpid())


async def test_more_open_files_than_are_looked_at(parts, monkeypatch):
    """Who opens very many does not prove that a file is not open; a whole list proves it."""
    (item,) = await collect("ProcessItem", {"pid", HANDLE}, parts)
    assert without(HANDLE, item)
    monkeypatch.setattr(items_handles, "MAX_HANDLES", 2)
    (item,) = await collect("ProcessItem", {"pid", HANDLE}, parts)
    assert not without(HANDLE, item)


async def test_long_names_do_not_fill_the_memory(child, tmp_path, monkeypatch):
    """Of very many files with long names some are left out, which leaves the list unknown; no socket is."""
    monkeypatch.setattr(items_handles, "MAX_NAMES", 2000)
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    planted = child(LONG_NAMES, folder)
    wanted = {"pid", HANDLE, "HandleList/Handle/FileDescriptor", "PortList/PortItem/state"}
    (item,) = await collect("ProcessItem", wanted, only(tmp_path / "proc", planted.pid))
    assert 0 < sum(str(folder) in str(one) for one in item.values[HANDLE]) < 10
    assert any(str(one).startswith("TCP ") for one in item.values[HANDLE])
    assert item.values["PortList/PortItem/state"] == ("LISTEN", "LISTENING")
    assert not without(HANDLE, item)


async def test_more_memory_than_is_looked_at(parts, monkeypatch):
    """Likewise of what is mapped."""
    (item,) = await collect("ProcessItem", {"pid", SECTION}, parts)
    assert without(SECTION, item)
    monkeypatch.setattr(items_sections, "MAX_REGIONS", 3)
    (item,) = await collect("ProcessItem", {"pid", SECTION}, parts)
    assert not without(SECTION, item)


async def test_a_command_line_that_is_too_long(parts, monkeypatch):
    """What stands behind its bound is not known."""
    monkeypatch.setattr(items_processes, "MAX_ARGUMENTS", 5)
    (item,) = await collect("ProcessItem", {"pid", "arguments"}, parts)
    assert not without("arguments", item)


async def test_a_process_that_hides_is_told(parts):
    """Something mounted over its folder shows nothing, or somebody else: that is told, and nobody is told twice."""
    (parts.proc / "4000001").mkdir()
    (parts.proc / "4000002").symlink_to(f"/proc/{os.getpid()}")
    (parts.proc / "4000003").symlink_to("/proc/not-there")
    missed = list[str]()
    (item,) = await collect("ProcessItem", {"pid"}, parts, missed=missed)
    assert item.values["pid"] == (os.getpid(),)
    assert [int(one.split()[1]) for one in missed[0].split("; ")] == [4000001, 4000002]


async def test_sockets_that_no_table_has(child, tmp_path):
    """A netlink socket is known to be no port; of one that is in no table, nothing is known, so no port is excluded."""
    port = "PortList/PortItem/localPort"
    planted = child(SOCKETS, "16", "bind")
    (item,) = await collect("ProcessItem", {"pid", port}, only(tmp_path / "bound", planted.pid))
    assert item.values[port] == ()
    planted = child(SOCKETS, "2", "")
    (item,) = await collect("ProcessItem", {"pid", port}, only(tmp_path / "unbound", planted.pid))
    assert item.values[port] == (CUT,)


def test_a_list_that_is_too_heavy():
    """It ends with CUT, and so does a text that was cut; short ones stay as they are."""
    values = {"many": tuple(f"{n:0100}" for n in range(5000)), "long": ("x" * 200_000,), "few": (1, 2)}
    kept = bounded(values, frozenset(values))
    assert kept["many"][-1] is kept["long"][-1] is CUT
    assert kept["few"] == (1, 2)


async def test_the_rest_of_a_document_stands_for_what_was_not_seen(tmp_path):
    """No account has that name: this holds if all were seen, and not if the file could not be read; why is told."""
    (tmp_path / "etc").mkdir()
    passwd = tmp_path / "etc/passwd"
    none = (asked("UserItem/Username", "mallory", negate=True), asked("GroupItem/GroupName", "root"))
    group = Item(document="GroupItem", name="root", values={"GroupName": ("root",)})
    passwd.write_text("root:x:0:0:::/bin/sh\n")
    assert matches(*none, of=[*await collect("UserItem", {"Username"}, Parts(root=tmp_path)), group]) == ["root"]
    passwd.unlink()
    os.mkfifo(passwd)
    seen, told = list[Item](), ""
    try:
        async for batch in collectors(Parts(root=tmp_path))["UserItem"](frozenset({"Username"})):
            seen += batch
    except ActionFailed as error:
        told = str(error)
    assert "etc/passwd: it is a FIFO" in told
    assert seen == []
    assert matches(*none, of=[the_rest("UserItem"), group]) == []


async def test_what_came_before_an_error_is_not_lost():
    """First the items, then what was left out."""

    def make(_stop) -> Iterator[Item | None]:
        yield from up_to((Item(document="X", name=str(n), values={}) for n in range(5)), 3)

    batches = in_batches(make)
    assert [one.name for one in await anext(batches)] == ["0", "1", "2"]
    with pytest.raises(ActionFailed, match="only the first 3"):
        await anext(batches)


def test_what_was_left_out_is_told_in_few_words():
    """However many places there are, and whatever their names are made of."""
    told = str(not_all(f"/home/{n}/\udcff" + "x" * 10_000 for n in range(10_000)))
    assert len(told) < 5000
    assert told.encode()
    assert "..." in told


async def test_a_file_system_that_never_answers_ends_the_document(monkeypatch):
    """The thread that hangs is nobody else's; when too many do, none is begun any more."""
    release = threading.Event()

    def make(_stop) -> Iterator[Item | None]:
        release.wait()
        yield None

    try:
        with pytest.raises(ActionFailed, match="does not answer"):
            _ = [one async for one in in_batches(make, silence=0.01)]
        hanging = [one for one in threading.enumerate() if one.name == items_batches._THREAD]
        assert [one.daemon for one in hanging] == [True]
        for _ in range(MOST_HANGING - 1):
            with pytest.raises(ActionFailed, match="does not answer"):
                _ = [one async for one in in_batches(make, silence=0.01)]
        with pytest.raises(ActionFailed, match="Too many"):
            _ = [one async for one in in_batches(make, silence=0.01)]
    finally:
        release.set()
        wait_until(lambda: all(one.name != items_batches._THREAD for one in threading.enumerate()))


async def test_what_came_before_a_file_system_stopped_to_answer_is_not_lost():
    """Nor what the thread that hangs had made already and had not handed over."""
    release = threading.Event()

    def make(_stop) -> Iterator[Item | None]:
        for name in ("a", "b"):
            yield Item(document="X", name=name, values={})
        release.wait()
        yield Item(document="X", name="late", values={})

    batches = in_batches(make, silence=0.2)
    try:
        assert [one.name for one in await anext(batches)] == ["a", "b"]
        with pytest.raises(ActionFailed, match="does not answer"):
            await anext(batches)
    finally:
        release.set()
        wait_until(lambda: all(one.name != items_batches._THREAD for one in threading.enumerate()))


async def test_a_document_that_hangs_leaves_the_others_to_be_collected(tmp_path, monkeypatch):
    """It is unknown, and told; the scan goes on."""
    release = threading.Event()

    def hangs(_parts: Parts, /):
        def make(_stop) -> Iterator[Item | None]:
            release.wait()
            yield None

        return lambda _wanted: in_batches(make, silence=0.01)

    monkeypatch.setattr("stanch.agent.host.items_history.shell_items", hangs)
    batches = items.collectors(Parts(root=tmp_path))["ShellHistoryItem"](frozenset({"Command"}))
    with pytest.raises(ActionFailed, match="does not answer"):
        await anext(batches)
    release.set()
    await asyncio.sleep(0)
    assert await collect("GroupItem", {"gid"}, Parts(root=Path("/")))
