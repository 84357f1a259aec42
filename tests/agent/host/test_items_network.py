"""Do indicators find ports, neighbours and routes, and nothing else?"""

import os
import signal
import socket
import sys
from contextlib import ExitStack

import pytest

from stanch.agent.host.items import Parts, collectors
from stanch.core.ioc.terms import DOCUMENTS
from tests.agent.host.items_world import collect, found, program_of
from tests.netns import Netns, netns, wire

SERVES = """
import socket, sys
kept = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    one = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, kind)
    one.bind((sys.argv[1], 0))
    if kind == socket.SOCK_STREAM:
        one.listen()
    kept.append(one)
print(*[one.getsockname()[1] for one in kept], flush=True)
sys.stdin.read()
"""


def serve(child, address: str):
    """A process that listens; it, its TCP port and its UDP port."""
    planted = child(None, command=[sys.executable, "-c", SERVES, address])
    return planted, *map(int, planted.stdout.readline().split())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_listener_is_found_with_its_process(child, address):
    """Address, port, state, protocol, process: all of one socket."""
    planted, port, _ = serve(child, address)
    (item,) = await found(
        ("PortItem/localIP", "is", address),
        ("PortItem/localPort", "is", port),
        ("PortItem/state", "is", "LISTENING"),
        ("PortItem/protocol", "is", "TCP"),
        ("PortItem/isIPv6", "is", "true" if ":" in address else "false"),
        ("PortItem/pid", "is", planted.pid),
        ("PortItem/path", "is", program_of(planted.pid)),
    )
    assert item.about["pid"] == planted.pid
    assert {"started", "path", "user"} <= item.about.keys()
    assert str(port) in item.name
    assert str(planted.pid) in item.name


async def test_an_open_udp_port_is_found(child):
    """It has no state of a connection, and no other side."""
    planted, _, port = serve(child, "127.0.0.1")
    (item,) = await found(("PortItem/localPort", "is", port), ("PortItem/protocol", "is", "UDP"))
    assert item.about["pid"] == planted.pid
    (item,) = [one for one in await collect("PortItem") if one.values["localPort"] == (port,)]
    assert item.values["state"] == ("UNCONN",)
    assert item.values["remoteIP"] == item.values["remotePort"] == ()


async def test_both_ends_of_a_connection_are_found_and_one_that_only_the_kernel_has():
    """A connection belongs to its process until that has closed it; then nobody has it, which is known."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as opened:
        port = listener.getsockname()[1]
        client = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        server = opened.enter_context(listener.accept()[0])
        own = client.getsockname()[1]
        remote = (("PortItem/remoteIP", "is", "127.0.0.1"), ("PortItem/remotePort", "is", port))
        (item,) = await found(*remote, ("PortItem/state", "is", "ESTABLISHED"), ("PortItem/localPort", "is", own))
        assert item.about["pid"] == os.getpid()
        assert len(await found(("PortItem/localPort", "is", port), ("PortItem/state", "is", "ESTABLISHED"))) == 1
        client.close()
        server.close()
        (item,) = await found(*remote, ("PortItem/state", "is", "TIME_WAIT"))
        assert item.about == {}
        (item,) = [one for one in await collect("PortItem") if one.values["state"] == ("TIME_WAIT",)
                   and one.values["remotePort"] == (port,)]  # fmt: skip
        assert item.values["pid"] == item.values["process"] == item.values["path"] == ()


async def test_a_socket_of_several_processes_is_an_item_of_each(child):
    """Whoever has it open can be found, and ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        pid = os.fork()
        if pid == 0:
            signal.pause()
        try:
            items = await found(("PortItem/localPort", "is", port), ("PortItem/state", "is", "LISTEN"))
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)  # noqa: ASYNC222 - it was just killed
        assert {item.about["pid"] for item in items} == {os.getpid(), pid}


@pytest.mark.root
async def test_a_port_in_another_network_namespace_is_found(child):
    """Its table is read through a process that is in there."""
    with netns() as inside:
        planted, port, _ = inside.call(serve, child, "127.0.0.1")
        terms = ("PortItem/pid", "is", planted.pid), ("PortItem/protocol", "is", "TCP")
        (item,) = await found(*terms)
        assert item.name.startswith(f"TCP 127.0.0.1:{port} of ")


async def test_every_term_of_a_port_is_filled_or_known_to_be_empty(child):
    """Nothing in the catalogue is left open where all may be read."""
    planted, *_ = serve(child, "127.0.0.1")
    ours = [one for one in await collect("PortItem") if one.about.get("pid") == planted.pid]
    assert len(ours) == 2
    assert all(one.values.keys() == DOCUMENTS["PortItem"].keys() for one in ours)
    filled = {path for one in ours for path, value in one.values.items() if value}
    assert filled == DOCUMENTS["PortItem"].keys() - {"remoteIP", "remotePort"}


async def test_a_huge_table_comes_in_small_batches(tmp_path):
    """Twenty thousand connections that only the kernel has are told, few at a time."""
    process = tmp_path / "7"
    (process / "net").mkdir(parents=True)
    (process / "fd").mkdir()
    (process / "ns").mkdir()
    (process / "ns/net").touch()
    line = "0: 0100007F:1F90 0A00000A:{port:04X} 06 00000000:00000000 03:00000000 00000000 0 0 0 1 0\n"
    (process / "net/tcp").write_text("head\n" + "".join(line.format(port=port) for port in range(20_000)))
    sizes = [len(one) async for one in collectors(Parts(proc=tmp_path))["PortItem"](frozenset(DOCUMENTS["PortItem"]))]
    assert sum(sizes) == 20_000
    assert max(sizes) == 200
    (item,) = await found(("PortItem/remotePort", "is", 19_999), parts=Parts(proc=tmp_path))
    assert item.name == "TCP 127.0.0.1:8080 -> 10.0.0.10:19999"


