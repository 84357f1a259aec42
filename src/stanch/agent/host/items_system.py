"""The machine as indicators ask for it: `SystemInfoItem`, one item, of which each wanted piece is read for itself."""

import io
import os
import platform
import re
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from importlib.metadata import PackageNotFoundError, version
from ipaddress import IPv4Network, ip_address
from itertools import islice
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from stanch.agent.host.clock import boot_seconds, wall_clock
from stanch.agent.host.configured import lines_of, text_of
from stanch.agent.host.inventory import MAX_SESSIONS, SESSIONS, UTMP, parse_session, parse_utmp, read_bounded
from stanch.agent.host.items import Collector, Parts
from stanch.agent.host.items_batches import Values, bounded, in_batches
from stanch.agent.host.items_links import Link, Own, Route, links, own_addresses, routes
from stanch.agent.host.items_processes import account
from stanch.agent.host.netlink import NETLINK_ROUTE, Netlink
from stanch.agent.host.resolvers import read_resolvers
from stanch.core.errors import StanchError
from stanch.core.ioc.items import Item

MAX_DEVICES = 1000
MAX_ROUTES = 200_000
"""Routes among which the default ones are looked for."""
MAX_LEASES = 1_048_576
"""Bytes of a file of leases."""
MAX_LEASE_FILES = 100
MAX_ZONE = 65_536
"""Bytes of etc/localtime."""

_NETWORK: Final = "networkArray/networkInfo/"
_LOCALTIME = Path("etc/localtime")
_MACHINE_ID = Path("etc/machine-id")
_OS_RELEASE = (Path("etc/os-release"), Path("usr/lib/os-release"))
_DMI = Path("class/dmi/id")
_NETWORKD_LEASES = Path("run/systemd/netif/leases")
_OTHER_LEASES = (Path("var/lib/NetworkManager"), Path("var/lib/dhcp"), Path("var/lib/dhclient"))
_RELEASE_LINE = re.compile(r"""^([A-Z_]+)=(["']?)(.*)\2\s*$""")
_MODEL = re.compile(r"^(?:model name|cpu model|Processor|cpu)\s*:\s*(.+)$", re.MULTILINE)
_FLAGS = re.compile(r"^flags\s*:\s*(.+)$", re.MULTILINE)
_MEMORY = re.compile(r"^(MemTotal|MemAvailable):\s+(\d{1,15}) kB$", re.MULTILINE)
_SERVERS = (
    re.compile(r"^SERVER_ADDRESS=(\S+)$", re.MULTILINE),
    re.compile(r"^\s*option dhcp-server-identifier ([0-9.]+);$", re.MULTILINE),
)
_EXPIRES = re.compile(r"^\s*expire \d (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d);$", re.MULTILINE)
_MONTHS = (1, 7)
"""One of them is in summer, wherever that is."""


def system_items(parts: Parts) -> Collector:
    """The collector of `SystemInfoItem`."""

    def collect(wanted: frozenset[str]) -> AsyncIterator[Sequence[Item]]:
        return in_batches(lambda _stop: _items(parts, wanted))

    return collect


def _items(parts: Parts, wanted: frozenset[str]) -> Iterator[Item]:
    values = Values()
    for paths, read in _PIECES:
        if wanted & paths:
            with suppress(OSError, StanchError, ValueError, KeyError):
                values.update(read(parts))
    yield Item(document="SystemInfoItem", name=_hostname(), values=bounded(values, wanted))


def _hostname() -> str:
    return os.uname().nodename


def _text(found: str) -> tuple[str, ...]:
    return (found,) if found else ()


# --- names, system ---------------------------------------------------------------------------------------------------


def _names(parts: Parts) -> Values:
    name, _, domain = _hostname().partition(".")
    searched = () if domain else read_resolvers(parts.root).search
    return Values(
        hostname=(_hostname(),), machine=(name,), domain=_text(domain or next((one for one in searched if one), ""))
    )


def _system(parts: Parts) -> Values:
    release = next((found for path in _OS_RELEASE if (found := parse_release(lines_of(parts.root / path)))), {})
    machine = os.uname()
    return Values(
        platform=("linux",),
        OS=_text(release.get("PRETTY_NAME", "")),
        productName=_text(release.get("NAME", "")),
        patchLevel=_text(release.get("VERSION_ID", "")),
        buildNumber=_text(release.get("BUILD_ID", "")),
        kernelVersion=(machine.release,),
        OSbitness=("64-bit" if "64" in machine.machine or machine.machine == "s390x" else "32-bit",),
        procType=(machine.machine,),
    )


def parse_release(lines: Iterator[str]) -> Mapping[str, str]:
    """Read os-release(5), as far as its lines are of the usual form."""
    found = (_RELEASE_LINE.match(line) for line in lines)
    return {one[1]: one[3][:1000] for one in found if one is not None}


