"""A file is overwritten in place with random bytes, and then its name is removed: its content is gone for good.

As far as that can be said: many disks and file systems write new bytes to another place, and keep the old ones. What
is known of that is told, in plain sentences. It blocks: call it in a thread.
"""

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE, change_flags
from stanch.agent.host.metadata import clear_flags, extents
from stanch.agent.host.pinned import Aside, Pinned, aside_name, pin
from stanch.agent.host.traces import caveats_of
from stanch.core.errors import ActionFailed, Protected, StanchError, TargetGone, Unsupported
from stanch.core.files import Extent, FileId, Kind, Shredded
from stanch.core.types import EndpointPath, Size

BLOCK = 1_048_576
"""Bytes that are overwritten at a time."""

Check = Callable[[EndpointPath], None]
"""Raises if a real path must not be used."""

Protection = Callable[[EndpointPath, os.stat_result], str | None]
"""Why what has this real path and status must stay; None if it need not."""


def _unprotected(_path: EndpointPath, _status: os.stat_result) -> None:
    """Nothing must stay."""


def shred(path: EndpointPath, expected: FileId, *, forbidden: Check, protected: Protection = _unprotected) -> Shredded:
    """Overwrite the data of this very file, remove this name, both on the disk when it returns; holes stay holes.

    TargetGone if something else is there by now; what `forbidden` raises; Protected; Unsupported for what is no
    regular file, or cannot be removed; ActionFailed. Until its first byte is overwritten, nothing is changed; from then
    on it is lost.
    """
    with _explained(path):
        try:
            pinned = pin(path)
        except TargetGone:
            finished = _finish_earlier(path, expected, forbidden, protected)
            if finished is None:
                raise
            return finished
        with pinned:
            return _destroy(pinned, expected, forbidden, protected)


def _destroy(pinned: Pinned, expected: FileId, forbidden: Check, protected: Protection) -> Shredded:
    _refuse(pinned, expected, forbidden)
    # Of what is held: a link that was swapped in, after the order was judged, leads nowhere.
    why = protected(pinned.path, pinned.status)
    if why is not None:
        raise Protected(f"{pinned.path} must not be destroyed", got=why)
    caveats = caveats_of(pinned.descriptor)
    with _without_flags(pinned):
        overwritten = _overwrite(pinned)
        _remove(_aside(pinned, expected))
    return Shredded(overwritten=Size(overwritten), caveats=caveats)


def _refuse(pinned: Pinned, expected: FileId, forbidden: Check) -> None:
    forbidden(pinned.path)
    if _id(pinned.status) != expected:
        raise TargetGone(f"Another file is at {pinned.path} by now", hint="Look at it, and order it again.")
    if pinned.kind is not Kind.FILE:
        raise Unsupported(
            f"{pinned.path} cannot be overwritten",
            got=pinned.kind.words,
            expected="a regular file",
            hint="Delete it without --shred: it holds no bytes of its own.",
        )
    pinned.refuse_unmovable()


def _id(status: os.stat_result) -> FileId:
    return FileId(device=status.st_dev, inode=status.st_ino)


@contextmanager
def _without_flags(pinned: Pinned) -> Iterator[None]:
    """Neither immutable nor append-only meanwhile; what is still there afterwards gets back what it had."""
    before = clear_flags(pinned.descriptor)
    try:
        yield
    except BaseException:
        if before is not None and before & (IMMUTABLE | APPEND_ONLY):
            with suppress(OSError):
                change_flags(pinned.descriptor, before)
        raise


# --- overwriting -----------------------------------------------------------------------------------------------------


def _overwrite(pinned: Pinned) -> int:
    """How many bytes were overwritten."""
    with ExitStack() as stack:
        reading = pinned.reopen()
        stack.callback(os.close, reading)
        writing = os.open(f"/proc/self/fd/{pinned.descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, writing)
        pieces = extents(reading, os.fstat(reading).st_size)
        for piece in pieces:
            _overwrite_piece(writing, piece)
        os.fdatasync(writing)
        return sum(piece.length for piece in pieces)


def _overwrite_piece(writing: int, piece: Extent) -> None:
    at, end = piece.offset, piece.offset + piece.length
    while at < end:
        at += os.pwrite(writing, os.urandom(min(BLOCK, end - at)), at)


# --- removing --------------------------------------------------------------------------------------------------------


def _aside(pinned: Pinned, expected: FileId) -> Aside:
    """By a name that a later run finds; by any other if that is taken, be it by this very file."""
    try:
        return pinned.aside(_token(expected))
    except ActionFailed as error:
        if isinstance(error, TargetGone):
            raise
        return pinned.aside(f"shred-{secrets.token_hex(8)}")


def _remove(aside: Aside) -> None:
    try:
        aside.remove()
    except OSError:
        with suppress(OSError, StanchError):
            aside.back()
        raise


def _token(one: FileId) -> str:
    return f"shred-{one.device:x}-{one.inode:x}"


def _finish_earlier(path: EndpointPath, expected: FileId, forbidden: Check, protected: Protection) -> Shredded | None:
    """Destroy what an earlier run moved aside before it was killed; None if there is nothing.

    Anybody can make a name of that kind, so that it is overwritten again.
    """
    parent = path.raw.rstrip(b"/").rpartition(b"/")[0]
    try:
        pinned = pin(EndpointPath.of(parent + b"/" + aside_name(_token(expected))))
    except StanchError:
        return None
    with pinned:
        if _id(pinned.status) != expected:
            return None
        return _destroy(pinned, expected, forbidden, protected)


# --- what went wrong -------------------------------------------------------------------------------------------------

_PARTLY = "A part of it may be overwritten already."

_MEANINGS: dict[int, tuple[type[StanchError], str, str | None]] = {
    errno.ETXTBSY: (
        ActionFailed,
        "{} is a program that runs, or swap space: it cannot be overwritten",
        "End its processes first; or delete it without --shred.",
    ),
    errno.EROFS: (
        Unsupported,
        "{} is on a file system that is mounted read-only",
        "It must be mounted writable first.",
    ),
    errno.EPERM: (
        ActionFailed,
        "The agent may not overwrite {}",
        "It may be sealed (see lsattr: verity), or a security module forbids it. Delete it without --shred.",
    ),
    errno.EACCES: (
        ActionFailed,
        "The agent may not overwrite {}",
        "Its file system, or a security module, forbids it.",
    ),
    errno.ENOSPC: (
        ActionFailed,
        "There is no room to overwrite {}: its file system writes new bytes to another place",
        f"{_PARTLY} Make room, and order it again.",
    ),
    errno.EDQUOT: (
        ActionFailed,
        "The quota leaves no room to overwrite {}",
        f"{_PARTLY} Raise the quota, and order it again.",
    ),
    errno.EIO: (ActionFailed, "The disk of {} fails", _PARTLY),
}


@contextmanager
def _explained(path: EndpointPath) -> Iterator[None]:
    """What a person can do something about, instead of OSError."""
    try:
        yield
    except OSError as error:
        kind, message, hint = _MEANINGS.get(error.errno or 0, (ActionFailed, "{} cannot be destroyed", _PARTLY))
        raise kind(message.format(path), got=error.strerror, hint=hint) from error
