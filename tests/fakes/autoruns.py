"""Autoruns in memory: the fake of `core.autoruns`."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from stanch.core.autoruns import Autorun, Method, Place, Unread, Way, autorun_id
from stanch.core.errors import Conflict, TargetGone
from stanch.core.types import EndpointPath
from tests.fakes.files import FakeFiles
from tests.fakes.life import Life


@dataclass
class FakeAutoruns:
    """What starts by itself, as a test says; what is disabled stays in the list, as `LinuxAutoruns` shows it."""

    life: Life = field(default_factory=Life)
    there: list[Autorun] = field(default_factory=list)
    """Everything, as it was before anything was disabled."""
    unread: list[Unread] = field(default_factory=list)
    """Places that cannot be looked at."""
    batch: int = 2
    """How many come in one batch."""
    protected: dict[str, str] = field(default_factory=dict)
    """Id to the reason why it cannot be disabled."""
    methods: dict[str, Method] = field(default_factory=dict)
    """Id to how it is disabled, where that is not as usual for its place."""
    disabled: dict[str, tuple[Way, str]] = field(default_factory=dict)
    """Id to how it was disabled, and by which task."""
    changed: set[str] = field(default_factory=set)
    """Paths of files that have changed since anybody looked: nothing is disabled there."""
    stubborn: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Id to what cannot be taken back, in words."""
    ignored: set[str] = field(default_factory=set)
    """Ids of what starts nevertheless after it was disabled."""
    taking: set[str] = field(default_factory=set)
    """Ids of what is masked in the place of its own file."""
    lost: set[str] = field(default_factory=set)
    """Ids of lines whose mark somebody has removed."""
    reloaded: list[Place] = field(default_factory=list)
    """Of which places systemd and udev were told to read again."""
    complains: tuple[str, ...] = ()
    """What they say to that."""
    running: list[str] = field(default_factory=list)
    """Ids of units that run; those that did at the start, too."""
    files: FakeFiles | None = None
    """Where the files are that go to the vault."""

    # --- what a test does ---

    def add(self, name: str, path: str, *, place: Place = Place.SYSTEMD_UNIT, **fields: Any) -> Autorun:
        """Something more starts by itself."""
        text = fields.get("command", "") if fields.get("line") else ""
        id_ = autorun_id(place, path, text or name)
        one = Autorun(id=id_, place=place, name=name, path=EndpointPath(path), **fields)
        self.there.append(one)
        if one.running:
            self.running.append(one.id)
        return one

    # --- what an action does ---

    async def list(self, places: Collection[Place]) -> AsyncIterator[Sequence[Autorun | Unread]]:
        found: list[Autorun | Unread] = [self._now(one) for one in self.there if one.place in places]
        found += self.unread
        for n in range(0, len(found), self.batch):
            yield found[n : n + self.batch]

    async def find(self, autorun: str) -> Autorun | None:
        return next((self._now(one) for one in self.there if one.id == autorun), None)

    def _now(self, one: Autorun) -> Autorun:
        """As it is listed now."""
        if one.id not in self.disabled or one.id in self.ignored:
            return one
        way, task = self.disabled[one.id]
        by = "" if way.method is Method.MASK else task
        return one.model_copy(update={"enabled": False, "running": False, "disabled_by": by})

    async def why_not(self, one: Autorun) -> str | None:
        return self.protected.get(one.id)

    async def way(self, one: Autorun) -> Way:
        usual = Method.LINE if one.line else Method.MASK if one.place is Place.SYSTEMD_UNIT else Method.VAULT
        method = self.methods.get(one.id, usual)
        if one.id in self.disabled and one.id not in self.ignored:
            raise Conflict(f"{one.name} is disabled already")
        return Way(
            id=one.id,
            place=one.place,
            name=one.name,
            method=method,
            path=one.path,
            lines=(one.command,) if method is Method.LINE else (),
            before=one.sha256,
            takes=method is Method.VAULT or one.id in self.taking,
            was_running=one.running,
        )

    async def disable(self, way: Way) -> None:
        if way.id in self.disabled:
            return
        if not any(one.id == way.id for one in self.there):
            raise TargetGone(f"{way.name} does not start by itself any more")
        if way.path in self.changed:
            raise Conflict(f"{way.path} has changed meanwhile")
        self.life.step("autoruns.disable")
        self.disabled[way.id] = (way, way.task)

    async def enable(self, way: Way) -> tuple[str, ...]:
        if way.id in self.lost:
            raise Conflict(f"The line of {way.path} cannot be put back", expected="".join(way.lines))
        if way.id in self.disabled:
            self.life.step("autoruns.enable")
            del self.disabled[way.id]
        return self.stubborn.get(way.id, ())

    async def is_disabled(self, way: Way) -> bool:
        if way.id in self.lost | self.ignored:
            return False
        back = way.method is Method.VAULT and self.files is not None and str(way.path) in self.files.tree
        return way.id in self.disabled and not back

    async def reload(self, places: Collection[Place]) -> tuple[str, ...]:
        self.life.step("autoruns.reload")
        self.reloaded = sorted({*self.reloaded, *places})
        return self.complains

    async def stop(self, ways: Sequence[Way]) -> tuple[str, ...]:
        ids = {way.id for way in ways if way.was_running}
        if ids:
            self.life.step("autoruns.stop")
            self.running = [one for one in self.running if one not in ids]
        return ()

    async def start(self, ways: Sequence[Way]) -> tuple[str, ...]:
        ids = {way.id for way in ways if way.was_running}
        if ids:
            self.life.step("autoruns.start")
            self.running = sorted({*self.running, *ids})
        return ()
