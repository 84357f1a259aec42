"""The rules and indicators of this endpoint: what is there, what the server wants, and how the one becomes the other.

Each version is fetched, compared with the hash that the server signed, tried in a confined process of its own, and only
then used by scans. One that does not load never replaces one that does.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from pydantic import ValidationError

from stanch.agent.backoff import Jitter, system_jitter
from stanch.agent.content_base import BASE, base_installed, base_materials
from stanch.agent.content_fetching import PackFetcher, fitting
from stanch.agent.content_store import ContentStore, Entry
from stanch.agent.journal import Journal
from stanch.core.content import RESERVED, Installed, PackIndex, PackRef, Updated
from stanch.core.envelope import ContentBody, Kind
from stanch.core.errors import (
    ActionFailed,
    Invalid,
    NotFound,
    Refused,
    StanchError,
    TimedOut,
    TooLarge,
    VerificationFailed,
)
from stanch.core.scanning import Material

SPREAD_SECONDS = 120.0
"""Over so long the endpoints of a fleet spread their updates when something new is published."""
RETRY_SECONDS = 1800.0
"""After an update that did not work out."""
MAX_WHY = 2000

DAMAGED = "what was there was damaged on the disk"
NOT_LOADED = "content-not-loaded"
LOADED = "content-loaded"
"""What was not loaded before, and now is: otherwise the server would count it as refused for ever."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What became of a pack when it was tried."""

    rules: int
    """How many rules, indicators or hashes count."""
    problems: int = 0
    """How many things do not count."""
    why: str = ""
    """The first of them."""


Trial = Callable[[int], Awaitable[Tried]]
"""Tries the pack that comes out of a pipe. Unavailable or TimedOut if that says nothing of the pack."""
Tell = Callable[[str, Mapping[str, Any]], Awaitable[None]]


async def try_pack(pack: int) -> Tried:
    """Let a confined process read all of it, by what scans read it with."""
    from stanch.worker.ask_lint import ask_lint  # only when there is something new

    looked = await ask_lint(pack)
    shown = [f"{one.file}:{one.line} {one.rule}: {one.text}" for one in looked.problems[:5]]
    why = "; ".join([*([looked.why_incomplete] if looked.why_incomplete else []), *shown])
    return Tried(
        rules=sum(count for count, _ in looked.files),
        problems=sum(wrong for _, wrong in looked.files) + bool(looked.why_incomplete),
        why=why[:MAX_WHY],
    )


