"""A name in a folder, both held by descriptors: whatever is done to the path meanwhile, this very file is acted upon.

A path is walked once. Then the folder is a descriptor, and so is what the name led to. To take the name away, it is
first moved aside within its folder, and what was moved is compared with what was pinned: so a swap in between is seen
before anything is lost, and undone.

All of it blocks: call it in a thread. OSError stands for a disk that fails; what a person can do something about is a
StanchError.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE, flags_of, reopened
from stanch.agent.host.path_calls import open_folder, path_of, rename_exclusively
from stanch.core.errors import ActionFailed, NotVerified, StanchError, TargetGone, Unsupported
from stanch.core.files import Kind
from stanch.core.types import MAX_PATH_BYTES, EndpointPath

MAX_NAME = 255
"""Bytes of a name, on the file systems of Linux."""

_TOKEN = re.compile(r"[0-9A-Za-z_-]{1,100}")
_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DELETED = b" (deleted)"
_FREE_NAMES = 100

_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.FOLDER,
    stat.S_IFLNK: Kind.LINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
}

MOUNT_POINT = "it is a mount point"
READ_ONLY = "its file system is mounted read-only"

_HINTS = {
    MOUNT_POINT: "What is mounted there must be unmounted first.",
    READ_ONLY: "It must be mounted writable first.",
}


def kind_of(mode: int) -> Kind:
    """What a mode (st_mode) says that something is."""
    return _KINDS[stat.S_IFMT(mode)]


def same_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Do they describe the same inode?"""
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def rename_without_replacing(folder: int, old: bytes, new: bytes) -> None:
    """Rename within a folder; FileExistsError if the new name is taken, Unsupported where that cannot be told.

    A file system that knows no exclusive rename (such as NFS) gets a second name made and the first removed; that can
    be done to anything but a folder.
    """
    try:
        rename_exclusively(folder, old, new)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
            raise
        _link_and_unlink(folder, old, new)


def _link_and_unlink(folder: int, old: bytes, new: bytes) -> None:
    try:
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}:
            raise
        raise Unsupported(
            f"{_shown(folder, old)} cannot be moved safely: its file system may overwrite what is there",
            got=error.strerror,
            expected="renameat2 with RENAME_NOREPLACE, or hard links",
            hint="Copy it to another file system.",
        ) from error
    os.unlink(old, dir_fd=folder)


def place(folder: int, temporary: bytes | str, name: bytes | str) -> None:
    """Give what was built under a temporary name its own, on the disk when it returns; FileExistsError if it is taken.

    Unsupported for a read-only file system, an immutable folder, or a file system that may overwrite. OSError.
    """
    old, new = os.fsencode(temporary), os.fsencode(name)
    try:
        rename_without_replacing(folder, old, new)
    except FileExistsError:
        raise
    except OSError as error:
        _raise_explained(error, folder, old, _shown(folder, new))
    os.fsync(folder)


# --- aside -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Aside:
    """A name that was moved aside within its folder: it can be removed, or brought back. Borrows its descriptors."""

    folder: int
    """Descriptor of the folder."""

    descriptor: int
    """Holds what was moved (O_PATH)."""

    temporary: bytes
    """What it is called now."""

    name: bytes
    """What it was called."""

    @property
    def status(self) -> os.stat_result:
        """Of what was moved, as it is now."""
        return os.fstat(self.descriptor)

    def remove(self) -> int:
        """Remove it, on the disk when it returns; how many names of the same file are left (0 for a folder).

        TargetGone if another thing has this name by now; NotVerified if it was swapped at the last moment; OSError,
        such as ENOTEMPTY for a folder that is not empty.
        """
        folder, before = stat.S_ISDIR(self.status.st_mode), self.status.st_nlink
        self._check()
        if folder:
            os.rmdir(self.temporary, dir_fd=self.folder)
        else:
            os.unlink(self.temporary, dir_fd=self.folder)
        os.fsync(self.folder)
        return 0 if folder else self._left(before)

    def _left(self, before: int) -> int:
        try:
            left = self.status.st_nlink
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ESTALE}:
                raise
            return 0  # a network file system knows it no more
        if left >= before:
            raise NotVerified(
                f"{self._shown} was swapped while it was removed, or got another name",
                got=f"{left} names",
                expected=f"{before - 1}",
                hint="Isolate the endpoint or end the process that does it, then try again.",
            )
        return left

    def back(self) -> None:
        """Give it its name again, on the disk when it returns; FileExistsError if it is taken. TargetGone, OSError."""
        self._check()
        if self.temporary != self.name:
            rename_without_replacing(self.folder, self.temporary, self.name)
            os.fsync(self.folder)

    def _check(self) -> None:
        if not leads_to(self.folder, self.temporary, self.descriptor):
            raise TargetGone(f"{self._shown} was moved away while it was aside")

    @property
    def _shown(self) -> EndpointPath:
        return _shown(self.folder, self.name)


