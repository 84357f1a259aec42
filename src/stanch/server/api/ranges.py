"""One byte range of a download (RFC 9110, section 14), and a file name that no header can be broken with."""

import re
from dataclasses import dataclass
from urllib.parse import quote

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
_PLAIN = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes from `start`, `length` of them."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        """The header that says which part of the whole it is."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


class NotSatisfiable(ValueError):
    """The range begins after the end."""


def parse_range(header: str | None, size: int) -> Range | None:
    """The range that is asked for; None for the whole. NotSatisfiable if there is nothing there.

    Several ranges, other units and malformed headers are ignored, as the standard allows.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        length = min(int(last), size)
        return _satisfiable(Range(size - length, length))
    start, end = int(first), min(int(last) if last else size - 1, size - 1)
    if last and int(last) < start:
        return None
    return _satisfiable(Range(start, end - start + 1))


def _satisfiable(wanted: Range) -> Range:
    if wanted.length <= 0:
        raise NotSatisfiable
    return wanted


def attachment(name: str, *, otherwise: str) -> str:
    """A Content-Disposition that saves under the last component of a name; `otherwise` if it has none."""
    last = name.rsplit("/", 1)[-1][:MAX_NAME] or otherwise
    plain = _PLAIN.sub("_", last).lstrip(".") or otherwise
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(last, safe='', errors='replace')}"
