"""The clock that an attacker cannot set: time since boot, suspended time included, and which boot it is."""

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_seconds() -> float:
    """Seconds since this boot (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Names this boot: a UUID, or nothing where the kernel does not tell."""
    with suppress(OSError), _BOOT_ID.open(encoding="ascii", errors="replace") as file:
        return file.read(64).strip()
    return ""


def wall_clock() -> datetime:
    """What the machine's own clock says. It may be wrong, or set by anybody: for words to people, never to decide."""
    return datetime.fromtimestamp(time.clock_gettime(time.CLOCK_REALTIME), UTC)
