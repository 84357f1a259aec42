"""Disables what starts by itself and enables it again: lines, masks, and what systemd and udev are told of it.

Everything is found below a root folder, and through descriptors. Where systemd does not run from that root (an image,
a container), only files are changed.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from stanch.agent.host import run as programs
from stanch.agent.host.autorun_lines import before as text_before
from stanch.agent.host.autorun_lines import (
    commented,
    entry_at,
    find,
    same_entries,
    uncommented,
    why_not_in_block,
    why_not_in_pam,
    why_not_in_shell,
)
from stanch.agent.host.autorun_masks import (
    TARGET,
    UNITS,
    is_of_system,
    mask_of,
    packaged_twins,
    why_needed,
    why_untouchable,
)
from stanch.agent.host.metadata import capture
from stanch.agent.host.path_calls import path_of, pin_below
from stanch.agent.host.pinned import Pinned, find_aside
from stanch.agent.host.rewriting import Rewrite, content_of, explaining, held_below
from stanch.core.autoruns import Autorun, Method, Place, Way
from stanch.core.errors import Conflict, NotFound, StanchError, TargetGone, Unsupported
from stanch.core.files import Kind
from stanch.core.types import EndpointPath, seconds

T = TypeVar("T")

_WITHIN = seconds(60)
"""For one call of systemctl, udevadm or visudo."""

_UNIT_NAME = re.compile(r"[A-Za-z0-9_:.\\@][A-Za-z0-9_:.\\@-]{0,254}")
_SYSTEMD = UNITS | {Place.SYSTEMD_GENERATOR, Place.PRELOAD, Place.INIT}
_JUDGES = MappingProxyType(
    {
        Place.PAM: why_not_in_pam,
        Place.SHELL: why_not_in_shell,
        Place.RC: why_not_in_shell,
        Place.OTHER: why_not_in_block,
    }
)
"""Who says where a line cannot be commented out alone."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_FRONT_OF = ("/usr/", "/lib/", "/run/")
_ODD_UNIT = "is no unit of the system's manager: what runs of it goes on (see kill-process)"
_NOT_HERE = "systemd does not run from here: only files were changed"


class Run(Protocol):
    """Runs a program to its end: `run.run`."""

    def __call__(self, argv: Sequence[str], *, within: Any) -> Awaitable[programs.Finished]:
        """Its exit status and output. Unsupported if it is not installed, TimedOut, ActionFailed."""
        ...


