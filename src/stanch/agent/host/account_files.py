"""Read what etc/passwd, etc/shadow and etc/login.defs say of one account: passwd(5), shadow(5), login.defs(5).

The files are read as bytes and whole, up to a bound. Of two lines with one name the first counts, as for the C library.
A line that is broken is told as such, never guessed at: what shadow-utils would do with it is something else each time.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stanch.core.errors import ActionFailed, Unsupported

MAX_FILE = 16 * 1_048_576
"""Bytes of one of these files; a machine with more local accounts than that keeps them elsewhere."""

UID_MIN = 1000
"""First user id of people, where login.defs names none."""

_SHADOW_FIELDS = 9
_PASSWD_FIELDS = 7
_UID_MIN = re.compile(rb"^[ \t]*UID_MIN[ \t]+(\d{1,9})[ \t]*(?:#.*)?$", re.MULTILINE)
_DAYS = re.compile(rb"\d{1,9}|")
"""What shadow-utils reads as such. It does not see a line with anything else: it adds a second one, or never ends."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of etc/passwd."""

    name: str
    uid: int
    shell: str
    shadowed: bool = True
    """Does its password stand in etc/shadow? Else nobody looks at its expiry either."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """What of a line of etc/shadow matters here; the hash of the password is not kept."""

    locked: bool
    """Does the password field begin with an exclamation mark?"""
    bare: bool
    """Is there nothing but the mark, or nothing at all: would it be open without a password if the mark went?"""
    expires: str
    """Days since 1970, or empty."""

    def expired(self, today: int) -> bool:
        """Is it closed on this day, counted from 1970? An expiry of 0 means none, as for login(1)."""
        return bool(self.expires) and 0 < int(self.expires) <= today


def read_file(path: Path) -> bytes:
    """All of a regular file that nobody else may have put a link in place of; nothing if it is not there.

    ActionFailed if it is larger than it may be or no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ActionFailed(f"{path} cannot be read", got=error.strerror) from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ActionFailed(f"{path} is no regular file", expected="a regular file")
        raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise ActionFailed(f"{path} is too large", got=f"over {MAX_FILE} bytes", expected=f"at most {MAX_FILE} bytes")
    return raw


def passwd_entry(raw: bytes, name: str) -> Entry | None:
    """The first line of this account; None if there is none that is whole."""
    return next((one for one in passwd_entries(raw) if one.name == name), None)


def passwd_entries(raw: bytes) -> Iterator[Entry]:
    """Every whole line of etc/passwd, in its order."""
    for line in raw.split(b"\n"):
        fields = line.split(b":")
        if len(fields) == _PASSWD_FIELDS and fields[0] and fields[2].isdigit() and len(fields[2]) <= 10:  # noqa: PLR2004 - 32 bits
            uid = int(fields[2])
            if uid < 2**32:
                yield Entry(_text(fields[0]), uid, _text(fields[6]), shadowed=fields[1] == b"x")


def shadow_entry(raw: bytes, name: str) -> Shadow:
    """The line of this account.

    Unsupported if it has none (its password then stands in etc/passwd, and it cannot expire), ActionFailed if it is
    broken.
    """
    wanted = name.encode() + b":"
    line = next((one for one in raw.split(b"\n") if one.startswith(wanted)), None)
    if line is None:
        raise Unsupported(
            f"The account {name} has no line in etc/shadow, so it cannot expire",
            expected="shadow passwords",
            hint="`pwconv` on the endpoint makes one.",
        )
    fields = line.split(b":")
    if len(fields) != _SHADOW_FIELDS or not all(_DAYS.fullmatch(one) for one in fields[2:9]):
        raise ActionFailed(
            f"The line of {name} in etc/shadow is broken",
            got=f"{len(fields)} fields: {_text(b':'.join(fields[2:]))[:100]}",
            expected=f"{_SHADOW_FIELDS} fields, those after the password being numbers or empty",
            hint="Repair it with `pwck` on the endpoint.",
        )
    password = fields[1]
    return Shadow(
        locked=password.startswith(b"!"), bare=not password.removeprefix(b"!"), expires=fields[7].decode("ascii")
    )


def first_uid(login_defs: bytes) -> int:
    """The first user id of people."""
    with suppress(IndexError):
        return int(_UID_MIN.findall(login_defs)[-1])
    return UID_MIN


def _text(field: bytes) -> str:
    return field.decode("utf-8", "backslashreplace")[:200]
