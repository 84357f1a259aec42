"""Tables that nobody else can change: nf_tables' owner and persist flags, set through netlink.

A table belongs to the netlink socket that made it with these flags: the kernel refuses changes by anybody else, and
passes it over when somebody flushes the whole ruleset. When the socket closes, on purpose or because we were killed,
the table stays as an orphan, with all its rules in force: whoever makes it again with the same flags owns it. nft knows
nothing of this; it can fill an orphan, so each change is: let go, one transaction, take again.
"""

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from stanch.agent.host.netlink import NETLINK_NETFILTER, Netlink, attribute, attributes
from stanch.agent.host.tablespec import Family, Parts
from stanch.core.errors import Unsupported

OWNER, PERSIST = 0x2, 0x4
FLAGS = OWNER | PERSIST

_SUBSYSTEM = 10
NEW_TABLE, GET_TABLE, DELETE_TABLE = (_SUBSYSTEM << 8 | one for one in (0, 1, 2))
GET_CHAIN, GET_RULE, GET_SET = (_SUBSYSTEM << 8 | one for one in (4, 7, 10))
_BEGIN, _END = 0x10, 0x11
_CREATE = 0x400
_GENERIC = struct.Struct(">BBH")  # family, version, resource
_NUMBER = struct.Struct(">I")
_FAMILIES: dict[Family, int] = {"inet": 1, "netdev": 5}
_OF_TABLE, _OF_CHAIN, _NAME, _SET_NAME, _TABLE_FLAGS, _TABLE_OWNER = 1, 2, 3, 2, 2, 7
_PORTS_KEPT = 8


class Kernel:
    """What the kernel has of one table."""

    def __init__(self, flags: int, owner: int, parts: Parts) -> None:
        self.persists = bool(flags & PERSIST)
        self.owner = owner if flags & OWNER else 0
        """The netlink port of whoever owns it; 0 for nobody."""
        self.parts = parts


class Looking:
    """A connection for looking that is kept: to close one takes the kernel milliseconds, as tables may hang on it."""

    def __init__(self) -> None:
        self._netlink: Netlink | None = None

    @contextmanager
    def opened(self) -> Iterator[Netlink]:
        """The connection, opened when it is first used, and anew after anything went wrong on it."""
        if self._netlink is None:
            self._netlink = _opened()
        try:
            yield self._netlink
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give it up, until it is used again."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None


def look(names: Iterable[str], looking: Looking) -> dict[tuple[Family, str], Kernel]:
    """The tables of these names, of our families: much faster than a listing. Unsupported without nf_tables."""
    wanted = {(number, name): (family, name) for name in names for family, number in _FAMILIES.items()}
    chains: dict[tuple[int, str], set[str]] = {}
    sets: dict[tuple[int, str], set[str]] = {}
    with looking.opened() as netlink:
        tables = {
            key: (_number(found.get(_TABLE_FLAGS)), _number(found.get(_TABLE_OWNER)))
            for key, found in _objects(netlink, GET_TABLE)
            if key in wanted
        }
        for kind, named, into in ((GET_CHAIN, _NAME, chains), (GET_SET, _SET_NAME, sets)) if tables else ():
            for key, found in _objects(netlink, kind):
                if key in wanted:
                    into.setdefault(key, set()).add(_text(found.get(named, b"")))
    return {
        wanted[key]: Kernel(flags, owner, Parts(chains=frozenset(chains.get(key, ())), sets=frozenset(named)))
        for key, (flags, owner) in tables.items()
        # Anonymous sets belong to rules and go with them.
        for named in [{one for one in sets.get(key, ()) if not one.startswith("__")}]
    }


def has_rules(family: Family, table: str, chain: str, looking: Looking) -> bool:
    """Is there any rule in this chain? Unsupported without nf_tables."""
    asked = attribute(_OF_TABLE, table.encode() + b"\0") + attribute(_OF_CHAIN, chain.encode() + b"\0")
    try:
        with looking.opened() as netlink:
            # To the end: the next question would find the kernel still answering.
            return len(list(netlink.dump(GET_RULE, _GENERIC.pack(_FAMILIES[family], 0, 0) + asked))) > 0
    except OSError:
        return False


def _objects(netlink: Netlink, kind: int) -> Iterator[tuple[tuple[int, str], dict[int, bytes]]]:
    try:
        for payload in netlink.dump(kind, _GENERIC.pack(0, 0, 0)):
            found = attributes(payload[_GENERIC.size :])
            yield (payload[0], _text(found.get(_OF_TABLE, b""))), found
    except OSError as error:
        raise Unsupported(
            "The firewall cannot be looked at", got=error.strerror, hint="Run the agent as root, with CAP_NET_ADMIN."
        ) from error


def _opened() -> Netlink:
    try:
        return Netlink(NETLINK_NETFILTER)
    except OSError as error:
        raise Unsupported(
            "This kernel has no nftables", got=error.strerror, hint="Linux 5.16 or later with CONFIG_NF_TABLES can."
        ) from error


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "backslashreplace")


def _number(raw: bytes | None) -> int:
    return _NUMBER.unpack(raw)[0] if raw is not None and len(raw) == _NUMBER.size else 0


class Owner:
    """Our hold on tables of one name; while it lasts, nobody else can change them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._netlink: Netlink | None = None
        self.ports: deque[int] = deque(maxlen=_PORTS_KEPT)
        """Our last netlink sockets: the kernel tells who changed a table by these numbers."""

    @property
    def port(self) -> int:
        """Of the socket that owns the tables now; 0 if none does."""
        return self._netlink.port if self._netlink is not None else 0

    def take(self, families: Sequence[Family]) -> None:
        """Own these tables, orphans or new and empty ones; OSError if the kernel refuses."""
        self.release()
        netlink = _opened()
        self.ports.append(netlink.port)
        try:
            _batch(netlink, [(NEW_TABLE, _CREATE, _table(family, self._name, FLAGS)) for family in families])
        except BaseException:
            netlink.close()
            raise
        self._netlink = netlink

    def release(self) -> None:
        """Let go: the tables stay, and others can change them."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def delete(self, families: Sequence[Family]) -> None:
        """Remove tables that we own; OSError if the kernel refuses."""
        if self._netlink is not None:
            _batch(self._netlink, [(DELETE_TABLE, 0, _table(family, self._name)) for family in families])


def _batch(netlink: Netlink, requests: Sequence[tuple[int, int, bytes]]) -> None:
    edge = _GENERIC.pack(0, 0, _SUBSYSTEM)
    netlink.batch((_BEGIN, edge), requests, (_END, edge))


def _table(family: Family, name: str, flags: int | None = None) -> bytes:
    told = b"" if flags is None else attribute(_TABLE_FLAGS, _NUMBER.pack(flags))
    return _GENERIC.pack(_FAMILIES[family], 0, 0) + attribute(_OF_TABLE, name.encode() + b"\0") + told