def allow_all(_path: EndpointPath) -> None:
    """The owner of the machine forbids nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutorunChanges:
    """The changing half of `core.autoruns.Autoruns`, below a root folder."""

    root: Path = Path("/")
    run: Run | None = None
    """How programs are run; for the machine itself, and for nothing else, they are by default."""
    forbidden: Callable[[EndpointPath], None] = allow_all
    """ForbiddenHere for what the owner of the machine forbids."""

    # --- before anything changes ---

    async def why_not(self, one: Autorun) -> str | None:
        """See `core.autoruns`."""
        why = why_untouchable(one) or why_needed(one)
        return why or await asyncio.to_thread(self._why_line_stays, one)

    def _why_line_stays(self, one: Autorun) -> str | None:
        judge = _JUDGES.get(one.place)
        if not one.line or judge is None:
            return None
        with suppress(StanchError), held_below(self.root, one.path) as pinned:
            content = content_of(pinned)
            return judge(content, one.line) if one.line <= content.count(b"\n") + 1 else None
        return None

    async def way(self, one: Autorun) -> Way:
        """See `core.autoruns`."""
        return await asyncio.to_thread(self._way, one)

    def _way(self, one: Autorun) -> Way:
        mask = mask_of(one)
        way = self._line_way(one) if one.line else self._mask_way(one, mask) if mask else None
        way = way or self._vault_way(one, one.path)
        self._refuse_borrowed(way)
        self.forbidden(way.path)
        return way

    def _refuse_borrowed(self, way: Way) -> None:
        """Conflict where a link that somebody made in a folder of theirs leads to what is not theirs.

        Else a user could have an innocent file disabled, as if it were one of their own.
        """
        named = way.file or way.path
        if way.method is Method.MASK and not way.takes:
            return
        with suppress(TargetGone), held_below(self.root, way.path) as real, held_below(self.root, named) as said:
            owner = None if said.path == named else self._owner_above(named)
            if owner is not None and {real.status.st_uid, said.status.st_uid, os.fstat(said.folder).st_uid} != {owner}:
                raise Conflict(
                    f"A link leads from {named} to what is not of the same owner",
                    got=said.path,
                    hint=f"If that is meant, name {said.path} by the id that it has there; else remove the link.",
                )

    def _owner_above(self, path: EndpointPath) -> int | None:
        """The first on the way to something, root aside, who could have put a link there; None if there is nobody."""
        steps = path.raw.strip(b"/").split(b"/")[:-1]
        top = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for n in range(1, len(steps) + 1):
                held = pin_below(top, b"/" + b"/".join(steps[:n]), follow=False)
                try:
                    if (uid := os.fstat(held).st_uid) != 0:
                        return uid
                finally:
                    os.close(held)
        finally:
            os.close(top)
        return None

    def _line_way(self, one: Autorun) -> Way:
        with held_below(self.root, one.path) as pinned, explaining(one.path):
            content = content_of(pinned)
            before = hashlib.sha256(content).hexdigest()
            if one.sha256 != before:
                raise Conflict(f"{pinned.path} was changed since it was looked at", hint="Order it again.")
            entries = same_entries(content, entry_at(content, one.line, one.place), one.place)
            return _begun(one, Method.LINE, pinned.path).model_copy(
                update={
                    "lines": tuple(map(EndpointPath.of, entries)),
                    "before": before,
                    "modified_ns": pinned.status.st_mtime_ns,
                    "flags": capture(pinned.descriptor).flags,
                }
            )

    def _mask_way(self, one: Autorun, mask: EndpointPath) -> Way | None:
        """None if nothing but taking its file away would do."""
        with suppress(TargetGone), held_below(self.root, mask) as pinned:
            if _is_mask(pinned):
                raise Conflict(f"{one.name} is masked already: nothing starts it", got=mask)
            if mask != one.path and (one.place not in UNITS or one.path.startswith(_IN_FRONT_OF)):
                raise Conflict(f"Something stands in front of {one.path}: it does not count", got=mask)
            # Without a file of its own, a unit that a package brought counts again: that one shall be as it was.
            twin = any(self._is_there(EndpointPath(path)) for path in packaged_twins(mask))
            return self._vault_way(one, mask, method=Method.VAULT if twin else Method.MASK)
        if not mask.startswith("/etc/"):
            return None  # folders in a home are its owner's
        return _begun(one, Method.MASK, mask)

    def _vault_way(self, one: Autorun, path: EndpointPath, *, method: Method = Method.VAULT) -> Way:
        with held_below(self.root, path) as pinned:
            if pinned.kind not in {Kind.FILE, Kind.LINK}:
                raise Unsupported(f"{path} cannot be disabled", got=pinned.kind.words, expected="a file or a link")
            before = _sha256(pinned) if pinned.kind is Kind.FILE else None
            return _begun(one, method, pinned.path).model_copy(update={"takes": True, "before": before})

    def _is_there(self, path: EndpointPath) -> bool:
        with suppress(TargetGone), held_below(self.root, path):
            return True
        return False

    # --- there and back ---

    async def disable(self, way: Way) -> None:
        """See `core.autoruns`."""
        self.forbidden(way.path)
        if way.method is Method.LINE:
            await _to_its_end(self._rewritten(way, partial(_disabled, way)))
        elif way.method is Method.MASK:
            await asyncio.to_thread(self._mask, way)

    async def enable(self, way: Way) -> tuple[str, ...]:
        """See `core.autoruns`."""
        self.forbidden(way.path)
        if way.method is Method.LINE:
            try:
                await _to_its_end(self._rewritten(way, partial(_enabled, way)))
            except TargetGone as error:
                raise _lost(NotFound, way, error.message) from error
        elif way.method is Method.MASK:
            return await asyncio.to_thread(self._unmask, way)
        return ()

    async def is_disabled(self, way: Way) -> bool:
        """See `core.autoruns`."""
        return await asyncio.to_thread(self._is_disabled, way)

    def _is_disabled(self, way: Way) -> bool:
        try:
            with held_below(self.root, way.path) as pinned:
                if way.method is Method.LINE:
                    found = find(content_of(pinned), _entries(way), way.task, way.place)
                    return bool(found.marked) and not found.live
                return way.method is Method.MASK and _is_mask(pinned)
        except TargetGone:
            return way.method is not Method.MASK  # nothing starts from a file that is gone

    async def _rewritten(self, way: Way, change: Callable[[bytes], bytes | None]) -> None:
        """Give a file the content that `change` makes of it; None for the one that it has."""
        rewrite = await asyncio.to_thread(self._opened, way)
        try:
            new = change(rewrite.old)
            if new is None:
                await asyncio.to_thread(rewrite.finish, way.flags)
                return
            as_before = hashlib.sha256(new).hexdigest() == way.before
            modified = way.modified_ns if as_before else None
            await asyncio.to_thread(partial(rewrite.build, new, modified_ns=modified))
            if way.place is Place.SUDO and not as_before:
                await self._check_sudoers(way, rewrite.built)
            await asyncio.to_thread(partial(rewrite.commit, flags=way.flags))
        finally:
            await asyncio.to_thread(rewrite.close)

    def _opened(self, way: Way) -> Rewrite:
        token = hashlib.sha256(f"{way.task}/{way.id}".encode()).hexdigest()[:16]
        rewrite = Rewrite.open(self.root, way.path, f"line-{token}")
        if rewrite.pinned.path != way.path:
            rewrite.close()
            raise Conflict(f"A link leads from {way.path} to another file by now", got=rewrite.pinned.path)
        return rewrite

    async def _check_sudoers(self, way: Way, path: bytes) -> None:
        """A file with a mistake in it would let nobody become root."""
        with suppress(Unsupported):
            done = await self._program("visudo", "-c", "-q", "-f", os.fsdecode(path))
            if done is not None and done.returncode:
                raise Conflict(
                    f"visudo refuses {way.path} as it would be; nothing was changed",
                    got=(done.stderr or done.stdout)[-500:].decode("utf-8", "replace").strip(),
                    hint="Look at the file with visudo.",
                )

    # --- masks ---

    def _mask(self, way: Way) -> None:
        with ExitStack() as stack, explaining(way.path):
            folder, name = self._folder(way, stack, make=True), _name(way)
            try:
                os.symlink(TARGET, name, dir_fd=folder)
            except FileExistsError:
                with held_below(self.root, way.path) as pinned:
                    if not _is_mask(pinned):
                        raise Conflict(f"Something is at {way.path} by now", got=pinned.kind.words) from None
            os.fsync(folder)

    def _unmask(self, way: Way) -> tuple[str, ...]:
        token = f"mask-{way.id}"
        with ExitStack() as stack, explaining(way.path):
            try:
                folder = self._folder(way, stack, make=False)
                left = stack.enter_context(find_aside(folder, token, _name(way)))
                if left is not None:
                    left.remove()
                pinned = stack.enter_context(held_below(self.root, way.path))
            except (FileNotFoundError, TargetGone):
                return ()
            if not _is_mask(pinned):
                return () if way.takes else (f"something else is at {way.path}: it was left as it is",)
            pinned.aside(token).remove()
        return ()

    def _folder(self, way: Way, stack: ExitStack, *, make: bool) -> int:
        """The folder of a mask, no link on the way to it. OSError; Conflict."""
        parent = way.path.raw.rpartition(b"/")[0]
        top = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, top)
        try:
            held = pin_below(top, parent)
        except FileNotFoundError:
            if not make:
                raise
            self._make(top, parent)
            held = pin_below(top, parent)
        stack.callback(os.close, held)
        folder = os.open(b".", _FOLDER, dir_fd=held)
        stack.callback(os.close, folder)
        real = path_of(folder).removeprefix(path_of(top).rstrip(b"/"))
        if real != parent and not parent.startswith(b"/etc/"):
            raise Conflict(f"A link leads from {way.path} to another folder by now", got=EndpointPath.of(real))
        return folder

    def _make(self, top: int, path: bytes) -> None:
        """The folders of a path that are missing, as an administrator makes them."""
        steps = path.strip(b"/").split(b"/")
        for n in range(1, len(steps) + 1):
            above = pin_below(top, b"/" + b"/".join(steps[: n - 1]))
            try:
                with suppress(FileExistsError):
                    os.mkdir(steps[n - 1], 0o755, dir_fd=above)
            finally:
                os.close(above)

    # --- systemd and udev ---

    async def reload(self, places: Collection[Place]) -> tuple[str, ...]:
        """See `core.autoruns`."""
        notes: tuple[str, ...] = ()
        if _SYSTEMD & set(places):
            notes += await self._systemctl("daemon-reload")
        if Place.UDEV in places and self._runs_here:
            with suppress(Unsupported):
                notes += await self._told("udevadm", "control", "--reload")
        return notes

    async def stop(self, ways: Sequence[Way]) -> tuple[str, ...]:
        """See `core.autoruns`."""
        return await self._of_units(ways, "stop")

    async def start(self, ways: Sequence[Way]) -> tuple[str, ...]:
        """See `core.autoruns`."""
        return await self._of_units(ways, "start")

    async def _of_units(self, ways: Sequence[Way], verb: str) -> tuple[str, ...]:
        """One call for all: each may take its time to end."""
        ran = [way for way in ways if way.was_running and way.place in UNITS and self._runs_here]
        notes = tuple(f"{way.name} {_ODD_UNIT}"[:4000] for way in ran if not _is_plain(way))
        plain = [way for way in ran if _is_plain(way)]
        # Where only the file before a package's unit is taken or comes back, that unit goes on as it is now.
        anew = [_unit(way) for way in plain if way.method is Method.VAULT]
        for one, units in (
            (verb, [_unit(way) for way in plain if way.method is not Method.VAULT]),
            ("try-restart", anew),
        ):
            notes += await self._systemctl(one, "--", *units) if units else ()
        return notes

    async def _systemctl(self, *arguments: str) -> tuple[str, ...]:
        return await self._told("systemctl", *arguments) if self._runs_here else (_NOT_HERE,)

    async def _told(self, *argv: str) -> tuple[str, ...]:
        """What did not work, in words."""
        try:
            done = await self._program(*argv)
        except StanchError as error:
            return (f"{' '.join(argv)}: {error}"[:500],)
        if done is None or done.returncode == 0:
            return ()
        said = (done.stderr or done.stdout)[-300:].decode("utf-8", "replace").strip()
        return (f"{' '.join(argv)} ended with {done.returncode}: {said}",)

    async def _program(self, *argv: str) -> programs.Finished | None:
        run = self._runner
        return None if run is None else await run(argv, within=_WITHIN)

    @property
    def _runner(self) -> Run | None:
        """The machine's own programs are for the machine itself: an image must not stop a unit of its host."""
        if self.run is None and self.root == Path("/"):
            return programs.run
        return self.run

    @property
    def _runs_here(self) -> bool:
        return self._runner is not None and (self.root / "run/systemd/system").is_dir()


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Cancelled, it ends all the same: it is short, and a thread cannot be stopped."""
    running = asyncio.ensure_future(work)  # noqa: TID251 - it is awaited here, cancelled or not
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()
        raise


def _begun(one: Autorun, method: Method, path: EndpointPath) -> Way:
    """The parts that every way has."""
    return Way(
        id=one.id,
        place=one.place,
        name=one.name,
        method=method,
        path=path,
        file=one.path if one.path != path else None,
        was_running=one.running,
    )


def _unit(way: Way) -> str:
    return way.name.partition(" ")[0]


def _is_plain(way: Way) -> bool:
    """Is it a unit of the system's manager, with a name that systemctl takes for nothing else?"""
    return is_of_system(way.path) and _UNIT_NAME.fullmatch(_unit(way)) is not None


