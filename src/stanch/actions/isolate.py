"""Cut an endpoint off the network, and let it back on."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, model_validator

from stanch.core.action import AfterCrash, Check, Concurrency, Pair, Params, Plan, Result, Risk, Step, Undo, action
from stanch.core.errors import Conflict, NotVerified, Refused, StanchError, Unconfirmed
from stanch.core.exclusion import Exclusion, Opening, Profile, leaves_everything_open, may_come_from
from stanch.core.host import Effect, Host, Server
from stanch.core.isolation import Phase, phase_of, readable_order, rules_json, rules_of
from stanch.core.network import IsolationRules, IsolationState, KernelIsolation, Names
from stanch.core.settings import DEFAULT_PROFILES, IsolationSettings
from stanch.core.settings import Unconfirmed as IfUnconfirmed
from stanch.core.types import SHORTEST, Duration, Instant, Text, hours, minutes, seconds, show_duration

EFFECT, LIFT = "isolation", "release"
"""The lasting effect, and the action that lifts it."""

CONFIRM_WITHIN = seconds(60)
"""How long the server may take to answer under the new rules before they are rolled back."""

SLACK = seconds(15)
"""What the kernel's own deadline allows on top of CONFIRM_WITHIN, so that the agent's roll-back comes first."""

TOLD = (
    "This computer was disconnected from the network by its organisation's security team.\n"
    "It is not broken. Save your work and ask your security team or help desk."
)
"""What people who are logged in are told."""

LOOKS, BETWEEN_LOOKS = 5, seconds(0.02)
"""How often to look again whether a forbidden connection stands."""

_NEVER_ROLLED_BACK = frozenset({"rule", "local"})
"""Origins: an attack that a rule has stopped must not come back because the server is away."""

Exclusions = Annotated[tuple[Exclusion, ...], Field(max_length=10_000)]
Profiles = Annotated[tuple[Profile, ...], Field(max_length=len(Profile))]
Lines = Annotated[tuple[Text, ...], Field(max_length=100)]


class Isolate(Params):
    """What stays open, and for how long the rest is shut."""

    allow: Exclusions = ()
    """What stays open besides the server: networks, or `out tcp 192.0.2.7 remote 443`, `in tcp 10.0.0.0/8 local 22`,
    `out any user backup`, `any unit backup.service`, `out udp time.example.com remote 123`."""

    profile: Profiles = DEFAULT_PROFILES
    """What stays open by the endpoint's own configuration: dhcp, dns, ntp, updates."""

    duration: Duration | None = hours(5)
    """Lift the isolation after this long, even if the server stays silent; 1 second to 9999 hours, `none` (in
    JSON: null) for never."""

    tell: bool = False
    """Tell everybody who is logged in that the endpoint was cut off."""

    message: Annotated[str, Field(max_length=1000)] | None = None
    """Tell them this instead of the standard text."""

    force: bool = False
    """Do it even if the exclusions leave everything open, or if the server itself runs on the endpoint."""

    @model_validator(mode="after")
    def _leaves_something_shut(self) -> Self:
        if not self.force and leaves_everything_open(self.allow):
            raise ValueError("expected exclusions that do not leave everything open, or force")
        return self


class Isolated(Result):
    """The isolation in force."""

    changed: bool
    """False if the endpoint was already isolated this way."""

    state: IsolationState = IsolationState.ISOLATED
    """isolated; partial if this machine cannot do all of it."""

    since: Instant
    """When it was isolated, by the agent's clock."""

    until: Instant | None
    """When the isolation lifts itself; null for never."""

    sockets_destroyed: Annotated[int, Field(ge=0, le=2**31)]
    """Connections that were cut, idle ones included."""

    told: Annotated[int, Field(ge=0, le=2**31)] = 0
    """People who were told."""

    not_covered: Lines = ()
    """Traffic that the isolation cannot reach on this machine, one line each."""

    not_open: Lines = ()
    """Exclusions that open nothing now, and why."""


class Release(Params):
    """Nothing to say: there is one isolation."""


class Released(Result):
    """The endpoint is back on the network."""

    changed: bool
    """False if the endpoint was not isolated."""

    allowed: Exclusions = ()
    """What the lifted isolation had left open."""

    profiles: Profiles = DEFAULT_PROFILES
    """The profiles that were on."""

    remaining: Duration | None = None
    """How long the lifted isolation would have lasted; null for never, or if there was none."""


# --- isolate ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be in force: the order's words, and what they mean here now."""

    allow: tuple[Exclusion, ...]
    profiles: tuple[Profile, ...]
    duration: timedelta | None
    text: str | None
    rolls_back: bool
    rules: IsolationRules
    not_open: tuple[str, ...]

    @property
    def detail(self) -> dict[str, list[str]]:
        """As it is written down and told."""
        return {"allow": [str(one) for one in self.allow], "profiles": [str(one) for one in self.profiles]}


