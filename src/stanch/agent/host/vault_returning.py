"""Put an item of the vault back: build it beside its place, whole and verified, and give it its name last.

    record "returning" ▸ build, hash, metadata ▸ fsync ▸ record: inode ▸ name ▸ other names, flags ▸ record "returned"

Cut anywhere, `settle` finds by the inode whether the name was given: then it goes on, otherwise what was built goes.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from stanch.agent.host.metadata import apply, make, put_flags
from stanch.agent.host.path_calls import open_folder
from stanch.agent.host.pinned import place
from stanch.agent.host.vault_clearing import settle as settle_taking
from stanch.agent.host.vault_content import Filling, unseal
from stanch.agent.host.vault_items import Items, Record, Return, Stage
from stanch.agent.host.vault_parts import Parts, Work, here, path_of, path_of_descriptor
from stanch.core.errors import (
    ActionFailed,
    Conflict,
    NotFound,
    Protected,
    StanchError,
    TargetGone,
    Unsupported,
    VerificationFailed,
)
from stanch.core.files import FileId, Kind
from stanch.core.types import EndpointPath
from stanch.core.vault import OnConflict, Returned, Returning

MAX_LOST = 100
"""Lines of what was lost."""

MAX_RENAMES = 1000
"""Names that are tried beside one that is taken."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def put_back(parts: Parts, work: Work, returning: Returning) -> Returned:
    """See `core.vault.Vault.put_back`. Blocks."""
    try:
        return _put_back(parts, work, returning)
    except OSError as error:
        raise ActionFailed("The item is not back, or not all of it; try again", got=error) from error


def _put_back(parts: Parts, work: Work, returning: Returning) -> Returned:
    with parts.busy.claim(returning.id, returning.id):
        record = _record(parts, returning.id)
        asked = returning.to or record.item.path
        back = record.way_back
        if record.stage is Stage.RETURNED and back and back.answer and back.asked == asked and _is_untouched(back):
            return back.answer
        with _folder(parts, work, record, returning) as place_:
            return _Return(parts, work, record, returning, place_).run()


