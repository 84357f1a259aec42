"""What earlier scans know of files that did not change since.

A record says of one file, as it was with this size and these time stamps: its hashes, as far as they were taken, and
under which rules it was clean. Finds are never remembered: they are found again.

Why it may be believed. The kernel sets ctime to now whenever content is written, and nobody can set it otherwise. But:

- A store through a shared mapping sets it only when the page becomes dirty; a second store to that page does not. A
  `write` sets it first and copies afterwards, and a writer can make that copy last. So a file that somebody has open or
  mapped for writing may change later without a trace. Therefore a file is remembered only if, before it is read, a read
  lease on it can be taken for an instant: the kernel grants none while anybody has it open for writing, a mapping that
  outlived its descriptor included. Whoever writes after that instant has opened it after that instant: his first write
  or first store to a page (all of them are clean or write-protected then) sets ctime to that later time.
- ctime comes from a coarse clock, so two changes may bear the same time: nothing is remembered whose mtime or ctime is
  younger than SETTLED seconds, or in the future, when it is read; and the stamps are looked at again afterwards.
- tmpfs, overlays, FUSE and file systems of the network keep no such promise: only ext2 to ext4, xfs and btrfs count.
- Numbers of devices and inodes are given anew: a record is bound to the boot, the device, and the id of its file
  system. A crash may leave content and stamps of different times behind: it ends the boot, too.
- A record is believed for OLDEST seconds, in case this argument has a hole.

What remains: root can set the clock back and wait for the very nanosecond, write to the disk below the file system, or
change a removable disk for a forged one with the same ids; and a worker that a hostile file has taken over can lie.
"""

import fcntl
import hashlib
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SETTLED: Final = 2.0
"""Seconds for which the stamps must have stood."""
OLDEST: Final = 7 * 86_400
"""Seconds for which a record is believed."""
MAX_LEARNED: Final = 32 * 2**20
"""Bytes of `learned` that are believed at the start; more can be there, and is merged later."""
MAX_WRITTEN: Final = 256 * 2**20
"""Bytes that one scan learns at most."""
AT_ONCE: Final = 400
"""Records that are written together."""