def aside_name(token: str) -> bytes:
    """What something is called while it is aside; ValueError for a token that is no plain word."""
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"got {token[:100]!r}, expected letters and digits")
    return b".stanch-" + token.encode()


@contextmanager
def find_aside(folder: int, token: str, name: bytes) -> Iterator[Aside | None]:
    """What an earlier run left aside in a folder, to remove it or to give it its name again; None if there is nothing.

    Anybody may have made something of this name: compare its `status` with what was taken. OSError.
    """
    temporary = aside_name(token)
    try:
        descriptor = os.open(temporary, _PIN, dir_fd=folder)
    except FileNotFoundError:
        yield None
        return
    try:
        yield Aside(folder, descriptor, temporary, name)
    finally:
        os.close(descriptor)


# --- pinned ----------------------------------------------------------------------------------------------------------


class Pinned:
    """A name in a folder, and what it led to when it was looked at. Close it, or use it in a `with`."""

    def __init__(self, path: EndpointPath, name: bytes, folder: int, descriptor: int) -> None:
        self.path = path
        """Where it is, all links on the way resolved; the name itself is not followed."""
        self.name = name
        """The last component."""
        self.folder = folder
        """Descriptor of its folder, opened for reading."""
        self.descriptor = descriptor
        """Holds the thing itself (O_PATH)."""
        self.kind = kind_of(os.fstat(descriptor).st_mode)
        """What it is."""

    @property
    def status(self) -> os.stat_result:
        """Of the pinned thing, as it is now, wherever it may be."""
        return os.fstat(self.descriptor)

    def reopen(self) -> int:
        """Open the pinned file for reading; its access time stays where the kernel allows that. Close what you get.

        Unsupported for what is no regular file: opening a FIFO waits, opening a device is an act. OSError.
        """
        if self.kind is not Kind.FILE:
            raise Unsupported(f"{self.path} cannot be read as a file", got=self.kind.words, expected="a regular file")
        return reopened(self.descriptor)

    def still_there(self) -> bool:
        """Does the name in the folder lead to the pinned thing? OSError."""
        return leads_to(self.folder, self.name, self.descriptor)

    def refuse_unmovable(self) -> None:
        """Unsupported if its name cannot be taken away, whatever is tried: seen before anything is changed."""
        if os.fstatvfs(self.folder).f_flag & os.ST_RDONLY:
            raise _unmovable(self.path, READ_ONLY)
        if _mount_id(self.folder) != _mount_id(self.descriptor):
            raise _unmovable(self.path, MOUNT_POINT)
        if why := _why_folder_is_shut(self.folder):
            raise _unmovable(self.path, why)

    def aside(self, token: str) -> Aside:
        """Move the name aside, as `.stanch-TOKEN` in the same folder, and see that it was the pinned thing.

        If it was another one, that gets its name back, and TargetGone says so. Unsupported for a mount point, a
        read-only file system, an immutable thing or folder; ActionFailed if something of that token is there. OSError.
        """
        if not self.still_there():
            raise _gone(self.path)
        temporary = aside_name(token)
        try:
            rename_without_replacing(self.folder, self.name, temporary)
        except OSError as error:
            if self._cannot_move_on_overlay(error):
                return Aside(self.folder, self.descriptor, self.name, self.name)
            self._raise(error, temporary)
        if not leads_to(self.folder, temporary, self.descriptor):
            self._undo(temporary)
        return Aside(self.folder, self.descriptor, temporary, self.name)

    def _cannot_move_on_overlay(self, error: OSError) -> bool:
        """A folder of a lower layer cannot be renamed. Its name is of no use while it is empty, so it may stay."""
        return error.errno == errno.EXDEV and self.kind is Kind.FOLDER

    def _raise(self, error: OSError, temporary: bytes) -> NoReturn:
        if isinstance(error, FileExistsError):
            raise ActionFailed(
                f"{self.path} cannot be moved aside: {_shown(self.folder, temporary)} is there already",
                hint="An earlier run left it, or somebody made it: look at it, and remove it.",
            ) from error
        _raise_explained(error, self.folder, self.name, self.path, self.descriptor)

    def _undo(self, temporary: bytes) -> NoReturn:
        """Another thing was moved: it gets its name back, or one beside it."""
        for name in (self.name, *(beside(self.name, n) for n in range(1, _FREE_NAMES))):
            with suppress(FileExistsError):
                rename_without_replacing(self.folder, temporary, name)
                os.fsync(self.folder)
                raise _gone(self.path, None if name == self.name else _shown(self.folder, name))
        raise _gone(self.path, _shown(self.folder, temporary))

    def close(self) -> None:
        """Let go of both; once."""
        os.close(self.descriptor)
        os.close(self.folder)

    def __enter__(self) -> Self:
        """Itself; closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pin(path: EndpointPath) -> Pinned:
    """Hold what is there and its folder; links on the way are followed, the last component is not.

    TargetGone if nothing is there; Unsupported for the root of the file system, for `.` and `..`, and for a way through
    another process's view of the files (`/proc/PID/root`); ActionFailed for links in a circle or names too long.
    """
    parent, name = _split(path)
    with ExitStack() as stack:
        try:
            folder = open_folder(parent)
            stack.callback(os.close, folder)
            descriptor = os.open(name, _PIN, dir_fd=folder)
            stack.callback(os.close, descriptor)
        except OSError as error:
            raise _not_pinned(error, path) from error
        made = Pinned(_real(folder, name, path), name, folder, descriptor)
        if path.raw.endswith(b"/") and made.kind is not Kind.FOLDER:
            raise TargetGone(f"There is no folder {path}")
        stack.pop_all()
        return made


def _split(path: EndpointPath) -> tuple[bytes, bytes]:
    parent, _, name = path.raw.rstrip(b"/").rpartition(b"/")
    if name in {b"", b".", b".."}:
        raise Unsupported(f"{path} is no name in a folder", expected="a path that ends with a name")
    return parent or b"/", name


def _real(folder: int, name: bytes, path: EndpointPath) -> EndpointPath:
    """The real path of a name; TargetGone if its folder was removed, Unsupported if it cannot be said."""
    try:
        real = path_of(folder)
    except OSError as error:  # a path of more than a page
        raise _too_long(path) from error
    if real.endswith(_DELETED) and not os.fstat(folder).st_nlink:
        raise TargetGone(f"The folder of {path} was removed")
    if not real.startswith(b"/"):
        raise Unsupported(f"{path} is outside of the files that the agent sees", got=EndpointPath.of(real))
    full = real.rstrip(b"/") + b"/" + name
    if len(full) > MAX_PATH_BYTES:
        raise _too_long(path)
    return EndpointPath.of(full)


def _too_long(path: EndpointPath) -> Unsupported:
    return Unsupported(f"The real path of {path} is too long", expected=f"at most {MAX_PATH_BYTES} bytes")


def beside(name: bytes, n: int) -> bytes:
    """A name beside one that is taken, within what a name may have."""
    more = f".moved-{n}".encode()
    return name[: MAX_NAME - len(more)] + more


def leads_to(folder: int, name: bytes, descriptor: int) -> bool:
    """Both are asked now: on an overlay file system, a rename copies a file up and gives it another number."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return same_file(found, os.fstat(descriptor))


