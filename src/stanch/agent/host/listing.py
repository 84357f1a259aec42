"""What the kernel lists of our isolation tables, back as rules: pure functions over nft's JSON."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
from typing import Any

from stanch.agent.host.openings import EVERY_PORT, VERSIONS, Element, Layout, Shape, layout
from stanch.agent.host.ruleset import DEVICE_CHAINS, FIRST_NOTE, TABLE, Device, Frame, chains, set_names
from stanch.agent.host.tablespec import LAST, PRIORITY, Chain
from stanch.core.errors import Invalid
from stanch.core.exclusion import Direction, Opening, Ports, Transport
from stanch.core.network import IsolationRules, Peer
from stanch.core.types import AnyAddress, AnyNetwork

_TRANSPORTS = {
    "tcp": Transport.TCP, 6: Transport.TCP, "udp": Transport.UDP, 17: Transport.UDP, "icmp": Transport.ICMP,
    1: Transport.ICMP, "ipv6-icmp": Transport.ICMP, "icmpv6": Transport.ICMP, 58: Transport.ICMP,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One of our tables as the kernel lists it."""

    rules: IsolationRules
    armed: bool
    remaining: timedelta | None
    """Until the kernel stops enforcing it; None for never."""

    whole: bool
    """Are all chains there, each with its hook and all its rules?"""

    egress: bool
    """Was there to be a table of devices, too?"""

    devices: frozenset[Device] = frozenset()
    """The devices that are filtered both ways."""

    layout: Layout | None = None
    raw: object = None
    """What it was read from."""


def parse(listing: Mapping[str, Any], *, like: Listed | None = None) -> Listed:
    """Read `nft -j list table` of one of our tables; Invalid if it is none of ours.

    `like`: another of our tables, which most probably has the same sets: then they are not read twice.
    """
    try:
        return _parse(listing["nftables"], like)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise Invalid(
            f"The table {TABLE} is not one that this version wrote",
            got=f"{type(error).__name__}: {error}",
            hint=f"`nft list table inet {TABLE}` shows it.",
        ) from None


def _parse(items: Sequence[Mapping[str, Any]], like: Listed | None) -> Listed:
    tables = [item["table"] for item in items if "table" in item]
    every_set = {str(item["set"]["name"]): item["set"].get("elem", []) for item in items if "set" in item}
    chains_there = {str(item["chain"]["name"]): item["chain"] for item in items if "chain" in item}
    rules = [item["rule"] for item in items if "rule" in item]
    notes, family = _notes(rules), str(tables[0]["family"])
    sets = in_use(every_set, notes[0].split()[len(FIRST_NOTE.split())])
    raw = _raw(sets, notes)
    same = like if like is not None and like.raw == raw else None
    found = same.layout if same is not None and same.layout is not None else _layout(sets, notes)
    frame = Frame(egress="egress" in notes[0].split(), fib="fib" in notes[0].split())
    whole = set_names(family, found) <= set(sets) and _whole(chains(family, found, frame), chains_there, rules)
    return Listed(
        rules=found.rules if same is None else same.rules,
        armed=bool(sets["armed"]),
        remaining=remaining(sets["armed"]),
        whole=whole,
        egress=frame.egress,
        devices=_covered(chains_there, rules),
        layout=found,
        raw=raw,
    )


def _raw(sets: Mapping[str, Any], notes: Sequence[str]) -> object:
    """What the rules are read from, as it is listed; only small sets have no order."""
    unordered = ("server", "proxy", "resolver")
    kept = {name: one for name, one in sets.items() if name.startswith(("allow", "in", "out"))}
    return kept, {name: sorted(map(str, one)) for name, one in sets.items() if name.startswith(unordered)}, list(notes)


def in_use(sets: Mapping[str, Any], end: str) -> dict[str, Any]:
    """The sets that the rules use, without how their names end; and those that learn, which have one name only."""
    return {
        name.removesuffix(f"_{end}"): one for name, one in sets.items() if "_" not in name or name.endswith(f"_{end}")
    }


def _layout(sets: Mapping[str, Any], notes: Sequence[str]) -> Layout:
    bases = [f"{way}{version}" for version in VERSIONS for way in ("out", "in")]
    plain = IsolationRules(
        servers=tuple(_peers([*sets["server4"], *sets["server6"]])),
        proxies=tuple(_peers([*sets["proxy4"], *sets["proxy6"]])),
        resolvers=tuple(ip_address(one) for one in [*sets["resolver4"], *sets["resolver6"]]),
        allow=tuple(Opening(network=one) for one in networks([*sets["allow4"], *sets["allow6"]])),
    )
    return replace(
        layout(plain),
        layers={base: tuple(_layers(sets, base)) for base in bases},
        bound=tuple(map(_opening, notes[1:])),
        dhcp="dhcp" in notes[0].split(),
    )


