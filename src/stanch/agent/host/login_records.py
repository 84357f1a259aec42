"""Records of logins, as utmp(5) has them in wtmp, btmp and utmp, and lastlog(5): hostile bytes made into facts.

Whatever the bytes are, there is a record for each whole one, and nothing is raised. Some processors have times of 64
bits in them.
"""

import platform
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_SHORT: Final = struct.Struct("=h2xi32s4s32s256shhiii16s20x")
_LONG: Final = struct.Struct("=h2xi32s4s32s256shhqqq16s20x4x")
_LONG_TIMES: Final = frozenset({"aarch64", "loongarch64"})
_LASTLOG: Final = struct.Struct("=i32s256s")
_LASTLOG_LONG: Final = struct.Struct("=q32s256s")
_NEVER: Final = frozenset({"", "0.0.0.0", "::"})
_LOCAL: Final = (":", "tmux(", "screen", "login screen", "localhost:")
"""How the hosts begin of who is at the machine itself: X displays, terminal multiplexers."""


class Type(IntEnum):
    """What a record is about."""

    EMPTY = 0
    RUN_LVL = 1
    BOOT_TIME = 2
    NEW_TIME = 3
    OLD_TIME = 4
    INIT_PROCESS = 5
    LOGIN_PROCESS = 6
    USER_PROCESS = 7
    DEAD_PROCESS = 8
    ACCOUNTING = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record."""

    type: int
    pid: int = 0
    line: str = ""
    user: str = ""
    host: str = ""
    time: int = 0
    """Seconds since 1970."""
    address: str = ""
    """Of the host; empty for none."""

    @property
    def type_name(self) -> str:
        """In capitals, as in utmp(5); the number where there is no name."""
        try:
            return Type(self.type).name
        except ValueError:
            return str(self.type)

    @property
    def is_session(self) -> bool:
        """Is somebody let in, or asked who they are?"""
        return self.type in {Type.USER_PROCESS, Type.LOGIN_PROCESS}

    @property
    def is_remote(self) -> bool:
        """Is it a login from elsewhere?"""
        return self.is_session and (bool(self.address) or (bool(self.host) and not self.host.startswith(_LOCAL)))


def record_size(machine: str | None = None) -> int:
    """Bytes of a record on such a processor; on this one if none is named."""
    return _layout(machine).size


def records(raw: bytes, *, machine: str | None = None) -> Iterator[Record]:
    """The records, in order; what is cut off, and what is empty, is left out."""
    layout = _layout(machine)
    for begin in range(0, len(raw) - layout.size + 1, layout.size):
        kind, pid, line, _id, user, host, _termination, _exit, _session, seconds, _micro, address = layout.unpack_from(
            raw, begin
        )
        if kind != Type.EMPTY or seconds or any(user):
            yield Record(
                type=kind,
                pid=pid & 0xFFFF_FFFF,
                line=_text(line),
                user=_text(user),
                host=_text(host),
                time=seconds & 0xFFFF_FFFF if layout is _SHORT else max(0, seconds),
                address=_address(address) or address_in(_text(host)),
            )


def ends(found: Sequence[Record]) -> Sequence[int | None]:
    """When the session of each record ended, by a later one: of its terminal, or of the machine. None for not known."""
    ended: list[int | None] = [None] * len(found)
    opened: dict[str, int] = {}
    for number, one in enumerate(found):
        if one.type == Type.BOOT_TIME or (one.type == Type.RUN_LVL and one.user == "shutdown"):
            over, opened = list(opened.values()), {}
        elif one.type in {Type.USER_PROCESS, Type.DEAD_PROCESS} and one.line:
            over = [opened.pop(one.line)] if one.line in opened else []
        else:
            continue
        for earlier in over:
            ended[earlier] = one.time if one.time >= found[earlier].time else None
        if one.type == Type.USER_PROCESS:
            opened[one.line] = number
    return ended


def address_in(host: str) -> str:
    """The address that a host is named by; empty for a name."""
    try:
        return _plain(ip_address(host.partition(" ")[0].partition("%")[0]))
    except ValueError:
        return ""


def last_login(raw: bytes, *, machine: str | None = None) -> int:
    """When, by one record of lastlog; 0 for never, or if it is cut off."""
    layout = _LASTLOG_LONG if (machine or platform.machine()) in _LONG_TIMES else _LASTLOG
    if len(raw) < layout.size:
        return 0
    seconds = int(layout.unpack_from(raw)[0])
    return seconds & 0xFFFF_FFFF if layout is _LASTLOG else max(0, seconds)


def lastlog_size(machine: str | None = None) -> int:
    """Bytes of a record of lastlog."""
    return _LASTLOG_LONG.size if (machine or platform.machine()) in _LONG_TIMES else _LASTLOG.size


def _layout(machine: str | None) -> struct.Struct:
    return _LONG if (machine or platform.machine()) in _LONG_TIMES else _SHORT


def _address(raw: bytes) -> str:
    """The first four bytes alone are of version 4."""
    if not any(raw):
        return ""
    return _plain(IPv6Address(raw) if any(raw[4:]) else IPv4Address(raw[:4]))


def _plain(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    text = str(mapped or address)
    return "" if text in _NEVER else text


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")