async def rules_for(
    names: Names,
    server: Server,
    allow: Sequence[Exclusion],
    profiles: Sequence[Profile],
    *,
    open_before: Sequence[Opening] = (),
) -> tuple[IsolationRules, tuple[str, ...]]:
    """What exclusions and profiles mean on this endpoint now; and what opens nothing, with the reason.

    Of `open_before`, what nobody can tell the meaning of now stays open: a silent resolver neither opens nor shuts.
    """
    found = await names.resolve(allow, profiles)
    stays = {one: [old for old in open_before if may_come_from(one, old)] for one in found.unknown}
    rules = IsolationRules(
        servers=server.peers(),
        proxies=server.proxies(),
        resolvers=found.resolvers,
        allow=tuple(dict.fromkeys([*found.openings, *(old for olds in stays.values() for old in olds)])),
        dhcp=Profile.DHCP in profiles,
    )
    untrue = {found.unknown[one] for one, olds in stays.items() if olds}
    lines = (f"{one} stays open as it was: nobody tells now what it means" for one, olds in stays.items() if olds)
    return rules, (*(line for line in found.not_open if line not in untrue), *lines)


async def _wanted(host: Host, params: Isolate) -> Wanted:
    """By hand, the order says what stays open; by a rule, the policy of the endpoint's groups does."""
    policy = host.settings.isolation
    said: Isolate | IsolationSettings = policy if policy and host.origin == "rule" else params
    profiles = params.profile if isinstance(said, Isolate) else said.profiles
    hold = policy is not None and policy.unconfirmed is IfUnconfirmed.HOLD
    rules, not_open = await rules_for(host.names, host.server, said.allow, profiles)
    return Wanted(
        allow=said.allow,
        profiles=profiles,
        duration=said.duration,
        text=(said.message or TOLD) if said.tell or said.message else None,
        rolls_back=not hold and host.origin not in _NEVER_ROLLED_BACK,
        rules=rules,
        not_open=not_open[:100],
    )


async def _plan_isolate(host: Host, params: Isolate) -> Plan:
    """What would be cut."""
    await _refuse_own_server(host, params)
    wanted, now = await _wanted(host, params), await host.firewall.isolation()
    cut = await host.firewall.forbidden_sockets(wanted.rules)
    lasts = "until it is released" if wanted.duration is None else f"for {show_duration(wanted.duration)}"
    dhcp = ", DHCP" if wanted.rules.dhcp else ""
    steps = [
        Step(what=f"Drop all traffic {lasts}", target=f"except loopback, IPv6 neighbour discovery{dhcp}"),
        *(Step(what="Keep open", target=f"{one.address} port {one.port} (server)") for one in wanted.rules.servers),
        *(Step(what="Keep open", target=f"{one.address} port {one.port} (proxy)") for one in wanted.rules.proxies),
        *(Step(what="Keep open", target=str(one)) for one in wanted.allow),
        *(Step(what="Keep open", target=f"what {one} needs here") for one in wanted.profiles),
        *(Step(what="Tell everybody who is logged in", target=text) for text in [wanted.text] if text),
        *(Step(what="Destroy connection", target=f"{one.protocol} {one.local} -> {one.remote}") for one in cut),
    ]
    in_force = host.firewall.is_in_force(now, wanted.rules)
    return Plan(changes=not in_force, steps=tuple(steps[:10_000]), warnings=(*now.not_covered, *wanted.not_open)[:100])


async def _verify_isolate(host: Host, params: Isolate, result: Isolated | None) -> Check:
    """Are the tables armed and whole, and is no forbidden connection left? After a crash: was it finished, too?"""
    wanted, now = await _wanted(host, params), await host.firewall.isolation()
    left = await _standing(host, wanted.rules)
    recorded = host.journal.recorded() or {}
    # A renewal that was cut short is in place: to call it absent would let a cancel lift the isolation it renews.
    if result is None and not (recorded.get("armed") or recorded.get("renews")):
        return Check.of(False, "the isolation was begun but not finished")
    seen = now.state is not IsolationState.RELEASED and not now.damaged and not left
    return Check.of(seen, f"kernel says {now.state}, {len(left)} forbidden connections are left")


async def _standing(host: Host, rules: IsolationRules) -> set[tuple[str, str, str]]:
    """Forbidden connections that are there each time one looks: what is only being tried is refused a moment later."""
    left = await _ends_of_forbidden(host, rules)
    for _ in range(LOOKS):
        if not left:
            break
        await asyncio.sleep(BETWEEN_LOOKS.total_seconds())
        left &= await _ends_of_forbidden(host, rules)
    return left


