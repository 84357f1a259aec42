"""List a folder: what of it may be folders, files and links, told by the list alone where it can be; and enter one."""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

LISTED: Final = 128
"""Names of a folder that are listed together."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ENCODING: Final = sys.getfilesystemencoding()

Statuses = Sequence[tuple[bytes, os.stat_result | None]]
"""Names, and what `lstat` says of each; None where it fails."""
Listing = Iterator["os.DirEntry[str]"]
"""The rest of a folder's entries."""


class How(NamedTuple):
    """How a folder is listed."""

    at_once: bool = False
    """With the status of each of its files."""
    links: bool = False
    """With its symbolic links."""


Listed = tuple[list[bytes], bool, list[bytes], list[bytes], Statuses | None]
"""Folders; was that the last of them? Files, links, and the status of each file, if that was asked for."""
Begun = tuple[Listing, Listed]


def enter(name: bytes, above: tuple[int, int] | None, how: How) -> tuple[int, os.stat_result, Begun | None]:
    """Open a folder in the one above (descriptor and device), without following a link; OSError.

    Begun, if it is on the file system of the one above: then nothing has to be decided before.
    """
    fd = _opened(name, None if above is None else above[0])
    try:
        status = os.fstat(fd)
        begun = begin(fd, how) if above is not None and above[1] == status.st_dev else None
    except OSError:
        os.close(fd)
        raise
    return fd, status, begun


def _opened(name: bytes, above: int | None) -> int:
    """Without a new access time where that is allowed: when a folder was read last is a trace, too. OSError."""
    try:
        return os.open(name, _FOLDER | os.O_NOATIME, dir_fd=above)
    except PermissionError:
        return os.open(name, _FOLDER, dir_fd=above)


def begin(fd: int, how: How) -> Begun:
    """A folder's entries, and the first of them; OSError."""
    entries = os.scandir(fd)
    return entries, more(fd, entries, how)


def more(fd: int, entries: Listing, how: How) -> Listed:
    """The next of its names; OSError."""
    folders: list[bytes] = []
    files: list[bytes] = []
    links: list[bytes] = []
    last = True
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name.encode(_ENCODING, "surrogateescape"))
        elif not entry.is_symlink():
            files.append(entry.name.encode(_ENCODING, "surrogateescape"))
        elif how.links:
            links.append(entry.name.encode(_ENCODING, "surrogateescape"))
        if len(folders) + len(files) + len(links) >= LISTED:
            last = False
            break
    return folders, last, files, links, statuses_of(fd, files) if how.at_once else None


def statuses_of(fd: int, names: Sequence[bytes]) -> Statuses:
    """What `lstat` says of files in a folder."""
    found: list[tuple[bytes, os.stat_result | None]] = []
    for name in names:
        try:
            found.append((name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        except OSError:  # whoever looks at it tells why
            found.append((name, None))
    return found
