"""Block one address or network without isolating the endpoint, and open it again."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from ipaddress import collapse_addresses, ip_network
from typing import Annotated, Any, cast

from pydantic import Field

from stanch.core.action import AfterCrash, Check, Concurrency, Pair, Params, Plan, Result, Risk, Step, Undo, action
from stanch.core.errors import Conflict, Invalid, StanchError
from stanch.core.exclusion import Direction
from stanch.core.host import Effect, Host, Record
from stanch.core.network import Block
from stanch.core.types import SHORTEST, AnyNetwork, Duration, Instant, Network, Text, hours, minutes, show_duration

PREFIX = "block:"
"""Effects of blocks are called `block:NETWORK:in` and `block:NETWORK:out`."""

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class BlockAddress(Params):
    """What to block, which way, and for how long."""

    network: Network
    """The address or network."""

    direction: Direction = Direction.BOTH
    """in: what comes from there; out: what goes there; both."""

    duration: Duration | None = hours(24)
    """Open it again after this long, even if the server stays silent; 1 second to 9999 hours, `none` (in
    JSON: null) for never."""


class AddressBlocked(Result):
    """The block in force."""

    changed: bool
    """False if it was blocked already; then only its end is another one."""

    network: Network
    """What is blocked."""

    direction: Direction
    """Which way."""

    added: Direction | None = None
    """The way that was open before, and is opened by an undo; null if none was."""

    until: Instant | None
    """When it opens itself; null for never."""

    sockets_destroyed: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Connections that were cut, idle ones included."""

    kept_open: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """Addresses of the server in this network: the way to it stays."""


class UnblockAddress(Params):
    """What to open again."""

    network: Network
    """The address or network, as it was blocked."""

    direction: Direction = Direction.BOTH
    """in, out or both."""


class AddressUnblocked(Result):
    """The network is open again, unless another block covers it."""

    changed: bool
    """False if it was not blocked."""

    network: Network
    """What was opened."""

    direction: Direction
    """Which way it had been blocked."""

    remaining: Duration | None = None
    """How long the block would have lasted; null for never, or if there was none."""

    still_blocked_by: Annotated[tuple[Network, ...], Field(max_length=300)] = ()
    """Other blocks that cover some of it."""


def effect_names(network: AnyNetwork, direction: Direction) -> tuple[str, ...]:
    """The effects that a block consists of."""
    ways = [way for way, on in ((Direction.IN, direction.inward), (Direction.OUT, direction.outward)) if on]
    return tuple(f"{PREFIX}{network}:{way}" for way in ways)


def _in_force(host: Host, names: Iterable[str]) -> list[str]:
    """Those of the effects that are written down, and not over."""
    return [name for name in names if host.effects.current(name) and host.effects.remaining(name) != timedelta(0)]


def _one_way(names: Iterable[str]) -> Direction | None:
    """Which way these effects block; None for no effects."""
    ways = {_read_name(name)[1] for name in names}
    return Direction.BOTH if len(ways) > 1 else next(iter(ways), None)


def blocks_of(effects: Iterable[Effect], remaining: dict[str, timedelta | None]) -> list[Block]:
    """What is to be in force, from what is written down and what is left of each deadline."""
    return [
        Block(network=network, inward=way is Direction.IN, outward=way is Direction.OUT, remaining=remaining[one.name])
        for one in effects
        if one.name.startswith(PREFIX) and remaining[one.name] != timedelta(0)
        for network, way in [_read_name(one.name)]
    ]


def _read_name(name: str) -> tuple[AnyNetwork, Direction]:
    network, _, way = name.removeprefix(PREFIX).rpartition(":")
    return ip_network(network), Direction(way)


async def apply(host: Host) -> None:
    """Let the kernel block exactly what is written down."""
    effects = host.effects.all()
    remaining = {one.name: host.effects.remaining(one.name) for one in effects}
    await host.firewall.block(blocks_of(effects, remaining), servers=(*host.server.peers(), *host.server.proxies()))


# --- block -----------------------------------------------------------------------------------------------------------


async def _check(host: Host, network: AnyNetwork) -> None:
    """Invalid or Conflict for what would be no block but an isolation, or would cut the endpoint off."""
    if network.prefixlen == 0:
        raise Invalid("That is everything", got=network, expected="a smaller network", hint="Isolate the endpoint.")
    if any(_overlap(network, one) for one in _LOOPBACK):
        raise Invalid("Loopback cannot be blocked", got=network, expected="a network outside of the endpoint")
    single = network.prefixlen == network.max_prefixlen
    ways = {one.address for one in (*host.server.peers(), *host.server.proxies())}
    if single and network.network_address in ways:
        raise Conflict("That is the way to the server", got=network, hint="Isolate the endpoint instead.")
    if single and network.network_address in await host.firewall.own_addresses():
        raise Conflict("That is an address of the endpoint itself", got=network)


