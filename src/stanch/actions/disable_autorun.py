"""Keep something from starting by itself, and let it start again: exactly as it was."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from stanch.core.action import AfterCrash, Check, Concurrency, Params, Plan, Result, Risk, Step, Undo, action
from stanch.core.autoruns import Autorun, AutorunId, Method, Place, Way
from stanch.core.disabling import (
    MAX_AT_ONCE,
    MAX_DISABLED,
    PREFIX,
    UNITS,
    Begun,
    Disabling,
    Enabling,
    effect_name,
    in_force,
    raise_if_none,
    recorded,
    remaining_of,
    wanted,
    way_in_force,
    ways_in_force,
)
from stanch.core.errors import Conflict, NotFound, Protected, StanchError, Unsupported
from stanch.core.host import Host
from stanch.core.model import Model
from stanch.core.taking import dumped
from stanch.core.types import Duration, EndpointPath, Instant, Text, VaultId, minutes, show_duration
from stanch.core.vault import item_id

_WORDS = {Method.VAULT: "Take into the vault", Method.LINE: "Comment out", Method.MASK: "Mask"}
_TAKE_AND_MASK = "Take into the vault, and mask"
_GOES_ON = "What has been started already and is no unit goes on running: see kill-process."

Ids = Annotated[tuple[AutorunId, ...], Field(max_length=MAX_AT_ONCE)]
Notes = Annotated[tuple[Text, ...], Field(max_length=500)]


class DisableAutorun(Params):
    """What is not to start any more."""

    autorun: Ids = ()
    """Ids, as list-autoruns tells them."""

    unit: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=MAX_AT_ONCE)] = ()
    """Names of units of the system's systemd, such as cups.service; without a suffix, a service is meant."""

    path: EndpointPath | None = None
    """Everything that this file starts: each of its lines, if it has several."""

    stop: bool = True
    """End the units that run, too."""

    duration: Duration | None = None
    """Let it start again after this long, even if the server stays silent; null for never."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not (self.autorun or self.unit or self.path):
            raise ValueError("expected an autorun, a unit or a path")
        return self


class DisabledAutorun(Model):
    """Something that does not start any more."""

    id: AutorunId
    """Its id: enable-autorun takes it."""

    name: Text
    """What people call it."""

    place: Place
    """Where it started from."""

    method: Method
    """How it is disabled."""

    path: EndpointPath
    """The file that was changed or taken, or where the mask stands."""

    item: VaultId | None = None
    """Its file in the vault."""


class NotChanged(Model):
    """Something that is as it was."""

    id: AutorunId
    """Its id."""

    name: Text
    """What people call it."""

    why: Text
    """Why."""


class AutorunsDisabled(Result):
    """What does not start any more."""

    changed: bool
    """False if all of it was disabled already."""

    disabled: Annotated[tuple[DisabledAutorun, ...], Field(max_length=MAX_AT_ONCE)]
    """What this order disabled."""

    already: Annotated[tuple[AutorunId, ...], Field(max_length=MAX_AT_ONCE)] = ()
    """What Stanch had disabled before: that stays as it is, its end too."""

    until: Instant | None = None
    """When it starts again by itself; null for never."""

    not_disabled: Annotated[tuple[NotChanged, ...], Field(max_length=MAX_AT_ONCE)] = ()
    """What could not be disabled."""

    notes: Notes = ()
    """What else there is to know."""


class EnableAutorun(Params):
    """What may start again."""

    autorun: Annotated[tuple[AutorunId, ...], Field(max_length=MAX_DISABLED)] = ()
    """Ids of what Stanch has disabled."""

    all: bool = False
    """Everything that Stanch has disabled."""

    forget: bool = False
    """What cannot be put back, since its mark or its item is gone or something else is there, counts as disabled no
    longer."""

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if bool(self.autorun) == self.all:
            raise ValueError("expected either autoruns or all")
        return self


class EnabledAutorun(Model):
    """Something that starts again."""

    id: AutorunId
    """Its id."""

    name: Text
    """What people call it."""

    path: EndpointPath
    """The file that says so."""


class AutorunsEnabled(Result):
    """What starts again."""

    changed: bool
    """False if nothing of it was disabled any more."""

    enabled: Annotated[tuple[EnabledAutorun, ...], Field(max_length=MAX_DISABLED)]
    """What is as it was."""

    not_enabled: Annotated[tuple[NotChanged, ...], Field(max_length=MAX_DISABLED)] = ()
    """What could not be enabled: it is still disabled."""

    forgotten: Annotated[tuple[NotChanged, ...], Field(max_length=MAX_DISABLED)] = ()
    """What cannot be put back, and counts as disabled no longer."""

    remaining: Duration | None = None
    """How long it would have lasted; null for ever, or if nothing was enabled."""

    notes: Notes = ()
    """What else there is to know."""


def _row(way: Way, why: object) -> NotChanged:
    return NotChanged(id=way.id, name=way.name, why=str(why)[:2000])


# --- disable ---------------------------------------------------------------------------------------------------------


async def _plan_disable(host: Host, params: DisableAutorun) -> Plan:
    """How each would be disabled, and what is to be known of it."""
    ones, already = await wanted(host, ids=params.autorun, units=params.unit, path=params.path)
    steps, refused, warnings = list[Step](), list[str](), list[str]()
    for one in ones:
        try:
            way = await _way(host, params, one)
        except StanchError as error:
            refused.append(f"Will be refused: {one.name}: {error}"[:4000])
            continue
        both = way.method is Method.MASK and way.takes
        steps.append(Step(what=_TAKE_AND_MASK if both else _WORDS[way.method], target=_told(one, way)))
        if way.was_running:
            steps.append(Step(what="Stop", target=one.name))
        warnings += [f"{one.name}: {text}"[:4000] for text in _warnings(one, way)]
    if already:
        warnings.append(f"{len(already)} disabled already: {', '.join(way.name[:100] for way in already[:10])}")
    until = [] if params.duration is None else [f"It starts again in {show_duration(params.duration)}."]
    return Plan(
        changes=bool(ones) and not refused,
        steps=tuple(steps),
        warnings=tuple([*refused, *warnings, *(until if ones else [])][:100]),
    )


def _told(one: Autorun, way: Way) -> str:
    where = f"{one.path}:{one.line}" if one.line else str(way.path)
    return f"{one.name} ({one.place}): {where}"[:4000]


def _warnings(one: Autorun, way: Way) -> Iterable[str]:
    if one.package and way.method is not Method.MASK:
        yield f"its file is of the package {one.package}: an upgrade may bring it back"
    if one.package and one.differs:
        yield f"its file is another one than the package {one.package} brought"
    if way.method is Method.VAULT and way.place in UNITS and way.file is None and way.path.startswith("/etc/systemd/"):
        yield "if a package brought a unit of this name, that counts again"
    if way.place is Place.PAM:
        yield "keep a session open until you have seen that you can sign in"
    if way.place not in UNITS or (one.running and not way.was_running):
        yield "what has been started already goes on"
    if not one.enabled:
        yield "it does not start as it is"


def _without_parts(ways: Sequence[Way]) -> list[Way]:
    """A line goes with its file."""
    taken = {way.path for way in ways if way.takes}
    return [way for way in ways if way.takes or way.path not in taken]


async def _way(host: Host, params: DisableAutorun, one: Autorun) -> Way:
    """How it would be disabled, by this task; Unsupported, Protected and others, with the reason."""
    why = await host.autoruns.why_not(one)
    if why is not None:
        raise Unsupported(f"{one.name} cannot be disabled: {why}", got=one.path)
    way = await host.autoruns.way(one)
    why = await host.files.why_protected(way.path) if way.takes else None
    if why is not None:
        raise Protected(f"{way.path} must not be taken away", got=why)
    return way.model_copy(update={"task": host.task, "was_running": way.was_running and params.stop})


async def _verify_disable(host: Host, _params: DisableAutorun, result: AutorunsDisabled | None) -> Check:
    """Is each as it was left, and written down? After a crash: is any?"""
    if result is None:
        begun = recorded(host)
        ways = [] if begun is None else [*begun.ways]
        seen = [way.name for way in ways if in_force(host, way) and await host.autoruns.is_disabled(way)]
        return Check.of(bool(seen), f"{len(seen)} are disabled")
    if result.not_disabled:
        left = "; ".join(f"{one.name[:100]}: {one.why[:200]}" for one in result.not_disabled[:10])
        return Check.of(False, f"{len(result.disabled)} are disabled, not {left}")
    again = []
    for one in result.disabled:
        way = way_in_force(host, one.id)
        if way is None or not await host.autoruns.is_disabled(way):
            again.append(f"{one.name[:100]} ({one.path})")
    return Check.of(not again, f"{len(result.disabled)} are disabled; start again: {', '.join(again[:10]) or 'none'}")


@action(
    "disable_autorun",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(10),
    plan=_plan_disable,
    verify=_verify_disable,
    undo=Undo(
        "enable_autorun",
        lambda _params, result: (
            EnableAutorun(autorun=tuple(one.id for one in result.disabled)) if result.disabled else None
        ),
    ),
    examples=(
        "web-01 --autorun 0123456789abcdef --reason 'known miner' --wait",
        "web-01 --unit miner.service --duration 24h",
        "--label env=prod --path /etc/cron.d/dropper --dry-run",
    ),
)
async def disable_autorun(host: Host, params: DisableAutorun) -> AutorunsDisabled:
    """Keep something from starting by itself, so that it can be enabled again exactly as it was.

    A line is commented out, with a mark; a unit that a package brought is masked; any other file goes into the vault,
    and its unit is masked too. Units that run are stopped. What the machine needs to start, and Stanch itself, are
    refused, before anything is touched. If some cannot be disabled, the order fails and says which.
    """
    begun = recorded(host) or await _begin(host, params)
    work = Disabling(host, params.duration)
    for n, way in enumerate(begun.ways):
        host.progress(n, len(begun.ways), "autoruns", way.name[:200])
        await work.disable(way)
    raise_if_none(work.failed, work.done)
    notes = [*await work.let_know(), *_about_processes(params, work.done)]
    return AutorunsDisabled(
        changed=bool(work.done),
        disabled=tuple(map(_disabled_row, work.done)),
        already=begun.already,
        until=work.until,
        not_disabled=tuple(_row(way, error) for way, error in work.failed),
        notes=tuple(notes[:500]),
    )


def _about_processes(params: DisableAutorun, done: Sequence[Way]) -> list[str]:
    return [_GOES_ON] if params.stop and any(way.place not in UNITS for way in done) else []


def _disabled_row(way: Way) -> DisabledAutorun:
    return DisabledAutorun(
        id=way.id,
        name=way.name,
        place=way.place,
        method=way.method,
        path=way.path,
        item=way.item if way.takes else None,
    )


async def _begin(host: Host, params: DisableAutorun) -> Begun:
    """Find all, check all, write down all."""
    ones, already = await wanted(host, ids=params.autorun, units=params.unit, path=params.path)
    ways = _without_parts([await _way(host, params, one) for one in ones])
    ways = [one.model_copy(update={"item": item_id(host.task, n) if one.takes else None}) for n, one in enumerate(ways)]
    held = {one.name for one in host.effects.all() if one.name.startswith(PREFIX)}
    if len(held | {effect_name(one.id) for one in ways}) > MAX_DISABLED:
        raise Conflict(
            "Too many autoruns would be disabled at a time; nothing was touched",
            got=len(held) + len(ways),
            expected=f"at most {MAX_DISABLED}",
            hint="Remove for good what is known to be bad, and let enable-autorun --forget forget it.",
        )
    begun = Begun(ways=tuple(ways), already=tuple(one.id for one in already))
    await host.journal.record(dumped(begun))
    return begun


# --- enable ----------------------------------------------------------------------------------------------------------


def _chosen(host: Host, params: EnableAutorun) -> list[Way]:
    """What is to be enabled. NotFound, with what there is."""
    # Files first: a line may stand in one of them.
    there = {one.id: one for one in sorted(ways_in_force(host), key=lambda one: not one.takes)}
    if params.all:
        return list(there.values())
    missing = [one for one in dict.fromkeys(params.autorun) if one not in there]
    if missing:
        raise NotFound(
            "Stanch has not disabled this here; nothing was touched",
            got=", ".join(missing[:10]),
            expected=", ".join(f"{one.id} {one.name[:60]}" for one in list(there.values())[:50])
            or "nothing is disabled",
        )
    return [way for id_, way in there.items() if id_ in params.autorun]


async def _plan_enable(host: Host, params: EnableAutorun) -> Plan:
    """What would come back."""
    ways = _chosen(host, params)
    words = {Method.VAULT: "Put back from the vault", Method.LINE: "Put back the line of", Method.MASK: "Unmask"}
    steps = [
        Step(what=what, target=f"{way.name}: {way.path}"[:4000])
        for way in ways
        for what in [words[way.method], *(["Start"] if way.was_running else [])]
    ]
    gone = [f"{way.name} is not as Stanch left it"[:4000] for way in ways if not await host.autoruns.is_disabled(way)]
    return Plan(changes=bool(ways), steps=tuple(steps), warnings=tuple(gone[:100]))


async def _verify_enable(host: Host, _params: EnableAutorun, result: AutorunsEnabled | None) -> Check:
    """Is nothing of it written down as disabled? After a crash: is some of it gone?"""
    begun = recorded(host)
    if result is None:
        ways = [] if begun is None else [*begun.ways]
        back = [way for way in ways if not (in_force(host, way) and await host.autoruns.is_disabled(way))]
        return Check.of(bool(back), f"{len(back)} are enabled")
    if result.not_enabled:
        left = "; ".join(f"{one.name[:100]}: {one.why[:200]}" for one in result.not_enabled[:10])
        return Check.of(False, f"{len(result.enabled)} are enabled, not {left}")
    held = [one.name[:100] for one in result.enabled if way_in_force(host, one.id) is not None]
    return Check.of(not held, f"{len(result.enabled)} are enabled; still disabled: {', '.join(held[:10]) or 'none'}")


@action(
    "enable_autorun",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.EXCLUSIVE,
    time_limit=minutes(10),
    plan=_plan_enable,
    verify=_verify_enable,
    undo=Undo(
        "disable_autorun",
        lambda _params, result: (
            DisableAutorun(autorun=tuple(one.id for one in result.enabled)[:MAX_AT_ONCE], duration=result.remaining)
            if result.enabled
            else None
        ),
    ),
    examples=("web-01 --autorun 0123456789abcdef --wait", "web-01 --all --reason 'false alarm'"),
)
async def enable_autorun(host: Host, params: EnableAutorun) -> AutorunsEnabled:
    """Let start again what Stanch has disabled: its file, line or unit is as it was, whatever else has changed since.

    Units that ran when they were disabled are started. If some cannot be put back, the order fails and says which:
    these stay disabled. A line whose mark is gone is told, so that a person can put it back.
    """
    begun = recorded(host) or await _begin_enable(host, params)
    work = Enabling(host, params.forget)
    for n, way in enumerate(begun.ways):
        host.progress(n, len(begun.ways), "autoruns", way.name[:200])
        await work.enable(way)
    raise_if_none(work.failed, [*work.done, *work.forgotten])
    await work.finish()
    return AutorunsEnabled(
        changed=bool(work.done),
        enabled=tuple(EnabledAutorun(id=one.id, name=one.name, path=one.file or one.path) for one in work.done),
        not_enabled=tuple(_row(way, error) for way, error in work.failed),
        forgotten=tuple(_row(way, error) for way, error in work.forgotten),
        remaining=begun.remaining,
        notes=tuple(dict.fromkeys(work.notes))[:500],
    )


async def _begin_enable(host: Host, params: EnableAutorun) -> Begun:
    ways = _chosen(host, params)
    begun = Begun(ways=tuple(ways), remaining=remaining_of(host, ways))
    await host.journal.record(dumped(begun))
    return begun
