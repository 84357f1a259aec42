"""ClamAV's daemon on this machine: where its socket is, whether it is the daemon's own, and which version answers.

Whoever sits at that socket is sent the content of every file that is scanned: so it is used only if root or ClamAV's
own account holds it, and nobody else may write where it lies.
"""

import asyncio
import os
import pwd
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stanch.core.errors import Unavailable, Unsupported

CONFIGS: Final = ("/etc/clamav/clamd.conf", "/etc/clamd.d/scan.conf", "/etc/clamd.conf")
SOCKETS: Final = (
    *("/run/clamav/clamd.ctl", "/run/clamav/clamd.sock", "/var/run/clamd.scan/clamd.sock"),
    *("/run/clamd.scan/clamd.sock", "/var/lib/clamav/clamd.sock"),
)
ACCOUNTS: Final = ("clamav", "clamscan", "clamupdate", "vscan", "clam")
WITHIN: Final = 5.0
"""Seconds for an answer."""

_LOCAL = re.compile(rb"^[ \t]*LocalSocket[ \t]+(\S+)[ \t]*$", re.MULTILINE)
_MAX_CONFIG = 262_144
_MAX_ANSWER = 300
_LONGEST = 107
"""Bytes of a socket's path that the kernel takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clamd:
    """The daemon of a machine."""

    root: Path = Path("/")
    """Below which its configuration and its socket are."""

    def connect(self) -> socket.socket:
        """A connection to it; Unsupported if there is none, Unavailable if it does not answer. Blocks, shortly."""
        why = "no socket of clamd"
        for path in dict.fromkeys(self._paths()):
            refused = self._why_not(path)
            if refused is None:
                return _connected(path)
            why = refused or why
        raise Unsupported("ClamAV's daemon is not there", got=why, hint="Install clamav-daemon, and start it.")

    async def version(self) -> str:
        """What it says of itself; Unsupported, Unavailable."""
        return await asyncio.to_thread(self._version)

    def _version(self) -> str:
        with self.connect() as line:
            try:
                line.sendall(b"zVERSION\0")
                answer = b""
                while b"\0" not in answer and len(answer) < _MAX_ANSWER:
                    piece = line.recv(_MAX_ANSWER)
                    if not piece:
                        break
                    answer += piece
            except OSError as error:
                raise Unavailable("ClamAV's daemon does not answer", got=error) from error
        return answer.partition(b"\0")[0][:_MAX_ANSWER].decode("utf-8", "backslashreplace").strip() or "unknown"

    def _paths(self) -> Iterator[Path]:
        for config in CONFIGS:
            with suppress(OSError), (self.root / config[1:]).open("rb") as file:
                yield from (self._below(os.fsdecode(one)) for one in _LOCAL.findall(file.read(_MAX_CONFIG)))
        yield from map(self._below, SOCKETS)

    def _below(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    @staticmethod
    def _why_not(path: Path) -> str | None:
        """Why it is not used; empty if it is not there, None if it may be."""
        try:
            found, folder = path.lstat(), path.parent.stat()
        except OSError:
            return ""
        if not stat.S_ISSOCK(found.st_mode):
            return f"{path} is no socket"
        trusted = _trusted()
        if found.st_uid not in trusted or folder.st_uid not in trusted:
            return f"{path} belongs to user id {found.st_uid}, not to root or ClamAV"
        if folder.st_mode & stat.S_IWOTH:
            return f"{path.parent} is writable by everybody"
        return None


def _trusted() -> frozenset[int]:
    found = {0}
    for name in ACCOUNTS:
        with suppress(KeyError):
            found.add(pwd.getpwnam(name).pw_uid)
    return frozenset(found)


def _connected(path: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    line.settimeout(WITHIN)
    try:
        if len(os.fsencode(path)) > _LONGEST:
            raise OSError("its path is too long")
        line.connect(os.fspath(path))
    except OSError as error:
        line.close()
        raise Unavailable("ClamAV's daemon does not answer", got=error, hint="systemctl start clamav-daemon") from error
    return line
