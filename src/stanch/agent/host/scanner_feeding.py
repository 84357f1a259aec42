"""What the worker is given: its job, the rules, then what it wants to know, and the names of what it is to look at."""

import asyncio
import glob
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeVar

from stanch.agent.host.procfs import DELETED
from stanch.agent.host.scanner_areas import Lead, Place, patiently, places, targets
from stanch.agent.host.scanner_files import Known
from stanch.agent.host.scanner_hearing import Wanted
from stanch.agent.host.scanner_parts import Parts
from stanch.agent.host.scanner_processes import memory_of, ours
from stanch.agent.host.scanner_worker import BLOCK, Worker
from stanch.agent.path_rules import is_below
from stanch.core.autoruns import Autorun
from stanch.core.autoruns import Place as Starts
from stanch.core.errors import ActionFailed, StanchError, Unsupported, VerificationFailed
from stanch.core.ioc.items import Item, the_rest
from stanch.core.scan_wire import (
    MAX_BATCH,
    Command,
    Items,
    Job,
    MaterialHeader,
    Opened,
    OpenedFile,
    Processes,
    WireItem,
    WireProcess,
)
from stanch.core.scanning import Area, Engine, Material, Scan, Skip, SkipReason
from stanch.core.types import EndpointPath, Glob

T = TypeVar("T")

THREADS: Final = 2
FILES: Final = "FileItem"
"""The worker makes its own items of files."""
_POLICY: Final = "the local policy of this machine"
ITEMS_AT_ONCE: Final = 100
"""In one message: taking them apart must not keep the agent from its other work."""


@dataclass(kw_only=True)
class Feeder:
    """Feeds one worker."""

    scan: Scan
    parts: Parts
    known: Known
    at: int
    """Shared memory in which the worker says what it is at."""
    clamd: int | None
    left_out: Sequence[str]
    """Names over which an earlier worker died."""
    running: Sequence[str]
    """Programs that run and libraries that they have mapped."""
    opened: Sequence[OpenedFile]
    forbidden: Sequence[EndpointPath]
    tell: Callable[[Sequence[Skip]], None]
    """Hears of what is not looked at."""
    lacks: Callable[[str], None]
    """Hears of documents that were asked for, and not read, or not all of it."""
    asked: Callable[[Sequence[Place]], None] = lambda _places: None
    """Hears of the files and folders at which the worker is told to look."""
    wanted: asyncio.Future[Wanted] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """To be set when the worker says what it wants."""

    async def run(self, worker: Worker) -> None:
        """All of it; it just ends if the worker does. StanchError."""
        await worker.say(self.job())
        for one in self.scan.materials:
            await _hand_over(worker, one)
        wanted = await self.wanted
        await self._items(worker, wanted)
        if self.scan.files is not None and wanted.files:
            await self._files(worker)
        if self.scan.memory or self.scan.pids or self.scan.names:
            await self._processes(worker)
        await worker.say(Command(type="all"))

    def job(self) -> Job:
        """What is to be done."""
        scan, files = self.scan, self.scan.files
        return Job(
            type="job",
            engines=sorted(scan.engines),
            documents=dict(scan.documents),
            hint=scan.hint,
            fast=scan.fast,
            tags=sorted(scan.tags),
            per_object=scan.limits.per_object.total_seconds(),
            findings=scan.limits.findings,
            rules=scan.limits.rules,
            gentle=scan.limits.gentle,
            max_size=files.max_size if files is not None else None,
            exclude=[*_with_all_below(files.exclude), *map(_literal, self.forbidden)] if files else [],
            network=files.network if files is not None else False,
            one_file_system=files.one_file_system if files is not None else False,
            memory=scan.memory or bool(scan.pids or scan.names),
            threads=THREADS,
            remembered=self.known.remembered,
            learned=self.known.learned,
            at=self.at,
            clamd=self.clamd,
            skip=list(self.left_out),
            materials=len(scan.materials),
            kinds=sorted({str(one.kind) for one in scan.materials}),
            forbidden=[one for path in self.forbidden for one in (_literal(path), f"{_literal(path)}/**")],
        )

    # --- items -------------------------------------------------------------------------------------------------------

    async def _items(self, worker: Worker, wanted: Wanted) -> None:
        for document, paths in wanted.documents.items():
            if document == FILES:
                if self.scan.files is None:  # not asked for: of no file it is known what it is not
                    await self._send_items(worker, [the_rest(document)])
            elif self.scan.documents.get(document) is not False:
                await self._items_of(worker, document, paths)

    async def _items_of(self, worker: Worker, document: str, paths: frozenset[str]) -> None:
        """What is there of it; if that is not all, something that nothing is known of, so that no term denies it."""
        collect = self.parts.collectors.get(document)
        try:
            if collect is None:
                raise Unsupported("Nothing here can look at that", got=document)
            async with _closing(collect(paths)) as batches:
                async for batch in batches:
                    await self._send_items(worker, batch)
        except StanchError as error:
            await self._send_items(worker, [the_rest(document)])
            self.lacks(document)
            self.tell([Skip(name=document, reason=SkipReason.OTHER, detail=str(error)[:4000])])

    @staticmethod
    async def _send_items(worker: Worker, batch: Sequence[Item]) -> None:
        for some in _by(ITEMS_AT_ONCE, iter(batch)):
            await worker.say(Items(type="items", items=[_wire(one) for one in some]))

    # --- files -------------------------------------------------------------------------------------------------------

    async def _files(self, worker: Worker) -> None:
        files = self.scan.files
        if files is None:
            return
        found = await asyncio.to_thread(lambda: self._allowed(places(files, self.parts.root, self._lead)))
        for message in targets(iter(found)):
            await worker.say(message)
        if files.area is Area.CRITICAL:
            await self._starting(worker)
            some = await asyncio.to_thread(lambda: self._allowed(Place(one, below=False) for one in self.running))
            for message in targets(iter(some)):
                await worker.say(message)
        for held in _by(MAX_BATCH, iter(self._allowed_open())):
            await worker.say(Opened(type="opened", files=held))

    @property
    def _lead(self) -> Lead:
        """Where names lead; what does not answer is told, and not looked at."""
        return patiently(self.parts.names, lambda path: self.tell([_hangs(path)]))

    async def _starting(self, worker: Worker) -> None:
        """The files that start something, and the programs that they name."""
        known = set[str]()
        async for batch in self.parts.autoruns().list(tuple(Starts)):
            named = [path for one in batch for path in _started_by(one)]
            unread = [one for one in batch if not isinstance(one, Autorun)]
            self.tell([Skip(name=one.path[:4000], reason=SkipReason.UNREADABLE, detail=one.why) for one in unread])
            some = await asyncio.to_thread(self._lead, named, os.path.realpath)
            new = [Place(one, below=False) for one in dict.fromkeys(some.values()) if one not in known]
            known.update(one.path for one in new)
            for message in targets(iter(self._allowed(iter(new)))):
                await worker.say(message)

    def _allowed(self, some: Iterator[Place]) -> list[Place]:
        """Without what the owner of the machine forbids, which is told. Below a folder, the worker leaves it out."""
        allowed = list[Place]()
        for one in some:
            if is_below(EndpointPath.of(os.fsencode(one.path)), self.forbidden) is None:
                allowed.append(one)
            else:
                self.tell([forbidden(EndpointPath.of(os.fsencode(one.path)))])
        self.asked(allowed)
        return allowed

    def _allowed_open(self) -> list[OpenedFile]:
        """The same of files that are open already: what was deleted or is elsewhere keeps its name, and a disk its."""
        allowed = list[OpenedFile]()
        for one in self.opened:
            name = one["path"].removesuffix(" (deleted)") or one["name"].partition(": ")[0]
            if name.startswith("/") and is_below(EndpointPath.of(os.fsencode(name)), self.forbidden) is not None:
                self.tell([forbidden(EndpointPath.of(os.fsencode(name)))])
            else:
                allowed.append(one)
        return allowed

    # --- processes ---------------------------------------------------------------------------------------------------

    async def _processes(self, worker: Worker) -> None:
        own = ours((*self.parts.ours, worker.pid))
        found, skips = await asyncio.to_thread(memory_of, self.scan.pids, self.scan.names, own)
        self.tell(skips)
        for some in _by(MAX_BATCH, filter(self._allows_memory, found)):
            await worker.say(Processes(type="processes", processes=some))

    def _allows_memory(self, process: WireProcess) -> bool:
        """Not of a program that the owner of the machine forbids, which is told; the worker looks at it again."""
        path = EndpointPath.of(os.fsencode(process["path"].removesuffix(DELETED)))
        allowed = not path.startswith("/") or is_below(path, self.forbidden) is None
        if not allowed:
            told = f"{process['name']} ({process['pid']})"
            self.tell([Skip(name=told[:4000], reason=SkipReason.FORBIDDEN, detail=_POLICY)])
        return allowed


