"""What others do to our tables is told with who did it, what we do is not; devices and addresses if they differ."""

import asyncio
import errno
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import aclosing
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from stanch.agent.host import tables_watch as module
from stanch.agent.host.firewall import NftFirewall
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.netlink import Message, attribute, pack
from stanch.agent.host.nft import Nft
from stanch.agent.host.tables_watch import Addresses, Devices, Foreign, Groups, Lost, Transactions, Watch
from stanch.core.network import Block
from tests.agent.host.world import MINUTE, World, fence, new_world

PATIENCE = 20


@pytest.fixture
def world() -> Iterator[World]:
    """An endpoint, the world outside, and a container behind the endpoint."""
    with new_world() as made:
        fence(made)  # every address is there
        yield made


async def foreign(changes) -> Foreign:
    """The next change of a table."""
    async for change in changes:
        if isinstance(change, Foreign):
            return change
    raise AssertionError


def run_nft(text: str) -> int:
    """A transaction of somebody else; the pid of the nft that made it."""
    with subprocess.Popen(["nft", "-f", "-"], stdin=subprocess.PIPE, text=True) as process:
        process.communicate(text)
        assert process.returncode == 0
        return process.pid


def watched(world: World, session: Callable, **options):
    """A session with a firewall and with what its watch tells, `Lost` at the start already taken."""

    async def main():
        firewall = NftFirewall(Namespace.current("net"), **options)
        try:
            with capture_logs():
                async with asyncio.timeout(PATIENCE), aclosing(firewall.watch()) as changes:
                    assert await anext(changes) == Lost()
                    return await session(firewall, changes)
        finally:
            await firewall.close()

    return world.endpoint.run(main)


# --- the kernel's word -----------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize(
    ("attack", "what"),
    [
        ("flush ruleset", "table inet stanch deleted"),
        ("delete table netdev stanch", "table netdev stanch deleted"),
        ("flush chain inet stanch input", "rule of inet stanch deleted"),
        ("insert rule inet stanch output accept", "rule of inet stanch added"),
        ("flush set inet stanch armed_a", "element of inet stanch deleted"),
        ("delete table inet stanch_block", "table inet stanch_block deleted"),
    ],
)
def test_a_change_by_somebody_else_is_told_with_who_did_it(world, attack, what):
    """The process, its name and its pid come with what it touched; changes of other tables are nobody's business."""

    async def session(firewall: NftFirewall, changes):
        await firewall.isolate(world.rules, lift_after=MINUTE)
        await firewall.block([Block(network=ip_network("192.0.2.0/24"))], servers=())
        await asyncio.to_thread(run_nft, "add table inet other; add set inet other stanch { type mark; };")
        return await asyncio.to_thread(run_nft, attack), await foreign(changes)

    pid, change = watched(world, session, own=False)
    assert isinstance(change, Foreign)
    assert what in change.what
    assert (change.pid, change.name) == (pid, "nft")


@pytest.mark.root
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("keep_child", [True, False])
def test_our_own_changes_are_not_told(world, own, keep_child):
    """Isolating, replacing, blocking and lifting, by the child or a program of its own: only the stranger is told."""

    async def session(firewall: NftFirewall, changes):
        for _ in range(2):
            await firewall.isolate(world.rules, lift_after=MINUTE)
            await firewall.block([Block(network=ip_network("192.0.2.0/24"))], servers=())
        await firewall.block([], servers=())
        await firewall.lift()
        await asyncio.to_thread(run_nft, "add table inet stanch_block")
        return await foreign(changes)

    change = watched(world, session, own=own, nft=Nft(keep_child=keep_child))
    assert isinstance(change, Foreign)
    assert change.what == "table inet stanch_block added"


@pytest.mark.root
def test_a_process_that_is_still_there_is_described(world):
    """A program that stays after its change is told with its path, its account, and who started it."""

    async def session(firewall: NftFirewall, changes):
        await firewall.isolate(world.rules, lift_after=MINUTE)
        stranger = await asyncio.to_thread(
            world.endpoint.call,
            lambda: subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL),
        )
        with stranger:
            stranger.stdin.write(b"delete table inet stanch\n")
            stranger.stdin.flush()
            change = await foreign(changes)
            stranger.stdin.close()
        return stranger.pid, change

    pid, change = watched(world, session, own=False)
    assert change.pid == pid
    assert "/nft (pid" in change.who
    assert "root (uid 0)" in change.who
    assert f"(pid {os.getpid()})" in change.who


