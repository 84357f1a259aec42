"""The files in which autoruns stand, below a root folder: opened so that nothing leads out of it, read within bounds.

All of it is hostile. A path is pinned with O_PATH, no link and no `..` leading out of the root; what was pinned is
looked at; only a regular file is opened, through that descriptor; no more is read than a bound. What is there and
cannot be read is kept in `unread`. Paths are text with surrogates for odd bytes, as `os.fsdecode` makes it. Blocks.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import islice
from pathlib import Path

from stanch.agent.host.inode_flags import reopened
from stanch.agent.host.mounts import Mount, mount_of
from stanch.agent.host.path_calls import path_of, pin_below
from stanch.core.autoruns import Unread, read_disabled
from stanch.core.errors import StanchError
from stanch.core.types import MAX_PATH_BYTES, EndpointPath

MAX_FILE = 1_048_576
"""Bytes of a text that are read."""

MAX_LINES = 20_000
"""Lines of a text that are looked at."""

MAX_LINE = 16_384
"""Characters of a line that are looked at."""

MAX_ENTRIES = 20_000
"""Names of a folder that are looked at."""

MAX_UNREAD = 5000
"""Places that are told as unread."""

MAX_ACCOUNTS = 5000
"""Accounts whose homes are looked at."""

MAX_OF_HOME = 300_000
"""What is spent on one home: a name costs 1, a folder 100, a file 20, and 256 bytes of it 1. About ten seconds."""

HASHED_OF_USER = 1024 * 1_048_576
"""Bytes of files of one user, who is not root, that are hashed."""

HASHED = 16 * HASHED_OF_USER
"""Bytes that are hashed of all."""

BLOCK = 1_048_576

_KINDS = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a FIFO",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFBLK: "it is a block device",
    stat.S_IFCHR: "it is a character device",
    stat.S_IFLNK: "it is a link",
}
_NULL = os.makedev(1, 3)
_MADE_UP = ("/proc/", "/sys/")
_HOMES = "/home"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text, as it counts: what Stanch commented out is told as it was."""

    number: int
    """From 1."""
    text: str
    """Without its end."""
    disabled_by: str = ""
    """The task that commented it out."""

    @property
    def is_blank(self) -> bool:
        """Empty, or a comment of `#`."""
        return self.text.strip()[:1] in {"", "#"}


@dataclass(frozen=True, slots=True)
class Account:
    """A line of passwd, or a folder in /home of somebody who has none."""

    name: str
    uid: int
    home: str


