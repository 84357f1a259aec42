"""The files of an endpoint in memory: `FakeFiles` keeps what `stanch.core.files` promises, `FakeUploads` what is sent.

A node is what a name leads to; hard links are several names of one node. `content` shows the regular files as a plain
mapping from path to bytes, which a test may set.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Collection, Iterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stanch.core.errors import Conflict, ForbiddenHere, NotFound, Protected, TargetGone, Unsupported, VerificationFailed
from stanch.core.files import (
    Bytes,
    Digests,
    Extent,
    FileId,
    FileInfo,
    FileType,
    Found,
    HashKind,
    Kind,
    Placing,
    Search,
    Shredded,
    Skipped,
)
from stanch.core.types import EndpointPath, Size, Upload
from tests.fakes.life import Life

MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Node:
    """What one or several names lead to."""

    content: Any = b""
    """Bytes; of a link, where it leads to; an exception is raised by whoever opens it."""
    kind: Kind = Kind.FILE
    mode: int = 0o644
    user: str = "root"
    group: str = "root"
    modified: datetime = MODIFIED
    extents: tuple[Extent, ...] | None = None
    """Where a sparse file holds data; None for everywhere."""
    inode: int = field(default=0, repr=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes | str) else 0


class Contents(MutableMapping[str, Any]):
    """The regular files of a tree by path, as their bytes."""

    def __init__(self, files: "FakeFiles") -> None:
        self._files = files

    def __getitem__(self, path: str) -> Any:
        node = self._files.tree[str(path)]
        if node.kind is not Kind.FILE:
            raise KeyError(path)
        return node.content

    def __setitem__(self, path: str, content: Any) -> None:
        if path in self:
            self._files.tree[str(path)].content = content
        else:
            self._files.add(str(path), content)

    def __delitem__(self, path: str) -> None:
        del self._files.tree[str(path)]

    def __iter__(self) -> Iterator[str]:
        return iter([path for path, node in self._files.tree.items() if node.kind is Kind.FILE])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass
class FakeFile:
    """A file that is open. Its size is the one at the start; its bytes are the ones of now."""

    node: Node
    path: EndpointPath
    info: FileInfo

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self.node.content[offset : offset + length])

    async def extents(self) -> Sequence[Extent]:
        whole = (Extent(0, self.info.size),) if self.info.size else ()
        return whole if self.node.extents is None else self.node.extents

    async def digests(self, kinds: Collection[HashKind]) -> Digests:
        return digests_of(self.node.content, kinds)

    async def type(self) -> FileType:
        elf = self.node.content.startswith(b"\x7fELF")
        return FileType(name="ELF 64-bit executable" if elf else "unknown", first=self.node.content[:64].hex())


def digests_of(content: bytes, kinds: Collection[HashKind] = tuple(HashKind)) -> Digests:
    """The hashes of some bytes."""
    return Digests(**{kind.value: hashlib.new(kind.value, content).hexdigest() for kind in kinds})


@dataclass
class FakeFiles:
    """A small file system."""

    life: Life = field(default_factory=Life)
    tree: dict[str, Node] = field(default_factory=dict)
    """Path to node. The folders above a file are made with it."""
    is_open: list[str] = field(default_factory=list)
    protected: dict[str, str] = field(default_factory=dict)
    """Path to the reason; its hard links are protected too."""
    forbidden: set[str] = field(default_factory=set)
    """Paths that the owner forbids."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Path to the reason why a search leaves it out."""
    caveats: tuple[str, ...] = ()
    """What a shredding says."""
    tokens: dict[str, str] = field(default_factory=dict)
    """Path to the token of the put that made it."""
    nodes: int = 0
    """How many were numbered."""

    @property
    def content(self) -> Contents:
        """The regular files, as bytes by path."""
        return Contents(self)

    # --- what a test does ---

    def add(self, path: str, content: Any = b"", **fields: Any) -> Node:
        """Put something there, with the folders above it: `kind`, `mode`, `user`, ..."""
        self.add_folders(path)
        self.tree[path] = self.numbered(Node(content, **fields))
        return self.tree[path]

    def add_folders(self, path: str) -> None:
        """The folders above a path."""
        above = path.rpartition("/")[0]
        if above and above not in self.tree:
            self.add(above, kind=Kind.FOLDER, mode=0o755)

    def link(self, path: str, to: str) -> None:
        """One more name (hard link) for what is at `to`."""
        self.add_folders(path)
        self.tree[path] = self.tree[to]

    def numbered(self, node: Node) -> Node:
        """Give a node an inode number of its own."""
        self.nodes += 1
        node.inode = self.nodes
        return node

    # --- looking ---

    def resolved(self, path: str, *, last: bool = True) -> str:
        """All links on the way resolved, the last component's only if asked for."""
        parts, done = path.strip("/").split("/"), ""
        for n, part in enumerate(parts):
            done += f"/{part}"
            node = self.tree.get(done)
            if node is not None and node.kind is Kind.LINK and (last or n < len(parts) - 1):
                target = node.content if node.content.startswith("/") else f"{done.rpartition('/')[0]}/{node.content}"
                done = self.resolved(target)
        return done

    def names_of(self, node: Node) -> list[str]:
        """Every path of a node."""
        return [path for path, one in self.tree.items() if one is node]

    def info_of(self, node: Node) -> FileInfo:
        """Its properties."""
        return FileInfo(
            size=Size(node.size),
            mode=node.mode,
            user=node.user,
            group=node.group,
            modified=node.modified,
            changed=node.modified,
            allocated=Size(node.size if node.extents is None else sum(one.length for one in node.extents)),
            inode=node.inode,
            device=1,
            kind=node.kind,
            links=len(self.names_of(node)),
        )

    def refuse_forbidden(self, path: str) -> None:
        """ForbiddenHere if the owner forbids it, or a folder above it."""
        if any(path == one or path.startswith(f"{one}/") for one in self.forbidden):
            raise ForbiddenHere("The owner of this machine forbids this path", got=path)

    @asynccontextmanager
    async def open(self, path: EndpointPath) -> AsyncIterator[FakeFile]:
        where = self.resolved(path)
        self.refuse_forbidden(where)
        node = self.tree.get(where)
        if node is None:
            raise TargetGone(f"There is no file {path}")
        if isinstance(node.content, Exception):
            raise node.content
        if node.kind is not Kind.FILE:
            raise Unsupported(f"{path} is no regular file", got=node.kind)
        self.is_open.append(str(path))
        try:
            yield FakeFile(node, EndpointPath(where), self.info_of(node))
        finally:
            self.is_open.remove(str(path))

    async def look(self, path: EndpointPath) -> FileInfo | None:
        where = self.resolved(path, last=False)
        self.refuse_forbidden(where)
        node = Node(kind=Kind.FOLDER) if where == "/" else self.tree.get(where)
        return None if node is None else self.info_of(node)

    async def search(self, search: Search) -> AsyncIterator[Sequence[Found | Skipped]]:
        found = list(self._search(search))
        for n in range(0, len(found), 2):
            yield found[n : n + 2]

    def _search(self, search: Search) -> Iterator[Found | Skipped]:
        roots = [self.resolved(one, last=False) for one in search.roots] or ["/"]
        for root in roots:
            if root not in self.tree and root != "/":
                raise TargetGone(f"There is no file {root}")
        for n, path in enumerate(sorted(self.tree)):
            if n >= search.most_looked_at:
                yield Skipped(EndpointPath(path), "too many names were looked at")
                return
            if any(_is_below(path, root, search.depth) for root in roots):
                yield from self._fitting(search, path)

    def _fitting(self, search: Search, path: str) -> Iterator[Found | Skipped]:
        node, found = self.tree[path], EndpointPath(path)
        if node.kind not in search.kinds or (search.pattern and not matches(search.pattern, path)):
            return
        try:
            self.refuse_forbidden(path)
        except ForbiddenHere:
            yield Skipped(found, "forbidden by the owner of the machine")
            return
        if path in self.unreadable:
            yield Skipped(found, self.unreadable[path])
        else:
            yield Found(found, self.info_of(node))

    async def why_protected(self, path: EndpointPath) -> str | None:
        node = self.tree.get(self.resolved(path, last=False))
        named = {one: why for one, why in self.protected.items() if node is not None and self.tree.get(one) is node}
        return next(iter(named.values()), None)

    # --- changing ---

    async def put(self, placing: Placing, content: Bytes) -> FileInfo:
        path = self.resolved(placing.path, last=False)
        self.refuse_forbidden(path)
        node = self.tree.get(path)
        if node is not None and (not placing.token or self.tokens.get(path) != placing.token):
            raise Conflict(f"Something is at {path} already")
        if node is not None:
            return self.info_of(node)
        if path.rpartition("/")[0] not in {"", *self.tree} and not placing.make_folders:
            raise TargetGone("Its folder is not there", got=path)
        data = await content.read(0, content.size)
        self.life.step(f"files.write {path}")
        if placing.sha256 and hashlib.sha256(data).hexdigest() != placing.sha256:
            raise VerificationFailed("The content is another one", expected=placing.sha256)
        self.life.step(f"files.place {path}")
        owner = placing.user or "root"
        node = self.add(path, data, mode=placing.mode, user=owner, group=placing.group or owner)
        self.tokens[path] = placing.token
        return self.info_of(node)

    async def shred(self, path: EndpointPath, expected: FileId) -> Shredded:
        where = self.resolved(path, last=False)
        self.refuse_forbidden(where)
        node = self.tree.get(where)
        if node is None or self.info_of(node).id != expected:
            raise TargetGone(f"{path} is something else by now")
        if where in self.protected:
            raise Protected(f"{path} must not be destroyed", got=self.protected[where])
        self.life.step(f"files.overwrite {where}")
        node.content = bytes(node.size)
        self.life.step(f"files.remove {where}")
        del self.tree[where]
        others = ("It has other names, which lead to random bytes now.",) if self.names_of(node) else ()
        return Shredded(overwritten=Size(node.size), caveats=(*self.caveats, *others))


def _is_below(path: str, root: str, depth: int | None) -> bool:
    if path == root:
        return True
    prefix = root if root == "/" else f"{root}/"
    return path.startswith(prefix) and (depth is None or path[len(prefix) :].count("/") < depth)


def matches(pattern: str, path: str) -> bool:
    """Does a path fit a pattern?"""
    return re.fullmatch("".join(map(_as_regex, re.findall(r"/\*\*(?=/)|\*\*|\[[^]]*]|.", pattern))), path) is not None


def _as_regex(part: str) -> str:
    known = {"/**": "(/[^/]+)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if part.startswith("["):
        return part.replace("[!", "[^")
    return known.get(part) or re.escape(part)


@dataclass
class FakeBytes:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """How many."""
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@dataclass
class FakeUploads:
    """What the server has, by the id of the upload; it may be something else than was ordered."""

    content: dict[str, bytes] = field(default_factory=dict)

    @asynccontextmanager
    async def open(self, upload: Upload) -> AsyncIterator[FakeBytes]:
        if upload.id not in self.content:
            raise NotFound("The server does not have this upload any more", got=upload.id)
        yield FakeBytes(self.content[upload.id])
