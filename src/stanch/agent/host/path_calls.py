"""System calls on paths that Python has no function for: openat2, renameat2, and what stands in for the first.

Both are looked up at the first use only. All of it blocks.
"""

import ctypes
import errno
import os
import platform
import stat
import struct
from contextlib import ExitStack, suppress
from pathlib import Path

_AT_FDCWD = -100
_OPENAT2 = 437
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347}
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_RESOLVE_NO_MAGICLINKS = 2
_RESOLVE_IN_ROOT = 0x10
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_LINKS = 40
"""As the kernel has it."""


def rename_exclusively(folder: int, old: bytes, new: bytes) -> None:
    """renameat2 with RENAME_NOREPLACE within a folder. OSError: EEXIST; EINVAL or ENOSYS where it is not known."""
    _rename(folder, old, new, _RENAME_NOREPLACE)


def exchange(folder: int, one: bytes, other: bytes) -> None:
    """renameat2 with RENAME_EXCHANGE: two names swap what they lead to. OSError: EINVAL or ENOSYS if not known."""
    _rename(folder, one, other, _RENAME_EXCHANGE)


def _rename(folder: int, old: bytes, new: bytes, flags: int) -> None:
    number = _RENAMEAT2.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    _call(number, folder, old, folder, new, flags)


def path_of(descriptor: int) -> bytes:
    """What the kernel calls a descriptor: its real path, for a file that was removed with ` (deleted)` behind it.

    OSError for a path longer than a page.
    """
    return os.fsencode(Path(f"/proc/self/fd/{descriptor}").readlink())


def open_folder(path: bytes) -> int:
    """Open a folder for reading; links are followed, but none that leads into the view of another process.

    OSError, ELOOP for such a link.
    """
    how = struct.pack("=QQQ", _FOLDER, 0, _RESOLVE_NO_MAGICLINKS)
    try:
        return _call(_OPENAT2, _AT_FDCWD, path, how, len(how))
    except OSError as error:
        # Kernels before 5.6 do not know it; the filter of an older container forbids what it does not know.
        if error.errno not in {errno.ENOSYS, errno.EPERM}:
            raise
    return walk_to_folder(path)


def pin_below(root: int, path: bytes, *, follow: bool = True) -> int:
    """Hold (O_PATH) what a path means to somebody whose root folder is `root`: no link and no `..` leads out of it.

    OSError; ELOOP for a link into the view of another process.
    """
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_IN_ROOT)
    try:
        return _call(_OPENAT2, root, path, how, len(how))
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:
            raise
    return walk_below(root, path, follow=follow)


def walk_below(root: int, path: bytes, *, follow: bool = True) -> int:
    """The same for a kernel without openat2: all folders on the way are held, so that `..` is the one we came from."""
    steps, links = [one for one in path.split(b"/") if one not in {b"", b"."}][::-1], 0
    with ExitStack() as closing:
        way = [_held(closing, os.dup(root))]
        while steps:
            step = steps.pop()
            if step == b"..":
                way = way[:-1] or way
                continue
            here = _held(closing, os.open(step, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=way[-1]))
            target = _link_target(step, way[-1]) if steps or follow else None
            if target is None:
                if steps and not stat.S_ISDIR(os.fstat(here).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                way.append(here)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            steps += [one for one in target.split(b"/") if one not in {b"", b"."}][::-1]
            way = way[:1] if target.startswith(b"/") else way
        return os.dup(way[-1])


def _held(closing: ExitStack, descriptor: int) -> int:
    closing.callback(os.close, descriptor)
    return descriptor


def walk_to_folder(path: bytes) -> int:
    """The same for a kernel without openat2: step by step, each held while the next is opened. OSError."""
    steps, links = path.split(b"/")[::-1], 0
    here = os.open(b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while steps:
            step = steps.pop()
            if step in {b"", b"."}:
                continue
            target = _link_target(step, here)
            if target is None:
                here = _moved(here, step)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            steps += target.split(b"/")[::-1]
            here = _moved(here, b"/") if target.startswith(b"/") else here
        return os.open(b".", _FOLDER, dir_fd=here)
    finally:
        os.close(here)


def _moved(here: int, step: bytes) -> int:
    there = os.open(step, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    os.close(here)
    return there


def _link_target(name: bytes, folder: int) -> bytes | None:
    """Where a link leads; None if it is none. Links that the kernel makes up in /proc/PID may lead anywhere: ELOOP."""
    held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(held)
        if not stat.S_ISLNK(found.st_mode):
            return None
        if found.st_dev == _proc() and not _is_plain(name):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.readlink(b"", dir_fd=held)
    finally:
        os.close(held)


def _proc() -> int:
    """The number of the file system at /proc; 0 if there is none."""
    with suppress(OSError):
        return Path("/proc/self").stat().st_dev
    return 0


def _is_plain(name: bytes) -> bool:
    """The links in /proc that are plain text."""
    return name in {b"self", b"thread-self", b"mounts", b"net"}


def _call(number: int, *arguments: int | bytes) -> int:
    """A system call by number; its answer. OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    full = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    answer = int(libc.syscall(ctypes.c_long(number), *full))
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer
