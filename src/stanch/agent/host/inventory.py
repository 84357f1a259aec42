"""What the endpoint says about itself: read from the kernel and a few small files, each piece for itself.

A piece that is missing or malformed is left out: an endpoint that cannot name its distribution is still an endpoint.
Nothing here starts a program or imports a library, since the agent asks for it while it idles.
"""

import errno
import hashlib
import hmac
import os
import re
import shlex
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path

from stanch.agent.host.clock import boot_id
from stanch.agent.host.netlink import NETLINK_ROUTE, Netlink, attributes
from stanch.agent.host.run import find
from stanch.agent.host.sockets import SOCK_DESTROY, open_netlink, pack_request
from stanch.core.errors import StanchError
from stanch.core.frames import Interface, Inventory

MOST = 256
"""Devices, addresses of a device, and users that an inventory holds."""

_MAX_FILE = 1_048_576
_MACHINE_ID = Path("/etc/machine-id")
_OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
_PRETTY_NAME = re.compile(r"^PRETTY_NAME=(.*)$", re.MULTILINE)

UTMP = Path("/run/utmp")
_UTMP_RECORD = struct.Struct("=hxxi32s4s32s256s52x")  # type, pid, line, id, user, host
_USER_PROCESS = 7
SESSIONS = Path("/run/systemd/sessions")
MAX_SESSIONS = 1000
_SESSION_USER = re.compile(r"^USER=(.+)$", re.MULTILINE)
_SESSION_OF_A_USER = re.compile(r"^CLASS=user", re.MULTILINE)

_GET_LINK, _GET_ADDRESS = 18, 22
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_LINK_MAC, _LINK_NAME = 1, 3
_ADDRESS_PEER, _ADDRESS_LOCAL = 1, 2
_LOOPBACK = 1

_CAP_NET_ADMIN = 12
_NETLINK_NETFILTER = 12


# --- inventory -------------------------------------------------------------------------------------------------------


def read_inventory(*, identity: str = "") -> Inventory:
    """What this machine is now. `identity` goes into the hash of the machine id, so that others cannot compare it."""
    machine = os.uname()
    # Whoever set the name of the host may have set bytes that are no text.
    hostname = os.fsencode(machine.nodename).decode("utf-8", "backslashreplace")
    return Inventory(
        hostname=hostname[:200] or "localhost",
        machine_id=_hashed(_text(_MACHINE_ID).strip(), identity),
        os=next((found for path in _OS_RELEASE if (found := pretty_name(_text(path)))), machine.sysname),
        kernel=machine.release,
        architecture=machine.machine,
        interfaces=_or_nothing(interfaces),
        users=tuple(sorted(set(_logged_in())))[:MOST],
        boot_id=boot_id(),
    )


def _hashed(machine_id: str, identity: str) -> str:
    """Keyed by the machine id, which is a secret of the machine: see machine-id(5)."""
    message = f"stanch {identity}".encode()
    return hmac.new(machine_id.encode(), message, hashlib.sha256).hexdigest() if machine_id else ""


def pretty_name(os_release: str) -> str:
    """The name and version of the distribution in a file of the form os-release(5); nothing if it has none."""
    found = _PRETTY_NAME.findall(os_release)
    with suppress(ValueError, IndexError):
        return shlex.split(found[-1])[0][:200]
    return ""


def _or_nothing(read: Callable[[], tuple[Interface, ...]]) -> tuple[Interface, ...]:
    with suppress(OSError, StanchError):
        return read()
    return ()


def _text(path: Path) -> str:
    return read_bounded(path).decode("utf-8", "backslashreplace")


