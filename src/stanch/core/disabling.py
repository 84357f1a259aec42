"""What Stanch keeps from starting by itself: each is a lasting effect, with all it takes to enable it again.

The effect is on the disk before anything changes, and goes only when all is back. Every step can be repeated, so that
a run after a crash goes on where the first one stopped.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from stanch.core.autoruns import Autorun, Place, Way
from stanch.core.errors import Conflict, NotFound, StanchError, TooLarge
from stanch.core.files import Digests, Kind
from stanch.core.host import Effect, Host, Record
from stanch.core.model import LooseModel
from stanch.core.taking import dumped
from stanch.core.types import SHORTEST, Duration, EndpointPath, Instant
from stanch.core.vault import Returning, Taking, Why

PREFIX = "autorun:"
"""Effects are called `autorun:ID`."""

MAX_DISABLED = 200
"""That are disabled at any time: an endpoint tells all of its effects in one frame."""

MAX_AT_ONCE = 50
"""That one order disables."""

UNITS = (Place.SYSTEMD_UNIT, Place.SYSTEMD_TIMER)

LIFT = "enable_autorun"
"""The action that lifts such an effect."""

_HINT = "list-autoruns tells what does."

Failed = list[tuple[Way, StanchError]]


class Begun(LooseModel):
    """What is written down before the first change."""

    ways: tuple[Way, ...]
    already: tuple[str, ...] = ()
    remaining: Duration | None = None


def recorded(host: Host) -> Begun | None:
    """What an earlier run of the task wrote down."""
    found = host.journal.recorded()
    return None if found is None else Begun.model_validate(found)


def effect_name(autorun: str) -> str:
    """The effect that a disabled autorun is."""
    return f"{PREFIX}{autorun}"


def ways_in_force(host: Host) -> Iterator[Way]:
    """How each is disabled that Stanch has disabled."""
    for one in host.effects.all():
        if one.name.startswith(PREFIX):
            yield Way.model_validate(one.private["way"])


def way_in_force(host: Host, autorun: str) -> Way | None:
    """How Stanch has disabled it; None if it has not."""
    effect = host.effects.current(effect_name(autorun))
    return None if effect is None else Way.model_validate(effect.private["way"])


def in_force(host: Host, way: Way) -> bool:
    """Is it written down as disabled in this way, by this very task?"""
    held = way_in_force(host, way.id)
    return held is not None and held.task == way.task


def remaining_of(host: Host, ways: Iterable[Way]) -> timedelta | None:
    """The longest of what is left of them; None for ever."""
    lengths = [host.effects.remaining(effect_name(way.id)) for way in ways]
    return None if None in lengths or not lengths else max([SHORTEST, *(one for one in lengths if one)])


def places_of(ways: Iterable[Way]) -> tuple[Place, ...]:
    """Where they start from, each once."""
    return tuple(dict.fromkeys(way.place for way in ways))


def raise_if_none(failed: Failed, done: Sequence[object]) -> None:
    """The error itself if nothing worked."""
    if not failed or done:
        return
    first = failed[0][1]
    if len(failed) == 1:
        raise first
    names = "; ".join(f"{way.name[:100]}: {error.message[:200]}" for way, error in failed[:10])
    raise type(first)(f"None of {len(failed)} worked", got=names, hint=first.hint)


# --- which ------------------------------------------------------------------------------------------------------------


async def wanted(
    host: Host, *, ids: Iterable[str], units: Iterable[str], path: EndpointPath | None
) -> tuple[list[Autorun], list[Way]]:
    """What is to be disabled; and how that is disabled which is so already. NotFound, TooLarge."""
    found: dict[str, Autorun] = {}
    already: dict[str, Way] = {}
    for one in [*ids, *await _named(host, units, path)]:
        id_ = one if isinstance(one, str) else one.id
        way = way_in_force(host, id_)
        if way is not None and await host.autoruns.is_disabled(way):
            already[id_] = way
        elif len(found) < MAX_AT_ONCE:
            found[id_] = one if isinstance(one, Autorun) else await _of_id(host, id_)
        elif id_ not in found:
            raise _too_many()
    return list(found.values()), list(already.values())


async def _of_id(host: Host, autorun: str) -> Autorun:
    one = await host.autoruns.find(autorun)
    if one is None:
        raise NotFound("Nothing of this id starts by itself", got=autorun, hint=_HINT)
    return one


def _too_many() -> TooLarge:
    return TooLarge(
        "More would be disabled than one order may; nothing was touched",
        got=f"over {MAX_AT_ONCE}",
        expected=f"at most {MAX_AT_ONCE}",
        hint="Name some of them by their ids, or quarantine the file.",
    )


async def _named(host: Host, units: Iterable[str], path: EndpointPath | None) -> list[Autorun | Way]:
    """What is meant by the names of units and by the path; of what is in the vault, how it is disabled. NotFound."""
    wanted = {*(one if "." in one else f"{one}.service" for one in units), *([_merged(path)] if path else [])}
    if not wanted:
        return []
    found: list[Autorun | Way] = []
    async for batch in host.autoruns.list(tuple(Place) if path else UNITS):
        # Of a file of very many lines, one more than may be is enough to know.
        fitting = [one for one in batch if isinstance(one, Autorun) and _names(one) & wanted]
        found += fitting[: MAX_AT_ONCE + MAX_DISABLED + 1 - len(found)]
    missing = wanted.difference(*map(_names, found))
    gone = [way for way in ways_in_force(host) if _names(way) & missing]
    missing = missing.difference(*map(_names, gone))
    if missing:
        raise NotFound("Nothing of this name starts by itself", got=", ".join(sorted(missing))[:1000], hint=_HINT)
    return [*found, *gone]


def _names(one: Autorun | Way) -> set[str]:
    """What it can be named by."""
    path = _merged(one.path if isinstance(one, Autorun) else one.file or one.path)
    return {path, one.name} if one.place in UNITS else {path}


def _merged(path: str) -> str:
    """With a merged /usr, a unit is told as in /usr/lib, while systemctl and people may say /lib."""
    return f"/usr{path}" if path.startswith("/lib/") else str(path)


# --- disable ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Disabling:
    """Disables one after the other."""

    host: Host
    lasts: timedelta | None
    done: list[Way] = field(default_factory=list)
    failed: Failed = field(default_factory=list)
    until: Instant | None = None

    async def disable(self, way: Way) -> None:
        """One of them; if it fails, it is as it was, and not written down."""
        try:
            await self._hold(way)
            if way.takes:
                await _take(self.host, way)
            await self.host.autoruns.disable(way)
        except StanchError as error:
            self.failed.append((way, await self._given_up(way, error)))
        else:
            self.done.append(way)

    async def _hold(self, way: Way) -> None:
        """One that came back by itself is disabled anew: how it was before is kept, should this fail."""
        name = effect_name(way.id)
        held = self.host.effects.current(name)
        private: dict[str, object] = {"way": dumped(way)}
        if held is not None and in_force(self.host, way):  # an earlier run wrote it down
            private |= {key: held.private[key] for key in ("before", "left") if key in held.private}
        elif held is not None:
            left = self.host.effects.remaining(name)
            private |= {"before": held.private["way"], "left": None if left is None else left.total_seconds()}
        effect = await self._written(way, private, self.lasts)
        self.until = effect.until

    async def _written(self, way: Way, private: Record, lasts: timedelta | None) -> Effect:
        return await self.host.effects.hold(
            effect_name(way.id),
            lift_action=LIFT,
            lift_params={"autorun": [way.id], "forget": True},
            detail={"name": way.name, "place": way.place, "path": way.path, "method": way.method},
            private=private,
            lasts=lasts,
        )

    async def _given_up(self, way: Way, error: StanchError) -> StanchError:
        """Nothing of it remains; the error to tell, with what could not be taken back."""
        try:
            with suppress(Conflict, NotFound):  # it never came so far
                await self.host.autoruns.enable(way)
            if way.takes and way.item is not None and await self.host.vault.find(way.item) is not None:
                await self.host.vault.put_back(Returning(id=way.item))
                await self.host.vault.remove(way.item)
        except StanchError as again:
            return Conflict(
                f"{error.message}; and it could not be taken back",
                got=again.message,
                hint=f"Order `enable-autorun --autorun {way.id}`.",
            )
        await self._let_go(way)
        return error

    async def _let_go(self, way: Way) -> None:
        """It is not disabled in this way; if it was in another one before, that can still be taken back."""
        effect = self.host.effects.current(effect_name(way.id))
        private = effect.private if effect is not None and in_force(self.host, way) else {}
        if "before" not in private:
            await self.host.effects.drop(effect_name(way.id))
            return
        left = private.get("left")
        lasts = None if left is None else max(SHORTEST, timedelta(seconds=left))
        await self._written(Way.model_validate(private["before"]), {"way": private["before"]}, lasts)

    async def let_know(self) -> tuple[str, ...]:
        """Tell systemd and udev, and stop what runs; what there is to say of that."""
        if not self.done:
            return ()
        notes = await self.host.autoruns.reload(places_of(self.done)) + await self.host.autoruns.stop(self.done)
        return tuple(dict.fromkeys(notes))


async def _take(host: Host, way: Way) -> None:
    if way.item is None:
        raise Conflict(f"{way.name} has no place in the vault")
    expected = None if way.before is None else Digests(sha256=way.before)
    kinds = (Kind.FILE, Kind.LINK)
    await host.vault.take(
        Taking(id=way.item, path=way.path, why=Why.QUARANTINE, kinds=kinds, expected=expected, direct=True)
    )


# --- enable ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Enabling:
    """Enables one after the other."""

    host: Host
    forget: bool
    """Does what cannot be put back count as disabled no longer?"""
    done: list[Way] = field(default_factory=list)
    failed: Failed = field(default_factory=list)
    forgotten: Failed = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    async def enable(self, way: Way) -> None:
        """One of them; one that fails does not keep the others."""
        held = way_in_force(self.host, way.id)
        if held is not None and held.task != way.task:
            self.notes.append(f"{way.name[:200]} was disabled anew meanwhile: that stays")
            return
        try:
            await self._put_back(way)
        except StanchError as error:
            await self._not_back(way, error)
        else:
            self.done.append(way)

    async def _put_back(self, way: Way) -> None:
        """Its file, line or unit; repeating it changes nothing."""
        self.notes += [f"{way.name[:200]}: {one}"[:4000] for one in await self.host.autoruns.enable(way)]
        if not way.takes or way.item is None:
            return
        if await self.host.vault.find(way.item) is None:
            await self._expect_back(way)
            return
        try:
            back = await self.host.vault.put_back(Returning(id=way.item))
        except StanchError:
            with suppress(StanchError):  # the first error is the one to hear about
                await self.host.autoruns.disable(way)
            raise
        self.notes += [f"{back.path}: {one}"[:4000] for one in back.lost]

    async def _expect_back(self, way: Way) -> None:
        """NotFound if somebody removed it from the vault, and it is not at its place either."""
        if await self.host.files.look(way.path) is None:
            raise NotFound(f"The file of {way.name} is not in the vault any more", got=way.item, expected=way.path)

    async def _not_back(self, way: Way, error: StanchError) -> None:
        """It stays disabled; or, if nothing of it is left to be put back, it is forgotten where that is wanted."""
        gone = isinstance(error, NotFound)
        if not gone and isinstance(error, Conflict):
            gone = not await self.host.autoruns.is_disabled(way)
        if gone and self.forget:
            await self.host.effects.drop(effect_name(way.id))
            self.forgotten.append((way, error))
        else:
            self.failed.append((way, error))

    async def finish(self) -> None:
        """Tell systemd and udev, and start what ran; then nothing of it is written down any more.

        The effect goes last: a deadline that is lifted goes on after a crash only as long as its effect is there.
        """
        if self.done:
            self.notes += await self.host.autoruns.reload(places_of(self.done))
            self.notes += await self.host.autoruns.start(self.done)
        for way in self.done:
            if way.takes and way.item is not None:
                await self.host.vault.remove(way.item)
            await self.host.effects.drop(effect_name(way.id))