def _overlap(one: AnyNetwork, other: AnyNetwork) -> bool:
    return one.version == other.version and one.overlaps(cast("Any", other))


async def _plan_block(host: Host, params: BlockAddress) -> Plan:
    """What would be dropped."""
    await _check(host, params.network)
    lasts = "until it is unblocked" if params.duration is None else f"for {show_duration(params.duration)}"
    names = effect_names(params.network, params.direction)
    steps = (Step(what=f"Drop traffic {_ways(params.direction)} {lasts}", target=str(params.network)),)
    warnings = tuple(f"The server stays reachable at {one}" for one in _kept_open(host, params.network))
    return Plan(changes=len(_in_force(host, names)) < len(names), steps=steps, warnings=warnings)


def _ways(direction: Direction) -> str:
    return {Direction.IN: "from", Direction.OUT: "to", Direction.BOTH: "from and to"}[direction]


def _kept_open(host: Host, network: AnyNetwork) -> tuple[str, ...]:
    ways = (*host.server.peers(), *host.server.proxies())
    return tuple(f"{one.address} port {one.port}" for one in ways if one.address in network)[:100]


async def _verify_block(host: Host, params: BlockAddress, result: AddressBlocked | None) -> Check:
    """Does the kernel drop all of it, each way? After a crash: or is it the renewal of a block?"""
    names = effect_names(params.network, params.direction)
    if result is None and (host.journal.recorded() or {}).get("renews"):
        # To call it absent would let a cancel open what was blocked before.
        return Check.of(True, "a renewal was begun: it is finished")
    held = all(host.effects.current(name) for name in names)
    blocks = await host.firewall.blocks()
    inward, outward = dropped(blocks, _as_block(params))
    return Check.of(held and inward and outward, f"written down: {held}, dropped in: {inward}, out: {outward}")


def _as_block(params: BlockAddress) -> Block:
    return Block(network=params.network, inward=params.direction.inward, outward=params.direction.outward)


def dropped(blocks: Iterable[Block], wanted: Block) -> tuple[bool, bool]:
    """Do these blocks drop all that `wanted` asks for: what comes in, and what goes out?"""
    found = list(blocks)
    inward = not wanted.inward or _covers([one.network for one in found if one.inward], wanted.network)
    outward = not wanted.outward or _covers([one.network for one in found if one.outward], wanted.network)
    return inward, outward


def _covers(networks: Iterable[AnyNetwork], network: AnyNetwork) -> bool:
    same = cast("Any", [one for one in networks if one.version == network.version])
    return any(network.subnet_of(cast("Any", one)) for one in collapse_addresses(same))


@action(
    "block_address",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(1),
    plan=_plan_block,
    verify=_verify_block,
    undo=Undo(
        "unblock_address",
        lambda _params, result: (
            None if result.added is None else UnblockAddress(network=result.network, direction=result.added)
        ),
    ),
    openc2=Pair("deny", "ipv4_net"),
    examples=(
        "web-01 --network 198.51.100.7",
        "--label env=prod --network 203.0.113.0/24 --direction out --duration 7d --reason 'C2'",
    ),
)
async def block_address(host: Host, params: BlockAddress) -> AddressBlocked:
    """Drop all traffic from and to one address or network, and cut its connections; everything else goes on.

    For the endpoint and for containers behind it. The way to the server stays. The deadline is kept by the kernel.
    """
    await _check(host, params.network)
    names = effect_names(params.network, params.direction)
    record = dict(host.journal.recorded() or await _begin(host, names))
    added = None if record["added"] is None else Direction(record["added"])
    try:
        effects = [await _hold(host, params, name) for name in names]
        await apply(host)
    except Exception:
        await _give_up(host, params, added)
        raise
    block = _as_block(params)
    return AddressBlocked(
        changed=added is not None,
        network=params.network,
        direction=params.direction,
        added=added,
        until=effects[0].until,
        sockets_destroyed=await host.firewall.destroy_blocked(block),
        kept_open=_kept_open(host, params.network),
    )


async def _begin(host: Host, names: tuple[str, ...]) -> Record:
    """Write down what was blocked before, and what was not."""
    before = _in_force(host, names)
    record = {"added": _one_way(name for name in names if name not in before), "renews": bool(before)}
    await host.journal.record(record)
    return record


