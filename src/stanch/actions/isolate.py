"""Cut an endpoint off the network, and let it back on."""

import asyncio
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Annotated

from pydantic import Field

from stanch.core.action import AfterCrash, Check, Concurrency, Pair, Params, Plan, Result, Risk, Step, Undo, action
from stanch.core.errors import NotVerified, Unconfirmed
from stanch.core.host import Effect, Host, IsolationRules, IsolationState, KernelIsolation
from stanch.core.types import (
    SHORTEST,
    AnyNetwork,
    Duration,
    Instant,
    Network,
    Text,
    hours,
    minutes,
    seconds,
    show_duration,
)

EFFECT = "isolation"
CONFIRM_WITHIN = seconds(60)
"""How long the server may take to answer under the new rules before they are rolled back."""

SLACK = seconds(15)
"""What the kernel's own deadline allows on top of CONFIRM_WITHIN, so that the agent's roll-back comes first."""


class Isolate(Params):
    """What stays open, and for how long the rest is shut."""

    allow: Annotated[tuple[Network, ...], Field(max_length=10_000)] = ()
    """Networks that stay reachable besides the server."""

    duration: Duration | None = hours(5)
    """Lift the isolation after this long, even if the server stays silent; 1 second to 9999 hours, null for never."""


class Isolated(Result):
    """The isolation in force."""

    changed: bool
    """False if the endpoint was already isolated this way."""

    since: Instant
    """When it was isolated, by the agent's clock."""

    until: Instant | None
    """When the isolation lifts itself; null for never."""

    sockets_destroyed: Annotated[int, Field(ge=0, le=2**31)]
    """Connections that were cut, idle ones included."""

    not_covered: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """Traffic that the isolation cannot reach on this machine, one line each."""


class Release(Params):
    """Nothing to say: there is one isolation."""


class Released(Result):
    """The endpoint is back on the network."""

    changed: bool
    """False if the endpoint was not isolated."""

    allowed: Annotated[tuple[Network, ...], Field(max_length=10_000)] = ()
    """What the lifted isolation had left open."""

    remaining: Duration | None = None
    """How long the lifted isolation would have lasted; null for never, or if there was none."""


# --- isolate ---------------------------------------------------------------------------------------------------------


def _rules(host: Host, params: Isolate) -> IsolationRules:
    return IsolationRules(servers=host.server.peers(), allow=params.allow)


def _in_force(now: KernelIsolation, rules: IsolationRules) -> bool:
    """Does the kernel enforce these rules, all of them? Its sets have no order, and networks that meet are one."""
    if now.state is not IsolationState.ISOLATED or now.rules is None:
        return False
    same_servers = set(now.rules.servers) == set(rules.servers)
    return same_servers and _collapsed(now.rules.allow) == _collapsed(rules.allow)


def _collapsed(networks: tuple[AnyNetwork, ...]) -> set[AnyNetwork]:
    four = collapse_addresses(one for one in networks if isinstance(one, IPv4Network))
    six = collapse_addresses(one for one in networks if isinstance(one, IPv6Network))
    return {*four, *six}


async def _plan_isolate(host: Host, params: Isolate) -> Plan:
    """What would be cut."""
    rules, now = _rules(host, params), await host.firewall.isolation()
    cut = await host.firewall.forbidden_sockets(rules)
    lasts = "until it is released" if params.duration is None else f"for {show_duration(params.duration)}"
    steps = [
        Step(what=f"Drop all traffic {lasts}", target="except loopback, DHCP, IPv6 neighbour discovery"),
        *(Step(what="Keep open", target=f"{peer.address} port {peer.port} (server)") for peer in rules.servers),
        *(Step(what="Keep open", target=str(network)) for network in rules.allow),
        *(Step(what="Destroy connection", target=f"{one.protocol} {one.local} -> {one.remote}") for one in cut),
    ]
    return Plan(changes=not _in_force(now, rules), steps=tuple(steps[:10_000]), warnings=now.not_covered)


async def _verify_isolate(host: Host, params: Isolate, result: Isolated | None) -> Check:
    """Are the tables armed, and is no forbidden connection left? After a crash: with the deadline asked for, too?"""
    rules, now = _rules(host, params), await host.firewall.isolation()
    left = await host.firewall.forbidden_sockets(rules)
    recorded = host.journal.recorded() or {}
    # A renewal that was cut short is in place: to call it absent would let a cancel lift the isolation it renews.
    if result is None and not (recorded.get("armed") or recorded.get("renews")):
        return Check.of(False, "the isolation was begun but not finished")
    seen = now.state is IsolationState.ISOLATED and not left
    return Check.of(seen, f"kernel says {now.state}, {len(left)} forbidden connections are left")


def _of_another_task(host: Host) -> bool:
    effect = host.effects.current(EFFECT)
    return effect is not None and effect.task != host.task


def _unconfirmed(host: Host) -> bool:
    effect = host.effects.current(EFFECT)
    return effect is not None and not effect.detail.get("confirmed", False)


