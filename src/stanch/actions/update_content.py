"""Bring the rules and indicators of an endpoint to what the server has published for it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from stanch.core.action import (
    AfterCrash,
    Check,
    Concurrency,
    Irreversible,
    Params,
    Plan,
    Result,
    Risk,
    Step,
    action,
)
from stanch.core.content import MAX_PACKS, Installed, PackRef, Updated
from stanch.core.host import Host
from stanch.core.model import LooseModel
from stanch.core.taking import dumped
from stanch.core.types import hours

MAX_CHANGES = 2 * MAX_PACKS


class UpdateContent(Params):
    """Nothing: all of it is brought up to date."""


class ContentUpdated(Result):
    """What scans use now."""

    changes: Annotated[tuple[Updated, ...], Field(max_length=MAX_CHANGES)]
    """What is another version than before, is new or is gone; versions that were refused, or were damaged here."""

    refused: Annotated[int, Field(ge=0, le=MAX_CHANGES)]
    """How many versions did not load, or could not be fetched: what was used before stays in use."""

    installed: Annotated[tuple[Installed, ...], Field(max_length=MAX_CHANGES)]
    """All that scans can use now."""


class _Begun(LooseModel):
    """What is written down before anything changes."""

    before: Annotated[Mapping[str, int], Field(max_length=MAX_CHANGES)]
    """Name to the version that scans used."""


def _differences(host: Host) -> Iterator[tuple[Installed | None, PackRef | None]]:
    """What is installed otherwise than wanted: both, by name."""
    here = {one.name: one for one in host.content.installed() if not one.builtin}
    wanted = {one.name: one for one in host.content.wanted()}
    for name in sorted(here.keys() | wanted.keys()):
        installed, ref = here.get(name), wanted.get(name)
        if installed is None or ref is None or (installed.sha256, installed.version) != (ref.sha256, ref.version):
            yield installed, ref


def _step(installed: Installed | None, ref: PackRef | None) -> Step:
    if ref is None:
        return Step(what="Remove", target=installed.name if installed else "")
    instead = f", instead of version {installed.version}" if installed else ""
    return Step(what="Fetch, try and use", target=f"{ref.name} version {ref.version}, {ref.size} bytes{instead}")


async def _plan(host: Host, _params: UpdateContent) -> Plan:
    """Which versions would come, and which would go."""
    steps = tuple(_step(installed, ref) for installed, ref in _differences(host))
    return Plan(changes=bool(steps), steps=steps)


async def _verify(host: Host, _params: UpdateContent, result: ContentUpdated | None) -> Check:
    """Is everything that the server wants in use, but for what was refused and is told?"""
    refused = {(one.name, one.refused) for one in result.changes if one.refused} if result is not None else set()
    missing = [
        (ref.name if ref else installed.name if installed else "")
        for installed, ref in _differences(host)
        if ref is None or (ref.name, ref.version) not in refused
    ]
    count = len(host.content.wanted())
    detail = f"{len(missing)} of {count} are not as the server wants: {', '.join(missing[:5])}"
    return Check.of(
        not missing, detail if missing else f"{count} versions that the server wants, {len(refused)} refused"
    )


def _versions(host: Host) -> Mapping[str, int]:
    return {one.name: one.version for one in host.content.installed()}


async def _begun(host: Host) -> _Begun:
    """What was in use before this task changed anything, an earlier run of it included."""
    recorded = host.journal.recorded()
    if recorded is not None:
        return _Begun.model_validate(recorded)
    begun = _Begun(before=_versions(host))
    await host.journal.record(dumped(begun))
    return begun


def _changes(before: Mapping[str, int], after: Mapping[str, int], told: Mapping[str, Updated]) -> Sequence[Updated]:
    """By name: what is otherwise than before, whoever changed it meanwhile, what was refused or had to come again."""
    changes = []
    for name in sorted(before.keys() | after.keys() | told.keys()):
        one = told.get(name)
        if before.get(name) != after.get(name) or (one is not None and (one.refused or one.after)):
            changes.append(
                Updated(
                    name=name,
                    before=before.get(name),
                    after=after.get(name),
                    refused=one and one.refused,
                    why=one.why if one else "",
                )
            )
    return changes[:MAX_CHANGES]


@action(
    "update_content",
    version=1,
    risk=Risk.DISRUPTIVE,
    after_crash=AfterCrash.VERIFY_THEN_FINISH,
    concurrency=Concurrency.BACKGROUND,
    time_limit=hours(2),
    plan=_plan,
    verify=_verify,
    undo=Irreversible("What an endpoint should have is decided on the server: `stanch content rollback`."),
    examples=("web-01 --wait", "--label env=prod --reason 'rules of INC-7'", "web-01 --dry-run"),
)
async def update_content(host: Host, _params: UpdateContent) -> ContentUpdated:
    """Update the rules and indicators of endpoints to what is published for them, now, and wait for it.

    Endpoints do so by themselves within minutes. Each version is compared with the hash that the server signed and
    tried before scans use it; one that does not load is refused, and what was used before stays in use.
    """
    begun, told = await _begun(host), dict[str, Updated]()
    total = sum(1 for _ in _differences(host))
    async for one in host.content.update():
        told[one.name] = one
        host.progress(len(told), max(total, len(told)), "contents", one.name)
    return ContentUpdated(
        changes=tuple(_changes(begun.before, _versions(host), told)),
        refused=sum(1 for one in told.values() if one.refused),
        installed=tuple(host.content.installed())[:MAX_CHANGES],
    )
