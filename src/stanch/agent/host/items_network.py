"""The network as indicators ask for it: `PortItem`, `ArpEntryItem`, `RouteEntryItem`.

Ports are those of every network namespace in which a process is: their tables are read through a process's folder, so
nobody goes there. Neighbours and routes are those of the agent's own namespace.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from typing import Final, TypeVar

from stanch.agent.host.items import Collector, Parts
from stanch.agent.host.items_batches import Values, bounded, in_batches, up_to
from stanch.agent.host.items_links import Link, Neighbour, Route, links, neighbours, routes
from stanch.agent.host.items_processes import Outline, about, account, all_pids, folder_of, outline
from stanch.agent.host.items_sockets import Owners, Row, owners, rows
from stanch.agent.host.netlink import NETLINK_ROUTE, Netlink
from stanch.agent.host.patience import Patience
from stanch.core.errors import StanchError, Unsupported
from stanch.core.ioc.items import Item, Value

MAX_PORTS = 1_000_000
"""Items for one question."""
MAX_ENTRIES = 1_000_000
"""Neighbours, and routes, that are told: as many as the internet has routes."""
MAX_KNOWN = 10_000
"""Processes that are remembered while ports are told."""
PATIENCE = 5.0
"""Seconds for the name of an account."""

T = TypeVar("T")

_OF_PROCESSES: Final = frozenset({"pid", "process", "path"})


# --- ports -----------------------------------------------------------------------------------------------------------


def port_items(parts: Parts) -> Collector:
    """The collector of `PortItem`."""
    naming: Patience[int] = Patience("item-port-account", seconds=PATIENCE)

    def collect(wanted: frozenset[str]) -> AsyncIterator[Sequence[Item]]:
        return in_batches(lambda stop: up_to(_ports(str(parts.proc), wanted, naming, stop), MAX_PORTS), silence=None)

    return collect


@dataclass(frozen=True, slots=True)
class _People:
    """The processes that have ports."""

    proc: str
    naming: Patience[int]
    stop: Event
    known: dict[int, Outline | None] = field(default_factory=dict)
    accounts: dict[int, str] = field(default_factory=dict)

    def find(self, pid: int) -> Outline | None:
        """The process with this number; None if it has ended."""
        if len(self.known) > MAX_KNOWN:
            self.known.clear()
        if pid not in self.known:
            self.known[pid] = outline(self.proc, pid)
        return self.known[pid]

    def account(self, uid: int) -> str:
        """The name of an account; its number if it has none, or the name service is silent."""
        if uid not in self.accounts:
            done = self.naming.each([uid], lambda one, _sign: account(one), stop=self.stop)
            self.accounts[uid] = done.values.get(uid, str(uid))
        return self.accounts[uid]


def _ports(proc: str, wanted: frozenset[str], naming: Patience[int], stop: Event) -> Iterator[Item | None]:
    people = _People(proc, naming, stop)
    found = Owners({}, {})
    for step in owners(proc, iter(all_pids(proc))):
        found = step or found
        yield None
    for network, pids in found.networks.items():
        for row in _rows(proc, network, pids):
            if stop.is_set():
                return
            yield from _of_row(row, found, people, wanted)


def _rows(proc: str, network: int, pids: Sequence[int]) -> Iterator[Row]:
    """The sockets of a network namespace, read through one of those who are in it."""
    for pid in pids:
        with suppress(OSError), folder_of(proc, pid) as folder:
            # The folder stays with its process, and a process tells of the namespace that it is in.
            if os.stat("ns/net", dir_fd=folder).st_ino == network:
                yield from rows(folder)
                return


def _of_row(row: Row, found: Owners, people: _People, wanted: frozenset[str]) -> Iterator[Item]:
    """One item for each process that has it open; one if nobody is known."""
    values = _values(row)
    pids = found.by_inode.get(row.inode, ())
    ones = [one for pid in pids if (one := people.find(pid)) is not None]
    for one in ones:
        own = Values(pid=(one.stat.pid,), process=one.names)
        if one.program is not None:
            own["path"] = one.program
        name = f"{row.words} of {one.names[0]} ({one.stat.pid})"
        user = None if one.uid is None else people.account(one.uid)
        yield _port(name, {**values, **own}, wanted, about(one, user))
    if not ones:  # a connection that only the kernel still has; or whose process may not be looked at, or has ended
        nobody = Values(dict.fromkeys(_OF_PROCESSES, ())) if row.inode == 0 else Values()
        yield _port(row.words, {**values, **nobody}, wanted, {})


def _port(name: str, values: Values, wanted: frozenset[str], owner: dict[str, Value]) -> Item:
    return Item(document="PortItem", name=name, values=bounded(values, wanted), about=owner)


def _values(row: Row) -> Values:
    values = Values(isIPv6=(row.six,), protocol=(row.protocol,), state=row.state)
    for side, end in (("local", row.local), ("remote", row.remote)):
        values[f"{side}IP"] = () if end is None else (end[0],)
        values[f"{side}Port"] = () if end is None else (end[1],)
    return values


# --- neighbours and routes -------------------------------------------------------------------------------------------


def arp_items(_parts: Parts) -> Collector:
    """The collector of `ArpEntryItem`."""
    return lambda wanted: in_batches(lambda _stop: _asked(neighbours, _neighbour, wanted))


def route_items(_parts: Parts) -> Collector:
    """The collector of `RouteEntryItem`."""
    return lambda wanted: in_batches(lambda _stop: _asked(routes, _route, wanted))


def _asked(
    ask: Callable[[Netlink], Iterator[T]],
    make: Callable[[T, dict[int, Link], frozenset[str]], Item],
    wanted: frozenset[str],
) -> Iterator[Item]:
    """What the kernel answers; Unsupported if it does not answer at all."""
    try:
        with Netlink(NETLINK_ROUTE) as netlink:
            names = links(netlink)
        with Netlink(NETLINK_ROUTE) as netlink:
            for one in islice(ask(netlink), MAX_ENTRIES):
                yield make(one, names, wanted)
    except (OSError, StanchError) as error:
        raise Unsupported("The kernel does not tell about its network", got=str(error)[:500]) from error


def _neighbour(one: Neighbour, names: dict[int, Link], wanted: frozenset[str]) -> Item:
    link = names.get(one.device)
    physical = one.physical
    values = Values(
        Interface=() if link is None else (link.name,),
        InterfaceType=() if link is None else (link.kind,),
        IPv4Address=() if one.six else (one.address,),
        IPv6Address=(one.address,) if one.six else (),
        PhysicalAddress=(physical, physical.replace(":", "-").upper()) if physical else (),
        CacheType=("Static" if one.is_static else "Dynamic",),
        State=one.state,
        IsRouter=(one.is_router,),
    )
    where = f" on {link.name}" if link is not None else ""
    return Item(document="ArpEntryItem", name=f"{one.address}{where}", values=bounded(values, wanted))


def _route(one: Route, names: dict[int, Link], wanted: frozenset[str]) -> Item:
    devices = [names[number] for number in one.devices if number in names]
    values = Values(
        IsIPv6=(one.network.version == 6,),  # noqa: PLR2004 - IPv6
        Interface=tuple(device.name for device in devices),
        Destination=(str(one.network.network_address),),
        Netmask=(str(one.network.netmask),),
        Gateway=one.gateways,
        RouteType=(one.kind,),
        Protocol=(one.protocol,),
        Metric=(one.metric,),
        MTU=(str(one.mtu),) if one.mtu else (),
        Flags=(one.flags,),
        IsLoopback=(any(device.kind == "Loopback" for device in devices),),
    )
    way = f" via {one.gateways[0]}" if one.gateways else ""
    return Item(document="RouteEntryItem", name=f"{one.kind} {one.network}{way}", values=bounded(values, wanted))
