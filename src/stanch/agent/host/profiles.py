"""What the named profiles open on this machine: what its own configuration names, and nothing else.

Each configuration is read for the addresses in it, not understood in full: a line that means nothing here is passed
over, and a machine whose configuration names nothing is told so.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from stanch.agent.host.configured import files_in, lines_of, text_of
from stanch.agent.host.resolvers import read_resolvers
from stanch.core.exclusion import Direction, Exclusion, Ports, Profile, Transport
from stanch.core.types import AnyNetwork, parse_network

MAX_PLACES = 200
"""Hosts that one profile opens."""

DNS_PORT, DNS_TLS_PORT, NTP_PORT = 53, 853, 123

Place = tuple[str, int]
"""A host, by name or address, and a port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a profile opens here, and what it does not."""

    exclusions: tuple[Exclusion, ...] = ()
    not_open: tuple[str, ...] = ()


def exclusions_of(profile: Profile, root: Path = Path("/")) -> Opened:
    """The exclusions that a profile stands for on this machine."""
    return _READERS[profile](root)


def _exclusions(places: Iterable[Place], transport: Transport) -> tuple[Exclusion, ...]:
    """Connections that the endpoint opens to these; places that cannot be meant are left out."""
    found = [one for host, port in dict.fromkeys(places) for one in _exclusion(host, port, transport)]
    return tuple(dict.fromkeys(found))[:MAX_PLACES]


def _exclusion(host: str, port: int, transport: Transport) -> Iterator[Exclusion]:
    try:
        yield Exclusion(peer=_peer(host), transport=transport, direction=Direction.OUT, remote=Ports.parse(str(port)))
    except ValueError:
        return


def _peer(host: str) -> AnyNetwork | str:
    """A network or a name; ValueError if it is this machine itself."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host.lower().removesuffix(".")
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise ValueError("it is no peer")
    return parse_network(str(address))


# --- dns, dhcp -------------------------------------------------------------------------------------------------------


def _dhcp(_root: Path) -> Opened:
    """The rules have a switch of their own for it."""
    return Opened()


def _dns(root: Path) -> Opened:
    hosts = [str(one) for one in read_resolvers(root).remote]
    found = (
        *_exclusions(((host, DNS_PORT) for host in hosts), Transport.UDP),
        *_exclusions(((host, port) for host in hosts for port in (DNS_PORT, DNS_TLS_PORT)), Transport.TCP),
    )
    return Opened(exclusions=found, not_open=() if found else ("dns opens nothing: no resolver but our own is known",))


# --- ntp -------------------------------------------------------------------------------------------------------------

_TIMESYNCD = ("etc/systemd", "run/systemd", "usr/lib/systemd")
_NTP_FILES = ("etc/chrony/chrony.conf", "etc/chrony.conf", "etc/ntp.conf", "etc/ntpsec/ntp.conf")
_NTP_FOLDERS = (
    ("etc/chrony/conf.d", ".conf"),
    ("etc/chrony.d", ".conf"),
    ("etc/chrony/sources.d", ".sources"),
    ("run/chrony-dhcp", ".sources"),
    ("etc/ntp.d", ".conf"),
    ("etc/ntpsec/ntp.d", ".conf"),
)
_NTP_WORDS = frozenset({"server", "pool", "peer"})


def _ntp(root: Path) -> Opened:
    files = [root / one for one in _NTP_FILES]
    files += [file for folder, ending in _NTP_FOLDERS for file in files_in(root / folder, ending)]
    places = [place for file in files for line in lines_of(file) for place in _ntp_line(line)]
    places += _timesyncd(root)
    found = _exclusions(places, Transport.UDP)
    return Opened(exclusions=found, not_open=() if found else ("ntp opens nothing: no time server is configured",))


def _ntp_line(line: str) -> Iterator[Place]:
    """`server HOST [option...]` of chrony and ntpd."""
    word, *rest = line.split() or [""]
    words = [one for one in rest if one not in {"-4", "-6", "-4;", "-6;"}]
    if word.lower() in _NTP_WORDS and words:
        after = dict(pairwise(words)).get("port", "")
        yield words[0], int(after) if after.isascii() and after.isdecimal() and len(after) < 6 else NTP_PORT  # noqa: PLR2004 - digits of a port


def _timesyncd(root: Path) -> Iterator[Place]:
    files = [root / one / "timesyncd.conf" for one in _TIMESYNCD]
    files += [file for one in _TIMESYNCD for file in files_in(root / one / "timesyncd.conf.d", ".conf")]
    for file in files:
        for line in lines_of(file):
            key, equals, value = line.partition("=")
            if equals and key.strip() in {"NTP", "FallbackNTP"}:
                yield from ((host, NTP_PORT) for host in value.split())


# --- updates ---------------------------------------------------------------------------------------------------------

