"""Replace a file so that a reader, a crash or a power cut meets the old content or the new, never a mix.

The order is everything:

1. Create a hidden file of our own beside the target: a rename is atomic only within one file system.
2. Write all of it, and fsync: otherwise the new name may point at an empty file after a power cut.
3. Rename it over the target.
4. Fsync the folder: otherwise the old name may come back.

Everything goes through one descriptor of the folder, so that a folder that is renamed meanwhile confuses nobody. A
process killed before step 3 leaves a `.stanch-*` file behind, and the target as it was.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_hex


class Disk:
    """The system calls of an atomic write, in a seam of their own: a test records their order and ends it halfway."""

    def create(self, folder: int, name: str) -> int:
        """A new, empty file that nobody else had open; its descriptor."""
        return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)

    def chmod(self, file: int, mode: int) -> None:
        """Set the permission bits, whatever the umask is."""
        os.fchmod(file, mode)

    def write(self, file: int, data: memoryview) -> int:
        """Write some of it; how many bytes."""
        return os.write(file, data)

    def sync(self, file: int) -> None:
        """Wait until the content is on the disk."""
        os.fsync(file)

    def replace(self, folder: int, name: str, target: str) -> None:
        """Give the file the target's name."""
        os.rename(name, target, src_dir_fd=folder, dst_dir_fd=folder)

    def sync_folder(self, folder: int) -> None:
        """Wait until the names are on the disk."""
        os.fsync(folder)

    def remove(self, folder: int, name: str) -> None:
        """Remove a file by name."""
        os.unlink(name, dir_fd=folder)


_DISK = Disk()


def atomic_write(path: Path, data: bytes, *, mode: int = 0o600, disk: Disk = _DISK) -> None:
    """Put `data` into the file at `path`, which is created or replaced; returns when it is on the disk.

    The file gets `mode` (permission bits) and the owner of this process. OSError if it cannot be done, or if the
    target exists and is no regular file; then the target is as it was.
    """
    if path.name in {"", ".."}:
        raise IsADirectoryError(errno.EISDIR, "got a folder, expected the path of a file", os.fspath(path))
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_odd_target(folder, path)
        _write_and_rename(disk, folder, path.name, data, mode)
    finally:
        os.close(folder)


def _refuse_odd_target(folder: int, path: Path) -> None:
    """A link, device or socket is there on purpose: whoever made it must decide."""
    with suppress(FileNotFoundError):
        kind = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISREG(kind):
            got = "a link" if stat.S_ISLNK(kind) else f"type {stat.filemode(kind)[0]!r}"
            raise OSError(errno.EINVAL, f"got {got}, expected a regular file or nothing", os.fspath(path))


def _write_and_rename(disk: Disk, folder: int, target: str, data: bytes, mode: int) -> None:
    name = f".stanch-{token_hex(8)}"
    try:
        _write_new(disk, folder, name, data, mode)
        disk.replace(folder, name, target)
    except BaseException:
        with suppress(OSError):  # the first error is the one to hear about
            disk.remove(folder, name)
        raise
    disk.sync_folder(folder)


def _write_new(disk: Disk, folder: int, name: str, data: bytes, mode: int) -> None:
    file = disk.create(folder, name)
    try:
        disk.chmod(file, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[disk.write(file, rest) :]
        disk.sync(file)
    finally:
        os.close(file)