class Tree:
    """What is below one root folder. Not for several threads at a time; close it."""

    def __init__(
        self, root: Path = Path("/"), *, forbidden: Callable[[EndpointPath], None] = lambda _path: None
    ) -> None:
        self._forbidden = forbidden
        self._closing = ExitStack()
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._closing.callback(os.close, self._root)
        self._accounts: tuple[Account, ...] | None = None
        self._missed: set[tuple[str, str]] = set()
        self._home_names: frozenset[str] = frozenset()
        self._spent: dict[str, int] = {}
        self._hashed: dict[int, int] = {}
        self.unread: list[Unread] = []
        """What was met since somebody took it away from here; each once."""

    def close(self) -> None:
        """Let go of the root."""
        self._closing.close()

    # --- what is there -----------------------------------------------------------------------------------------------

    def status(self, path: str, *, follow: bool = True) -> os.stat_result | None:
        """What stat says; None if it is not there."""
        with self._pinned(path, follow=follow) as held:
            return None if held is None else os.fstat(held)

    def space(self, path: str) -> tuple[Mount, tuple[int, int]] | None:
        """The mount that a path is on, the bytes that its file system has, and those free; None if it does not say."""
        with self._pinned(path) as held:
            try:
                found = None if held is None else (mount_of(held), os.fstatvfs(held))
            except OSError:
                return None
        return None if found is None else (found[0], _bytes_of(found[1]))

    def target(self, path: str) -> str | None:
        """Where a link leads, as it says itself; None if it is none."""
        with self._pinned(path, follow=False) as held:
            if held is None or not stat.S_ISLNK(os.fstat(held).st_mode):
                return None
            return os.fsdecode(os.readlink(b"", dir_fd=held))

    def real(self, path: str) -> str:
        """The path with all links on it followed; the path itself if it is not there or has none."""
        with self._pinned(path) as held:
            return path if held is None else self._real(held) or path

    def _real(self, held: int) -> str:
        """What the path of something is, seen from the root; empty if nobody can tell."""
        try:
            found, root = path_of(held), path_of(self._root).rstrip(b"/")
        except OSError:
            return ""
        return os.fsdecode(found[len(root) :]) if found.startswith(root + b"/") else ""

    def _may_open(self, path: str, held: int) -> bool:
        """Does the owner of the machine let anybody read it? By where it really is.

        And no link in a home leads to what the kernel makes up: /proc/kmsg gives each line once, to whoever reads it.
        """
        real = self._real(held) or path
        try:
            self._forbidden(endpoint_path(real))
        except StanchError as error:
            self.miss(path, error.message)
            return False
        if real.startswith(_MADE_UP) and self._home_of(path):
            self.miss(path, f"it is a link to {real}")
            return False
        return True

    def is_mask(self, path: str) -> bool:
        """Is it a link to /dev/null, which stands in the way of a file of this name in another folder?"""
        target = self.target(path)
        return target is not None and joined(path.rpartition("/")[0], target) == "/dev/null"

    def is_file(self, path: str) -> bool:
        """Is a regular file there, be it through links?"""
        found = self.status(path)
        return found is not None and stat.S_ISREG(found.st_mode)

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none if it is not there."""
        with self._pinned(folder) as held:
            if held is None or not stat.S_ISDIR(os.fstat(held).st_mode) or not self._affords(folder, 100):
                return []
            with ExitStack() as closing:
                try:
                    opened = reopened(held)
                    closing.callback(os.close, opened)
                    entries = closing.enter_context(os.scandir(opened))
                    found = sorted(one.name for one in islice(entries, MAX_ENTRIES + 1))
                except OSError as error:
                    self.miss(folder, error.strerror or str(error))
                    return []
        if len(found) > MAX_ENTRIES:
            self.miss(folder, f"only {MAX_ENTRIES} of its names were looked at")
        self._affords(folder, len(found))
        return found[:MAX_ENTRIES]

    def paths(self, folder: str) -> list[str]:
        """The same, as paths."""
        return [f"{folder.rstrip('/')}/{name}" for name in self.names(folder)]

    # --- what it says ------------------------------------------------------------------------------------------------

    def read(self, path: str, *, most: int = MAX_FILE) -> bytes | None:
        """The first bytes of a file; None if it is not there, or told as unread. /dev/null is empty."""
        with self._pinned(path) as held:
            if held is None:
                return None
            found = os.fstat(held)
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL:
                return b""
            if not stat.S_ISREG(found.st_mode):
                self.miss(path, _KINDS[stat.S_IFMT(found.st_mode)])
                return None
            if not self._may_open(path, held) or not self._affords(path, 20 + min(found.st_size, most) // 256):
                return None
            content = self._content(path, held, most)
        if content is not None and len(content) > most:
            self.miss(path, f"only its first {most} bytes were read")
            return content[:most]
        return content

    def _content(self, path: str, held: int, most: int) -> bytes | None:
        """Up to the bound and one byte more; files that the kernel makes up say that they have none."""
        try:
            with open(reopened(held), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
                parts, left = list[bytes](), most + 1
                while left > 0 and (part := file.read(min(BLOCK, left))):
                    parts.append(part)
                    left -= len(part)
        except OSError as error:
            self.miss(path, error.strerror or str(error))
            return None
        return b"".join(parts)

    def text(self, path: str, *, most: int = MAX_FILE) -> str:
        """A text; empty if there is none."""
        return (self.read(path, most=most) or b"").decode("utf-8", "surrogateescape")

    def lines(self, path: str) -> Iterator[Line]:
        """Its lines, in order, each as it counts."""
        lines = self.text(path).split("\n")
        if len(lines) > MAX_LINES:
            self.miss(path, f"only its first {MAX_LINES} lines were looked at")
        lines = lines[:MAX_LINES]
        live = {one[:MAX_LINE].strip() for one in lines} if any(map(read_disabled, lines)) else set[str]()
        for number, raw in enumerate(lines, 1):
            line = raw.rstrip("\r")
            if len(line) > MAX_LINE:
                self.miss(path, f"only the first {MAX_LINE} characters of line {number} were looked at")
            task, text = read_disabled(line[:MAX_LINE]) or ("", line[:MAX_LINE])
            # Beside the same line as it was, which has the same id, a mark is but a comment: it must not hide that one.
            yield Line(number, line[:MAX_LINE]) if task and text.strip() in live else Line(number, text, task)

    def sha256(self, path: str, *, most: int) -> str | None:
        """The hash of a regular file of at most so many bytes; None for any other."""
        return self.hashes(path, ("sha256",), most=most).get("sha256")

    def hashes(self, path: str, kinds: Collection[str], *, most: int) -> Mapping[str, str]:
        """Kind (as hashlib has it) to hash, of a regular file of at most so many bytes; empty for any other."""
        with self.opened(path) as file:
            if file is None:
                return {}
            found = os.fstat(file.fileno())
            if found.st_size > most or not self._may_hash(path, found):
                return {}
            try:
                return _hashes_of(iter(lambda: file.read(BLOCK), b""), kinds, most)
            except OSError:
                return {}

    @contextmanager
    def opened(self, path: str) -> Iterator[FileIO | None]:
        """A regular file to read from, without a buffer; None for any other. What home it is in pays for 20."""
        with self._pinned(path) as held, ExitStack() as closing:
            file = None
            if held is not None and stat.S_ISREG(os.fstat(held).st_mode) and self._may_open(path, held):
                try:
                    file = closing.enter_context(FileIO(reopened(held)))
                except OSError as error:
                    self.miss(path, error.strerror or str(error))
            yield file if file is not None and self._affords(path, 20) else None

    # --- within bounds ---

    def _affords(self, path: str, cost: int) -> bool:
        """Is there anything left to be spent on the home it is in? Nobody's home may keep the others from being read.

        Outside of homes, always: there, it takes root to put anything.
        """
        home = self._home_of(path)
        if not home:
            return True
        before = self._spent.get(home, 0)
        self._spent[home] = before + cost
        if before < MAX_OF_HOME:
            return True
        self.miss(home, "there is too much in it: only a part was looked at")
        return False

    def _home_of(self, path: str) -> str:
        """The home, or the folder in /run/user, that a path is in; empty for none."""
        steps = path.split("/", 20)
        above = ["/".join(steps[:n]) for n in range(2, len(steps))]
        return next((one for one in above if one in self._home_names or one.startswith("/run/user/")), "")

    def _may_hash(self, path: str, found: os.stat_result) -> bool:
        """A user could name any number of files without content as programs: they would be read for hours."""
        mine = self._hashed.get(found.st_uid, 0) + found.st_size
        if mine > (HASHED_OF_USER if found.st_uid else HASHED) or sum(self._hashed.values()) + found.st_size > HASHED:
            self.miss(path, "its hash was not taken: there is too much to be hashed")
            return False
        self._hashed[found.st_uid] = mine
        return True

    # --- whose it is -------------------------------------------------------------------------------------------------

    def accounts(self) -> tuple[Account, ...]:
        """Everybody of passwd, and who has a home in /home all the same, as accounts of a directory service do."""
        if self._accounts is None:
            found = list(islice(_accounts(self.text("/etc/passwd")), MAX_ACCOUNTS))
            homes = {one.home for one in found}
            for path in self.paths(_HOMES)[: MAX_ACCOUNTS - len(found)]:
                status = None if path in homes else self.status(path, follow=False)
                if status is not None and stat.S_ISDIR(status.st_mode):
                    found.append(Account(path.rpartition("/")[2], status.st_uid, path))
            self._accounts = tuple(found)
            self._home_names = frozenset(one.home for one in found) - _NO_HOMES
        return self._accounts

    def homes(self) -> list[Account]:
        """One account for each home that is somebody's own: neither / nor a folder of the system."""
        by_home: dict[str, Account] = {}
        for one in self.accounts():
            if one.home not in _NO_HOMES:
                by_home.setdefault(one.home, one)
        return [one for home, one in by_home.items() if self._is_home(home)]

    def _is_home(self, path: str) -> bool:
        """Is a folder there? One that would be mounted for us is left alone: of thousands, that would be a storm."""
        with self._pinned(path) as held:
            if held is None or not stat.S_ISDIR(os.fstat(held).st_mode):
                return False
            if mount_of(held).kind == "autofs":
                self.miss(path, "it is mounted only when somebody goes there (autofs)")
                return False
        return True

    def user(self, uid: int) -> str:
        """The name of an account, or its number."""
        return next((one.name for one in self.accounts() if one.uid == uid), str(uid))

    # --- opening -----------------------------------------------------------------------------------------------------

    def miss(self, path: str, why: str) -> None:
        """It is there, and not all of it was looked at."""
        if (path, why) not in self._missed and len(self._missed) < MAX_UNREAD:
            self._missed.add((path, why))
            self.unread.append(Unread(path=endpoint_path(path), why=why[:1000]))

    @contextmanager
    def _pinned(self, path: str, *, follow: bool = True) -> Iterator[int | None]:
        raw = os.fsencode(path)
        if b"\0" in raw or len(raw) > MAX_PATH_BYTES:
            yield None
            return
        try:
            held = pin_below(self._root, raw, follow=follow)
        except (FileNotFoundError, NotADirectoryError):
            yield None
            return
        except OSError as error:
            self.miss(path, error.strerror or str(error))
            yield None
            return
        try:
            yield held
        finally:
            os.close(held)