def _record(parts: Parts, id_: str) -> Record:
    record = parts.items.find(id_)
    if record is not None and record.stage in {Stage.MOVING, Stage.TAKING}:
        record = settle_taking(parts, record)
    if record is not None and record.stage is Stage.RETURNING:
        record = settle(parts, record)
    if record is None or record.stage is Stage.REMOVING:
        raise NotFound("There is no such item in the vault", got=id_)
    return record


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item goes."""

    folder: int
    """Descriptor of the folder."""
    path: EndpointPath
    """The folder, all links on the way resolved."""
    name: str
    """The name in it that is wanted."""
    own: bool
    """It is where it was."""

    def full(self, name: str) -> EndpointPath:
        """The full path of a name in it."""
        return path_of(here(self.path) / name)


@contextmanager
def _folder(parts: Parts, work: Work, record: Record, returning: Returning) -> Iterator[Place]:
    wanted = returning.to or record.item.path
    parent, name = here(wanted).parent, here(wanted).name
    if name in {"", ".."}:
        raise ActionFailed("An item goes back to the path of a file", got=wanted)
    with ExitStack() as stack:
        own = returning.to is None
        try:
            folder = _opened(parent, itself=own)
        except (FileNotFoundError, NotADirectoryError):
            folder, own = _fallback(work, parent, returning), False
        except OSError as error:
            raise ActionFailed(f"The folder of {wanted} cannot be used", got=error.strerror) from error
        stack.callback(os.close, folder)
        found = Place(folder, path_of_descriptor(folder), name, own)
        # What must not be touched in its place is not brought to another one either.
        work.orderer.forbidden(record.item.path)
        check = work.orderer.forbidden if own else work.orderer.unwritable
        check(found.full(name))
        if not own:
            _refuse_protected(parts, found.full(name), record)
        if os.fstatvfs(folder).f_flag & os.ST_RDONLY:
            raise Unsupported(
                f"{found.path} is on a read-only file system", hint="Mount it writable, or name another place."
            )
        yield found


def _opened(parent: Path, *, itself: bool) -> int:
    """Open a folder; FileNotFoundError if it must be `itself`, and a link leads elsewhere since. OSError.

    Whoever owns a folder above could otherwise have root put the file wherever a link leads.
    """
    folder = open_folder(os.fsencode(parent))
    if itself and path_of_descriptor(folder) != path_of(parent):
        os.close(folder)
        raise FileNotFoundError(errno.ENOENT, "a link leads elsewhere now")
    return folder


def _refuse_protected(parts: Parts, path: EndpointPath, record: Record) -> None:
    """Nothing goes where even a new file would do harm: asked as the file that it will be."""
    why = parts.why_protected(path, os.stat_result((record.item.info.mode | stat.S_IFREG, 0, 0, 1, *(0,) * 6)))
    if why is not None:
        raise Protected(f"Nothing may be put to {path}", got=why)


def _fallback(work: Work, parent: Path, returning: Returning) -> int:
    """The folder for what has none any more, made if need be."""
    fallback = returning.fallback
    if fallback is None:
        raise TargetGone(
            f"The folder {path_of(parent)} is gone, or a link by now",
            hint="Name another place, or a folder to fall back to.",
        )
    work.orderer.unwritable(path_of(here(fallback).resolve()))
    try:
        here(fallback).mkdir(mode=0o700, parents=True, exist_ok=True)
        return open_folder(fallback.raw)
    except OSError as error:
        raise ActionFailed(f"The folder {fallback} cannot be used", got=error.strerror) from error


@dataclass(slots=True)
class _Return:
    """One item on its way back."""

    parts: Parts
    work: Work
    record: Record
    returning: Returning
    place: Place

    def run(self) -> Returned:
        """All of it."""
        before, token = self.record, f".stanch-{token_hex(8)}"
        back = Return(
            asked=self.returning.to or before.item.path,
            own=self.place.own,
            name=self.place.full(self._free_name()),
            temporary=self.place.full(token),
        )
        self._write(back)
        try:
            back = self._build(token, back)
            self._give_name(token, back)
        except BaseException as error:
            with suppress(OSError, StanchError):  # the first error is the one to hear about
                remove_temporary(self.place.folder, token)
                self.parts.items.write(before.at(Stage.HELD, way_back=None))
            if isinstance(error, OSError):
                raise _explained(error, back.name) from error
            raise
        return finish(self.parts, self.record)

    def _write(self, back: Return) -> Return:
        self.record = self.parts.items.write(self.record.at(Stage.RETURNING, way_back=back))
        return back

    # --- the name ----------------------------------------------------------------------------------------------------

    def _names(self) -> Iterator[str]:
        """The name that is wanted, and those beside it if it may be another one."""
        yield self.place.name
        if self.returning.on_conflict is OnConflict.RENAME:
            for n in range(1, MAX_RENAMES + 1):
                yield beside(self.place.name, n)

    def _free_name(self) -> str:
        """The first that is free now; Conflict."""
        for name in self._names():
            if status_at(self.place.folder, name) is None:
                return name
        raise self._conflict()

    def _give_name(self, token: str, back: Return) -> None:
        """Somebody may have been faster: then the next name."""
        for name in self._names():
            if status_at(self.place.folder, name) is not None:
                continue
            full = self.place.full(name)
            if full != back.name:
                back = self._write(back.model_copy(update={"name": full}))
            with suppress(FileExistsError):
                place(self.place.folder, os.fsencode(token), os.fsencode(name))
                return
        raise self._conflict()

    def _conflict(self) -> Conflict:
        return Conflict(
            f"There is something at {self.place.full(self.place.name)}", hint="Rename it, replace it, or name a place."
        )

    # --- what is built -----------------------------------------------------------------------------------------------

    def _build(self, token: str, back: Return) -> Return:
        """Everything but its name, on the disk; its inode and what was lost in the record."""
        folder, record = self.place.folder, self.record
        if record.item.info.kind is Kind.FILE:
            descriptor = self._filled(token)
        else:
            make(record.metadata, folder, os.fsencode(token))
            descriptor = os.open(token, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            lost = apply(record.metadata, descriptor)
            if record.item.info.kind is Kind.FILE:
                os.fsync(descriptor)
            else:
                os.fsync(folder)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        file = FileId(device=status.st_dev, inode=status.st_ino)
        return self._write(back.model_copy(update={"file": file, "lost": tuple(lost)}))

    def _filled(self, token: str) -> int:
        """A new file with the content, verified; its descriptor."""
        record, size = self.record, self.record.item.info.size
        self._check_room()
        source = open_content(self.parts.items, record)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(token, flags, 0o600, dir_fd=self.place.folder)
            try:
                os.truncate(target, size)
                digest = self._unsealed(source, target)
                if digest != record.data_sha256:
                    raise VerificationFailed("The item is damaged", got=digest, expected=record.data_sha256)
            except BaseException:
                os.close(target)
                raise
        finally:
            os.close(source)
        return target

    def _unsealed(self, source: int, target: int) -> str:
        filling = Filling(target, self.record.extents, self.record.item.info.size, self.work.watch)
        try:
            unseal(source, self.parts.keys.own(), filling)
        finally:
            digest = filling.end()
        return digest

    def _check_room(self) -> None:
        """A disk that will not do is seen before it is filled."""
        disk = os.fstatvfs(self.place.folder)
        need, free = sum(one.length for one in self.record.extents), disk.f_bavail * disk.f_frsize
        if disk.f_blocks and need > free:
            raise OSError(errno.ENOSPC, f"{need} bytes are needed, {free} are free")


def beside(name: str, n: int) -> str:
    """A name beside one that is taken, within what a name may have."""
    more = f".restored-{n}"
    return os.fsdecode(os.fsencode(name)[: 255 - len(more)]) + more


def status_at(folder: int, name: str) -> os.stat_result | None:
    """What is there, links not followed; None if nothing is."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def open_content(items: Items, record: Record) -> int:
    """The age file of an item; VerificationFailed if there is none, or not one of this size."""
    try:
        source = os.open(items.content_path(record.item.id), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise VerificationFailed("The content of the item cannot be found", got=error.strerror) from error
    size = os.fstat(source).st_size
    if size != record.item.stored:
        os.close(source)
        raise VerificationFailed("The content of the item is damaged", got=f"{size} bytes", expected=record.item.stored)
    return source


def remove_temporary(folder: int, token: str) -> None:
    """Remove what was built and did not get its name."""
    with suppress(FileNotFoundError):
        status = os.stat(token, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.rmdir(token, dir_fd=folder)
        else:
            os.unlink(token, dir_fd=folder)


# --- after the name --------------------------------------------------------------------------------------------------


def finish(parts: Parts, record: Record) -> Returned:
    """What comes after the name, as often as a crash makes it necessary: other names, flags, the record. OSError."""
    back = record.way_back
    if back is None:
        raise ActionFailed("The item is not on its way back", got=record.item.id)
    descriptor = os.open(back.name.raw, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        others, lost = _others(record, back, descriptor)
        lost += put_flags(record.metadata, descriptor)
        changed = os.fstat(descriptor).st_ctime_ns
    finally:
        os.close(descriptor)
    answer = Returned(
        id=record.item.id,
        path=back.name,
        was=record.item.path,
        others=tuple(others),
        lost=(*back.lost, *lost)[:MAX_LOST],
    )
    parts.items.write(
        record.at(Stage.RETURNED, way_back=back.model_copy(update={"answer": answer, "changed_ns": changed}))
    )
    return answer


def _others(record: Record, back: Return, file: int) -> tuple[list[EndpointPath], list[str]]:
    """Give a file its other names again where it was; those that are back, and what is to be said of the rest."""
    there: list[EndpointPath] = []
    lost: list[str] = []
    for other in record.item.others if back.own else ():
        why = _linked(file, other)
        if why:
            lost.append(f"its other name {other}: {why}")
        else:
            there.append(other)
    if record.item.others and not back.own:
        lost.append(f"its {len(record.item.others)} other names: it is at another place")
    if record.item.names_left:
        lost.append(f"it is no longer one file with the {record.item.names_left} names that were left")
    return there, lost


def _linked(file: int, other: EndpointPath) -> str:
    """Make one other name; why it cannot be."""
    parent, name = here(other).parent, here(other).name
    try:
        folder = _opened(parent, itself=True)
    except OSError as error:
        return f"its folder cannot be used: {error.strerror}"
    try:
        there, own = status_at(folder, name), os.fstat(file)
        if there is None:
            os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=folder, follow_symlinks=True)
            os.fsync(folder)
        elif (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
            return "something else is there"
    except OSError as error:
        return error.strerror or str(error)
    finally:
        os.close(folder)
    return ""


# --- after a crash ---------------------------------------------------------------------------------------------------


def settle(parts: Parts, record: Record) -> Record:
    """Finish a return whose name was given, undo any other. OSError."""
    back = record.way_back
    if back is None or record.stage is not Stage.RETURNING:
        return record
    if _is_there(back):
        finish(parts, record)
        return parts.items.read(record.item.id)
    with suppress(FileNotFoundError, NotADirectoryError):
        folder = os.open(here(back.temporary).parent, _FOLDER)
        try:
            remove_temporary(folder, back.temporary.name)
        finally:
            os.close(folder)
    return parts.items.write(record.at(Stage.HELD, way_back=None))


def _is_there(back: Return) -> bool:
    """Is what was built under the name that it was to get?"""
    try:
        status = os.lstat(back.name.raw)
    except OSError:
        return False
    return back.file == FileId(device=status.st_dev, inode=status.st_ino)


def _is_untouched(back: Return) -> bool:
    """Is it there as it was when it came back? Changed since, it is another file: this item is all that is left."""
    with suppress(OSError):
        return _is_there(back) and os.lstat(back.name.raw).st_ctime_ns == back.changed_ns
    return False


_MEANINGS = {
    errno.ENOSPC: "its disk is full",
    errno.EDQUOT: "the quota there is used up",
    errno.EROFS: "the file system is read-only",
    errno.EPERM: "the folder is immutable, or its file system forbids it",
    errno.EACCES: "the agent may not write there",
    errno.ENAMETOOLONG: "the name is too long there",
    errno.EFBIG: "it is too large for that file system",
}


def _explained(error: OSError, path: EndpointPath) -> StanchError:
    why = _MEANINGS.get(error.errno or 0, error.strerror)
    return ActionFailed(f"The item cannot go back to {path}: {why}", got=error.strerror)
