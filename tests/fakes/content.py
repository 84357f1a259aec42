"""Content in memory: the fake of `core.content.Content`."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from stanch.core.content import ContentKind, Installed, PackRef, Updated
from stanch.core.errors import NotFound
from stanch.core.files import Bytes
from stanch.core.scanning import Material
from tests.fakes.life import Life


@dataclass(frozen=True)
class Held:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@asynccontextmanager
async def held(data: bytes) -> AsyncIterator[Bytes]:
    """Bytes in memory, opened."""
    yield Held(data)


def material(name: str, data: bytes, kind: ContentKind = ContentKind.YARA) -> Material:
    """A file of rules or indicators in memory."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Material(kind=kind, name=name, size=len(data), sha256=sha256, open=partial(held, data))


@dataclass
class FakeContent:
    """What is installed is what a test says; `published` is what an update brings."""

    life: Life = field(default_factory=Life)
    packs: dict[str, Installed] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Name of the content to its files."""
    published: dict[str, PackRef] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """Content of which the published version does not load, and why."""

    def add(self, name: str, kind: ContentKind = ContentKind.YARA, *, version: int = 1, **files: bytes) -> Installed:
        """Something is installed, and published in the same version."""
        self.files[name] = files or {"rules.yar": b"rule a { condition: false }"}
        sha256 = hashlib.sha256(name.encode() + bytes([version])).hexdigest()
        one = Installed(name=name, kind=kind, version=version, sha256=sha256, files=len(self.files[name]))
        self.packs[name] = one
        self.published[name] = PackRef(name=name, kind=kind, version=version, sha256=sha256, size=1)
        return one

    def publish(self, name: str, kind: ContentKind = ContentKind.YARA, *, version: int = 1) -> PackRef:
        """The server wants a version here that is not installed yet."""
        sha256 = hashlib.sha256(name.encode() + bytes([version])).hexdigest()
        self.published[name] = PackRef(name=name, kind=kind, version=version, sha256=sha256, size=1)
        return self.published[name]

    def installed(self) -> Sequence[Installed]:
        return tuple(self.packs.values())

    def wanted(self) -> Sequence[PackRef]:
        return tuple(self.published.values())

    def materials(self, names: Sequence[str]) -> Sequence[Material]:
        missing = [one for one in names if one not in self.packs]
        if missing:
            raise NotFound("There is no such content here", got=", ".join(missing), expected=", ".join(self.packs))
        return tuple(
            material(f"{name}/{file}", data, self.packs[name].kind)
            for name in names
            for file, data in self.files[name].items()
        )

    async def update(self) -> AsyncIterator[Updated]:
        for name in sorted(self.packs.keys() | self.published.keys()):
            before, after = self.packs.get(name), self.published.get(name)
            if before is not None and after is not None and before.sha256 == after.sha256:
                continue
            had = before.version if before else None
            if after is None:
                self.life.step("content.remove")
                del self.packs[name]
                yield Updated(name=name, before=had)
            elif name in self.broken:
                yield Updated(name=name, before=had, after=had, refused=after.version, why=self.broken[name])
            else:
                self.life.step("content.install")
                kept = {"name": name, "kind": after.kind, "version": after.version, "sha256": after.sha256}
                self.packs[name] = Installed(files=1, **kept)
                yield Updated(name=name, before=had, after=after.version)