_NO_HOMES = frozenset({"", "/", "/nonexistent", "/dev", "/dev/null", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/proc"})


def endpoint_path(path: str) -> EndpointPath:
    """A path of this kind as people are told it: within what a path may be."""
    raw = os.fsencode(path).replace(b"\0", b"?")[:MAX_PATH_BYTES]
    return EndpointPath.of(raw if raw.startswith(b"/") else b"/" + raw[: MAX_PATH_BYTES - 1])


def joined(folder: str, target: str) -> str:
    """What a link in a folder leads to, by its text alone."""
    return os.path.normpath(target if target.startswith("/") else f"{folder}/{target}")


def _accounts(passwd: str) -> Iterator[Account]:
    for line in passwd.split("\n"):
        parts = line.split(":")
        if len(parts) == 7 and parts[2].isascii() and parts[2].isdigit() and len(parts[2]) <= 10:  # noqa: PLR2004 - passwd(5)
            home = os.path.normpath(parts[5]) if parts[5].startswith("/") else ""
            yield Account(parts[0][:64], int(parts[2]), home)


def _bytes_of(found: os.statvfs_result) -> tuple[int, int]:
    return found.f_blocks * found.f_frsize, found.f_bfree * found.f_frsize


def _hashes_of(blocks: Iterator[bytes], kinds: Collection[str], most: int) -> Mapping[str, str]:
    found, left = {one: hashlib.new(one, usedforsecurity=False) for one in kinds}, most
    for block in blocks:
        left -= len(block)
        if left < 0:  # it grows while it is read
            return {}
        for one in found.values():
            one.update(block)
    return {kind: one.hexdigest() for kind, one in found.items()}


def joined_lines(
    lines: Iterable[Line], *, is_blank: Callable[[Line], bool] = lambda line: line.is_blank
) -> Iterator[tuple[Line, str]]:
    """Lines that go on with a backslash as one: the first of them, and the text of all; none that begins blank."""
    first, parts, size = None, list[str](), 0
    for line in lines:
        if first is None:
            if is_blank(line):
                continue
            first, size = line, 0
        goes_on = line.text.endswith("\\")
        size += len(line.text)
        if size <= 65_536:  # noqa: PLR2004 - longer than any line that means something
            parts.append(line.text.removesuffix("\\"))
        if not goes_on:
            yield first, " ".join(parts)
            first, parts = None, []
    if first is not None:
        yield first, " ".join(parts)