async def _ends_of_forbidden(host: Host, rules: IsolationRules) -> set[tuple[str, str, str]]:
    return {(one.protocol, one.local, one.remote) for one in await host.firewall.forbidden_sockets(rules)}


def _of_another_task(host: Host) -> bool:
    effect = host.effects.current(EFFECT)
    return effect is not None and effect.task != host.task


def _is_fresh(host: Host, state: IsolationState) -> bool:
    """Is this the change from released to isolated, which the server must confirm?"""
    effect = host.effects.current(EFFECT)
    if effect is None or phase_of(effect) is not Phase.IN_FORCE:
        return True
    # Before its deadline, rules that are gone were removed by somebody else: whoever does that must not be able to
    # have an isolation rolled back that the server confirmed once.
    return state is IsolationState.RELEASED and host.effects.remaining(EFFECT) == timedelta(0)


async def _refuse_own_server(host: Host, params: Isolate) -> None:
    own = await host.firewall.own_addresses()
    here = [one for one in host.server.peers() if one.address in own or one.address.is_loopback]
    if here and not params.force:
        raise Conflict(
            "The server runs on this very machine: isolating it would cut every other endpoint off from the server",
            got=f"{here[0].address} port {here[0].port}, which is an address of this machine",
            hint="Isolate the other machines, or say --force.",
        )


@action(
    "isolate",
    version=2,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(3),
    plan=_plan_isolate,
    verify=_verify_isolate,
    undo=Undo("release", lambda _params, result: Release() if result.changed else None),
    openc2=Pair("contain", "device"),
    release_code=True,
    examples=(
        "web-01 --duration 2h",
        "web-01 --allow 10.0.0.0/8 --allow 'in tcp 192.0.2.0/24 local 22' --profile dhcp --profile dns",
        "--group web --reason 'ransomware' --tell --wait",
    ),
)
async def isolate(host: Host, params: Isolate) -> Isolated:
    """Cut the endpoint off the network, except for its own server.

    All new and all existing connections are cut, idle ones too, on IPv4 and IPv6, for containers behind the endpoint
    as well. Loopback and IPv6 neighbour discovery stay. If the server cannot be reached under the new rules within 60
    seconds, everything is rolled back, unless a rule has ordered it, or the policy says that it holds. The deadline is
    kept by the kernel itself.
    """
    await _refuse_own_server(host, params)
    wanted, before = await _wanted(host, params), await host.firewall.isolation()
    fresh = _is_fresh(host, before.state)
    earlier = host.journal.recorded() or {}
    same = host.firewall.is_in_force(before, wanted.rules)
    changed = fresh or not same or bool(earlier.get("changed"))
    record = {"changed": changed, "renews": not fresh and (bool(earlier.get("renews")) or _of_another_task(host))}
    await host.journal.record(record)
    try:
        destroyed = await _ask_under(host, wanted) if fresh and wanted.rolls_back else 0
        effect = await _hold(host, wanted, Phase.IN_FORCE, lasts=wanted.duration)
        # What is left, not the whole: a task that goes on after a crash holds what it held.
        await host.firewall.isolate(wanted.rules, lift_after=host.effects.remaining(EFFECT))
        after = await _seen(host, fresh=fresh)
        await host.journal.record({**record, "armed": True})
    except BaseException:
        if fresh:
            await asyncio.shield(_roll_back(host))
        raise
    # From here on it stays: a program that opens sockets faster than we look must not be able to end the isolation.
    destroyed += await _cut(host, wanted.rules)
    return Isolated(
        changed=changed,
        state=after.state,
        since=effect.since,
        until=effect.until,
        sockets_destroyed=destroyed,
        told=await host.users.tell(wanted.text) if wanted.text else 0,
        not_covered=after.not_covered[:100],
        not_open=wanted.not_open,
    )


async def _ask_under(host: Host, wanted: Wanted) -> int:
    """Isolate for a minute and ask the server under the new rules; how many connections were cut, or Unconfirmed."""
    lasts = CONFIRM_WITHIN + SLACK
    await _hold(host, wanted, Phase.UNCONFIRMED, lasts=lasts)
    await host.firewall.isolate(wanted.rules, lift_after=lasts)
    destroyed = await host.firewall.destroy_sockets(wanted.rules)
    host.progress(0, None, "", "isolated; asking the server for a confirmation")
    if not await host.server.confirm(within=CONFIRM_WITHIN):
        raise Unconfirmed(
            "The server could not be reached under the isolation, so it was rolled back",
            got=f"no answer within {show_duration(CONFIRM_WITHIN)}",
            hint="Allow the network on the way to the server with --allow, then order it again.",
        )
    return destroyed


