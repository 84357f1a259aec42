"""The object graph of a server, on one screen: who is made of what. No container, no globals."""

import asyncio
import socket
import time
from collections.abc import Iterable
from ipaddress import ip_address

from stanch.actions import load
from stanch.core.host import Peer
from stanch.server.accounts import Accounts
from stanch.server.authority import Authority
from stanch.server.bus.in_process import Bus
from stanch.server.clock import Clock
from stanch.server.dispatch import Dispatcher
from stanch.server.evidence import Evidence
from stanch.server.fleet import Fleet
from stanch.server.orders import Orders
from stanch.server.services import Addresses, Services
from stanch.server.settings import Settings, url_of
from stanch.server.signer import Signer
from stanch.server.store.counters import Counter
from stanch.server.store.database import Database
from stanch.server.tokens import Tokens


def wire(settings: Settings, *, database: Database, authority: Authority, addresses: Addresses, now: Clock) -> Services:
    """One of each service, over an open database and the keys."""
    registry = load()
    bus = Bus()
    signer = Signer(authority.signing_key, Counter(database, "envelope"), now)
    dispatcher = Dispatcher(registry=registry, database=database, signer=signer, bus=bus, now=now)
    return Services(
        registry=registry,
        database=database,
        authority=authority,
        signer=signer,
        accounts=Accounts(database=database, now=now, monotonic=time.monotonic),
        tokens=Tokens(database, now),
        fleet=Fleet(database, now),
        orders=Orders(registry=registry, database=database, bus=bus, now=now, delivery=dispatcher),
        evidence=Evidence(folder=settings.data / "evidence", database=database, now=now),
        dispatcher=dispatcher,
        bus=bus,
        addresses=addresses,
        now=now,
    )


async def addresses_of(settings: Settings, *, port: int) -> Addresses:
    """Where agents reach the gateway: a URL for each name, and the addresses behind them as far as they are known."""
    urls = tuple(url_of(name, port) for name in settings.advertised)
    peers = [peer for name in settings.advertised for peer in await _peers(name, port)]
    return Addresses(urls=urls, peers=tuple(dict.fromkeys(peers)))


async def _peers(name: str, port: int) -> Iterable[Peer]:
    try:
        return [Peer(address=ip_address(name), port=port)]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except OSError:
        # Our own name need not resolve here; agents are also told the address at which they reached us.
        return []
    return [Peer(address=ip_address(str(one[4][0]).partition("%")[0]), port=port) for one in found]
