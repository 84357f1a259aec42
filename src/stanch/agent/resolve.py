"""Where the server can be reached, remembered so that isolation never depends on a name server.

Addresses come from three sources: the signed `addresses` envelope, our own look-ups of the names in the server's URLs,
and what either said before (a file in the state folder). The one that answered last comes first.

Behind a proxy it is the proxy's name that is looked up; the server's names are the proxy's to resolve.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import structlog
from pydantic import Field

from stanch.agent.host.dns import HostNames
from stanch.agent.proxy import Proxy
from stanch.core.envelope import AddressesBody
from stanch.core.errors import Invalid
from stanch.core.model import LooseModel
from stanch.core.network import Peer
from stanch.core.types import Text
from stanch.disk.atomic import atomic_write

DEFAULT_PORT = 443
MAX_TARGETS = 256
MAX_PROXIES = 16
MAX_HOST = 253
MAX_FILE_BYTES = 256 * 1024
LOOK_UP_SECONDS = 3.0
"""An isolated endpoint may have no DNS: a reconnect must not wait long to find that out."""

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host name, as text; OSError if there are none."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """One way to the server: an address and port to dial, and the name that its certificate must carry."""

    host: str
    port: int
    address: str
    """Behind a proxy it may be the name."""

    proxy: Proxy | None = field(default=None, compare=False)
    proxy_address: str = ""

    @property
    def proxy_url(self) -> str | None:
        """Where the proxy is dialled, if there is one."""
        return None if self.proxy is None else self.proxy.at(self.proxy_address)

    @property
    def proxy_headers(self) -> Mapping[str, str] | None:
        """What the proxy is told, if there is one."""
        return None if self.proxy is None else self.proxy.headers

    def url(self, path: str) -> str:
        """The URL that dials exactly this address."""
        literal = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{literal}:{self.port}{path}"

    @property
    def authority(self) -> str:
        """The Host header that the server expects."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def peer(self) -> Peer:
        """For the firewall."""
        return Peer(address=ip_address(self.address), port=self.port)


Line = tuple[Text, Annotated[int, Field(ge=1, le=65535)], Text]
"""Host, port, address: a target in the file."""

Lines = Annotated[tuple[Line, ...], Field(max_length=MAX_TARGETS)]


class Remembered(LooseModel):
    """The file in the state folder."""

    urls: Annotated[tuple[Text, ...], Field(max_length=32)] = ()
    """Base URLs of the gateway, best first."""
    live: Line | None = None
    """The one that answered last."""
    signed: Lines = ()
    """What the server's signed envelope named."""
    found: Lines = ()
    """What looking up the names of the URLs gave."""
    proxies: Lines = ()
    """What looking up the name of the proxy gave, the address that was used last first."""