async def _hold(host: Host, wanted: Wanted, phase: Phase, *, lasts: timedelta | None) -> Effect:
    """On the disk before it is in the kernel: how to lift it, when, and the rules, which boot puts back."""
    return await host.effects.hold(
        EFFECT,
        lift_action=LIFT,
        lift_params={},
        detail={**wanted.detail, "phase": phase},
        private={"rules": rules_json(wanted.rules)},
        lasts=lasts,
    )


async def _seen(host: Host, *, fresh: bool) -> KernelIsolation:
    """What is in force now. Where nobody can see that, a new isolation is rolled back; one that was there stays."""
    try:
        return await host.firewall.isolation()
    except Refused as error:
        if fresh:
            raise
        raise NotVerified("The endpoint is isolated, but nobody can see what is in force", got=error) from error


async def _cut(host: Host, rules: IsolationRules) -> int:
    """Destroy what the rules forbid until nothing of it is left; a socket may be born while we look."""
    destroyed = 0
    try:
        for _ in range(5):
            destroyed += await host.firewall.destroy_sockets(rules)
            if not await host.firewall.forbidden_sockets(rules):
                return destroyed
    except Refused as error:
        # Not as a refusal: the endpoint is isolated.
        raise NotVerified("The endpoint is isolated, but connections cannot be cut here", got=error) from error
    left = await host.firewall.forbidden_sockets(rules)
    raise NotVerified(
        "The endpoint is isolated, but some connections could not be cut and may come back after a release",
        got=", ".join(f"{one.local} -> {one.remote}" for one in left),
    )


async def _roll_back(host: Host) -> None:
    # First of all nobody may put it back again.
    await host.effects.amend(EFFECT, detail={"phase": Phase.RELEASING})
    await host.firewall.lift()
    await host.effects.drop(EFFECT)


# --- release ---------------------------------------------------------------------------------------------------------


async def _plan_release(host: Host, _params: Release) -> Plan:
    """Is there anything to lift?"""
    now = await host.firewall.isolation()
    isolated = now.state is not IsolationState.RELEASED or host.effects.current(EFFECT) is not None
    steps = (Step(what="Let all traffic through again", target="this endpoint"),) if isolated else ()
    return Plan(changes=isolated, steps=steps)


async def _verify_release(host: Host, _params: Release, _result: Released | None) -> Check:
    """Is no table of ours left, and nothing that would put it back?"""
    now, effect = await host.firewall.isolation(), host.effects.current(EFFECT)
    held = "" if effect is None else ", and the isolation is still written down"
    return Check.of(now.state is IsolationState.RELEASED and effect is None, f"kernel says {now.state}{held}")


def _isolate_again(_params: Release, result: Released) -> Isolate | None:
    if not result.changed:
        return None
    # What it had left open was judged when it was ordered.
    force = leaves_everything_open(result.allowed)
    return Isolate(allow=result.allowed, profile=result.profiles, duration=result.remaining, force=force)


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
    # What cannot be read, of another version of the agent, must not keep anybody from lifting it.
    allowed, profiles, _lost = readable_order({} if effect is None else effect.detail)
    lifted = Released(
        # Tampered with, it is not in the kernel, but would be put back: to forget it is a change, too.
        changed=before.state is not IsolationState.RELEASED or effect is not None,
        allowed=allowed,
        profiles=DEFAULT_PROFILES if profiles is None else profiles,
        remaining=_left(host, before.remaining),
    )
    if earlier is None:
        await host.journal.record(lifted.model_dump(mode="json"))
    phase = Phase.IN_FORCE if effect is None else phase_of(effect)
    try:
        # From now on nobody puts it back when it is gone.
        await host.effects.amend(EFFECT, detail={"phase": Phase.RELEASING})
        await host.firewall.lift()
    except BaseException:
        # Stopped or failed, it goes on as before; a run before this one has left its own mark.
        goes_on = Phase.IN_FORCE if phase is Phase.RELEASING else phase
        await asyncio.shield(_go_on(host, goes_on))
        raise
    await host.effects.drop(EFFECT)
    return lifted if earlier is None else Released.model_validate(earlier)


async def _go_on(host: Host, phase: Phase) -> None:
    """Be isolated as before. The kernel may have let go in the moment in which the release was stopped."""
    await host.effects.amend(EFFECT, detail={"phase": phase})
    effect, lasts = host.effects.current(EFFECT), host.effects.remaining(EFFECT)
    if effect is None or phase is not Phase.IN_FORCE or lasts == timedelta(0):
        return
    with suppress(StanchError):  # whoever keeps it tries again
        if (await host.firewall.isolation()).state is IsolationState.RELEASED:
            await host.firewall.isolate(rules_of(effect.private.get("rules", {})), lift_after=lasts)


def _left(host: Host, in_kernel: timedelta | None) -> timedelta | None:
    left = in_kernel or host.effects.remaining(EFFECT)
    return None if left is None else max(SHORTEST, left)