@action(
    "isolate",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(3),
    plan=_plan_isolate,
    verify=_verify_isolate,
    undo=Undo("release", lambda _params, result: Release() if result.changed else None),
    openc2=Pair("contain", "device"),
    examples=("web-01 --duration 2h", "--label env=prod --allow 10.0.0.0/8 --reason 'ransomware' --wait"),
)
async def isolate(host: Host, params: Isolate) -> Isolated:
    """Cut the endpoint off the network, except for its own server.

    All new and all existing connections are cut, idle ones too, on IPv4 and IPv6, for containers behind the endpoint
    as well. Loopback, DHCP and IPv6 neighbour discovery stay. If the server cannot be reached under the new rules
    within 60 seconds, everything is rolled back. The deadline is kept by the kernel itself.
    """
    rules, before = _rules(host, params), await host.firewall.isolation()
    released = before.state is IsolationState.RELEASED
    fresh = released or host.effects.current(EFFECT) is None or _unconfirmed(host)
    earlier = host.journal.recorded() or {}
    changed = fresh or not _in_force(before, rules) or bool(earlier.get("changed"))
    record = {"changed": changed, "renews": not fresh and (bool(earlier.get("renews")) or _of_another_task(host))}
    await host.journal.record(record)
    try:
        destroyed = await _ask_under(host, params, rules) if fresh else 0
        effect = await _hold(host, params, confirmed=True, lasts=params.duration)
        await host.firewall.isolate(rules, lift_after=params.duration)
        await host.journal.record({**record, "armed": True})
    except BaseException:
        if fresh:
            await asyncio.shield(_roll_back(host))
        raise
    # From here on it stays: a program that opens sockets faster than we look must not be able to end the isolation.
    destroyed += await _cut(host, rules)
    after = await host.firewall.isolation()
    return Isolated(
        changed=changed,
        since=effect.since,
        until=effect.until,
        sockets_destroyed=destroyed,
        not_covered=after.not_covered,
    )


async def _ask_under(host: Host, params: Isolate, rules: IsolationRules) -> int:
    """Isolate for a minute and ask the server under the new rules; how many connections were cut, or Unconfirmed."""
    lasts = CONFIRM_WITHIN + SLACK
    await _hold(host, params, confirmed=False, lasts=lasts)
    await host.firewall.isolate(rules, lift_after=lasts)
    destroyed = await host.firewall.destroy_sockets(rules)
    host.progress(0, None, "", "isolated; asking the server for a confirmation")
    if not await host.server.confirm(within=CONFIRM_WITHIN):
        raise Unconfirmed(
            "The server could not be reached under the isolation, so it was rolled back",
            got=f"no answer within {show_duration(CONFIRM_WITHIN)}",
            hint="Allow the proxy or network on the way to the server with --allow, then order it again.",
        )
    return destroyed


async def _hold(host: Host, params: Isolate, *, confirmed: bool, lasts: timedelta | None) -> Effect:
    """On the disk before it is in the kernel: how to lift it, and when."""
    detail = {"allow": [str(network) for network in params.allow], "confirmed": confirmed}
    return await host.effects.hold(EFFECT, lift_action="release", lift_params={}, detail=detail, lasts=lasts)


async def _cut(host: Host, rules: IsolationRules) -> int:
    """Destroy what the rules forbid until nothing of it is left; a socket may be born while we look."""
    destroyed = 0
    for _ in range(5):
        destroyed += await host.firewall.destroy_sockets(rules)
        if not await host.firewall.forbidden_sockets(rules):
            return destroyed
    left = await host.firewall.forbidden_sockets(rules)
    raise NotVerified(
        "The endpoint is isolated, but some connections could not be cut and may come back after a release",
        got=", ".join(f"{one.local} -> {one.remote}" for one in left),
    )


async def _roll_back(host: Host) -> None:
    await host.firewall.lift()
    await host.effects.drop(EFFECT)


# --- release ---------------------------------------------------------------------------------------------------------


async def _plan_release(host: Host, _params: Release) -> Plan:
    """Is there anything to lift?"""
    now = await host.firewall.isolation()
    isolated = now.state is not IsolationState.RELEASED
    steps = (Step(what="Let all traffic through again", target="this endpoint"),) if isolated else ()
    return Plan(changes=isolated, steps=steps)


async def _verify_release(host: Host, _params: Release, _result: Released | None) -> Check:
    """Is no table of ours left, and nothing that would put it back?"""
    now, effect = await host.firewall.isolation(), host.effects.current(EFFECT)
    held = "" if effect is None else ", and the isolation is still written down"
    return Check.of(now.state is IsolationState.RELEASED and effect is None, f"kernel says {now.state}{held}")


def _isolate_again(_params: Release, result: Released) -> Isolate | None:
    return Isolate(allow=result.allowed, duration=result.remaining) if result.changed else None


@action(
    "release",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(1),
    plan=_plan_release,
    verify=_verify_release,
    undo=Undo("isolate", _isolate_again),
    openc2=Pair("allow", "device"),
    examples=("web-01 --reason 'cleaned'", "--label env=prod --wait"),
)
async def release(host: Host, _params: Release) -> Released:
    """Let an isolated endpoint back on the network.

    Connections that the isolation cut stay dead; their programs must connect again.
    """
    before, effect = await host.firewall.isolation(), host.effects.current(EFFECT)
    earlier = host.journal.recorded()
    lifted = Released(
        changed=before.state is not IsolationState.RELEASED,
        allowed=tuple(effect.detail.get("allow", ())) if effect else (),
        remaining=None if before.remaining is None else max(SHORTEST, before.remaining),
    )
    if earlier is None:
        await host.journal.record(lifted.model_dump(mode="json"))
    await host.firewall.lift()
    await host.effects.drop(EFFECT)
    return lifted if earlier is None else Released.model_validate(earlier)
