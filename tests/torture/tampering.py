"""What somebody else on the endpoint does to the rules: flushes, deletions of parts, and rules of other products."""

from collections.abc import Iterable, Iterator
from random import Random

from tests.torture.world import World

OURS = "stanch"
ALL = 0.6
_CONTAINER_RULES = (
    "iptables-nft -N DOCKER",
    "iptables-nft -A FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "iptables-nft -A FORWARD -o br0 -j DOCKER",
    "iptables-nft -A FORWARD -i br0 ! -o br0 -j ACCEPT",
    "iptables-nft -A DOCKER -d 10.88.0.2/32 ! -i br0 -o br0 -p tcp --dport 7000 -j ACCEPT",
    "iptables-nft -t nat -N DOCKER",
    "iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "iptables-nft -t nat -A POSTROUTING -s 10.88.0.0/24 ! -o br0 -j MASQUERADE",
    "iptables-nft -t nat -A DOCKER ! -i br0 -p tcp --dport 8080 -j DNAT --to-destination 10.88.0.2:7000",
    "ip6tables-nft -A FORWARD -i br0 ! -o br0 -j ACCEPT",
)


def container_rules(world: World) -> None:
    """As a container engine makes them, in place of what a flush of others may have left."""
    no_container_rules(world)
    for line in _CONTAINER_RULES:
        world.lab.endpoint.command(line)


def no_container_rules(world: World) -> None:
    """They go, as far as they are still there."""
    for table in ("ip filter", "ip nat", "ip6 filter"):
        world.nft("delete", "table", *table.split())


def flush_commands(rng: Random) -> list[str]:
    """Somebody begins with a clean slate."""
    return [rng.choice(["flush ruleset", "flush ruleset", "flush ruleset inet", "flush ruleset netdev"])]


def delete_commands(world: World, rng: Random) -> list[str]:
    """Somebody deletes our tables: one of them, or all."""
    ours = [
        words for words in (line.split() for line in _lines(world)) if words[:1] == ["table"] and _is_ours(words[2])
    ]
    commands = [f"delete table {family} {name}" for _, family, name, *_ in ours]
    return commands if rng.random() < ALL else [rng.choice(commands)] if commands else []


def part_commands(world: World, rng: Random) -> list[str]:
    """Somebody takes a part out: all rules of a chain, one rule, or what is in a set; nothing if there is no part."""
    parts = list(_parts(_lines(world)))
    return [rng.choice(parts)] if parts else []


def _lines(world: World) -> list[str]:
    """The rules as text: the JSON of old versions of nft is broken where tables are owned."""
    return world.nft("-a", "list", "ruleset").stdout.splitlines()


def _is_ours(name: str) -> bool:
    return name.startswith(OURS)


def _parts(lines: Iterable[str]) -> Iterator[str]:
    table = chain = ""
    for line in lines:
        words, (_, _, handle) = line.split(), line.partition(" # handle ")
        if words[:1] == ["table"]:
            table = f"{words[1]} {words[2]}" if _is_ours(words[2]) else ""
        elif not table or not handle:
            continue
        elif words[0] == "chain":
            chain = words[1]
            yield f"flush chain {table} {chain}"
        elif words[0] == "set":
            yield f"flush set {table} {words[1]}"
        elif not words[0].startswith("type"):
            yield f"delete rule {table} {chain} handle {handle}"