async def test_without_processes_there_is_no_port(tmp_path):
    """A system of which nothing can be read has no items, and raises nothing."""
    assert await collect("PortItem", parts=Parts(proc=tmp_path)) == []


# --- neighbours and routes -------------------------------------------------------------------------------------------


@pytest.fixture
def inside():
    """A network namespace with a device, that is connected to another."""
    with netns() as left, netns() as right:
        made = wire(left, right, 7)
        left.command(f"ip neigh replace 10.77.7.9 lladdr 02:ab:cd:00:00:09 nud permanent dev {made.device}")
        left.command(f"ip neigh replace fd77:7::9 lladdr 02:ab:cd:00:00:06 nud stale router dev {made.device}")
        left.command(f"ip route add 198.51.100.0/24 via 10.77.7.2 dev {made.device} metric 77 mtu 1300 proto static")
        left.command(f"ip -6 route add 2001:db8:1::/48 via fd77:7::2 dev {made.device} metric 5")
        left.command("ip route add blackhole 203.0.113.7/32 table 99")
        hops = " ".join(f"nexthop via 10.77.7.{host} dev {made.device}" for host in (2, 3))
        left.command(f"ip route add default {hops}")
        yield left


def seen(inside: Netns, *terms):
    """The items that are found inside."""
    return inside.run(lambda: found(*terms))


@pytest.mark.root
def test_neighbours_are_found_by_address_and_hardware(inside):
    """IPv4 and IPv6, in the two ways in which people write a hardware address."""
    four = seen(
        inside,
        ("ArpEntryItem/PhysicalAddress", "is", "02-AB-CD-00-00-09"),
        ("ArpEntryItem/IPv4Address", "is", "10.77.7.9"),
        ("ArpEntryItem/CacheType", "is", "static"),
        ("ArpEntryItem/State", "is", "permanent"),
        ("ArpEntryItem/Interface", "is", "wire7"),
        ("ArpEntryItem/InterfaceType", "is", "Ethernet"),
    )
    assert [item.name for item in four] == ["10.77.7.9 on wire7"]
    six = seen(
        inside,
        ("ArpEntryItem/PhysicalAddress", "is", "02:ab:cd:00:00:06"),
        ("ArpEntryItem/IPv6Address", "is", "fd77:7::9"),
        ("ArpEntryItem/IsRouter", "is", "true"),
        ("ArpEntryItem/CacheType", "is", "dynamic"),
    )
    assert [item.name for item in six] == ["fd77:7::9 on wire7"]
    assert seen(inside, ("ArpEntryItem/IPv4Address", "is", "10.77.7.10")) == []


@pytest.mark.root
def test_routes_of_all_tables_are_found(inside):
    """By network, mask, gateway, device, type, origin and metric; of other tables than the main one too."""
    (four,) = seen(
        inside,
        ("RouteEntryItem/Destination", "is", "198.51.100.0"),
        ("RouteEntryItem/Netmask", "is", "255.255.255.0"),
        ("RouteEntryItem/Gateway", "is", "10.77.7.2"),
        ("RouteEntryItem/Interface", "is", "wire7"),
        ("RouteEntryItem/RouteType", "is", "unicast"),
        ("RouteEntryItem/Protocol", "is", "static"),
        ("RouteEntryItem/Metric", "is", "77"),
        ("RouteEntryItem/MTU", "is", "1300"),
        ("RouteEntryItem/Flags", "is", "UG"),
        ("RouteEntryItem/IsIPv6", "is", "false"),
    )
    assert four.name == "unicast 198.51.100.0/24 via 10.77.7.2"
    assert (
        len(seen(inside, ("RouteEntryItem/Gateway", "is", "fd77:7::2"), ("RouteEntryItem/IsIPv6", "is", "true"))) == 1
    )
    (nowhere,) = seen(inside, ("RouteEntryItem/RouteType", "is", "blackhole"), ("RouteEntryItem/Flags", "is", "!H"))
    assert nowhere.name == "blackhole 203.0.113.7/32"
    default = ("RouteEntryItem/Destination", "is", "0.0.0.0")
    for gateway in ("10.77.7.2", "10.77.7.3"):
        assert len(seen(inside, default, ("RouteEntryItem/Gateway", "is", gateway))) == 1
    assert seen(inside, ("RouteEntryItem/IsLoopback", "is", "true"), ("RouteEntryItem/RouteType", "is", "local"))


@pytest.mark.root
@pytest.mark.parametrize("document", ["ArpEntryItem", "RouteEntryItem"])
def test_every_term_is_filled_somewhere_and_known_everywhere(inside, document):
    """Each has all its terms, and each term has a value in one of them."""
    items = inside.run(lambda: collect(document))
    assert all(one.values.keys() == DOCUMENTS[document].keys() for one in items)
    assert {path for one in items for path, value in one.values.items() if value} == DOCUMENTS[document].keys()
