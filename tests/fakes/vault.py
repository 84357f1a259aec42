"""The vault of an endpoint in memory: `FakeVault` takes nodes out of a `FakeFiles` and puts them back.

Each change is two steps, as the real one makes them: the copy, then the removal of the original; the bytes, then their
name.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from stanch.core.errors import (
    ActionFailed,
    Conflict,
    NotFound,
    Protected,
    TargetGone,
    TooLarge,
    Unsupported,
    VaultFull,
    VerificationFailed,
)
from stanch.core.files import Kind
from stanch.core.types import EndpointPath, Id, Size, VaultId
from stanch.core.vault import Item, OnConflict, Returned, Returning, Taking, Usage
from tests.fakes.files import FakeFiles, Node, digests_of
from tests.fakes.life import FakeClock, Life


@dataclass
class Kept:
    """Something in the vault."""

    item: Item
    node: Node
    names: tuple[str, ...]
    complete: bool = False
    """Is the original out of the way, too?"""


@dataclass
class FakeReadable:
    """The content of an item."""

    kept: Kept

    @property
    def name(self) -> str:
        return str(self.kept.item.path)

    @property
    def size(self) -> int:
        return self.kept.node.size

    async def read(self, offset: int, length: int) -> bytes:
        if self.kept.item.damage:
            raise VerificationFailed("The item is damaged", got=self.kept.item.damage)
        return bytes(self.kept.node.content[offset : offset + length])


@dataclass
class FakeVault:
    """A vault over `files`."""

    files: FakeFiles
    life: Life = field(default_factory=Life)
    clock: FakeClock = field(default_factory=FakeClock)
    order: str = "ord_1"
    """The order in whose hands it is."""
    kept: dict[str, Kept] = field(default_factory=dict)
    """Id to what is there, in the order in which it was taken."""
    placed: dict[str, tuple[Returned, Node]] = field(default_factory=dict)
    """Id to what was put back."""
    limit: int = 1_000_000
    told_full: list[str] = field(default_factory=list)
    """What the server was told there is no room for."""
    fails: dict[str, Exception] = field(default_factory=dict)
    """Path or id to what `take` or `put_back` raises instead."""
    hidden_names: set[str] = field(default_factory=set)
    """Hard links that are not found."""
    lost: tuple[str, ...] = ()
    """What of an item cannot be brought back here."""
    deleted: dict[str, Node] = field(default_factory=dict)
    """Programs that were deleted and still run, by what they were called or by `/proc/PID/exe`."""
    before_take: Any = None
    """Called with the `Taking` before anything else: a test changes the file here."""

    def in_hands_of(self, order: str) -> "FakeVault":
        """The same vault, for a task of another order."""
        other = copy(self)
        other.order = order
        return other

    def damage(self, id: str, what: str = "its bytes were changed") -> None:  # noqa: A002 - the field's own name
        """Let an item be damaged."""
        kept = self.kept[id]
        kept.item = kept.item.model_copy(update={"damage": what})

    # --- taking ---

    async def expect_room(self, size: int, what: str) -> None:
        room = max(0, self.limit - sum(one.node.size for one in self.kept.values()))
        if size > room:
            self.told_full.append(what)
            raise VaultFull(f"The vault has no room for {what}", got=f"{size} bytes", expected=room)

    async def take(self, taking: Taking) -> Item:
        kept = self.kept.get(taking.id)
        if kept is None:
            if self.before_take is not None:
                self.before_take(taking)
            kept = await self._copied(taking)
            self.life.step(f"vault.copy {taking.id}")
            self.kept[taking.id] = kept
        if not kept.complete:
            if not taking.keep_original:
                self.life.step(f"vault.remove-original {kept.item.path}")
            self._remove_names(taking, kept)
            kept.complete = True
        return kept.item

    def _remove_names(self, taking: Taking, kept: Kept) -> None:
        for name in () if taking.keep_original else kept.names:
            self.files.tree.pop(name, None)

    async def _copied(self, taking: Taking) -> Kept:
        where = self.files.resolved(taking.path)
        if taking.kinds and Kind.LINK in taking.kinds:
            where = self.files.resolved(taking.path, last=False)
        self.files.refuse_forbidden(where)
        node = self.files.tree.get(where) or self.deleted.get(where)
        if node is None:
            raise TargetGone(f"There is nothing at {taking.path}")
        self._refuse(taking, where, node)
        await self.expect_room(node.size, taking.path)
        names = self.files.names_of(node)
        info = self.files.info_of(node)
        content = node.content if node.kind is Kind.FILE else None
        digests = None if content is None else digests_of(content)
        others = [EndpointPath(one) for one in names if one != where and one not in self.hidden_names]
        item = Item(
            id=taking.id,
            path=EndpointPath(where),
            why=taking.why,
            info=info,
            sha256=digests and digests.sha256,
            md5=digests.md5 if digests and taking.with_md5 else None,
            others=tuple(others),
            names_left=max(0, len(names) - 1 - len(others)),
            original_kept=taking.keep_original,
            taken=self.clock.now(),
            until=None if taking.lasts is None else self.clock.now() + taking.lasts,
            order=self.order,
            stored=Size(node.size),
        )
        return Kept(item, replace(node), (where, *map(str, others)))

    def _refuse(self, taking: Taking, where: str, node: Node) -> None:
        if taking.path in self.fails:
            raise self.fails[taking.path]
        why = next((why for one, why in self.files.protected.items() if self.files.tree.get(one) is node), None)
        if why is not None and not taking.critical_too:
            raise Protected(f"{taking.path} must not be taken away", got=why)
        if node.kind not in taking.kinds:
            raise Unsupported(f"{taking.path} is of another kind", got=node.kind)
        if node.kind is Kind.FOLDER and any(one.startswith(f"{where}/") for one in self.files.tree):
            raise ActionFailed(f"{taking.path} is not empty")
        if taking.most is not None and node.size > taking.most:
            raise TooLarge(f"{taking.path} is larger than allowed", got=node.size, expected=taking.most)
        if taking.expected is not None and node.kind is Kind.FILE:
            found = digests_of(node.content)
            wrong = [kind for kind, hash_ in taking.expected if hash_ not in {None, getattr(found, kind)}]
            if wrong:
                raise VerificationFailed(f"{taking.path} is not the expected file", got=wrong)

    # --- putting back ---

    async def put_back(self, returning: Returning) -> Returned:
        kept = self._complete(returning.id)
        done = self.placed.get(returning.id)
        if done is not None and self.files.tree.get(str(done[0].path)) is done[1]:
            return done[0]
        if returning.id in self.fails:
            raise self.fails[returning.id]
        if kept.item.damage:
            raise VerificationFailed("The item is damaged", got=kept.item.damage)
        target = self._target(returning, kept.item)
        self.life.step(f"vault.write {target}")
        self.life.step(f"vault.place {target}")
        return self._place(returning, kept, target)

    def _target(self, returning: Returning, item: Item) -> str:
        wanted = self.files.resolved(returning.to or item.path, last=False)
        self.files.refuse_forbidden(wanted)
        if wanted.rpartition("/")[0] not in {"", *self.files.tree}:
            if returning.fallback is None:
                raise TargetGone("The folder of the file is gone", got=wanted.rpartition("/")[0])
            wanted = f"{returning.fallback}/{item.path.name}"
            self.files.add_folders(wanted)
        if wanted in self.files.tree:
            if returning.on_conflict is OnConflict.REFUSE:
                raise Conflict(f"Something is at {wanted} already")
            wanted += ".restored"
        return wanted

    def _place(self, returning: Returning, kept: Kept, target: str) -> Returned:
        node = self.files.numbered(replace(kept.node))
        self.files.tree[target] = node
        # Elsewhere, only the one name is given.
        in_place = target == kept.item.path
        others = [one for one in kept.item.others if in_place and one not in self.files.tree]
        for one in others:
            self.files.tree[str(one)] = node
        lost = (*self.lost, *(f"the name {one}" for one in kept.item.others if one not in others))
        back = Returned(
            id=returning.id, path=EndpointPath(target), was=kept.item.path, others=tuple(others), lost=lost[:100]
        )
        self.placed[returning.id] = (back, node)
        return back

    def _complete(self, id: str) -> Kept:  # noqa: A002 - the field's own name
        kept = self.kept.get(id)
        if kept is None or not kept.complete:
            raise NotFound("There is no such item in the vault", got=id)
        return kept

    # --- the rest ---

    async def remove(self, id: VaultId) -> bool:  # noqa: A002 - the field's own name
        self.life.step(f"vault.remove {id}")
        return self.kept.pop(id, None) is not None

    async def find(self, id: VaultId) -> Item | None:  # noqa: A002 - the field's own name
        kept = self.kept.get(id)
        return kept.item if kept is not None and kept.complete else None

    async def items(self) -> Sequence[Item]:
        return [one.item for one in reversed(self.kept.values()) if one.complete]

    async def of_order(self, order: Id) -> Sequence[Item]:
        return [one.item for one in self.kept.values() if one.complete and one.item.order == order]

    @asynccontextmanager
    async def open(self, id: VaultId) -> AsyncIterator[FakeReadable]:  # noqa: A002 - the field's own name
        yield FakeReadable(self._complete(id))

    async def usage(self) -> Usage:
        size = sum(one.node.size for one in self.kept.values())
        return Usage(items=len(await self.items()), size=Size(size), limit=Size(self.limit), free=Size(10**12))