def _processor(parts: Parts) -> Values:
    text = text_of(parts.proc / "cpuinfo")
    model, flags = _MODEL.search(text), _FLAGS.search(text)
    values = Values(processor=(model[1].strip() if model else platform.machine(),))
    if flags is not None:
        words = set(flags[1].split())
        values["procConfigInfo/vmGuest"] = ("yes" if "hypervisor" in words else "no",)
        values["procConfigInfo/virtualization"] = ("yes" if words & {"vmx", "svm"} else "no",)
    return values


def _firmware(parts: Parts) -> Values:
    names = {"biosInfo/biosDate": "bios_date", "biosInfo/biosVersion": "bios_version"}
    return Values({path: _text(text_of(parts.sys / _DMI / name).strip()) for path, name in names.items()})


def _memory(parts: Parts) -> Values:
    found = dict(_MEMORY.findall(text_of(parts.proc / "meminfo")))
    paths = {"totalphysical": "MemTotal", "availphysical": "MemAvailable"}
    return Values({path: (int(found[name]) * 1024,) for path, name in paths.items() if name in found})


# --- times -----------------------------------------------------------------------------------------------------------


def _times(_parts: Parts) -> Values:
    return Values(uptime=(boot_seconds(),), date=(wall_clock().timestamp(),))


def _installed(parts: Parts) -> Values:
    try:
        found = os.lstat(parts.root / _MACHINE_ID)
    except FileNotFoundError:
        return Values(installDate=())
    return Values(installDate=(found.st_mtime,)) if stat.S_ISREG(found.st_mode) else Values()


def _zone(parts: Parts) -> Values:
    name = _zone_name(parts.root)
    zone = _zone_of(parts.root, name)
    now = wall_clock().astimezone(zone)
    standard, summer = _zone_words(zone, now.year)
    return Values(
        timezone=_text(name), timezoneStandard=_text(standard), timezoneDST=_text(summer),
        gmtoffset=(_signed(now.utcoffset() or timedelta()),),
    )  # fmt: skip


def _zone_name(root: Path) -> str:
    """Of the file to which etc/localtime leads; nothing if it leads nowhere; UTC without it, as for the C library."""
    try:
        target = str((root / _LOCALTIME).readlink())
    except FileNotFoundError:
        return "UTC"
    except OSError:  # a file in its place
        return ""
    return target.partition("zoneinfo/")[2]