class AgentContent:
    """All of it (`core.content.Content`). Updates take turns, whoever asks for them."""

    def __init__(
        self,
        *,
        store: ContentStore,
        journal: Journal,
        fetcher: PackFetcher,
        now: Callable[[], datetime],
        tell: Tell,
        trial: Trial = try_pack,
    ) -> None:
        self._store = store
        self._journal = journal
        self._fetcher = fetcher
        self._now = now
        self._tell = tell
        self._trial = trial
        self._turn = asyncio.Lock()
        self.in_use: Callable[[], Collection[str]] = frozenset
        """Names that tasks scan with, which may be resumed after a restart: they stay until those tasks end."""

    # --- what is there -----------------------------------------------------------------------------------------------

    def installed(self) -> Sequence[Installed]:
        """What scans can use; what comes with the agent first."""
        return (*base_installed(), *(one.installed for one in self._store.all()))

    def wanted(self) -> Sequence[PackRef]:
        """What the server wants it to have, as it signed it last; nothing before that."""
        body = self._journal.get(str(Kind.CONTENT))
        try:
            return ContentBody.model_validate(body).packs if body is not None else ()
        except ValidationError as error:
            log.warning("the content is not understood, and stays as it is", error=str(error)[:500])
            return tuple(_ref(one) for one in self._store.all())

    def materials(self, names: Sequence[str]) -> Sequence[Material]:
        """The files of these, each once; NotFound names what is not there and what is."""
        here = [one.name for one in self.installed()]
        missing = [one for one in names if one not in here]
        if missing:
            raise NotFound(
                "There is no such content on this endpoint",
                got=", ".join(missing),
                expected=", ".join(here),
                hint="Publish it with `stanch content publish`, and order update-content.",
            )
        return tuple(one for name in dict.fromkeys(names) for one in self._materials(name))

    def _materials(self, name: str) -> Sequence[Material]:
        if name in BASE:
            return base_materials(name)
        entry = self._store.current(name)
        if entry is None:
            raise NotFound("The content was removed this moment", got=name)
        try:
            held = self._store.held(entry)
        except (Invalid, TooLarge) as error:
            raise VerificationFailed(
                f"{name} is damaged on the disk of the endpoint",
                got=error,
                hint="Order update-content: it fetches what is damaged anew.",
            ) from error
        return tuple(
            Material(
                kind=entry.kind,
                name=f"{name}/{one.file.name}",
                size=one.file.size,
                sha256=one.file.sha256,
                open=partial(held.part, one),
            )
            for one in held.places
        )

    # --- updates -----------------------------------------------------------------------------------------------------

    async def update(self) -> AsyncGenerator[Updated, None]:
        """Make what is installed what is wanted: fetch, try, use; one by one. Nothing if all of it is so already.

        What the disk has damaged is fetched anew, and told.
        """
        async with self._turn:
            damaged = await asyncio.to_thread(self._store.discard_damaged)
        async for one in self._steps(again=True):
            yield one.model_copy(update={"why": DAMAGED}) if one.name in damaged and not one.why else one

    async def update_by_itself(self) -> AsyncGenerator[Updated, None]:
        """The same, but for versions that are known not to load here."""
        async for one in self._steps(again=False):
            yield one

    async def _steps(self, *, again: bool) -> AsyncGenerator[Updated, None]:
        done = set[str]()
        while True:
            async with self._turn:  # not longer than one of them: whoever listens may never come back
                step = self._next_step(done, again=again)
                if step is None:
                    await asyncio.to_thread(self._store.tidy, [one.sha256 for one in self.wanted()])
                    return
                name, ref = step
                updated = await (self._bring(ref) if ref is not None else self._drop(name))
            done.add(name)
            log.info("content-updated", **updated.model_dump(mode="json", exclude_defaults=True))
            yield updated

    def _next_step(self, done: set[str], *, again: bool) -> tuple[str, PackRef | None] | None:
        """The next name that is not as it should be: what goes comes first, to make room."""
        wanted = {one.name: one for one in self.wanted()}
        for name in sorted(self._store.state.packs.keys() - wanted.keys() - done - frozenset(self.in_use())):
            return name, None
        for name, ref in sorted(wanted.items()):
            entry = self._store.current(name)
            as_wanted = entry is not None and (entry.sha256, entry.version) == (ref.sha256, ref.version)
            if not as_wanted and name not in done and (again or not self._store.why_refused(ref)):
                return name, ref
        return None

    def waits(self) -> bool:
        """Is something still here, only since a task scans with it?"""
        wanted = {one.name for one in self.wanted()}
        return any(name not in wanted for name in self._store.state.packs)

    async def _drop(self, name: str) -> Updated:
        before = self._store.current(name)
        await asyncio.to_thread(self._store.drop, name)
        await asyncio.to_thread(self._store.tidy, [one.sha256 for one in self.wanted()])
        return Updated(name=name, before=before and before.version)

    async def _bring(self, ref: PackRef) -> Updated:
        before = self._store.current(ref.name)
        had = before.version if before is not None else None
        refused = self._store.why_refused(ref)
        try:
            tried = await self._brought(ref, before)
        except (StanchError, OSError) as error:
            why = str(error)[:MAX_WHY]
            if isinstance(error, Invalid):  # of these very bytes: they will not be better next time
                await self._refuse(ref, why, had)
            return Updated(name=ref.name, before=had, after=had, refused=ref.version, why=why)
        if refused:
            await self._tell(LOADED, {"name": ref.name, "loaded": ref.version, "sha256": ref.sha256})
        return Updated(name=ref.name, before=had, after=ref.version, why=tried.why if tried.problems else "")

    async def _brought(self, ref: PackRef, before: Entry | None) -> Tried:
        """Use it from now on; raises if it cannot be had, or nothing of it counts."""
        self._check_allowed(ref)
        index = await self._fetcher.fetch(ref)
        if before is not None and before.sha256 == ref.sha256:  # the same under another number
            tried = Tried(rules=before.rules)
        else:
            tried = await self._try(ref)
        if not tried.rules:
            raise Invalid(f"Nothing in {ref.name} {ref.version} counts", got=tried.why or "no rules")
        await asyncio.to_thread(self._store.use, _entry(ref, index, tried, self._now()))
        return tried

    def _check_allowed(self, ref: PackRef) -> None:
        if ref.name.startswith(RESERVED):
            raise Invalid("The name is kept for what comes with the agent", got=ref.name)
        fits, _ = fitting(tuple(self.wanted()))
        if ref not in fits:
            raise Refused(f"There is more content than an endpoint may have: {ref.name} is left out", got=ref.size)

    async def _try(self, ref: PackRef) -> Tried:
        pack, pipe = os.pipe()
        feeding = asyncio.get_running_loop().run_in_executor(None, self._store.feed, ref.sha256, pipe)
        try:
            return await self._trial(pack)
        except TimedOut:
            raise
        except ActionFailed as error:  # it makes its reader fail: it would do so to every scan
            raise Invalid(error.message, got=error.got) from error
        finally:
            os.close(pack)  # which ends the feeding, if it has not come to its end
            await feeding

    async def _refuse(self, ref: PackRef, why: str, stays: int | None) -> None:
        """Tell it once, and do not try it again until somebody orders that."""
        if not self._store.why_refused(ref):
            detail = {"name": ref.name, "refused": ref.version, "sha256": ref.sha256, "why": why, "in_use": stays}
            await self._tell(NOT_LOADED, detail)
        await asyncio.to_thread(self._store.refuse, ref, why)
        await asyncio.to_thread(self._store.remove, ref.sha256)