def read_bounded(path: Path) -> bytes:
    """The first MiB of a file; nothing if it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(_MAX_FILE)
    return b""


# --- network ---------------------------------------------------------------------------------------------------------


def interfaces() -> tuple[Interface, ...]:
    """Every network device but the loopback, with its addresses; OSError or ActionFailed if the kernel will not say."""
    with Netlink(NETLINK_ROUTE) as netlink:
        links = list(netlink.dump(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0)))
        addresses: dict[int, list[str]] = {}
        for payload in netlink.dump(_GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0)):
            for index, address in parse_address(payload):
                addresses.setdefault(index, []).append(address)
    found = sorted(one for payload in links for one in parse_link(payload) if one[0] != _LOOPBACK)
    return tuple(
        Interface(name=name, mac=mac, addresses=tuple(addresses.get(index, ())[:MOST]))
        for index, name, mac in found[:MOST]
    )


def parse_link(payload: bytes) -> Iterator[tuple[int, str, str]]:
    """Index, name and hardware address of a device; nothing if the message is too short or has no name."""
    if len(payload) >= _LINK.size:
        _family, _type, index, _flags, _change = _LINK.unpack_from(payload)
        found = attributes(payload[_LINK.size :])
        name = found.get(_LINK_NAME, b"").rstrip(b"\0").decode("utf-8", "backslashreplace")
        if name:
            yield index, name[:200], found.get(_LINK_MAC, b"")[:32].hex(":")


def parse_address(payload: bytes) -> Iterator[tuple[int, str]]:
    """Index of the device and address; nothing if the message is too short or of another family."""
    if len(payload) >= _ADDRESS.size:
        family, _prefix, _flags, _scope, index = _ADDRESS.unpack_from(payload)
        found = attributes(payload[_ADDRESS.size :])
        raw = found.get(_ADDRESS_LOCAL, found.get(_ADDRESS_PEER, b""))
        with suppress(ValueError):
            if family == socket.AF_INET:
                yield index, str(IPv4Address(raw))
            elif family == socket.AF_INET6:
                yield index, str(IPv6Address(raw))


# --- users -----------------------------------------------------------------------------------------------------------


def _logged_in() -> Iterator[str]:
    yield from parse_utmp(read_bounded(UTMP))
    with suppress(OSError):  # newer distributions have no utmp
        for session in islice(SESSIONS.iterdir(), MAX_SESSIONS):
            if session.is_file():  # beside each session lies a FIFO, which would make us wait
                yield from parse_session(_text(session))


def parse_utmp(raw: bytes) -> Iterator[str]:
    """The account of each login in a file of the form utmp(5); a record that is cut off is left out."""
    return (account for account, _terminal in parse_logins(raw))


def parse_logins(raw: bytes) -> Iterator[tuple[str, str]]:
    """The account and the terminal of each login in such a file."""
    whole = len(raw) - len(raw) % _UTMP_RECORD.size
    for kind, _pid, line, _id, user, _host in _UTMP_RECORD.iter_unpack(raw[:whole]):
        if kind == _USER_PROCESS and (name := _c_string(user)):
            yield name, _c_string(line)


def _c_string(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def parse_session(text: str) -> list[str]:
    """The account of a session of systemd-logind, unless it is a greeter or a background service."""
    return [name[:200] for name in _SESSION_USER.findall(text)] if _SESSION_OF_A_USER.search(text) else []


# --- capabilities ----------------------------------------------------------------------------------------------------


def capabilities() -> dict[str, str]:
    """Each ability that an action may need: `yes`, or the reason why not. Nothing is changed to find out."""
    checks = {"root": _root, "nftables": _nftables, "sock-destroy": _sock_destroy, "pidfd": _pidfd}
    return {name: _yes_or_why(check) for name, check in checks.items()}


def _yes_or_why(check: Callable[[], str | None]) -> str:
    try:
        return check() or "yes"
    except (OSError, StanchError) as error:
        return str(error)[:4000] or type(error).__name__


def _root() -> str | None:
    return None if os.geteuid() == 0 else f"runs as user id {os.geteuid()}, not as root"


def _nftables() -> str | None:
    find("nft")
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER).close()
    return None if _has_capability(_CAP_NET_ADMIN) else "the agent has no CAP_NET_ADMIN"


def _has_capability(number: int) -> bool:
    found = re.search(r"^CapEff:\s*([0-9a-fA-F]+)$", _text(Path("/proc/self/status")), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> number & 1)


def _sock_destroy() -> str | None:
    """Ask for the end of a socket from port 0 to port 0, which nobody has: the refusal tells whether it could."""
    if not _has_capability(_CAP_NET_ADMIN):  # the kernel asks for it only when it has found the socket
        return "the agent has no CAP_NET_ADMIN"
    with open_netlink() as netlink:
        try:
            netlink.do(SOCK_DESTROY, pack_request(socket.AF_INET, "tcp"))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return "this kernel was built without CONFIG_INET_DIAG_DESTROY"
            if error.errno != errno.ENOENT:
                raise
    return None


def _pidfd() -> str | None:
    os.close(os.pidfd_open(os.getpid()))
    return None