def _zone_of(root: Path, name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    file = os.open(root / _LOCALTIME, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return ZoneInfo.from_file(io.BytesIO(os.read(file, MAX_ZONE)))
    finally:
        os.close(file)


def _zone_words(zone: tzinfo, year: int) -> tuple[str, str]:
    """What it calls standard time and summer time, this year."""
    moments = [datetime(year, month, 1, tzinfo=zone) for month in _MONTHS]
    summer = next((one.tzname() for one in moments if one.dst()), None)
    standard = next((one.tzname() for one in moments if not one.dst()), None)
    return standard or "", summer or ""


def _signed(offset: timedelta) -> str:
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


# --- people ----------------------------------------------------------------------------------------------------------


def _user(_parts: Parts) -> Values:
    return Values(user=(account(os.geteuid()),))


def _logged_on(parts: Parts) -> Values:
    found = set(parse_utmp(read_bounded(_below(parts.root, UTMP))))
    with suppress(OSError):  # newer distributions have no utmp
        for session in islice(_below(parts.root, SESSIONS).iterdir(), MAX_SESSIONS):
            if session.is_file():  # beside each session lies a FIFO, which would make us wait
                found.update(parse_session(read_bounded(session).decode("utf-8", "surrogateescape")))
    return Values(loggedOnUser=tuple(sorted(found)))


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _version(_parts: Parts) -> Values:
    with suppress(PackageNotFoundError):
        return Values(appVersion=(version("stanch"),))
    return Values()


# --- network ---------------------------------------------------------------------------------------------------------


def _network(_parts: Parts) -> Values:
    with Netlink(NETLINK_ROUTE) as netlink:
        devices = dict(islice(sorted(links(netlink).items()), MAX_DEVICES))
        own = list(islice(own_addresses(netlink), 4 * MAX_DEVICES))
    with Netlink(NETLINK_ROUTE) as netlink:
        defaults = sorted(
            (one for one in islice(routes(netlink), MAX_ROUTES) if one.is_default), key=lambda one: one.metric
        )
    return Values({**_devices(devices, own, defaults), **_primary(devices, own, defaults)})


def _devices(devices: Mapping[int, Link], own: Sequence[Own], defaults: Sequence[Route]) -> Values:
    shown = {number: one for number, one in devices.items() if one.kind != "Loopback"}
    addresses = [one for one in own if one.device in shown]
    four = [one for one in addresses if not one.six]
    return Values({
        f"{_NETWORK}adapter": tuple(one.name for one in shown.values()),
        f"{_NETWORK}MAC": tuple(way for one in shown.values() for way in _ways(one.physical)),
        f"{_NETWORK}ipArray/ipInfo/ipAddress": tuple(one.address for one in four),
        f"{_NETWORK}ipArray/ipInfo/ipv6Address": tuple(one.address for one in addresses if one.six),
        f"{_NETWORK}ipArray/ipInfo/subnetMask": tuple(str(IPv4Network((0, one.prefix)).netmask) for one in four),
        f"{_NETWORK}ipGatewayArray/ipGateway": tuple(way for one in defaults for way in one.gateways),
    })  # fmt: skip


def _primary(devices: Mapping[int, Link], own: Sequence[Own], defaults: Sequence[Route]) -> Values:
    four = _first_address(own, [one for one in defaults if not _is_six(one)], six=False)
    six = _first_address(own, [one for one in defaults if _is_six(one)], six=True)
    out = [devices[number] for one in defaults for number in one.devices if number in devices]
    return Values(
        primaryIpv4Address=four,
        primaryIpv6Address=six,
        primaryIpAddress=four or six,
        MAC=_ways(out[0].physical) if out else (),
    )


def _is_six(route: Route) -> bool:
    return route.network.version == 6  # noqa: PLR2004 - IPv6


def _first_address(own: Sequence[Own], defaults: Sequence[Route], *, six: bool) -> tuple[str, ...]:
    for route in defaults:
        for one in own:
            if one.device in route.devices and one.six == six and one.is_global:
                return (one.address,)
    return ()


def _ways(physical: str) -> tuple[str, ...]:
    """The two ways in which people write a hardware address."""
    return (physical, physical.replace(":", "-").upper()) if physical else ()


def _dhcp(parts: Parts) -> Values:
    found, expires = dict[str, None](), dict[float, None]()
    for path in _leases(parts.root):
        text = text_of(path, limit=MAX_LEASES)
        for pattern in _SERVERS:
            for one in pattern.findall(text):
                with suppress(ValueError):
                    found[str(ip_address(one))] = None
        for one in _EXPIRES.findall(text)[-1:]:  # the last one counts
            with suppress(ValueError):
                expires[datetime.strptime(one, "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC).timestamp()] = None
    values = Values({f"{_NETWORK}dhcpServerArray/dhcpServer": tuple(found)})
    if expires or not found:  # the leases of others do not say it
        values[f"{_NETWORK}dhcpLeaseExpires"] = tuple(expires)
    return values


def _leases(root: Path) -> Iterator[Path]:
    for folder in (_NETWORKD_LEASES, *_OTHER_LEASES):
        with suppress(OSError):
            for path in islice(sorted((root / folder).iterdir()), MAX_LEASE_FILES):
                if folder == _NETWORKD_LEASES or path.suffix in {".leases", ".lease"}:
                    yield path


_PIECES: Final[Sequence[tuple[frozenset[str], Callable[[Parts], Values]]]] = (
    (frozenset({"hostname", "machine", "domain"}), _names),
    (
        frozenset({
            "platform", "OS", "productName", "patchLevel", "buildNumber", "kernelVersion", "OSbitness", "procType",
        }),
        _system,
    ),
    (frozenset({"processor", "procConfigInfo/vmGuest", "procConfigInfo/virtualization"}), _processor),
    (frozenset({"biosInfo/biosDate", "biosInfo/biosVersion"}), _firmware),
    (frozenset({"totalphysical", "availphysical"}), _memory),
    (frozenset({"uptime", "date"}), _times),
    (frozenset({"installDate"}), _installed),
    (frozenset({"timezone", "timezoneStandard", "timezoneDST", "gmtoffset"}), _zone),
    (frozenset({"user"}), _user),
    (frozenset({"loggedOnUser"}), _logged_on),
    (frozenset({"appVersion"}), _version),
    (
        frozenset({
            "MAC", "primaryIpAddress", "primaryIpv4Address", "primaryIpv6Address", f"{_NETWORK}adapter",
            f"{_NETWORK}MAC", f"{_NETWORK}ipArray/ipInfo/ipAddress", f"{_NETWORK}ipArray/ipInfo/ipv6Address",
            f"{_NETWORK}ipArray/ipInfo/subnetMask", f"{_NETWORK}ipGatewayArray/ipGateway",
        }),
        _network,
    ),
    (frozenset({f"{_NETWORK}dhcpServerArray/dhcpServer", f"{_NETWORK}dhcpLeaseExpires"}), _dhcp),
)  # fmt: skip
"""Paths to what reads them."""