HASHES: Final[Mapping[str, int]] = {"md5": 16, "sha1": 20, "sha256": 32}
_FORM: Final = struct.Struct(">8sQQqqIB3x16s20s32s16s")
_STATE: Final = struct.Struct(">8sQQQQ")
"""How a record begins."""
_CHECK: Final = struct.Struct(">I")
RECORD: Final = _FORM.size + _CHECK.size
"""Bytes of a record."""
_HALVES: Final = struct.Struct(f"{_STATE.size}s{RECORD - _STATE.size}s")
MAX_IN_TABLE: Final = 100_000
"""Records that are unpacked into memory, with some 300 bytes each."""
_KEY: Final = 16
_CLEAN: Final = 8
_BITS: Final = {"md5": 1, "sha1": 2, "sha256": 4}
_RULES: Final = b"\xff" * 8
"""In place of a file system: such a record says of a file of rules that all of it counts."""
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which file, and in which state."""

    place: bytes
    """Names its file system (see `Places`)."""
    inode: int
    size: int
    mtime: int
    ctime: int
    """Nanoseconds."""

    @classmethod
    def of(cls, place: bytes, status: os.stat_result) -> "Stamp":
        """As `stat` tells it."""
        return cls(place, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(slots=True)
class Known:
    """What is known of a file."""

    hashes: dict[str, bytes] = field(default_factory=dict)
    clean: bytes = b""
    """Under which name of rules nothing was found; empty for none."""


class Places:
    """Names file systems: by the boot, the device and what the file system says it is."""

    def __init__(self) -> None:
        try:
            self._boot = _BOOT.read_bytes().strip()
        except OSError:
            self._boot = b""

    def of(self, device: int, magic: int, number: bytes) -> bytes:
        """Eight bytes; empty if this boot has no name, so that nothing can be remembered."""
        if not self._boot:
            return b""
        text = self._boot + struct.pack(">QQ", device, magic) + number
        return hashlib.blake2b(text, digest_size=8).digest()


def is_quiet(file: int, status: os.stat_result, now: float) -> bool:
    """May this open file be remembered, if it is now read and then still has these stamps?

    Does it rest, and has nobody opened it for writing? `now` is from before `status` was taken.
    """
    newest = max(status.st_mtime_ns, status.st_ctime_ns) / 1e9
    if newest > now - SETTLED:
        return False
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


# --- records ---------------------------------------------------------------------------------------------------------


def packed(stamp: Stamp, known: Known, when: int) -> bytes:
    """A record."""
    have = sum(_BITS[kind] for kind in known.hashes) | (_CLEAN if known.clean else 0)
    hashes = (known.hashes.get(kind, bytes(size)) for kind, size in HASHES.items())
    body = _FORM.pack(
        stamp.place, stamp.inode, stamp.size, stamp.mtime, stamp.ctime, when, have, *hashes, known.clean or bytes(16)
    )
    return body + _CHECK.pack(zlib.crc32(body))


def unpacked(record: bytes) -> tuple[Stamp, Known, int] | None:
    """What it says, and when that was learned (seconds since 1970); None for a damaged one."""
    if len(record) != RECORD or zlib.crc32(record[: -_CHECK.size]) != _CHECK.unpack(record[-_CHECK.size :])[0]:
        return None
    place, inode, size, mtime, ctime, when, have, *rest = _FORM.unpack(record[: -_CHECK.size])
    hashes = {kind: rest[n] for n, kind in enumerate(HASHES) if have & _BITS[kind]}
    return Stamp(place, inode, size, mtime, ctime), Known(hashes, rest[3] if have & _CLEAN else b""), when


def rules_stamp(digest: bytes) -> Stamp:
    """Stands for a file of rules: the digest of its text, and of the engine."""
    return Stamp(_RULES, *struct.unpack(">QQqq", digest[:32]))


class _Sorted:
    """Sorted records, in a mapped file or in memory."""

    def __init__(self, data: "bytes | mmap.mmap") -> None:
        self._data = data
        self._count = len(data) // RECORD
        self._rests: dict[bytes, bytes] | None = None

    def rest_of(self, start: bytes) -> bytes | None:
        """How the record goes on that begins so. Done for every file: by a table, if that takes little memory."""
        if self._rests is None:
            if self._count > MAX_IN_TABLE:
                record = self.find(start[:_KEY])
                return record[_STATE.size :] if record is not None and record.startswith(start) else None
            self._rests = dict(_HALVES.iter_unpack(self._data[: self._count * RECORD]))
        return self._rests.get(start)

    def find(self, key: bytes) -> bytes | None:
        """By halves, since it is done for many files."""
        data, low, high = self._data, 0, self._count
        while low < high:
            middle = (low + high) // 2
            begin = middle * RECORD
            here = data[begin : begin + _KEY]
            if here == key:
                return data[begin : begin + RECORD]
            if here < key:
                low = middle + 1
            else:
                high = middle
        return None


class Memory:
    """What is remembered, and what is learned. Any thread may ask and add."""

    def __init__(self, remembered: int | None, learned: int | None, *, now: float | None = None) -> None:
        """Reads both descriptors, and cuts a torn record off the second."""
        self._now = int(time.time() if now is None else now)  # noqa: TID251 - compared with stamps of the kernel
        self._learned = learned
        self._waiting: list[bytes] = []
        self._written = 0
        self._lock = threading.Lock()
        self._old = _Sorted(b"") if remembered is None else _Sorted(_mapped(remembered))
        self._new = _Sorted(b"") if learned is None else _Sorted(_sorted_bytes(_whole(learned)))

    def get(self, stamp: Stamp) -> Known | None:
        """What is known of a file in this very state."""
        if not stamp.place:
            return None
        key = struct.pack(">8sQ", stamp.place, stamp.inode)
        for source in (self._new, self._old):
            record = source.find(key)
            told = None if record is None else unpacked(record)
            if told is not None and told[0] == stamp and 0 <= self._now - told[2] <= OLDEST:
                return told[1]
        return None

    def is_clean(self, place: bytes, status: os.stat_result, key: bytes) -> bool:
        """As `get(...).clean == key`, but quick: it is what a second scan asks of almost every file."""
        start = _STATE.pack(
            place, status.st_ino, status.st_size, status.st_mtime_ns % 2**64, status.st_ctime_ns % 2**64
        )
        for source in (self._new, self._old):
            rest = source.rest_of(start)
            if rest is not None:
                return self._is_clean(start, rest, key)
        return False

    def _is_clean(self, start: bytes, rest: bytes, key: bytes) -> bool:
        """Does a record say so that begins and goes on like this?"""
        if rest[-20:-4] != key or not rest[4] & _CLEAN:
            return False
        if not 0 <= self._now - int.from_bytes(rest[:4], "big") <= OLDEST:
            return False
        return zlib.crc32(rest[:-4], zlib.crc32(start)) == int.from_bytes(rest[-4:], "big")

    def add(self, stamp: Stamp, known: Known) -> None:
        """Remember it."""
        if self._learned is None or not stamp.place:
            return
        with self._lock:
            self._waiting.append(packed(stamp, known, self._now))
            if len(self._waiting) >= AT_ONCE:
                self._flush()

    def flush(self) -> None:
        """Write what waits: then it outlives us."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        data, self._waiting = b"".join(self._waiting), []
        if self._learned is None or not data or self._written + len(data) > MAX_WRITTEN:
            return
        try:
            done = os.write(self._learned, data)
        except OSError:
            done = 0
        self._written += done
        if done != len(data):
            self._learned = None  # no room: what follows would be no whole records


