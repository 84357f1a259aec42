"""`python -m stanch.agent.host.scanner_merging FOLDER REMEMBERED LEARNED`: add what one scan has learned.

A process of its own: it holds all of it in memory, for as long as it runs. One at a time in a folder.
"""

import fcntl
import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stanch.disk.atomic import atomic_write
from stanch.worker.scan.remembered import MAX_LEARNED, merged

MOST: Final = 400_000
"""Files that are remembered: some 55 MB."""


def main(folder: Path, remembered: str, learned: str) -> None:
    """Do it. OSError; nothing is changed then."""
    with _alone(folder):
        with (folder / learned).open("rb") as file:
            new = file.read(MAX_LEARNED)
        with _old(folder / remembered) as old:
            everything = b"".join(merged(old, new, most=MOST, now=time.time()))  # noqa: TID251 - records bear it, too
        atomic_write(folder / remembered, everything)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


@contextmanager
def _old(path: Path) -> "Iterator[bytes | mmap.mmap]":
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield b""
        return
    try:
        if not os.fstat(file).st_size:
            yield b""
            return
        with mmap.mmap(file, 0, prot=mmap.PROT_READ) as mapped:
            yield mapped
    finally:
        os.close(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:4])
