"""Comments out entries of a text, and takes that back: exactly these bytes, whatever else the text is.

A text is bytes, split at line feeds; so carriage returns, odd bytes and a missing last line end stay as they are. An
entry is a line, or several where a backslash at the end says that it goes on. Pure: it knows no files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from stanch.core.autoruns import MAX_ENTRY, Place, disabled_line, read_disabled
from stanch.core.errors import Conflict, TooLarge, Unsupported
from stanch.core.types import EndpointPath

MAX_ENTRIES = 100
"""Different spellings of one line."""

GOES_ON = frozenset(Place) - {Place.CRON, Place.AT, Place.SSH_KEY, Place.INIT, Place.DESKTOP}
"""Where a backslash at the end of a line means that the next one belongs to it."""


def entry_at(content: bytes, number: int, place: Place) -> bytes:
    """The entry that begins in line `number` (from 1), without its last line end. Conflict, Unsupported, TooLarge."""
    lines = content.split(b"\n")
    if not 1 <= number <= len(lines) or not lines[number - 1].strip():
        raise Conflict("The line is not there any more", got=f"{len(lines)} lines", expected=f"line {number}")
    if read_disabled(_text(lines[number - 1])):
        raise Conflict("Stanch has commented it out already", got=EndpointPath.of(lines[number - 1])[:500])
    if number > 1 and _goes_on(lines[number - 2], place):
        raise Unsupported("The line is a part of a longer one", hint="Name the one in which it begins.")
    return _entry(lines, number - 1, place)


def same_entries(content: bytes, entry: bytes, place: Place) -> list[bytes]:
    """Every spelling of an entry that is in the text: they differ in the spaces around their first line at most."""
    lines, wanted = content.split(b"\n"), _first(entry)
    starts = (n for n, line in enumerate(lines) if line.strip() == wanted)
    found = dict.fromkeys(_entry(lines, n, place) for n in starts if n == 0 or not _goes_on(lines[n - 1], place))
    if len(found) > MAX_ENTRIES:
        raise TooLarge("The same line is there in too many spellings", got=len(found), expected=MAX_ENTRIES)
    return list(found)


def _entry(lines: Sequence[bytes], start: int, place: Place) -> bytes:
    end = start
    while end + 1 < len(lines) and _goes_on(lines[end], place):
        end += 1
    entry = b"\n".join(lines[start : end + 1])
    if len(entry) > MAX_ENTRY:
        raise TooLarge("The line is too long", got=f"{len(entry)} bytes", expected=f"at most {MAX_ENTRY}")
    return entry


def _goes_on(line: bytes, place: Place) -> bool:
    line = line.rstrip(b"\r")
    backslashes = len(line) - len(line.rstrip(b"\\"))
    return place in GOES_ON and backslashes % 2 == 1 and not line.lstrip().startswith(b"#")


def _first(entry: bytes) -> bytes:
    return entry.partition(b"\n")[0].strip()


# --- there and back --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """Where the entries stand, as runs of lines from 0."""

    live: tuple[tuple[int, int], ...]
    """As they were."""
    marked: tuple[tuple[int, int], ...]
    """Commented out by the task."""


def find(content: bytes, entries: Sequence[bytes], task: str, place: Place) -> Found:
    """Where these entries stand, live or commented out by this task."""
    lines = content.split(b"\n")
    marked = [marked_by(task, line) for line in lines]
    parts = [entry.split(b"\n") for entry in entries]
    return Found(tuple(_runs(lines, parts, place)), tuple(_runs(marked, parts, place)))


def _runs(lines: Sequence[bytes | None], parts: Sequence[list[bytes]], place: Place) -> Iterator[tuple[int, int]]:
    by_first: dict[bytes | None, list[list[bytes]]] = {}
    for one in sorted(parts, key=len, reverse=True):
        by_first.setdefault(one[0], []).append(one)
    n = 0
    while n < len(lines):
        begins = n == 0 or not _goes_on(lines[n - 1] or b"", place)
        run = next((one for one in by_first.get(lines[n], ()) if begins and [*lines[n : n + len(one)]] == one), None)
        if run is not None:
            yield n, n + len(run)
        n += len(run) if run else 1


def commented(content: bytes, entries: Sequence[bytes], task: str, place: Place) -> bytes:
    """The text with every one of these entries commented out; each of their lines for itself."""
    lines = content.split(b"\n")
    for start, end in find(content, entries, task, place).live:
        lines[start:end] = [_mark(task) + one for one in lines[start:end]]
    return b"\n".join(lines)


def uncommented(content: bytes, entries: Sequence[bytes], task: str, place: Place) -> bytes:
    """The text with the entries back that this task commented out, wherever they stand by now."""
    lines = content.split(b"\n")
    for start, end in find(content, entries, task, place).marked:
        lines[start:end] = [one.removeprefix(_mark(task)) for one in lines[start:end]]
    return b"\n".join(lines)


def before(content: bytes, task: str) -> bytes:
    """The text as it was before this task commented anything out: to see whether anybody else has changed it."""
    mark = _mark(task)
    return b"\n".join(line.removeprefix(mark) for line in content.split(b"\n"))


def marked_by(task: str, line: bytes) -> bytes | None:
    """The line as it was before this task commented it out; None for any other."""
    mark = _mark(task)
    return line.removeprefix(mark) if line.startswith(mark) else None


def _mark(task: str) -> bytes:
    return disabled_line(task, "").encode()


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


# --- where it would do harm ------------------------------------------------------------------------------------------

_OPENS = (b"then", b"do", b"else", b"{", b"(", b"in", b";;", b"&&", b"||", b"|")
_BLOCKS = frozenset(b"if then else elif fi for while until select do done case esac function { } ( ) ;; in".split())
_CLOSES = frozenset(b"fi done esac else elif } ) ;;".split())


def why_not_in_shell(content: bytes, number: int) -> str | None:
    """Why a line of a script cannot be commented out alone: the script would not be one any more. None if it can."""
    lines = [line.strip() for line in content.split(b"\n")]
    line, above, below = lines[number - 1], lines[: number - 1], lines[number:]
    words = line.split()
    if not words or words[0] in _BLOCKS or line.endswith((*_OPENS, b"()", b"}")) or b"<<" in line:
        return "it is a part of a block of the script"
    if _last(above).endswith(_OPENS) and (
        _word(_next(below)) in _CLOSES or _last(above).endswith((b"&&", b"||", b"|"))
    ):
        return "it is all that a block of the script holds"
    return None


def why_not_in_block(content: bytes, number: int) -> str | None:
    """Why a line of a file with blocks in braces (such as apt.conf) cannot be commented out alone; None if it can."""
    line = content.split(b"\n")[number - 1]
    return "it opens or closes a block of the file" if line.count(b"{") != line.count(b"}") else None


def _says(line: bytes) -> bool:
    return bool(line) and not line.startswith(b"#")


def _last(lines: Sequence[bytes]) -> bytes:
    return next((line for line in reversed(lines) if _says(line)), b"")


def _next(lines: Sequence[bytes]) -> bytes:
    return next((line for line in lines if _says(line)), b"")


def _word(line: bytes) -> bytes:
    return line.replace(b";", b" ; ").split()[0] if line.split() else b""


_JUMP_END = b"]"


def why_not_in_pam(content: bytes, number: int) -> str | None:
    """Why a line of PAM cannot be commented out alone: a line above it jumps over it. None if it can.

    `[success=2 default=ignore]` skips the next two modules of its kind: with one less, it would skip one too many.
    """
    lines = content.split(b"\n")
    kind = _pam_kind(lines[number - 1])
    same = [n for n, line in enumerate(lines) if _pam_kind(line) == kind]
    place = same.index(number - 1) if kind is not None and number - 1 in same else 0
    for n, at in enumerate(same[:place]):
        if n + _jump(lines[at]) >= place:
            return f"line {at + 1} jumps over it, and would jump over another one instead"
    return None


def _pam_kind(line: bytes) -> bytes | None:
    words = line.split()
    if not words or words[0].startswith(b"#"):
        return None
    return words[0].lstrip(b"-").lower() if words[0].lstrip(b"-").lower() in _PAM_KINDS else None


_PAM_KINDS = MappingProxyType(dict.fromkeys((b"auth", b"account", b"session", b"password")))


def _jump(line: bytes) -> int:
    """The most modules that a line of PAM may jump over."""
    if b"[" not in line:
        return 0
    control = line.partition(b"[")[2].partition(_JUMP_END)[0]
    actions = (pair.partition(b"=")[2] for pair in control.split())
    return max((min(int(one), 10_000) for one in actions if one.isdigit()), default=0)
