"""Gives a file another content in one step: with its owner, mode, attributes and flags, if nobody has changed it.

The new file is built beside the old one and exchanged with it; what came out is compared with what was read. So what
changed in between is seen, and taken back before anything is lost. Cut anywhere, the name leads to the old content or
to the new. All of it blocks: call it in a thread.
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE
from stanch.agent.host.metadata import Metadata, apply, capture, clear_flags, put_flags
from stanch.agent.host.path_calls import exchange, path_of, pin_below
from stanch.agent.host.pinned import Pinned, aside_name, kind_of, leads_to
from stanch.core.errors import ActionFailed, Conflict, NotVerified, StanchError, TargetGone, TooLarge, Unsupported
from stanch.core.files import Kind
from stanch.core.types import EndpointPath

MOST = 1_048_576
"""Bytes of a file that is rewritten."""

_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SHUT = IMMUTABLE | APPEND_ONLY


# --- hold ------------------------------------------------------------------------------------------------------------


@contextmanager
def held_below(root: Path, path: EndpointPath) -> Iterator[Pinned]:
    """Hold a name below a root folder, as somebody sees it whose root that is; its `path` is the real one in there.

    Links on the way are followed, but lead nowhere outside; the name itself is not. TargetGone; Unsupported.
    """
    parent, _, name = path.raw.rstrip(b"/").rpartition(b"/")
    if name in {b"", b".", b".."}:
        raise Unsupported(f"{path} is no name in a folder", expected="a path that ends with a name")
    with ExitStack() as stack:
        try:
            top = os.open(root, _PIN | os.O_DIRECTORY)
            stack.callback(os.close, top)
            above = pin_below(top, parent or b"/")
            stack.callback(os.close, above)
            folder = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
            stack.callback(os.close, folder)
            held = os.open(name, _PIN, dir_fd=folder)
            stack.callback(os.close, held)
            real = path_of(folder).removeprefix(path_of(top).rstrip(b"/")).rstrip(b"/") + b"/" + name
        except OSError as error:
            raise _explained(error, path) from error
        yield Pinned(EndpointPath.of(real), name, folder, held)


def content_of(pinned: Pinned) -> bytes:
    """All that is in a regular file. Unsupported, TooLarge; Conflict if it is written meanwhile."""
    if pinned.kind is Kind.LINK:
        to = EndpointPath.of(os.readlink(b"", dir_fd=pinned.descriptor))
        raise Unsupported(
            f"{pinned.path} is a link", got=to, hint="A link is not written through: name where it leads."
        )
    with explaining(pinned.path), open(opened := pinned.reopen(), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
        before = os.fstat(opened)
        if before.st_size > MOST:
            raise TooLarge(f"{pinned.path} is too large", got=before.st_size, expected=f"at most {MOST} bytes")
        content = b"".join(islice(iter(lambda: file.read(MOST), b""), 3))
        if _state(before) != _state(os.fstat(opened)) or len(content) != before.st_size:
            raise _changed(pinned.path)
    return content


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _changed(path: EndpointPath) -> Conflict:
    return Conflict(
        f"{path} was changed meanwhile; nothing was done to it", hint="Look at it again with list-autoruns, and repeat."
    )


# --- rewrite ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Rewrite:
    """One file on its way to another content. Use `build`, then `commit`; `close` it in any case."""

    pinned: Pinned
    token: str
    old: bytes
    """What was read of it."""
    _held: ExitStack
    _file: int = -1
    _metadata: Metadata | None = None

    @classmethod
    def open(cls, root: Path, path: EndpointPath, token: str) -> Self:
        """Hold a file below a root, and read it. As `held_below` and `content_of`."""
        with ExitStack() as stack:
            pinned = stack.enter_context(held_below(root, path))
            return cls(pinned, token, content_of(pinned), stack.pop_all())

    @property
    def temporary(self) -> bytes:
        """What the new file is called until it has its name: something that no service takes for one of its files."""
        return aside_name(self.token)

    @property
    def built(self) -> bytes:
        """The path of the new file, to have it checked."""
        return path_of(self._file)

    def build(self, new: bytes, *, modified_ns: int | None = None) -> None:
        """Make the new file beside the old one, on the disk when it returns. Unsupported, ActionFailed.

        `modified_ns` is its time of change, or now.
        """
        with explaining(self.pinned.path):
            self.pinned.refuse_unmovable()
            found = capture(self.pinned.descriptor)
            changed = time.time_ns() if modified_ns is None else modified_ns
            self._metadata = found.model_copy(update={"mtime_ns": changed})
            self.remove_leftover()
            self._file = os.open(self.temporary, _NEW, 0o600, dir_fd=self.pinned.folder)
            self._held.callback(os.close, self._file)
            self._held.callback(self._drop)
            _write(self._file, new)
            lost = [one for one in apply(self._metadata, self._file) if not one.startswith("times:")]
            if lost:
                raise Unsupported(f"{self.pinned.path} cannot be written as it is", got="; ".join(lost)[:1000])
            os.fsync(self._file)

    def commit(self, *, flags: int | None) -> None:
        """Give it the name, if the old one is still what was read; and these inode flags.

        Conflict if it is another file or content by now: then that has its name again.
        """
        with explaining(self.pinned.path):
            if not self.pinned.still_there():
                raise _changed(self.pinned.path)
            shut = clear_flags(self.pinned.descriptor)
            try:
                self._exchange()
            except BaseException:
                self._give_flags(self.pinned.descriptor, shut)
                raise
            self._give_flags(self._file, flags)
            os.fsync(self.pinned.folder)
            if not leads_to(self.pinned.folder, self.pinned.name, self._file):
                raise NotVerified(
                    f"{self.pinned.path} was swapped at once", hint="Look at who may write to its folder."
                )

    def _exchange(self) -> None:
        folder, name = self.pinned.folder, self.pinned.name
        try:
            exchange(folder, self.temporary, name)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                raise
            self._replace()
            return
        if leads_to(folder, self.temporary, self.pinned.descriptor) and self._is_unchanged():
            return
        exchange(folder, self.temporary, name)
        os.fsync(folder)
        raise _changed(self.pinned.path)

    def _replace(self) -> None:
        """Where names cannot be exchanged (NFS): the last look is as late as it can be."""
        if not (self.pinned.still_there() and self._is_unchanged()):
            raise _changed(self.pinned.path)
        folder = self.pinned.folder
        os.rename(self.temporary, self.pinned.name, src_dir_fd=folder, dst_dir_fd=folder)

    def _is_unchanged(self) -> bool:
        try:
            return content_of(self.pinned) == self.old
        except StanchError:
            return False

    def _give_flags(self, descriptor: int, flags: int | None) -> None:
        if self._metadata is not None and flags is not None:
            put_flags(self._metadata.model_copy(update={"flags": flags}), descriptor)

    def finish(self, flags: int | None) -> None:
        """What an earlier run may have left to do after it had exchanged them."""
        with explaining(self.pinned.path):
            self.remove_leftover()
            found = capture(self.pinned.descriptor)
            if flags is not None and found.flags is not None and flags & _SHUT & ~found.flags:
                put_flags(found.model_copy(update={"flags": flags}), self.pinned.descriptor)
            os.fsync(self.pinned.folder)

    def remove_leftover(self) -> None:
        """What an earlier run left beside it. OSError."""
        with suppress(FileNotFoundError), ExitStack() as stack:
            held = os.open(self.temporary, _PIN, dir_fd=self.pinned.folder)
            stack.callback(os.close, held)
            if kind_of(os.fstat(held).st_mode) is Kind.FILE:
                clear_flags(held)
            os.unlink(self.temporary, dir_fd=self.pinned.folder)

    def _drop(self) -> None:
        """Remove whatever is beside it at the end: the old file, or the new one that was not to be."""
        with suppress(OSError):
            self.remove_leftover()

    def close(self) -> None:
        """Let go of it."""
        self._held.close()


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


# --- what went wrong -------------------------------------------------------------------------------------------------


@contextmanager
def explaining(path: EndpointPath) -> Iterator[None]:
    """What a person can do something about, instead of OSError."""
    try:
        yield
    except OSError as error:
        raise _explained(error, path) from error


def _explained(error: OSError, path: EndpointPath) -> StanchError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return TargetGone(f"There is nothing at {path}", got=error.strerror)
    if error.errno == errno.EROFS:
        return Unsupported(f"{path} is on a read-only file system", hint="It must be mounted writable first.")
    return ActionFailed(f"{path} cannot be changed", got=error.strerror)