class ContentUpdates:
    """Updates by itself: at the start, and whenever the server signs something new."""

    def __init__(
        self, content: AgentContent, *, jitter: Jitter = system_jitter, spread: float = SPREAD_SECONDS
    ) -> None:
        self._content = content
        self._jitter = jitter
        self._spread = spread
        self._news = asyncio.Event()
        self._news.set()

    async def learn(self, _body: ContentBody) -> None:
        """Something new is signed, and in the journal."""
        self._news.set()

    async def run(self, *, retry: float = RETRY_SECONDS) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(self._jitter() * self._spread)
            self._news.clear()
            if not await self._update():
                await self._wait(retry)
                self._news.set()

    async def _update(self) -> bool:
        """Did all of it work out, or is it settled that it does not?"""
        good = True
        try:
            async for one in self._content.update_by_itself():
                good = good and one.refused is None
        except (StanchError, OSError) as error:
            log.warning("content-update-failed", error=str(error))
            return False
        return good and not self._content.waits()

    async def _wait(self, longest: float) -> None:
        """For something new, but not longer than this."""
        try:
            async with asyncio.timeout(longest):
                await self._news.wait()
        except TimeoutError:
            pass


def _ref(one: Entry) -> PackRef:
    return PackRef(name=one.name, kind=one.kind, version=one.version, sha256=one.sha256, size=one.size)


def _entry(ref: PackRef, index: PackIndex, tried: Tried, now: datetime) -> Entry:
    return Entry(**ref.model_dump(), files=len(index.files), rules=min(tried.rules, 10_000_000), since=now)