@pytest.mark.root
def test_devices_and_addresses_are_told_once(world):
    """A new device, its new name, its end, and another address are told; a link that only goes up is not."""

    async def session(_firewall, changes):
        told = []
        for command, kind in (
            ("ip link add bridge7 type bridge", Devices),
            ("ip link set bridge7 name bridge8", Devices),
            ("ip addr add 192.0.2.7/32 dev lo", Addresses),
            ("ip addr del 192.0.2.7/32 dev lo", Addresses),
            ("ip link del bridge8", Devices),
        ):
            await asyncio.to_thread(world.endpoint.command, command)
            change = await anext(changes)
            while kind is Devices and isinstance(change, Addresses):  # the kernel has checked an address of the world
                change = await anext(changes)
            told.append(change)
        return told

    assert watched(world, session) == [Devices(), Devices(), Addresses(), Addresses(), Devices()]


@pytest.mark.root
def test_a_group_that_was_made_again_is_told(world, monkeypatch):
    """The kernel tells nobody of control groups: the watch looks now and then."""
    monkeypatch.setattr(module, "_LOOK_AT_GROUPS", 0.01)
    answers = iter([False, True])

    async def main():
        async with (
            asyncio.timeout(PATIENCE),
            Watch(tables=(), is_ours=lambda _: True, groups=lambda: next(answers)) as one,
        ):
            async for change in one:
                if isinstance(change, Groups):
                    return True
        return False

    assert world.endpoint.run(main)
    assert next(answers, None) is None


# --- when reading goes wrong -----------------------------------------------------------------------------------------


class Broken:
    """A socket that has lost messages."""

    def __init__(self, code: int) -> None:
        self.code = code

    def recvmsg(self, _size):
        raise OSError(self.code, os.strerror(self.code))


class Sent:
    """A socket with one datagram."""

    def __init__(self, data: bytes, *, flags: int = 0, sender: int = 0) -> None:
        self.answers = [(data, [], flags, (sender, 0))]

    def recvmsg(self, _size):
        if not self.answers:
            raise BlockingIOError
        return self.answers.pop()


def read(one) -> list:
    """What the watch makes of a socket's state."""
    watch = Watch(tables={"stanch"}, is_ours=lambda _: False)
    watch._sockets = [object()]
    watch._found.clear()
    with capture_logs():
        watch._read(one)
    return list(watch._found)


def transaction(table: bytes = b"stanch\0", *, port: int = 7) -> bytes:
    """A table that was deleted, and the end of the transaction."""
    deleted = pack(0xA02, 0, 1, b"\1\0\0\0" + attribute(1, table))
    ended = pack(0xA0F, 0, 1, bytes(4) + attribute(2, (0).to_bytes(4, "big")) + attribute(3, b"evil\x1b[2J\0"))
    return b"".join(one[:12] + struct.pack("=I", port) + one[16:] for one in (deleted, ended))


def test_lost_messages_are_told():
    """An overflow, a cut datagram, and one that makes no sense, mean that everything must be looked at."""
    assert read(Broken(errno.ENOBUFS)) == [Lost()]
    assert read(Sent(b"", flags=0x20)) == [Lost()]
    assert read(Sent(b"\xff" * 20)) == [Lost()]
    assert read(Broken(errno.EAGAIN)) == []


def test_only_the_kernel_is_believed():
    """What another process writes to our socket is no news."""
    (found,) = read(Sent(transaction()))
    assert (found.what, found.pid, found.who) == ("table inet stanch deleted", 0, "")
    assert found.name == "evil?[2J"
    assert read(Sent(transaction(), sender=4711)) == []
    assert read(Sent(transaction(b"other\0"))) == []


def test_the_queue_is_bounded():
    """Somebody who changes the table for ever, while nobody takes the news, fills no memory."""
    watch = Watch(tables={"stanch"}, is_ours=lambda _: False)
    watch._sockets = [object()]
    for _ in range(module._MAX_FOREIGN + 10):
        watch._read(Sent(transaction()))
        watch._tell(Devices())
    assert sum(isinstance(one, Foreign) for one in watch._found) == module._MAX_FOREIGN
    assert len(watch._found) == module._MAX_FOREIGN + 2  # the first look, and the devices


@given(st.binary(max_size=300))
def test_any_datagram_is_news_or_lost(data):
    """Whatever is read: nothing but changes comes of it."""
    assert all(isinstance(one, Foreign | Lost) for one in read(Sent(data)))


@given(st.lists(st.tuples(st.integers(0, 24), st.binary(max_size=60), st.integers(0, 3)), max_size=10))
def test_a_transaction_is_somebody_s_or_ours(parts):
    """Messages of any kind and content: what our own sockets did is never told."""
    transactions = Transactions({"stanch"}, lambda port: port != 3)
    for kind, payload, port in parts:
        try:
            found = transactions.take(Message(10 << 8 | kind, 1, payload, port))
        except module.StanchError:
            continue
        assert found is None or port == 3