@asynccontextmanager
async def _closing(batches: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Ends what it was about when the scan is left."""
    try:
        yield batches
    finally:
        if isinstance(batches, AsyncGenerator):
            await batches.aclose()


async def _hand_over(worker: Worker, material: Material) -> None:
    """The bytes of a material, which are compared with its hash on the way; the scan ends if they are others."""
    digest, at = hashlib.sha256(), 0
    await worker.say(MaterialHeader(type="material", kind=material.kind, name=material.name[:4000], size=material.size))
    async with material.open() as content, worker.material():
        while at < material.size:
            piece = await content.read(at, min(BLOCK, material.size - at))
            if not piece:
                raise ActionFailed(f"{material.name} is shorter than it should be", got=at, expected=material.size)
            digest.update(piece)
            at += len(piece)
            if not await worker.piece(piece):
                return
    if digest.hexdigest() != material.sha256:
        raise VerificationFailed(
            f"{material.name} is not what was ordered", got=digest.hexdigest(), expected=material.sha256
        )


def forbidden(path: EndpointPath) -> Skip:
    """Not looked at, as the owner of the machine wants."""
    return Skip(name=path[:4000], reason=SkipReason.FORBIDDEN, detail=_POLICY)


def _hangs(path: str) -> Skip:
    return Skip(name=EndpointPath.of(os.fsencode(path))[:4000], reason=SkipReason.HANGS, detail="it does not answer")


def wants_clamd(scan: Scan) -> bool:
    """Are files to be shown to ClamAV, if it is there?"""
    return Engine.CLAMAV in scan.engines and scan.files is not None


def _started_by(one: object) -> Iterator[str]:
    if isinstance(one, Autorun):
        yield os.fsdecode(one.path.raw)
        if one.program is not None:
            yield os.fsdecode(one.program.raw)


def _wire(item: Item) -> WireItem:
    values = {path: list(some) for path, some in item.values.items()}
    return WireItem(document=item.document, name=item.name, values=values, about=dict(item.about))


def _text(raw: bytes) -> str:
    return os.fsdecode(raw)


def _with_all_below(patterns: Sequence[Glob]) -> Iterator[str]:
    """Each of them, and what is below it: the worker is given single files, too, above which it does not walk."""
    for one in patterns:
        text = _text(one.raw).rstrip("/")
        yield text
        if not text.endswith("/**"):
            yield f"{text}/**"


def _literal(path: EndpointPath) -> str:
    """A pattern that fits this path only."""
    return glob.escape(os.fsdecode(path.raw))


def _by(count: int, some: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(some, count)):
        yield batch