def _entries(way: Way) -> list[bytes]:
    return [EndpointPath(one).raw for one in way.lines]


def _name(way: Way) -> bytes:
    return way.path.raw.rpartition(b"/")[2]


def _is_mask(pinned: Pinned) -> bool:
    return pinned.kind is Kind.LINK and os.readlink(b"", dir_fd=pinned.descriptor) == os.fsencode(TARGET)


def _sha256(pinned: Pinned) -> str:
    with explaining(pinned.path), open(pinned.reopen(), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
        return hashlib.file_digest(file, "sha256").hexdigest()


def _disabled(way: Way, content: bytes) -> bytes | None:
    entries = _entries(way)
    found = find(content, entries, way.task, way.place)
    if found.marked and not found.live:
        return None
    # Other lines of the same file may have been commented out by the same task.
    if hashlib.sha256(text_before(content, way.task)).hexdigest() != way.before:
        raise Conflict(
            f"{way.path} was changed since it was looked at; nothing was done to it",
            hint="Look at it again with list-autoruns, and repeat.",
        )
    return commented(content, entries, way.task, way.place)


def _enabled(way: Way, content: bytes) -> bytes | None:
    found = find(content, _entries(way), way.task, way.place)
    if found.marked:
        return uncommented(content, _entries(way), way.task, way.place)
    if found.live:
        return None
    raise _lost(Conflict, way, "its mark is not there any more")


def _lost(kind: type[StanchError], way: Way, why: str) -> StanchError:
    return kind(
        f"The line of {way.path} cannot be put back: {why}",
        expected=way.lines[0][:2000] if way.lines else None,
        hint="Put the line back by hand if it is wanted.",
    )
