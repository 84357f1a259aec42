"""What the machine, or Stanch itself, needs: it is not taken away, replaced or destroyed on anybody's order.

Decided by the file, not by its name: a hard link to a shell is that shell. What pid 1 runs and has mapped, the shells,
the loaders and the C library are recognised by device and inode, wherever they are; what has to be at its place, such
as the kernel or the accounts, by its real path. Only the owner's local policy can except something.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from stanch.agent.path_rules import is_below
from stanch.core.types import EndpointPath

FRESH_SECONDS = 5.0
"""For how long what was found out is believed."""

File = tuple[int, int]
"""Device and inode."""

_INIT = ("/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd")
_SHELLS = ("/bin/sh", "/bin/dash", "/bin/bash", "/usr/bin/sh", "/usr/bin/dash", "/usr/bin/bash", "/bin/busybox")
_LIBRARIES = (
    "ld-*",
    "ld.so*",
    "libc.so*",
    "libc-*",
    "libpthread*",
    "libm.so*",
    "libdl*",
    "libgcc_s*",
    "ld-musl-*",
    "libcrypt.so*",
)
_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/lib/*-linux-*", "/usr/lib/*-linux-*")

_PLACES = {
    "/boot": "the machine boots from it",
    "/efi": "the machine boots from it",
    "/usr/lib/modules": "the kernel loads its modules from there",
    "/lib/modules": "the kernel loads its modules from there",
    "/lib/firmware": "the kernel loads firmware from there",
    "/usr/lib/firmware": "the kernel loads firmware from there",
    "/etc/pam.d": "nobody could sign in without it",
}
"""Folders of which everything is needed that a package owns."""

_FILES = {
    **dict.fromkeys(
        ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/nsswitch.conf", "/etc/sudoers"),
        "nobody could sign in without it",
    ),
    **dict.fromkeys(("/etc/fstab", "/etc/ld.so.cache", "/etc/ld.so.conf"), "the machine does not start without it"),
    "/usr/bin/dpkg": "packages cannot be repaired without it",
    "/usr/bin/rpm": "packages cannot be repaired without it",
}
"""ld.so.preload is not among them: no machine needs it, and attackers plant it."""

_OWN = "it belongs to Stanch itself"
_MOST_OWN = 50_000
"""Files of Stanch's own that are known by their inode, too."""

_SERVICE = re.compile(rb"^0::/(?:system\.slice/)?[^\n]*\.service(?:/|$)", re.MULTILINE)


class Critical:
    """Says why a file must stay."""

    def __init__(
        self,
        *,
        own: Sequence[Path] = (),
        services: Callable[[], bool] = lambda: False,
        excepted: Callable[[], Sequence[EndpointPath]] = lambda: (),
        proc: Path = Path("/proc"),
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = [EndpointPath.of(os.path.realpath(os.fsencode(one))) for one in own]
        self._services = services
        self._excepted = excepted
        self._proc = proc
        self._seconds = seconds
        self._known: tuple[float, bool, Mapping[File, str]] = (float("-inf"), False, {})

    def why(self, path: EndpointPath, status: os.stat_result) -> str | None:
        """Why what has this real path and status must stay; None if it need not. Blocks: ask in a thread."""
        if is_below(path, self._excepted()) is not None:
            return None
        by_place = self._by_place(path, status)
        if by_place is not None or not stat.S_ISREG(status.st_mode):
            return by_place
        return self._files().get((status.st_dev, status.st_ino))

    def _by_place(self, path: EndpointPath, status: os.stat_result) -> str | None:
        if is_below(path, self._own) is not None:
            return _OWN
        if str(path) in _FILES:
            return _FILES[str(path)]
        for place, why in _PLACES.items():
            if is_below(path, (EndpointPath(place),)) is not None and _is_owned(path, status):
                return why
        if stat.S_ISDIR(status.st_mode) and any(
            is_below(EndpointPath(one), (path,)) for one in (*_FILES, *_PLACES, *_INIT)
        ):
            return "what the machine needs is below it"
        return None

    def _files(self) -> Mapping[File, str]:
        """Device and inode to the reason; found out anew now and then."""
        since, with_services, known = self._known
        services, now = self._services(), self._seconds()
        if now - since > FRESH_SECONDS or services != with_services:
            known = dict(self._find(services=services))
            self._known = (now, services, known)
        return known

    def _find(self, *, services: bool) -> Iterator[tuple[File, str]]:
        """The later ones win: the most telling reason comes last."""
        for place, why in _FILES.items():
            yield from _each((place,), why)
        if services:
            yield from _each(self._service_programs(), "a running service is this program")
        yield from _each(_libraries(), "every program needs this library")
        yield from _each(_mapped_by(self._proc / "1"), "pid 1 has it loaded")
        yield from _each((*_SHELLS, *_registered_shells()), "it is a shell of this machine")
        yield from _each((*_INIT, f"{self._proc}/1/exe"), "it is the first program of this machine")
        yield from _each(_files_in(self._own), _OWN)

    def _service_programs(self) -> Iterator[str]:
        for one in self._proc.glob("[0-9]*"):
            with suppress(OSError):
                if _SERVICE.search((one / "cgroup").read_bytes()):
                    yield f"{one}/exe"


def _each(paths: Iterable[str], why: str) -> Iterator[tuple[File, str]]:
    for path in paths:
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116 - /proc/PID/exe is a magic link, not a path to walk
            yield (status.st_dev, status.st_ino), why


def _files_in(folders: Iterable[EndpointPath]) -> Iterator[str]:
    """Files, and those in folders: identity, keys, journal and vault are not destroyed by another name of theirs."""
    for one in folders:
        path = os.fsdecode(one.raw)
        yield path
        with suppress(OSError), os.scandir(path) as entries:
            yield from (entry.path for entry in islice(entries, _MOST_OWN) if entry.is_file(follow_symlinks=False))


def _libraries() -> Iterator[str]:
    for folder in _LIBRARY_FOLDERS:
        for name in _LIBRARIES:
            yield from map(str, Path("/").glob(f"{folder}/{name}"[1:]))


def _registered_shells() -> Iterator[str]:
    with suppress(OSError):
        for line in Path("/etc/shells").read_text(errors="replace").splitlines():
            if line.startswith("/"):
                yield line.strip()


def _mapped_by(process: Path) -> Iterator[str]:
    """The files that a process has mapped, through the kernel's own links where it allows that."""
    with suppress(OSError):
        for line in (process / "maps").read_bytes().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith(b"/"):  # noqa: PLR2004 - a line with a path
                yield os.fsdecode(b"%s/root%s" % (os.fsencode(process), fields[5]))


def _is_owned(path: EndpointPath, status: os.stat_result) -> bool:
    """Does a package own it? Where that takes running a program to tell, all that is root's counts as owned."""
    lists = Path("/var/lib/dpkg/info")
    if stat.S_ISDIR(status.st_mode) or not lists.is_dir():
        return status.st_uid == 0
    needle = path.raw + b"\n"
    alias = needle.removeprefix(b"/usr") if needle.startswith(b"/usr/lib/") else needle
    return any(needle in text or alias in text for text in _texts(lists)) or _is_made_by_boot(path)


def _texts(lists: Path) -> Iterator[bytes]:
    for one in lists.glob("*.list"):
        with suppress(OSError):
            yield b"\n" + one.read_bytes()


def _is_made_by_boot(path: EndpointPath) -> bool:
    """What packages make there without owning it: initial RAM disks and the boot loader's own files."""
    return path.name.startswith(("initrd", "initramfs", "vmlinuz", "grub", "modules.")) or "/grub" in path