def _mount_id(descriptor: int) -> bytes:
    with Path(f"/proc/self/fdinfo/{descriptor}").open("rb") as file:
        return next((line for line in file if line.startswith(b"mnt_id:")), b"")


def _shown(folder: int, name: bytes) -> EndpointPath:
    """The path of a name in a folder, to tell somebody."""
    with suppress(OSError):
        return EndpointPath.of(path_of(folder).rstrip(b"/") + b"/" + name)
    return EndpointPath.of(name)


# --- what went wrong -------------------------------------------------------------------------------------------------


def _gone(path: EndpointPath, moved: EndpointPath | None = None) -> TargetGone:
    also = f"; what was there meanwhile is now at {moved}" if moved else ""
    return TargetGone(f"Another file is at {path} by now, or none{also}", hint="Look at it, and order it again.")


def _unmovable(path: EndpointPath, why: str, got: str | None = None) -> Unsupported:
    return Unsupported(f"{path} cannot be moved or removed: {why}", got=got, hint=_HINTS.get(why))


def _why_folder_is_shut(folder: int) -> str | None:
    flags = flags_of(folder) or 0
    word = "immutable" if flags & IMMUTABLE else "append-only" if flags & APPEND_ONLY else ""
    return f"its folder is {word} (see lsattr)" if word else None