def _layers(sets: Mapping[str, Any], base: str) -> Iterator[tuple[Element, ...]]:
    numbers = sorted(int(name.removeprefix(f"{base}_")) for name in sets if name.startswith(f"{base}_"))
    if numbers != list(range(len(numbers))):
        raise ValueError(f"got layers {numbers[:20]} of {base}")
    for number in numbers:
        yield tuple(element for one in sets[f"{base}_{number}"] for element in _elements(one["concat"]))


def _elements(parts: Sequence[Any]) -> Iterator[Element]:
    address, protocol, remote, local = parts
    shape = Shape(_transport(protocol), _ports(remote), _ports(local))
    for network in networks([address]):
        yield network, shape


def _transport(protocol: Any) -> Transport:
    return Transport.ANY if isinstance(protocol, Mapping) else _TRANSPORTS[protocol]


def _ports(ports: Any) -> Ports:
    first, last = ports["range"] if isinstance(ports, Mapping) else (ports, ports)
    found = Ports(int(first), int(last))
    if not 0 <= found.first <= found.last <= EVERY_PORT.last:
        raise ValueError(f"got ports {found}")
    return found


def _peers(elements: Iterable[Any]) -> Iterator[Peer]:
    for element in elements:
        address, port = element["concat"]
        yield Peer(address=ip_address(address), port=port)


def networks(elements: Iterable[Any]) -> Iterator[AnyNetwork]:
    """The networks of a set: single addresses, prefixes and ranges, with or without a time-out."""
    for element in elements:
        if isinstance(element, str):
            yield ip_network(element)
        elif "prefix" in element:
            yield ip_network(f"{element['prefix']['addr']}/{int(element['prefix']['len'])}")
        else:
            first, last = map(ip_address, element["range"])
            yield from _between(first, last)


def _between(first: AnyAddress, last: AnyAddress) -> Iterator[AnyNetwork]:
    if isinstance(first, IPv4Address) and isinstance(last, IPv4Address):
        return summarize_address_range(first, last)
    if isinstance(first, IPv6Address) and isinstance(last, IPv6Address):
        return summarize_address_range(first, last)
    raise ValueError(f"got {first} to {last}, expected addresses of one version")


def remaining(elements: Sequence[Any]) -> timedelta | None:
    """How long the first element stays; None for ever."""
    element = elements[0] if elements else None
    if not isinstance(element, Mapping) or "elem" not in element:
        return None
    return timedelta(seconds=int(element["elem"].get("expires", 0)))


def _notes(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    notes: list[str] = []
    for part in [str(rule["comment"]) for rule in rules if rule["chain"] == "notes"]:
        if part.startswith("+"):
            notes[-1] += part[1:]
        else:
            notes.append(part)
    if not notes[0].startswith(FIRST_NOTE):
        raise ValueError(f"got {notes[0][:100]!r}, expected {FIRST_NOTE!r}")
    return notes


def _opening(note: str) -> Opening:
    direction, transport, network, remote, local, kind, whose = note.split(" ", 6)
    shape = Shape(Transport(transport), *(_read_range(one) for one in (remote, local)))
    one = shape.opening(ip_network(network), Direction(direction))
    return replace(one, uid=int(whose)) if kind == "uid" else replace(one, cgroup=whose)


def _read_range(text: str) -> Ports:
    first, _, last = text.partition("-")
    return Ports(int(first), int(last or first))


# --- is all of it there? ---------------------------------------------------------------------------------------------


def _whole(expected: Iterable[Chain], there: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> bool:
    counts = Counter(str(rule["chain"]) for rule in rules)
    return all(
        one.name in there
        and _hooked(there[one.name]) == _expected_hook(one.hook)
        and counts[one.name] == len(one.rules)
        for one in expected
    )


def _expected_hook(hook: str) -> tuple[object, ...]:
    return ("filter", hook, PRIORITY, "accept") if hook else (None, None, None, None)


def _hooked(chain: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(chain.get(key) for key in ("type", "hook", "prio", "policy"))


def _covered(chains: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> frozenset[Device]:
    """The devices that have each of their chains, in its place."""
    there: dict[str, set[Device]] = {prefix: set() for prefix, _hook, _target in DEVICE_CHAINS}
    hooks = {prefix: (hook, [{"goto": {"target": target}}]) for prefix, hook, target in DEVICE_CHAINS}
    for rule in rules:
        prefix, _, index = str(rule["chain"]).partition("_")
        hook, leads = hooks.get(prefix, ("", []))
        if hook and _hooked(chains[rule["chain"]]) == ("filter", hook, LAST, "accept") and rule["expr"] == leads:
            there[prefix].add(Device(index=int(index), name=str(rule["comment"])))
    return frozenset(set.intersection(*there.values()))
