"""Packs, and a gateway that has them: ranges, outages and lies as a test wants them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stanch.core.content import CONTENT_PATH, ContentKind, PackFile, PackRef
from stanch.core.errors import NotFound
from stanch.core.pack import first_line, index_of

RULE = b"rule %s { condition: false }\n"


def packed(files: Mapping[str, bytes], kind: ContentKind = ContentKind.YARA) -> bytes:
    """A pack of these files."""
    described = [
        PackFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()
    ]
    index = index_of(kind, described)
    return first_line(index) + b"".join(files[one.name] for one in index.files)


@dataclass
class PackGateway:
    """Has packs, and answers requests for ranges of them."""

    packs: dict[str, bytes] = field(default_factory=dict)
    """SHA-256 to bytes."""
    change: Callable[[bytes], bytes] = lambda data: data
    errors: list[Exception] = field(default_factory=list)
    """Raised one after another, before anything is answered."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and range."""

    def publish(
        self, name: str, files: Mapping[str, bytes], *, version: int = 1, kind: ContentKind = ContentKind.YARA
    ) -> PackRef:
        """Have a pack; what the server would sign of it."""
        return self.have(name, packed(files, kind), version=version, kind=kind)

    def have(self, name: str, data: bytes, *, version: int = 1, kind: ContentKind = ContentKind.YARA) -> PackRef:
        """Have any bytes as a pack."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.packs[sha256] = data
        return PackRef(name=name, kind=kind, version=version, sha256=sha256, size=len(data))

    async def request(self, method: str, path: str, *, headers: Mapping[str, str]) -> bytes:
        assert method == "GET"
        self.asked.append((path, headers["Range"]))
        if self.errors:
            raise self.errors.pop(0)
        first, last = map(int, headers["Range"].removeprefix("bytes=").split("-"))
        data = self.packs.get(path.removeprefix(f"{CONTENT_PATH}/"))
        if data is None:
            raise NotFound("There is no such pack", got=path)
        return self.change(data[first : last + 1])
