"""Names and their addresses as indicators ask for them: `DnsEntryItem`, from /etc/hosts and systemd-resolved's cache.

systemd-resolved tells root what it remembers, over its monitor socket, and changes nothing by it (systemd 254 and
newer). Other caches are left alone: dnsmasq tells only its log, and nscd's is of a form that is not meant for others.
"""

import json
import os
import re
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from pathlib import Path
from typing import Final

from stanch.agent.host.items import Collector, Parts
from stanch.agent.host.items_batches import Values, bounded, in_batches, up_to
from stanch.agent.host.resolvers import HOSTS
from stanch.core.ioc.items import Item

MAX_LINES = 1_000_000
"""Of /etc/hosts: there are lists of blocked names that are long."""
MAX_ENTRIES = 500_000
MAX_REPLY = 16 * 1_048_576
"""Bytes of what systemd-resolved tells: it remembers at most 4096 records for each of its scopes."""
PATIENCE = 5.0
"""Seconds for all of its answer."""

MONITOR: Final = Path("run/systemd/resolve/io.systemd.Resolve.Monitor")
_ASK = b'{"method":"io.systemd.Resolve.Monitor.DumpCache","parameters":{}}\0'
_TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
          35: "NAPTR", 39: "DNAME", 43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 50: "NSEC3", 52: "TLSA",
          64: "SVCB", 65: "HTTPS", 99: "SPF", 255: "ANY", 257: "CAA"}  # fmt: skip
_NONE: Final = (
    "TimeToLive", "DataLength", "RecordData/IPv4Address", "RecordData/IPv6Address", "RecordData/Host",
    "RecordData/MxHost", "RecordData/Preference", "RecordData/String", "RecordData/TargetHost", "RecordData/Port",
    "RecordData/Priority", "RecordData/Weight", "RecordData/Error",
)  # fmt: skip
"""What a record need not have."""
_LEADS = frozenset({"CNAME", "DNAME", "NS", "PTR"})
_MAX_NAME = 1024
_MAX_LINE = 4096
"""Bytes of a line of /etc/hosts; what is longer counts as several."""
_OCTAL = re.compile(rb"\\([0-7]{3})")

Json = Mapping[str, object]


def dns_items(parts: Parts) -> Collector:
    """The collector of `DnsEntryItem`."""

    def collect(wanted: frozenset[str]) -> AsyncIterator[Sequence[Item]]:
        return in_batches(lambda _stop: up_to(_items(parts.root, wanted), MAX_ENTRIES))

    return collect


def _items(root: Path, wanted: frozenset[str]) -> Iterator[Item]:
    for values in cached(root):
        yield _item(values, "systemd-resolved", wanted)
    for values in hosts(root):
        yield _item(values, "/etc/hosts", wanted)


def _item(values: Values, where: str, wanted: frozenset[str]) -> Item:
    name = f"{values['Host'][0]} {values['RecordType'][0]} in {where}"
    return Item(document="DnsEntryItem", name=name, values=bounded(values, wanted))


# --- /etc/hosts ------------------------------------------------------------------------------------------------------


def hosts(root: Path) -> Iterator[Values]:
    """The records that /etc/hosts stands for; lines that make no sense are passed over."""
    for line in _lines(root / HOSTS):
        address, *names = line.partition("#")[0].split() or [""]
        with suppress(ValueError):
            found = ip_address(address.partition("%")[0])
            for name in names:
                yield _record(name, "A" if found.version == 4 else "AAAA", _addressed(found))  # noqa: PLR2004 - IPv4