def split_url(url: str) -> tuple[str, int]:
    """Host and port of a gateway URL; Invalid if it is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    # A zone means something on one machine only, and no firewall can do anything with it.
    odd = not host or len(host) > MAX_HOST or "%" in host or port < 1
    if odd or parts.scheme != "https" or parts.path not in {"", "/"} or parts.query or parts.username:
        raise Invalid("This is no gateway URL", got=url[:200], expected="https://HOST:PORT")
    return str(host), port


class AddressBook:
    """Every way to the server that we know of, best first, on disk across restarts."""

    def __init__(
        self, path: Path, *, urls: Sequence[str], look_up: LookUp | None = None, proxy: Proxy | None = None
    ) -> None:
        self.changed = asyncio.Event()
        """Set when a firewall would be told something else than before; whoever acts on it clears it."""
        self._path = path
        self._look_up = look_up or HostNames()
        self._proxy = proxy
        self._known = _read(path)
        self._written = True
        if not self._known.urls:
            self._known = self._known.model_copy(update={"urls": tuple(urls)})
        self._targets = self._ways()

    def targets(self) -> tuple[Target, ...]:
        """All of them, the one that answered last first."""
        return self._targets

    def peers(self) -> tuple[Peer, ...]:
        """The same for a firewall, which needs no names; none behind a proxy, where no direct way is needed."""
        return () if self._proxy else tuple(dict.fromkeys(one.peer for one in self._targets))

    def proxies(self) -> tuple[Peer, ...]:
        """The addresses of the proxy on the way to the server, if there is one."""
        return () if self._proxy is None else tuple(_target(line).peer for line in _proxies(self._known, self._proxy))

    def has_names(self) -> bool:
        """Does a name have to be looked up to find the way?"""
        hosts = [self._proxy.host] if self._proxy else [host for host, _ in map(split_url, self._known.urls)]
        return not all(map(_is_address, hosts))

    def prefer(self, target: Target) -> None:
        """This one answered."""
        if target.proxy is None:
            self._keep(live=_line(target))
            return
        first = (target.proxy.host, target.proxy.port, target.proxy_address)
        self._keep(proxies=tuple(dict.fromkeys([first, *self._known.proxies]))[:MAX_PROXIES])
        self._targets = (target, *(one for one in self._targets if one != target))

    def _ways(self) -> tuple[Target, ...]:
        return _all_targets(self._known) if self._proxy is None else _through(self._known, self._proxy)

    async def learn(self, body: AddressesBody) -> None:
        """Take over what the server signed, in place of what it signed before; the live address stays in any case."""
        urls = tuple(filter(_is_usable, body.urls)) or self._known.urls
        hosts = list(map(split_url, urls))
        signed = [_signed_target(peer, hosts) for peer in body.peers]
        found = [line for line in self._known.found if (line[0], line[1]) in hosts]
        self._keep(urls=urls, signed=tuple(map(_line, signed)), found=tuple(found))

    async def refresh(self) -> None:
        """Look the names up again, within seconds; what answers replaces what was found for that name before."""
        if self._proxy is not None:
            await self._refresh_proxy(self._proxy)
            return
        for host, port in map(split_url, self._known.urls):
            addresses = () if _is_address(host) else await self._addresses(host, port)
            if addresses:
                others = [line for line in self._known.found if (line[0], line[1]) != (host, port)]
                fresh = [_line(Target(host, port, one)) for one in dict.fromkeys(addresses)]
                self._keep(found=tuple([*fresh, *others][:MAX_TARGETS]))

    async def _refresh_proxy(self, proxy: Proxy) -> None:
        addresses = () if _is_address(proxy.host) else await self._addresses(proxy.host, proxy.port)
        if addresses:
            fresh = [(proxy.host, proxy.port, one) for one in dict.fromkeys(addresses)]
            used = [line for line in self._known.proxies[:1] if line in fresh]
            self._keep(proxies=tuple(dict.fromkeys([*used, *fresh]))[:MAX_PROXIES])

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                return await self._look_up(host, port)
        except (OSError, TimeoutError) as error:
            log.info("name-not-resolved", host=host, error=str(error) or "timed out", known=len(self._targets))
            return ()

    def _keep(self, **changed: Any) -> None:
        now = self._known.model_copy(update=changed)
        if now != self._known:
            before = {*self.peers(), *self.proxies()}
            self._known, self._written = now, False
            self._targets = self._ways()
            if before != {*self.peers(), *self.proxies()}:
                self.changed.set()
        if not self._written:
            self._write()

    def _write(self) -> None:
        """A full disk must cost nobody the way to the server: what is known is used, and written another time."""
        try:
            atomic_write(self._path, self._known.model_dump_json().encode())
            self._written = True
        except OSError as error:
            log.warning("addresses-not-written", path=str(self._path), error=str(error))


def _all_targets(known: Remembered) -> tuple[Target, ...]:
    literal = [(host, port, host) for host, port in map(split_url, known.urls) if _is_address(host)]
    live = [known.live] if known.live else []
    lines = dict.fromkeys([*live, *literal, *known.signed, *known.found])
    return tuple(_target(line) for line in lines)[:MAX_TARGETS]


def _proxies(known: Remembered, proxy: Proxy) -> list[Line]:
    """The addresses of the proxy; those that another one had are not its own."""
    if _is_address(proxy.host):
        return [(proxy.host, proxy.port, proxy.host)]
    return [line for line in known.proxies if line[:2] == (proxy.host, proxy.port)][:MAX_PROXIES]


def _through(known: Remembered, proxy: Proxy) -> tuple[Target, ...]:
    """The ways through the proxy: to the server's names first, on which the proxy may insist, then to its addresses."""
    named = [(host, port, host) for host, port in map(split_url, known.urls)]
    ends = dict.fromkeys([*named, *known.signed])
    ways = [Target(*end, proxy, address) for end in ends for *_, address in _proxies(known, proxy)]
    return tuple(ways)[:MAX_TARGETS]


def _signed_target(peer: Peer, hosts: Sequence[tuple[str, int]]) -> Target:
    """Under a name of that port, since the certificate carries them all; under the address itself if there is none."""
    names = [host for host, port in hosts if port == peer.port and not _is_address(host)]
    address = str(peer.address)
    return Target(names[0] if names else address, peer.port, address)


def _read(path: Path) -> Remembered:
    """What was remembered; a damaged file is worth a log line, not a failure: the URLs of the identity remain."""
    try:
        with path.open("rb") as file:
            remembered = Remembered.model_validate_json(file.read(MAX_FILE_BYTES))
        _ = [one.peer for one in (*_all_targets(remembered), *map(_target, remembered.proxies))]
    except FileNotFoundError:
        return Remembered()
    except (OSError, ValueError, Invalid) as error:
        log.warning("addresses-forgotten", path=str(path), error=type(error).__name__)
        return Remembered()
    return remembered


def _line(target: Target) -> Line:
    return (target.host, target.port, target.address)


def _target(line: Line) -> Target:
    return Target(*line)


def _is_usable(url: str) -> bool:
    try:
        split_url(url)
    except Invalid as error:
        log.warning("url-ignored", error=str(error))
        return False
    return True


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