def _mapped(file: int) -> "bytes | mmap.mmap":
    size = os.fstat(file).st_size // RECORD * RECORD
    return mmap.mmap(file, size, prot=mmap.PROT_READ) if size else b""


def _whole(file: int) -> bytes:
    """The records in it; what was torn at its end is cut off."""
    size = os.fstat(file).st_size
    if size % RECORD:
        os.ftruncate(file, size - size % RECORD)
    pieces, at, end = [], 0, min(size // RECORD * RECORD, MAX_LEARNED // RECORD * RECORD)
    while at < end and (piece := os.pread(file, min(2**20, end - at), at)):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _sorted_bytes(data: bytes) -> bytes:
    return b"".join(newest(data[n : n + RECORD] for n in range(0, len(data) - RECORD + 1, RECORD)))


def newest(records: Iterable[bytes]) -> Iterator[bytes]:
    """Sorted; of each file the record that came last. Damaged ones are left out."""
    latest = {record[:_KEY]: record for record in records if unpacked(record) is not None}
    return (latest[key] for key in sorted(latest))


def merged(old: "bytes | mmap.mmap", new: bytes, *, most: int, now: float) -> Iterator[bytes]:
    """Records of both, sorted: of each file the newer one; none that is too old; `most` at most, the newest of them.

    For whoever keeps the file: feed it to an atomic write, record by record. `old` must be sorted; of `new`, as scans
    learn it, at most MAX_LEARNED bytes count. Both may be torn at their ends.
    """
    fresh = _sorted_bytes(new[: MAX_LEARNED // RECORD * RECORD])
    since = _since(old, fresh, most, int(now))
    written = 0
    for record in _two(_each(old), _each(fresh)):
        if written < most and _when(record) >= since and _when(record) <= now + 60:
            written += 1
            yield record


def _each(data: "bytes | mmap.mmap") -> Iterator[bytes]:
    for n in range(0, len(data) - RECORD + 1, RECORD):
        record = data[n : n + RECORD]
        if unpacked(record) is not None:
            yield record


def _when(record: bytes) -> int:
    return int.from_bytes(record[40:44], "big")


def _since(old: "bytes | mmap.mmap", new: bytes, most: int, now: int) -> int:
    """From when on records are kept, so that there are not too many: by hours, counted from now back."""
    hours = [0] * (OLDEST // 3600 + 1)
    for data in (old, new):
        for record in _each(data):
            hour = (now - _when(record)) // 3600
            if 0 <= hour < len(hours):
                hours[hour] += 1
    total = 0
    for hour, count in enumerate(hours):
        total += count
        if total > most:
            return now - max(1, hour) * 3600
    return now - OLDEST


def _two(old: Iterator[bytes], new: Iterator[bytes]) -> Iterator[bytes]:
    """Merge; of two with one key the new one."""
    one, other = next(old, None), next(new, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[:_KEY] < other[:_KEY]):
            if one is not None:
                yield one
            one = next(old, None)
        else:
            if one is not None and one[:_KEY] == other[:_KEY]:
                one = next(old, None)
            yield other
            other = next(new, None)
