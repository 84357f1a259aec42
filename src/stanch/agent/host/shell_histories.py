"""The histories that shells keep: bytes of a file that its user may write as they like, made into commands."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 16_384
"""Bytes of a command."""
LATEST: Final = 253_402_300_799
"""The last second of the year 9999: what claims to be later is no time."""

_STAMP: Final = re.compile(rb"#\+?(\d{1,12})")
_EXTENDED: Final = re.compile(rb": {0,3}(\d{1,12}):\d{1,12};", re.ASCII)
_FISH_COMMAND: Final = b"- cmd: "
_FISH_WHEN: Final = re.compile(rb" {1,8}when: (\d{1,12})")
_FISH_ESCAPE: Final = re.compile(rb"\\(n|\\)")
_META: Final = re.compile(rb"\x83(.)", re.DOTALL)
_KSH_SEPARATOR: Final = re.compile(rb"[\0\n]{1,4096}")
"""Not longer at once: one search in millions of zeros would hold the interpreter."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command."""

    text: str
    time: int | None = None
    """Seconds since 1970; None if the history does not say."""


Parse = Callable[[bytes], Iterator[Command]]


def bash(raw: bytes) -> Iterator[Command]:
    """A line each, with the time of the stamp before it: of a command of several lines, each is one here."""
    time = None
    for line in _lines(raw):
        stamp = _STAMP.fullmatch(line)
        if stamp:
            time = _time(stamp[1])
        elif line.strip():
            yield Command(_text(line), time)


def plain(raw: bytes) -> Iterator[Command]:
    """A line each."""
    return (Command(_text(line)) for line in _lines(raw) if line.strip())


def ksh(raw: bytes) -> Iterator[Command]:
    """Commands between zero bytes, behind a mark."""
    begin = 2 if raw.startswith(b"\x81") else 0
    for one in _split(raw[begin:], _KSH_SEPARATOR):
        if one.strip():
            yield Command(_text(one))


def zsh(raw: bytes) -> Iterator[Command]:
    """With times or without; a line that ends with a backslash goes on. Some bytes are written as two."""
    parts, size = list[bytes](), 0
    for line in _lines(raw):
        goes_on = line.endswith(b"\\")
        size += len(line)
        if size <= LONGEST:
            parts.append(line[:-1] if goes_on else line)
        if goes_on:
            continue
        whole, parts, size = b"\n".join(parts), [], 0
        yield from _of_zsh(whole)
    yield from _of_zsh(b"\n".join(parts))


def _of_zsh(whole: bytes) -> Iterator[Command]:
    stamp = _EXTENDED.match(whole)
    text = whole[stamp.end() :] if stamp else whole
    if text.strip():
        shown = _META.sub(lambda found: bytes((found[1][0] ^ 0x20,)), text)
        yield Command(_text(shown), _time(stamp[1]) if stamp else None)


def fish(raw: bytes) -> Iterator[Command]:
    """Its own likeness of YAML: `- cmd:` and, below it, `when:`."""
    text: str | None = None
    for line in _lines(raw):
        if line.startswith(_FISH_COMMAND):
            if text is not None:
                yield Command(text)
            text = _text(_FISH_ESCAPE.sub(lambda found: b"\n" if found[1] == b"n" else b"\\", line[7:])) or None
        elif text is not None and (stamp := _FISH_WHEN.fullmatch(line)):
            yield Command(text, _time(stamp[1]))
            text = None
    if text is not None:
        yield Command(text)


HISTORIES: Final[Mapping[str, tuple[str, Parse]]] = {
    ".bash_history": ("bash", bash),
    ".zsh_history": ("zsh", zsh),
    ".zhistory": ("zsh", zsh),
    ".histfile": ("zsh", zsh),
    ".local/share/fish/fish_history": ("fish", fish),
    ".config/fish/fish_history": ("fish", fish),
    ".ash_history": ("ash", plain),
    ".ksh_history": ("ksh", ksh),
    ".mksh_history": ("ksh", plain),
    ".sh_history": ("sh", ksh),
    ".history": ("csh", bash),
}
"""File below a home, to its shell and how it is read. csh has stamps as bash has, with a plus sign: `#+`."""


def _lines(raw: bytes) -> Iterator[bytes]:
    """One after the other: all at once would hold the others up."""
    return (one.rstrip(b"\r") for one in _split(raw, re.compile(rb"\n")))


def _split(raw: bytes, separator: re.Pattern[bytes]) -> Iterator[bytes]:
    begin = 0
    for found in separator.finditer(raw):
        yield raw[begin : min(found.start(), begin + LONGEST)]
        begin = found.end()
    if begin < len(raw):
        yield raw[begin : begin + LONGEST]


def _time(digits: bytes) -> int | None:
    found = int(digits)
    return found if found <= LATEST else None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
