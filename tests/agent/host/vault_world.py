"""A vault in a folder of a test, with its clock, its limit and what it tells in the test's hands."""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE, change_flags, flags_of
from stanch.agent.host.vault import LinuxVault, TaskVault
from stanch.agent.host.vault_parts import Orderer
from stanch.core.types import EndpointPath
from stanch.core.vault import Returning, Taking, Why, item_id

NO_DUMP = 0x40
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def path_of(path: Path) -> EndpointPath:
    """As an endpoint calls it."""
    return EndpointPath.of(os.fsencode(path))


@dataclass
class World:
    """A vault, and a folder for files beside it."""

    root: Path
    limit: int = 2**40
    now: datetime | None = NOW
    evidence_key: str = ""
    protected: Callable[[EndpointPath, os.stat_result], str | None] = lambda path, status: None
    told: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    seconds: float = 1000.0
    at_record: Callable[[], object] = lambda: None
    """What happens, once, after the copy was made and before the original is touched."""
    place: Path | None = None
    """Where the vault is, if not in the root."""

    def __post_init__(self) -> None:
        self.files.mkdir(exist_ok=True)
        self.restart()

    @property
    def files(self) -> Path:
        """Where files are."""
        return self.root / "files"

    @property
    def folder(self) -> Path:
        """Where the vault is."""
        return self.place or self.root / "vault"

    def restart(self) -> None:
        """A new agent on the same disk; what the old one had in memory is gone."""
        self.linux = LinuxVault(
            self.folder,
            key=self.root / "vault.key",
            evidence_key=lambda: self.evidence_key,
            limit=lambda: self.limit,
            why_protected=self._why,
            clock=self._clock,
            tell=self._tell,
            seconds=lambda: self.seconds,
        )
        self.vault = self.of()

    def _clock(self) -> datetime | None:
        happens, self.at_record = self.at_record, lambda: None
        happens()
        return self.now

    def _why(self, path: EndpointPath, status: os.stat_result) -> str | None:
        return self.protected(path, status)

    async def _tell(self, kind: str, detail: Mapping[str, object]) -> None:
        self.told.append((kind, detail))

    def of(self, **orderer: object) -> TaskVault:
        """The vault in the hands of somebody."""
        return TaskVault(self.linux, Orderer(**{"order": "o1", "by": "ann", "reason": "test", **orderer}))  # type: ignore[arg-type]  # a test's own

    def file(self, name: str | bytes = "evil", content: bytes = b"evil bytes", mode: int = 0o640) -> Path:
        """A file."""
        path = self.files / os.fsdecode(name)
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def left(self) -> list[str]:
        """Every name below the folder of files, and what of the vault is neither record nor content."""
        found = sorted(str(one.relative_to(self.files)) for one in self.files.rglob("*"))
        kept = self.folder.iterdir() if self.folder.exists() else ()
        return found + [one.name for one in kept if one.suffix not in {".age", ".json"}]


async def nothing_kept(world: World) -> None:
    """The vault is as if nobody had asked for anything."""
    assert list(await world.vault.items()) == []
    assert list(world.folder.iterdir()) == []


def taking(path: Path, n: int = 1, **more: object) -> Taking:
    """Take this."""
    return Taking(id=item_id("t1", n), path=path_of(path), **{"why": Why.QUARANTINE, **more})  # type: ignore[arg-type]  # a test's own


def returning(n: int = 1, **more: object) -> Returning:
    """Put that back."""
    return Returning(id=item_id("t1", n), **more)  # type: ignore[arg-type]  # a test's own


def read_quietly(path: Path) -> bytes:
    """The content, the time of its last reading left as it is."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOATIME)) as file:
        return file.read()


def flags(path: Path) -> int | None:
    """Its inode flags, of those that anybody sets."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOATIME)) as file:
        found = flags_of(file.fileno())
    return None if found is None else found & SHOWN


SHOWN = IMMUTABLE | APPEND_ONLY | NO_DUMP


def set_flags(path: Path, wanted: int) -> None:
    """Set exactly these."""
    opened = os.open(path, os.O_RDONLY)
    try:
        change_flags(opened, ((flags_of(opened) or 0) & ~SHOWN) | wanted)
    finally:
        os.close(opened)


def portrait(path: Path) -> dict[str, object]:
    """All that the file system says of a file but its inode and the time of its last change of anything."""
    status = path.lstat()
    content: object = None
    if stat.S_ISREG(status.st_mode):
        content = read_quietly(path) if status.st_size < 2**26 else None
    elif stat.S_ISLNK(status.st_mode):
        content = path.readlink()
    names = os.listxattr(path, follow_symlinks=False)
    return {
        "mode": status.st_mode,
        "owner": (status.st_uid, status.st_gid),
        # Whoever looks where a link leads, or what is in a folder, has read it.
        "times": (status.st_mtime_ns, status.st_atime_ns if stat.S_ISREG(status.st_mode) else 0),
        "size": status.st_size,
        "device": status.st_rdev,
        "links": status.st_nlink,
        "content": content,
        "flags": flags(path),
        "attributes": {name: os.getxattr(path, name, follow_symlinks=False) for name in names},
    }