def _lines(path: Path) -> Iterator[str]:
    """The lines of a file, one after the other: it may be long. None if it cannot be read."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO in its place would stop us else
    with suppress(OSError), os.fdopen(os.open(path, flags), "rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield from map(os.fsdecode, islice(iter(lambda: file.readline(_MAX_LINE), b""), MAX_LINES))


def _record(name: str, kind: str, more: Values) -> Values:
    plain = name[:_MAX_NAME].rstrip(".") or "."
    return Values({**dict.fromkeys(_NONE, ()), "Host": (plain,), "RecordName": (plain,), "RecordType": (kind,), **more})


def _addressed(address: IPv4Address | IPv6Address) -> Values:
    return Values({f"RecordData/IPv{address.version}Address": (str(address),), "DataLength": (len(address.packed),)})


# --- systemd-resolved ------------------------------------------------------------------------------------------------


def cached(root: Path) -> Iterator[Values]:
    """The records that systemd-resolved remembers; none if it is not there, or does not tell."""
    with suppress(OSError, ValueError, RecursionError):
        yield from parse_dump(_ask(root / MONITOR))


def _ask(path: Path) -> bytes:
    """Its answer, without the byte that ends it; OSError."""
    until = time.monotonic() + PATIENCE
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as line:
        line.settimeout(PATIENCE)
        line.connect(os.fspath(path))
        line.sendall(_ASK)
        answer = bytearray()
        while not answer.endswith(b"\0"):
            line.settimeout(max(0.01, until - time.monotonic()))
            block = line.recv(65_536)
            if not block or len(answer) > MAX_REPLY or time.monotonic() > until:
                raise OSError("systemd-resolved tells no whole answer")
            answer += block
        return bytes(answer[:-1])


def parse_dump(answer: bytes) -> Iterator[Values]:
    """Read what `DumpCache` answers; ValueError if it is no JSON. What makes no sense in it is passed over."""
    boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    for scope in _list(_object(_object(json.loads(answer)).get("parameters")).get("dump")):
        for entry in _list(_object(scope).get("cache")):
            yield from _entry(_object(entry), boot)


def _entry(entry: Json, boot: float) -> Iterator[Values]:
    """What is remembered of one name and type: some records, or that there are none."""
    ttl = Values()
    until = entry.get("until")
    if isinstance(until, int) and 0 <= until < 2**63:
        ttl["TimeToLive"] = (max(0, int(until / 1e6 - boot)),)
    records = _list(entry.get("rrs"))
    for one in records:
        record = _object(_object(one).get("rr"))
        with suppress(ValueError):
            name, kind = _key(record)
            yield _record(name, kind, Values({**ttl, **_data(kind, record)}))
    if not records:
        with suppress(ValueError):
            name, kind = _key(entry)
            error = str(entry.get("type", "NODATA")).upper()[:_MAX_NAME]
            yield _record(name, kind, Values({**ttl, "RecordData/Error": (error,)}))


def _key(of: Json) -> tuple[str, str]:
    """Name and type; ValueError."""
    key = _object(of.get("key"))
    name, number = key.get("name"), key.get("type")
    if not isinstance(name, str) or not isinstance(number, int):
        raise ValueError("a record without a name")  # noqa: TRY004 - it is passed over
    return name, _TYPES.get(number, f"TYPE{number}")


def _data(kind: str, record: Json) -> Values:
    """What is special in a record of this type; nothing if it makes no sense."""
    if kind in {"A", "AAAA"}:
        with suppress(ValueError):
            raw = bytes(int(str(one)) for one in islice(_list(record.get("address")), 17))
            return _addressed(IPv4Address(raw) if kind == "A" else IPv6Address(raw))
    if kind in _LEADS:
        return _texts(record, {"name": "RecordData/Host"})
    if kind == "MX":
        return _texts(record, {"exchange": "RecordData/MxHost", "priority": "RecordData/Preference"})
    if kind == "SRV":
        return _texts(record, {
            "name": "RecordData/TargetHost", "port": "RecordData/Port", "priority": "RecordData/Priority",
            "weight": "RecordData/Weight",
        })  # fmt: skip
    if kind in {"TXT", "SPF"}:
        return Values({"RecordData/String": tuple(filter(None, map(_text, _list(record.get("items")))))})
    return Values()


def _texts(record: Json, paths: Mapping[str, str]) -> Values:
    found = ((path, record.get(key)) for key, path in paths.items())
    return Values({path: (one,) for path, one in found if isinstance(one, str | int)})


def _text(item: object) -> str:
    """A text of a TXT record, in which systemd writes odd bytes as three octal digits."""
    if not isinstance(item, str):
        return ""
    return os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), item.encode("utf-8", "replace")))


def _object(found: object) -> Json:
    return found if isinstance(found, dict) else {}


def _list(found: object) -> Sequence[object]:
    return found if isinstance(found, list) else ()