async def _give_up(host: Host, params: BlockAddress, added: Direction | None) -> None:
    """Nothing that could not be put in force stays written down; what was blocked before stays blocked."""
    if added is not None:
        for name in effect_names(params.network, added):
            await host.effects.drop(name)
    # The kernel may have taken the new ones before it failed.
    with suppress(StanchError):
        await apply(host)


async def _hold(host: Host, params: BlockAddress, name: str) -> Effect:
    network, way = _read_name(name)
    undo = {"network": str(network), "direction": str(way)}
    return await host.effects.hold(
        name, lift_action="unblock_address", lift_params=undo, detail=undo, lasts=params.duration
    )


# --- unblock ---------------------------------------------------------------------------------------------------------


async def _plan_unblock(host: Host, params: UnblockAddress) -> Plan:
    """Is it blocked?"""
    held = [name for name in effect_names(params.network, params.direction) if host.effects.current(name)]
    step = Step(what=f"Let traffic {_ways(params.direction)} it pass again", target=str(params.network))
    return Plan(changes=bool(held), steps=(step,) if held else ())


async def _verify_unblock(host: Host, params: UnblockAddress, result: AddressUnblocked | None) -> Check:
    """Is nothing written down, and does the kernel drop none of it but for other blocks? After a crash: is some gone?

    What is half open after a crash is in place, to be finished: a cancel cannot shut it again.
    """
    held = [name for name in effect_names(params.network, params.direction) if host.effects.current(name)]
    earlier = host.journal.recorded()
    if result is None and earlier and earlier["changed"]:
        were = effect_names(params.network, Direction(earlier["direction"]))
        return Check.of(len(held) < len(were), f"{len(were) - len(held)} of {len(were)} ways were opened")
    dropped = [] if result is None else await _still_dropped(host, params)
    return Check.of(not (held or dropped), f"still written down: {held}, still dropped: {[*map(str, dropped)]}")


async def _still_dropped(host: Host, params: UnblockAddress) -> list[AnyNetwork]:
    """What the kernel drops of the network, though no other block is written down for it."""
    found = []
    for name in effect_names(params.network, params.direction):
        way = _read_name(name)[1]
        reasons = _others(host, params.network, way)
        for one in await host.firewall.blocks():
            if (one.inward if way is Direction.IN else one.outward) and _overlap(one.network, params.network):
                # Of two networks that overlap, one is a part of the other.
                part = max(one.network, params.network, key=lambda network: network.prefixlen)
                found += [] if _covers(reasons, part) else [part]
    return found


@action(
    "unblock_address",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(1),
    plan=_plan_unblock,
    verify=_verify_unblock,
    undo=Undo(
        "block_address",
        lambda _params, result: (
            BlockAddress(network=result.network, direction=result.direction, duration=result.remaining)
            if result.changed
            else None
        ),
    ),
    openc2=Pair("allow", "ipv4_net"),
    examples=("web-01 --network 198.51.100.7", "--label env=prod --network 203.0.113.0/24"),
)
async def unblock_address(host: Host, params: UnblockAddress) -> AddressUnblocked:
    """Let traffic from and to an address or network pass again.

    Other blocks that cover it stay in force, and are named.
    """
    names = [name for name in effect_names(params.network, params.direction) if host.effects.current(name)]
    earlier = host.journal.recorded()
    lengths = [host.effects.remaining(name) for name in names]
    opened = AddressUnblocked(
        changed=bool(names),
        network=params.network,
        direction=_one_way(names) or params.direction,
        remaining=None if None in lengths or not lengths else max([SHORTEST, *(one for one in lengths if one)]),
    )
    if earlier is None:
        await host.journal.record(opened.model_dump(mode="json"))
    for name in names:
        await host.effects.drop(name)
    await apply(host)
    told = opened if earlier is None else AddressUnblocked.model_validate(earlier)
    ways = [_read_name(name)[1] for name in effect_names(params.network, params.direction)]
    still = dict.fromkeys(one for way in ways for one in _others(host, params.network, way))
    return told.model_copy(update={"still_blocked_by": tuple(still)[:300]})


def _others(host: Host, network: AnyNetwork, way: Direction) -> list[AnyNetwork]:
    """Blocks that are in force this way, and share something with a network."""
    names = [one.name for one in host.effects.all() if one.name.startswith(PREFIX)]
    found = [_read_name(name) for name in _in_force(host, names)]
    return [other for other, its_way in found if its_way is way and _overlap(other, network)]
