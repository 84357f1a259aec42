"""Printable texts in the memory of a process, as indicators ask for them: `ProcessItem/StringList/string`.

Only memory that is of no file and can be written, or run: what is of files is looked at as files. It is bounded, and
so not all that is there; to search all memory of a process, scan it with YARA rules.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from threading import Event
from typing import Final

from stanch.agent.host.items_sections import Region, read_regions
from stanch.core.ioc.items import CUT, Value

STRINGS: Final = "StringList/string"

MAX_MEMORY = 32 * 1_048_576
"""Bytes of a process that are read."""
MAX_REGION = 8 * 1_048_576
"""Bytes of one region that are read: a large heap must not hide the stack."""
MAX_ALL = 4 * 1_073_741_824
"""Bytes of all processes for one question; of those that come later the texts are not known."""
BREATH = 0.0005
"""Seconds for others after each block: a search holds the interpreter, and the agent has more to do."""
MAX_CHARACTERS = 200_000
"""Of all texts of a process."""
_BLOCK = 32_768
_EACH = 16
"""What a text weighs beside its characters."""
_OVERLAP = 512
"""Bytes of a block that are looked at again with the next: a text may lie on both sides."""
_ASCII = re.compile(rb"[\x20-\x7e\t]{6,4096}")
_WIDE = re.compile(rb"(?:[\x20-\x7e\t]\0){6,2048}")
_NOT_MEMORY = (b"[vvar]", b"[vvar_vclock]", b"[vsyscall]", b"[vdso]")


class Memory:
    """Looks into the memory of processes for one question, and not longer than it may."""

    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._left = MAX_ALL

    def strings(self, folder: int, at: str, *, sign: Callable[[], None]) -> Sequence[Value]:
        """The texts of the process with this folder, each once; OSError if its memory cannot be read. Blocks."""
        if self._left <= 0:
            raise PermissionError("so much memory was read already that no more of it is")
        found, left = dict[Value, None](), MAX_CHARACTERS
        file = os.open(f"{at}mem", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            all_, whole = read_regions(folder, at)
            ones = _stack_first(all_)
            for block in _blocks(file, ones):
                left -= _add(found, block, left)
                self._left -= len(block)
                sign()
                time.sleep(BREATH)
                if left <= 0 or self._stop.is_set():
                    break
        finally:
            os.close(file)
        whole = whole and left > 0 and not self._stop.is_set() and _fits(ones)
        return list(found) if whole else [*found, CUT]


def _add(found: dict[Value, None], block: bytes, most: int) -> int:
    """Add the new texts of a block, up to so many characters; how many they are."""
    added = 0
    for text in texts(block):
        if text not in found:
            added += len(text) + _EACH
            if added > most:
                return added
            found[text] = None
    return added


def _fits(ones: Sequence[Region]) -> bool:
    """Is that so little that all of it is read?"""
    sizes = [one.end - one.start for one in ones]
    return sum(sizes) <= MAX_MEMORY and all(size <= MAX_REGION for size in sizes)


def _stack_first(ones: Sequence[Region]) -> list[Region]:
    chosen = [one for one in ones if one.inode == 0 and one.name not in _NOT_MEMORY and set(one.protection) & set("wx")]
    return sorted(chosen, key=lambda one: (one.name != b"[stack]", one.name != b"[heap]", one.end - one.start))


def _blocks(file: int, ones: Iterable[Region]) -> Iterator[bytes]:
    left = MAX_MEMORY
    for one in ones:
        end = min(one.end, one.start + min(MAX_REGION, left))
        rest = b""
        with suppress(OSError, OverflowError):  # it was given back meanwhile, or it is not to be read
            for place in range(one.start, end, _BLOCK):
                block = os.pread(file, min(_BLOCK, end - place), place)
                if not block:
                    break
                left -= len(block)
                yield rest + block
                rest = block[-_OVERLAP:]
        if left <= 0:
            return


def texts(block: bytes) -> Iterator[str]:
    """The printable texts of six or more characters, of one byte each or two."""
    for found in _ASCII.finditer(block):
        yield found[0].decode("ascii")
    for found in _WIDE.finditer(block):
        yield found[0][::2].decode("ascii")
