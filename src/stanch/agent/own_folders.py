"""Remove a folder of our own with everything in it, through descriptors: no link and no mount leads out of it."""

import errno
import os
from contextlib import suppress
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove it; nothing if it is not there. OSError if something of it stays, or if it is a link or no folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        empty(descriptor)
    finally:
        os.close(descriptor)
    with suppress(FileNotFoundError):
        folder.rmdir()


def empty(descriptor: int) -> None:
    """Remove all that is in a folder; OSError if something of it stays, such as what somebody has mounted there."""
    with os.scandir(descriptor) as entries:
        found = [(one.name, one.is_dir(follow_symlinks=False)) for one in entries]
    for name, is_folder in found:
        if is_folder:
            _remove_folder(name, descriptor)
        else:
            os.unlink(name, dir_fd=descriptor)


def _remove_folder(name: str, held: int) -> None:
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held)
    try:
        if _mount(inner) != _mount(held):
            raise OSError(errno.EBUSY, "something is mounted there", name)
        empty(inner)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=held)


def _mount(descriptor: int) -> str:
    """Which mount it is reached through: the device is the same when a folder of the same disk is bound there."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return line
    raise OSError(errno.ENOTSUP, "the kernel does not tell of mounts")
