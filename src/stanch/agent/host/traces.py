"""Why the bytes of a file may still be somewhere after it was overwritten in place: its disk, its file system, others.

Best effort, and on the safe side: what cannot be told is told as a doubt.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from stanch.agent.host.holders import holders
from stanch.agent.host.inode_flags import flags_held, reopened
from stanch.agent.host.mounts import Mount, mount_of
from stanch.agent.host.pinned import kind_of
from stanch.core.files import FileId

DEVICES = Path("/sys/dev/block")

_DATA_JOURNALING = 0x4000
_SHOWN = 3
"""Processes that are named."""

_FIEMAP, _SHARED, _LAST = 0xC020_660B, 0x2000, 0x1
_HEAD, _EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQ16xI12x")
_AT_ONCE, _ROUNDS = 256, 400

_COPIES = "it writes new bytes to another place, and the old ones stay until that place is used again"
_SERVER = "whether the server overwrites in place, and what it keeps, cannot be told from here"
_MEMORY = "it keeps files in memory, and what was written to swap space before may still be there"
_KINDS = MappingProxyType(
    {
        **dict.fromkeys(("btrfs", "zfs", "bcachefs"), f"{_COPIES}; snapshots keep them longer"),
        **dict.fromkeys(("f2fs", "nilfs2", "ubifs", "jffs2"), _COPIES),
        "overlay": "if the file came from a lower layer, such as a container image, its bytes are still in that layer",
        **dict.fromkeys(
            ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "virtiofs", "afs", "glusterfs"), _SERVER
        ),
        **dict.fromkeys(("tmpfs", "ramfs"), _MEMORY),
    }
)
_BACKUPS = "Backups, snapshots of the disk, and copies that programs made of it are not touched."


def caveats_of(descriptor: int) -> tuple[str, ...]:
    """All that is known of a file that a descriptor (O_PATH too) holds, a sentence for each. Blocks. OSError."""
    status, mount = os.fstat(descriptor), mount_of(descriptor)
    return (
        *_of_names(status),
        *_of_holders(FileId(device=status.st_dev, inode=status.st_ino)),
        *_of_system(mount, descriptor),
        *_of_sharing(descriptor),
        *_of_disk(mount, status.st_dev),
        _BACKUPS,
    )


def _of_names(status: os.stat_result) -> Iterator[str]:
    others = status.st_nlink - 1
    if others > 0:
        name = "name (hard link)" if others == 1 else "names (hard links)"
        yield f"The file has {others} other {name}, which remain: the content is destroyed there too."


def _of_holders(file: FileId) -> Iterator[str]:
    """This process holds it only for this."""
    found = {one.process.pid: one for one in holders([file]) if one.process.pid != os.getpid()}
    if found:
        first = ", ".join(f"{one.name[:40]} (pid {pid}) {one.how}" for pid, one in list(found.items())[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        yield f"Processes use the file: {first}{more}; they may have its content in memory, or write it again."


def _of_system(mount: Mount, descriptor: int) -> Iterator[str]:
    if mount.kind in _KINDS:
        yield f"The file system is {mount.kind}: {_KINDS[mount.kind]}."
    elif mount.kind.startswith("fuse"):
        yield f"The file system is {mount.kind}, which a program provides: what that keeps cannot be told from here."
    elif not mount.kind:
        yield "The kind of its file system cannot be told, so it may keep the old bytes."
    flags = None
    with suppress(OSError):
        flags = flags_held(descriptor, kind_of(os.fstat(descriptor).st_mode))
    if "data=journal" in mount.options or (flags or 0) & _DATA_JOURNALING:
        yield f"The file system ({mount.kind}) journals data too: old bytes may stay in its journal for a while."


# --- shared ----------------------------------------------------------------------------------------------------------


def _of_sharing(descriptor: int) -> Iterator[str]:
    with suppress(OSError):
        opened = reopened(descriptor)
        try:
            shared = _is_shared(opened)
        finally:
            os.close(opened)
        if shared:
            yield "It shares blocks with another file or a snapshot (reflink): those keep the old bytes."


def _is_shared(opened: int) -> bool:
    start = 0
    for _ in range(_ROUNDS):
        found = _mapped(opened, start)
        if any(flags & _SHARED for *_, flags in found):
            return True
        if not found or found[-1][3] & _LAST:
            return False
        start = found[-1][0] + found[-1][2]
    return False


def _mapped(opened: int, start: int) -> list[tuple[int, int, int, int]]:
    """Offset in the file, on the disk, length, flags."""
    buffer = bytearray(_HEAD.size + _AT_ONCE * _EXTENT.size)
    _HEAD.pack_into(buffer, 0, start, 2**64 - 1 - start, 1, 0, _AT_ONCE, 0)
    fcntl.ioctl(opened, _FIEMAP, buffer)
    count = min(_HEAD.unpack_from(buffer)[3], _AT_ONCE)
    return [_EXTENT.unpack_from(buffer, _HEAD.size + n * _EXTENT.size) for n in range(count)]


# --- disk ------------------------------------------------------------------------------------------------------------


def _of_disk(mount: Mount, device: int) -> Iterator[str]:
    if mount.kind in {"tmpfs", "ramfs"} or (mount.kind in _KINDS and _KINDS[mount.kind] is _SERVER):
        return
    disk = _disk(mount, device)
    if disk is None:
        yield "Which disk it is on cannot be told; flash memory keeps old bytes where nobody can overwrite them."
        return
    if _read(disk / "queue/rotational") == "0":
        yield f"The disk ({disk.name}) is flash or virtual: it may write new bytes to another place, and keep the old."
    if (disk / "dm").is_dir():
        yield f"The disk ({disk.name}) is a logical volume: its snapshots keep the old bytes."
    if backing := _read(disk / "loop/backing_file"):
        yield f"The disk ({disk.name}) is itself a file, {backing[:1000]}: old bytes may stay where that one is kept."


def _disk(mount: Mount, device: int) -> Path | None:
    """Its folder below /sys; of a partition, that of the whole disk."""
    for number in (device, _device_of(mount.source)):
        with suppress(OSError):
            found = (DEVICES / f"{os.major(number)}:{os.minor(number)}").resolve(strict=True)
            return found.parent if (found / "partition").exists() else found
    return None


def _device_of(source: str) -> int:
    """Btrfs and others show a device of their own making; 0 if what was mounted is none."""
    with suppress(OSError, ValueError):
        if source.startswith("/dev/"):
            return Path(source).stat().st_rdev
    return 0


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""
