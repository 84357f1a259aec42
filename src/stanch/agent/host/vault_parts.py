"""What all work on a vault shares: the folder, the keys, how much room is left, and who works on what at the moment."""

import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from stanch.agent.host.vault_content import Watch, own_key, recipients
from stanch.agent.host.vault_items import Items
from stanch.core.errors import Conflict, VaultFull
from stanch.core.types import EndpointPath
from stanch.core.vault import Usage

MARGIN = 100 * 1_048_576
"""Bytes of the vault's disk that it leaves free, or a twentieth of a small disk: others live there too."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Forbidden = Callable[[EndpointPath], None]
"""ForbiddenHere if the owner of the machine lets nobody touch what has this real path."""

WhyProtected = Callable[[EndpointPath, os.stat_result], str | None]
"""Why what is there must stay."""


def _nothing(path: EndpointPath) -> None:
    """Forbid nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orderer:
    """Who wants something of the vault, and what the owner of the machine lets them do."""

    order: str = ""
    by: str = ""
    reason: str = ""
    forbidden: Forbidden = _nothing
    unwritable: Forbidden = _nothing
    """The same for a place where no file has been."""


def here(path: EndpointPath) -> Path:
    """The same for this machine, whatever its bytes are."""
    return Path(os.fsdecode(path.raw))


def path_of(path: Path) -> EndpointPath:
    """And back."""
    return EndpointPath.of(os.fsencode(path))


def path_of_descriptor(descriptor: int) -> EndpointPath:
    """What a descriptor is called now."""
    return path_of(Path(f"/proc/self/fd/{descriptor}").readlink())


class Busy:
    """What somebody works on. The second one does not wait: what it would find then is not what it was told of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claimed: set[Hashable] = set()

    @contextmanager
    def claim(self, key: Hashable, what: str) -> Iterator[None]:
        """Work on it alone; Conflict if somebody else does."""
        with self._lock:
            if key in self._claimed:
                raise Conflict("Another task works on it at this moment", got=what, hint="Order it again afterwards.")
            self._claimed.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._claimed.discard(key)


COUNT_AFTER = 256
"""Items after which the vault is counted anew, so that a sum of estimates does not drift away."""


class Room:
    """How much may still go in. What is being copied counts already."""

    def __init__(self, items: Items, limit: Callable[[], int]) -> None:
        self._items = items
        self._limit = limit
        self._lock = threading.Lock()
        self._promised = 0
        self._at_most = 0
        """Bytes that the vault takes, or fewer."""
        self._unseen = COUNT_AFTER
        """How many went in since they were counted."""

    @contextmanager
    def promise(self, need: int, what: str) -> Iterator[None]:
        """Keep so many bytes for this; VaultFull if there are not so many."""
        with self._lock:
            self._check(need, what)
            self._promised += need
            self._at_most += need
            self._unseen += 1
        try:
            yield
        finally:
            with self._lock:
                self._promised -= need

    def check(self, need: int, what: str) -> None:
        """VaultFull if there are not so many bytes now."""
        with self._lock:
            self._check(need, what)

    def _check(self, need: int, what: str) -> None:
        limit = self._limit()
        if self._unseen >= COUNT_AFTER or self._at_most + self._promised + need > limit:
            # To look at every item for each that comes would take hours for ten thousand.
            self._at_most, self._unseen = self._items.used(), 0
        used = self._at_most + self._promised
        if used + need > limit:
            raise VaultFull(f"The vault has no room for {what}", got=f"{need} bytes", expected=max(0, limit - used))
        free = self._spare()
        if free is not None and need > free - self._promised:
            raise VaultFull(
                f"The disk of the vault has no room for {what}",
                got=f"{need} bytes",
                expected=f"at most {max(0, free - self._promised)}",
                hint="Free space on the disk of the vault, or let the local policy put the vault on another.",
            )

    def _spare(self) -> int | None:
        """Bytes that may be used of the disk; None if its file system does not tell."""
        disk = self._disk()
        if not disk.f_blocks:
            return None
        return disk.f_bavail * disk.f_frsize - min(MARGIN, disk.f_blocks * disk.f_frsize // 20)

    def _disk(self) -> os.statvfs_result:
        """Its file system. Before the first is taken the folder is not there yet."""
        folder = self._items.folder
        return os.statvfs(next(one for one in (folder, *folder.parents) if one.exists()))

    def usage(self) -> Usage:
        """How full it is."""
        disk = self._disk()
        free = disk.f_bavail * disk.f_frsize
        return Usage.model_validate(
            {"items": len(self._items.ids()), "size": self._items.used(), "limit": self._limit(), "free": free}
        )


class Numbers:
    """Numbers items in the order in which they were taken, whatever the clock does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def seen(self, number: int) -> None:
        """An item has it: from now on there are only greater ones."""
        with self._lock:
            self._last = max(self._last, number)

    def next(self) -> int:
        """The next one."""
        with self._lock:
            self._last += 1
            return self._last


class Keys:
    """The endpoint's own key, read once, and to whom content is encrypted."""

    def __init__(self, path: Path, evidence_key: Callable[[], str]) -> None:
        self._path = path
        self._evidence_key = evidence_key
        self._lock = threading.Lock()
        self._own = ""

    def own(self) -> str:
        """The age identity; VerificationFailed if its file is damaged."""
        with self._lock:
            self._own = self._own or own_key(self._path)
            return self._own

    def recipients(self) -> list[str]:
        """Age recipients."""
        return recipients(self.own(), self._evidence_key())


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All of it."""

    items: Items
    keys: Keys
    room: Room
    why_protected: WhyProtected
    clock: Callable[[], datetime | None]
    busy: Busy = field(default_factory=Busy)
    numbers: Numbers = field(default_factory=Numbers)

    def stamp(self) -> datetime:
        """The agent's time to write on something; 1970 where nobody knows it yet."""
        return self.clock() or _EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work: for whom, and who watches it."""

    orderer: Orderer = field(default_factory=Orderer)
    watch: Watch = field(default_factory=Watch)