def _raise_explained(
    error: OSError, folder: int, name: bytes, path: EndpointPath, descriptor: int | None = None
) -> NoReturn:
    """Raise what a person can do something about as a StanchError, and the error itself otherwise."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        raise _gone(path) from error
    why = {errno.EBUSY: MOUNT_POINT, errno.EROFS: READ_ONLY}.get(error.errno or 0)
    if error.errno in {errno.EPERM, errno.EACCES}:
        why = _why_folder_is_shut(folder) or _why_it_is_shut(folder, name, descriptor)
    if why:
        raise _unmovable(path, why, error.strerror) from error
    raise error


def _why_it_is_shut(folder: int, name: bytes, descriptor: int | None) -> str:
    """Only of files and folders can the flags be asked without opening a device."""
    with suppress(OSError), ExitStack() as stack:
        if descriptor is None:
            descriptor = os.open(name, _PIN, dir_fd=folder)
            stack.callback(os.close, descriptor)
        if kind_of(os.fstat(descriptor).st_mode) in {Kind.FILE, Kind.FOLDER}:
            opened = reopened(descriptor)
            stack.callback(os.close, opened)
            if (flags_of(opened) or 0) & (IMMUTABLE | APPEND_ONLY):
                return "it is immutable or append-only (see lsattr)"
    return "the agent is not allowed to"


_MEANINGS: dict[int, tuple[type[StanchError], str]] = {
    errno.ENOENT: (TargetGone, "There is nothing at {}"),
    errno.ENOTDIR: (TargetGone, "There is nothing at {}: a part of its path is no folder"),
    errno.ESTALE: (TargetGone, "{} has vanished from its network file system"),
    errno.ENAMETOOLONG: (ActionFailed, "A part of {} is longer than its file system allows"),
    errno.EACCES: (ActionFailed, "The agent may not go to {}"),
    errno.ELOOP: (
        Unsupported,
        "The way to {} leads in a circle, or through another process's view of the files (/proc/PID/root)",
    ),
}


def _not_pinned(error: OSError, path: EndpointPath) -> StanchError:
    kind, message = _MEANINGS.get(error.errno or 0, (ActionFailed, "{} cannot be looked at"))
    return kind(message.format(path), got=error.strerror)
