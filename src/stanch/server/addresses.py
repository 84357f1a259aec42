"""Where agents reach us, kept true: our names are resolved again and again, and further addresses may be announced.

An administrator announces an address ahead of a move, so that every agent knows it before it is needed, isolated ones
too. What was announced is kept in a file of the data folder, beside the names that the server was started with.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import structlog
from pydantic import Field

from stanch.core.envelope import AddressesBody
from stanch.core.errors import Invalid
from stanch.core.model import LooseModel
from stanch.core.network import Peer
from stanch.core.policy import Permission, Principal, reach
from stanch.core.rest import MAX_ANNOUNCED, ServerAddresses, ServerAddressesView
from stanch.core.types import Text
from stanch.disk.atomic import atomic_write
from stanch.server import audit
from stanch.server.clock import Clock
from stanch.server.services import MAX_URLS, Addresses
from stanch.server.settings import Settings, check_name, url_of
from stanch.server.store.database import Database

FOLLOW_SECONDS = 60.0
LOOK_UP_SECONDS = 10.0
MAX_FILE_BYTES = 65_536
HTTPS_PORT = 443

LookUp = Callable[[str, int], Awaitable[Sequence[Peer]]]
"""The addresses of a name, none if it has none."""

Host = tuple[str, int]

log = structlog.get_logger(__name__)


class Announced(LooseModel):
    """The file in the data folder."""

    urls: Annotated[tuple[Text, ...], Field(max_length=MAX_ANNOUNCED)] = ()
    """Addresses beside those of the configuration."""


def parse_url(url: str) -> Host:
    """Host and port of `https://HOST:PORT`; Invalid if it is anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", HTTPS_PORT if parts.port is None else parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", 0
    more = parts.path.removeprefix("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme != "https" or not host or not port or more or _reaches_nobody(host):
        raise Invalid("This is no address for agents", got=url[:200], expected="https://HOST:PORT")
    check_name(host)
    return host, port


def _reaches_nobody(host: str) -> bool:
    """An address that means no machine, several, or another one on each."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return "%" in host or address.is_unspecified or address.is_multicast or address.is_link_local


class OwnAddresses:
    """Our addresses, as agents are told them."""

    def __init__(
        self,
        settings: Settings,
        *,
        port: int,
        database: Database,
        now: Clock,
        evidence_key: str = "",
        look_up: LookUp | None = None,
    ) -> None:
        self._configured = tuple((name, port) for name in settings.advertised)
        self._certified = settings.certified
        self._file = settings.data / "addresses.json"
        self._database = database
        self._now = now
        self._evidence_key = evidence_key
        self._look_up = look_up or look_up_peers
        self._announced = _read(self._file)
        self._found: dict[Host, tuple[Peer, ...]] = {}
        self._told: Addresses | None = None
        self._hurry = asyncio.Event()
        self._announcing = asyncio.Lock()
        self.current = Addresses(urls=self._urls(), peers=(), evidence_key=evidence_key)

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URLs of the gateway, best first."""
        return self.current.urls

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The addresses behind them, as far as they are known."""
        return self.current.peers

    @property
    def certified(self) -> tuple[str, ...]:
        """Every name and address that our certificate should carry."""
        return tuple(dict.fromkeys([*self._certified, *(host for host, _ in map(parse_url, self._announced))]))

    def body(self, *, reached: Peer | None, nonce: str | None) -> AddressesBody:
        """For one agent: the address that it reached us at comes first."""
        return self.current.body(reached=reached, nonce=nonce)

    async def refresh(self) -> None:
        """Resolve every name again; one that gets no answer keeps what it had."""
        hosts = list(self._hosts())
        found = await asyncio.gather(*(self._resolve(*host) for host in hosts))
        self._found |= {host: tuple(peers) for host, peers in zip(hosts, found, strict=True) if peers}
        peers = [peer for host in self._hosts() for peer in self._found.get(host, ())]
        found_peers = tuple(dict.fromkeys(peers))
        self.current = Addresses(urls=self._urls(), peers=found_peers, evidence_key=self._evidence_key)

    async def follow(self, moved: Callable[[], Awaitable[None]], *, every: float = FOLLOW_SECONDS) -> None:
        """Resolve again and again until cancelled; `moved` is called when agents must be told something new."""
        if self._told is None:
            self._told = self.current
        while True:
            try:
                async with asyncio.timeout(every):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            await self.refresh()
            if self.current != self._told:
                telling = self.current
                log.info("our addresses have changed", urls=telling.urls, peers=list(map(_show, telling.peers)))
                await moved()
                self._told = telling

    # --- what people see and set -------------------------------------------------------------------------------------

    def view(self, principal: Principal) -> ServerAddressesView:
        """What agents are told, and what of it was announced."""
        principal.require(Permission.READ)
        return ServerAddressesView(
            configured=tuple(url_of(*one) for one in self._configured),
            announced=self._announced,
            peers=tuple(map(_show, self.peers)),
        )

    async def announce(self, principal: Principal, wanted: ServerAddresses) -> ServerAddressesView:
        """Announce these, and no others, beside those of the configuration; agents are told at once.

        Denied to those whose labels do not reach every endpoint.
        """
        principal.require(Permission.ADMINISTER)
        reach(principal, {"every endpoint": frozenset()})
        urls = tuple(dict.fromkeys(url_of(*parse_url(one)) for one in wanted.urls))
        most = MAX_URLS - len(self._configured)
        if len(urls) > most:
            raise Invalid("Agents cannot be told so many addresses", got=len(urls), expected=f"at most {most}")
        async with self._announcing:  # the file must say what the last entry of the audit says
            detail = {"before": list(self._announced), "now": list(urls)}
            entry = audit.Entry(at=self._now(), who=principal.name, what="addresses", subject="server", detail=detail)
            await self._database.write(partial(audit.append, entry=entry))
            await asyncio.to_thread(atomic_write, self._file, Announced(urls=urls).model_dump_json().encode())
            self._announced = urls
        await self.refresh()
        self._hurry.set()
        return self.view(principal)

    # --- how ---------------------------------------------------------------------------------------------------------

    def _hosts(self) -> Iterator[Host]:
        yield from dict.fromkeys([*self._configured, *map(parse_url, self._announced)])

    def _urls(self) -> tuple[str, ...]:
        return tuple(url_of(*one) for one in self._hosts())[:MAX_URLS]

    async def _resolve(self, host: str, port: int) -> Sequence[Peer]:
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                return await self._look_up(host, port)
        except TimeoutError:
            return ()


async def look_up_peers(name: str, port: int) -> Sequence[Peer]:
    """The addresses of a name, as the system resolves it."""
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


def _read(path: Path) -> tuple[str, ...]:
    """What was announced; a damaged file announces nothing, and does not keep the server from starting."""
    try:
        with path.open("rb") as file:
            urls = Announced.model_validate_json(file.read(MAX_FILE_BYTES)).urls
        _ = list(map(parse_url, urls))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, Invalid) as error:
        log.warning("announced addresses cannot be read", path=str(path), error=type(error).__name__)
        return ()
    return urls


def _show(peer: Peer) -> str:
    return url_of(str(peer.address), peer.port).removeprefix("https://")
