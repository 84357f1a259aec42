"""What starts by itself on this machine: `core.autoruns` on Linux.

Each family of places has its reader (`autorun_*`). They run in a thread, one batch at a time, and keep no more than
that in memory; the package databases are asked once for a batch.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

from stanch.agent.host.autorun_changes import AutorunChanges, Run, allow_all
from stanch.agent.host.autorun_describing import Describer, NoPackages, Owners
from stanch.agent.host.autorun_found import Item, Programs, Reader
from stanch.agent.host.autorun_masks import is_kept_by_name
from stanch.agent.host.autorun_tree import Tree
from stanch.core.autoruns import Autorun, Place, Unread, Way
from stanch.core.errors import ActionFailed, Cancelled
from stanch.core.types import EndpointPath

T = TypeVar("T")

BATCH = 500
"""Autoruns that are described together: the package databases are read once for each batch."""

MOST = 50_000
"""Autoruns of one place that are told."""

_SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")

Batch = list[Autorun | Unread]


def readers() -> tuple[Reader, ...]:
    """One for each family of places; loaded when they are needed, so that an agent at rest is small."""
    from stanch.agent.host.autorun_cron import CronReader
    from stanch.agent.host.autorun_hooks import HookReader
    from stanch.agent.host.autorun_init import InitReader
    from stanch.agent.host.autorun_kernel import KernelReader
    from stanch.agent.host.autorun_libraries import LibraryReader
    from stanch.agent.host.autorun_shell import ShellReader
    from stanch.agent.host.autorun_ssh import SshReader
    from stanch.agent.host.autorun_sudo import SudoReader
    from stanch.agent.host.autorun_systemd import SystemdReader

    return (
        *(SystemdReader(), CronReader(), InitReader(), ShellReader(), LibraryReader()),
        *(KernelReader(), SshReader(), SudoReader(), HookReader()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxAutoruns:
    """What starts by itself below a root folder."""

    root: Path = Path("/")
    packages: Callable[[], Owners] = NoPackages
    """Makes what the package databases are asked through, anew for each list: it may keep much of them."""
    run: Run | None = None
    """How systemctl, udevadm and visudo are run; None for the usual way, for the machine itself."""
    forbidden: Callable[[EndpointPath], None] = allow_all
    """ForbiddenHere for files that the owner of the machine lets nobody touch: they are neither read nor changed."""

    async def list(self, places: Collection[Place]) -> AsyncIterator[Sequence[Autorun | Unread]]:
        """All of these places, in batches."""
        looking = await asyncio.to_thread(self._looking, places)
        try:
            while (batch := await looking.on(looking.next)) is not None:
                yield batch
        finally:
            looking.stop()

    async def find(self, autorun: str) -> Autorun | None:
        """The one of this id, or None."""
        looking = await asyncio.to_thread(self._looking, tuple(Place))
        try:
            return await looking.on(lambda: looking.find(autorun))
        finally:
            looking.stop()

    def _looking(self, places: Collection[Place]) -> "Looking":
        return Looking(self.root, self.packages, places, forbidden=self.forbidden)

    async def why_not(self, one: Autorun) -> str | None:
        """Why it cannot be disabled (the machine would not start without it, it is only told, ...), or None."""
        why = await self._changes.why_not(one)
        if why is not None and is_kept_by_name(one) and await asyncio.to_thread(self._knows_packages):
            return None  # malware that is called after systemd, where packages have their units
        return why

    def _knows_packages(self) -> bool:
        """Would the databases tell it, if a package had brought a unit?"""
        return bool(self.packages().owners({EndpointPath(one) for one in _SYSTEMD}))

    async def way(self, one: Autorun) -> Way:
        """How it would be disabled; changes nothing. Of what goes to the vault, the action takes care."""
        return await self._changes.way(one)

    async def disable(self, way: Way) -> None:
        """Comment it out or mask it; repeating it changes nothing."""
        await self._changes.disable(way)

    async def enable(self, way: Way) -> tuple[str, ...]:
        """Take back what `disable` did; what of it could not be, in words. Repeating it changes nothing."""
        return await self._changes.enable(way)

    async def is_disabled(self, way: Way) -> bool:
        """Is it as `disable` left it?"""
        return await self._changes.is_disabled(way)

    async def reload(self, places: Collection[Place]) -> tuple[str, ...]:
        """Let systemd and udev read again what they know, where they run."""
        return await self._changes.reload(places)

    async def stop(self, ways: Sequence[Way]) -> tuple[str, ...]:
        """End the units of these that run, where systemd does."""
        return await self._changes.stop(ways)

    async def start(self, ways: Sequence[Way]) -> tuple[str, ...]:
        """Start their units again, where systemd runs."""
        return await self._changes.start(ways)

    @property
    def _changes(self) -> AutorunChanges:
        return AutorunChanges(root=self.root, run=self.run, forbidden=self.forbidden)


class Looking:
    """One look at some places, step by step, each in a thread; `stop` from anywhere ends it."""

    def __init__(
        self,
        root: Path,
        packages: Callable[[], Owners],
        places: Collection[Place],
        *,
        forbidden: Callable[[EndpointPath], None] = allow_all,
    ) -> None:
        try:
            self._tree = Tree(root, forbidden=forbidden)
        except OSError as error:
            raise ActionFailed(f"{root} cannot be looked at", got=error.strerror) from error
        self._packages = packages
        self._places = frozenset(places)
        self._stopped = threading.Event()
        self._busy = threading.Lock()
        self._items = self._all()

    async def on(self, step: Callable[[], T]) -> T:
        """Take a step."""
        return await asyncio.to_thread(self._alone, step)

    def next(self) -> Batch | None:
        """What was found next; None at the end."""
        items = list(islice(self._items, BATCH))
        found: Batch = [*self._describer.describe(items)] if items else []
        found += self._tree.unread
        self._tree.unread.clear()
        return found or None

    def find(self, autorun: str) -> Autorun | None:
        """The one of this id; nothing else is described."""
        item = next((one for one in self._items if one.id == autorun), None)
        return None if item is None else self._describer.describe([item])[0]

    def stop(self) -> None:
        """End it, at the latest when the step that is under way has found something more."""
        self._stopped.set()
        self._let_go()

    # --- in a thread -------------------------------------------------------------------------------------------------

    @cached_property
    def _describer(self) -> Describer:
        return Describer(self._tree, self._packages(), Programs(self._tree))

    def _all(self) -> Iterator[Item]:
        """Everything, each once; of each place no more than a bound."""
        counts = Counter[Place]()
        path, ids = "", set[str]()
        for reader in readers():
            wanted = self._places & set(reader.places)
            for one in reader.read(self._tree, wanted) if wanted else ():
                if self._stopped.is_set():
                    raise Cancelled("The look at what starts by itself was stopped")
                if one.path != path:
                    path, ids = one.path, set()
                if one.place not in wanted or one.id in ids:
                    continue  # the same line twice in one file is one thing, and has one id
                ids.add(one.id)
                counts[one.place] += 1
                if counts[one.place] <= MOST:
                    yield one
                elif counts[one.place] == MOST + 1:
                    self._tree.miss(one.path, f"only the first {MOST} of {one.place} are told")

    def _alone(self, step: Callable[[], T]) -> T:
        try:
            with self._busy:
                if self._stopped.is_set():
                    raise Cancelled("The look at what starts by itself was stopped")
                return step()
        finally:
            if self._stopped.is_set():
                self._let_go()

    def _let_go(self) -> None:
        """Unless a step is under way, which does it at its end."""
        if self._busy.acquire(blocking=False):
            try:
                self._tree.close()
            finally:
                self._busy.release()
