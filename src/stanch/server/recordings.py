"""Recordings of terminals: every byte, with its time, as asciicast version 2 (https://docs.asciinema.org).

It is written here, on the server, and not on the endpoint: whoever has a shell of root there could change it. Each
event is in the file before it is passed on. Text in JSON must be text, so bytes that are no UTF-8 are kept as lone
surrogates (`\udc80` is the byte 80): nothing is lost, and players show a mark in their place.
"""

import codecs
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from stanch.core.errors import StanchError, TooLarge, Unavailable
from stanch.server.evidence import KEEP_FREE

MAX_BYTES = 512 * 1_048_576
"""Of one recording; a terminal that brings more is closed."""

FOR_NOTES = 1_048_576
"""More than that, for markers and the last characters alone: why it ended is told although it is full."""

LOOK_EVERY = 8 * 1_048_576
"""Bytes after which it is looked whether the disk has room for more."""

SUFFIX = ".cast"


class Recording:
    """One terminal, being recorded."""

    def __init__(
        self, path: Path, *, columns: int, rows: int, began: datetime, title: str, seconds: Callable[[], float]
    ) -> None:
        self.path = path
        self._seconds = seconds
        self._began = seconds()
        self._decoders = {code: codecs.getincrementaldecoder("utf-8")("surrogateescape") for code in "oi"}
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._room_until = 0
        self._write(
            {
                "version": 2,
                "width": columns,
                "height": rows,
                "timestamp": int(began.timestamp()),
                "title": title,
                "env": {"TERM": "xterm-256color"},
            }
        )

    def output(self, data: bytes) -> None:
        """What the terminal showed; TooLarge or Unavailable if there is no room for it any more."""
        self._bytes("o", data)

    def typed(self, data: bytes) -> None:
        """What was typed, passwords included."""
        self._bytes("i", data)

    def resized(self, columns: int, rows: int) -> None:
        """Another size."""
        self._event("r", f"{columns}x{rows}")

    def note(self, text: str) -> None:
        """A marker: who came, who went. Left out where there is no room for it."""
        with suppress(StanchError):
            self._event("m", text, FOR_NOTES)

    def close(self) -> None:
        """No more; it never raises, and repeating it is harmless.

        Nothing waits for the disk here, where everybody would: what becomes evidence is on it before this is removed.
        """
        if self._file < 0:
            return
        for code, decoder in self._decoders.items():
            rest = decoder.decode(b"", final=True)
            with suppress(StanchError):
                if rest:
                    self._event(code, rest, FOR_NOTES)
        os.close(self._file)
        self._file = -1

    def _bytes(self, code: str, data: bytes) -> None:
        text = self._decoders[code].decode(data)
        if text:  # else it ends in the middle of a character, whose rest comes with the next bytes
            self._event(code, text)

    def _event(self, code: str, text: str, more: int = 0) -> None:
        self._write([round(self._seconds() - self._began, 6), code, text], more)

    def _write(self, line: object, more: int = 0) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        size = self._size + len(data)
        if size > MAX_BYTES + more:
            raise TooLarge("The recording of this terminal is full", got=self._size, expected=f"at most {MAX_BYTES}")
        if size > self._room_until:
            self._look_for_room()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            os.ftruncate(self._file, self._size)  # half a line would make the rest unreadable
            raise _no_room(error.strerror) from error
        self._size = size

    def _look_for_room(self) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if free < KEEP_FREE:
            raise _no_room(f"{free} bytes free")
        self._room_until = self._size + LOOK_EVERY


def _no_room(got: str | None) -> Unavailable:
    return Unavailable(
        "The server cannot record this terminal any more", got=got, hint="Free space on the server's disk."
    )


def mend(path: Path) -> None:
    """Cut off the line that a crash left half-written."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65_536)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                file.truncate(start + at + 1)
                return
            end = start
        file.truncate(0)
