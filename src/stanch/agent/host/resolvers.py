"""Where this machine asks for names, and what it knows without asking: resolv.conf, its upstreams, /etc/hosts.

A resolver of the machine's own (systemd-resolved, dnsmasq) cannot help an isolated endpoint: its questions do not carry
the agent's mark, so the firewall drops them. The agent then asks the resolvers that one forwards to.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from stanch.agent.host.configured import lines_of
from stanch.core.types import AnyAddress, parse_address

MAX_RESOLVERS = 8
MAX_SEARCH = 6
MAX_HOSTS_BYTES = 2 * 1_048_576
MAX_NAME = 253

RESOLV_CONF = Path("etc/resolv.conf")
HOSTS = Path("etc/hosts")
UPSTREAMS = (Path("run/systemd/resolve/resolv.conf"), Path("run/NetworkManager/no-stub-resolv.conf"))
"""Of systemd-resolved, of NetworkManager with dnsmasq."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolvers:
    """What resolv.conf says."""

    configured: tuple[AnyAddress, ...] = ()
    """Where programs of this machine ask."""

    upstream: tuple[AnyAddress, ...] = ()
    """Where the agent asks: none of them is this machine itself. With the zone, where an address needs one."""

    search: tuple[str, ...] = ()
    """Domains in which short names are looked for."""

    @property
    def remote(self) -> tuple[AnyAddress, ...]:
        """The upstreams as the firewall knows them, without zones."""
        return tuple(dict.fromkeys(map(_without_zone, self.upstream)))

    def candidates(self, name: str) -> tuple[str, ...]:
        """What a name may mean, the likeliest first: as it is, or in the search domains."""
        if name.endswith("."):
            return (name,)
        inside = [full for domain in self.search if len(full := f"{name}.{domain}") <= MAX_NAME]
        return tuple([name, *inside] if "." in name else [*inside, name])


def read_resolvers(root: Path = Path("/")) -> Resolvers:
    """The resolvers as they are configured now."""
    configured, search = _read(root / RESOLV_CONF)
    upstream = _remote(configured)
    for path in UPSTREAMS:
        upstream = upstream or _remote(_read(root / path)[0])
    return Resolvers(configured=configured, upstream=upstream[:MAX_RESOLVERS], search=search)


def read_hosts(names: Collection[str], root: Path = Path("/")) -> Mapping[str, tuple[AnyAddress, ...]]:
    """What /etc/hosts says of these names."""
    wanted, found = {name.lower().rstrip("."): name for name in names}, dict[str, list[AnyAddress]]()
    for line in lines_of(root / HOSTS, limit=MAX_HOSTS_BYTES):
        address, *aliases = line.partition("#")[0].split() or [""]
        for alias in {one.lower().rstrip(".") for one in aliases} & wanted.keys():
            with suppress(ValueError):  # it is none, or has a zone, with which no firewall can do anything
                found.setdefault(wanted[alias], []).append(parse_address(address))
    return {name: tuple(dict.fromkeys(addresses)) for name, addresses in found.items() if addresses}


def _read(path: Path) -> tuple[tuple[AnyAddress, ...], tuple[str, ...]]:
    addresses: list[AnyAddress] = []
    search: tuple[str, ...] = ()
    for line in lines_of(path):
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest:
            addresses += _addresses(rest[0])
        elif word in {"search", "domain"}:
            search = tuple(_domains(rest))
    return tuple(dict.fromkeys(addresses))[:MAX_RESOLVERS], search


def _domains(words: list[str]) -> Iterator[str]:
    for word in words[:MAX_SEARCH]:
        domain = word.strip(".").lower()
        if domain.isascii() and 0 < len(domain) < MAX_NAME:
            yield domain


def _addresses(text: str) -> Iterator[AnyAddress]:
    address = _address(text)
    if address is not None:
        yield address


def _address(text: str) -> AnyAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _remote(addresses: tuple[AnyAddress, ...]) -> tuple[AnyAddress, ...]:
    return tuple(one for one in addresses if not (one.is_loopback or one.is_unspecified or one.is_multicast))


def _without_zone(address: AnyAddress) -> AnyAddress:
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return IPv6Address(int(address))
    return address