_PORTS: Mapping[str, int] = {"http": 80, "https": 443, "mirror": 80}
_APT_PREFIXES = ("mirror+", "tor+")
_APT_PROXY = re.compile(r"\bProxy(?:::[A-Za-z0-9.-]{1,253})?\s{1,20}\"(https?://[^\"\s]{1,500})\"", re.IGNORECASE)
_REPOSITORIES = ("etc/yum.repos.d", "etc/dnf/repos.d", "etc/zypp/repos.d", "usr/share/dnf5/repos.d")
_DNF_FILES = ("etc/dnf/dnf.conf", "etc/yum.conf")
_REPOSITORY_KEYS = frozenset({"baseurl", "mirrorlist", "metalink", "proxy"})
_LISTS = frozenset({"mirrorlist", "metalink"})
_OFF = frozenset({"0", "no", "false", "off"})


def _updates(root: Path) -> Opened:
    urls = [*_apt_lists(root), *_apt_sources(root), *_apt_proxies(root)]
    configured = [*_repositories(root)]
    urls += [url for _, url in configured]
    found = _exclusions((place for url in urls for place in _place_of(url)), Transport.TCP)
    lines = [] if found else ["updates opens nothing: no package source on a network is configured"]
    if any(key in _LISTS for key, _ in configured):
        lines.append("updates opens the servers of mirror lists, but not the mirrors that such a list names")
    return Opened(exclusions=found, not_open=tuple(lines))


def _place_of(url: str) -> Iterator[Place]:
    """Host and port of a package source; nothing if it is on no network, or its port is no number."""
    for prefix in _APT_PREFIXES:
        url = url.removeprefix(prefix)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme.lower())
    except ValueError:
        return
    if host and port and parts.scheme.lower() in _PORTS:
        yield host, port


def _apt_lists(root: Path) -> Iterator[str]:
    for file in [root / "etc/apt/sources.list", *files_in(root / "etc/apt/sources.list.d", ".list")]:
        for line in lines_of(file):
            words = re.sub(r"\[[^\[\]]*\]", " ", line.partition("#")[0], count=1).split()
            if len(words) > 1 and words[0] in {"deb", "deb-src"}:
                yield words[1]


def _apt_sources(root: Path) -> Iterator[str]:
    """Stanzas of `Key: value`, with values that go on in indented lines."""
    for file in files_in(root / "etc/apt/sources.list.d", ".sources"):
        for stanza in re.split(r"\n[ \t\r]*\n", text_of(file)):
            fields = _stanza(stanza)
            if fields.get("enabled", "").strip().lower() not in _OFF:
                yield from fields.get("uris", "").split()


def _stanza(text: str) -> dict[str, str]:
    fields: dict[str, list[str]] = {}
    key = ""
    for line in text.split("\n"):
        if line.startswith("#"):
            continue
        if line[:1] not in {" ", "\t"}:
            key = line.partition(":")[0].strip().lower()
            line = line.partition(":")[2]  # noqa: PLW2901 - the rest of the same line
        fields.setdefault(key, []).append(line)
    return {name: " ".join(lines) for name, lines in fields.items()}


def _apt_proxies(root: Path) -> Iterator[str]:
    for file in [root / "etc/apt/apt.conf", *files_in(root / "etc/apt/apt.conf.d")]:
        for line in lines_of(file):
            if not line.startswith(("//", "#")):
                yield from (found[1] for found in _APT_PROXY.finditer(line))


def _repositories(root: Path) -> Iterator[tuple[str, str]]:
    """Key and URL of the repositories that are on, of dnf, yum and zypper."""
    files = [file for folder in _REPOSITORIES for file in files_in(root / folder, ".repo")]
    for file in [*files, *(root / one for one in _DNF_FILES)]:
        for section in re.split(r"^\[", text_of(file), flags=re.MULTILINE):
            fields = list(_ini(section))
            if not any(key == "enabled" and value.lower() in _OFF for key, value in fields):
                for key, value in fields:
                    if key in _REPOSITORY_KEYS:
                        yield from ((key, url) for url in re.split(r"[\s,]+", value) if "://" in url)


def _ini(section: str) -> Iterator[tuple[str, str]]:
    """`key = value`, with values that go on in indented lines."""
    key = ""
    for line in section.split("\n"):
        if line[:1] in {"#", ";"}:
            continue
        if line[:1] in {" ", "\t"}:
            yield key, line.strip()
            continue
        key, _, value = (part.strip() for part in line.partition("="))
        key = key.lower()
        yield key, value


_READERS: Mapping[Profile, Callable[[Path], Opened]] = {
    Profile.DHCP: _dhcp,
    Profile.DNS: _dns,
    Profile.NTP: _ntp,
    Profile.UPDATES: _updates,
}
