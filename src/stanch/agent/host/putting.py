"""A new file is written beside its place, verified, and given its name once it is whole and on the disk.

Its folder is found once and held: whatever happens to the path meanwhile, the file gets into that very folder, or
nowhere. Whoever looks sees nothing or the whole file. Killed at any step, a repeat with the same token finishes: it
removes what was half, and takes for its own what is exactly as it was ordered.
"""

import asyncio
import errno
import grp
import hashlib
import os
import pwd
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TypeVar

from stanch.agent.host.inode_flags import APPEND_ONLY, IMMUTABLE, flags_of
from stanch.agent.host.metadata import info_of
from stanch.agent.host.mounts import mount_of
from stanch.agent.host.path_calls import open_folder, path_of
from stanch.agent.host.pinned import aside_name, place, same_file
from stanch.agent.path_rules import is_below
from stanch.core.errors import (
    ActionFailed,
    Conflict,
    Invalid,
    NotVerified,
    Protected,
    StanchError,
    TargetGone,
    Unsupported,
    VerificationFailed,
)
from stanch.core.files import Bytes, FileInfo, Placing
from stanch.core.filesystems import MADE_UP
from stanch.core.types import MAX_PATH_BYTES, EndpointPath

PIECE = 4 * 1_048_576
"""Bytes that are read and written at a time."""

MOST_FOLDERS = 100
"""Missing folders that are made; each is held until the file has its name."""

Check = Callable[[EndpointPath], None]
"""Raises if a real path must not be used."""

Protection = Callable[[EndpointPath, os.stat_result], str | None]
"""Why what has this real path and status must stay; None if it need not."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MOST_ID = 2**32 - 2
"""The number above it means `unchanged` to the kernel."""

_KERNELS = (EndpointPath("/proc"), EndpointPath("/sys"))
"""Control groups of version 1 hang in a tmpfs in between."""

_ACL = "system.posix_acl_access"

_LOOK = "Look at it; with --replace, what is there goes into the vault first."


async def put(placing: Placing, content: Bytes, *, protected: Protection, writable: Check) -> FileInfo:
    """Put a file into its place, on the disk when it returns; whoever is cancelled leaves nothing behind.

    Conflict if something is there, unless an earlier run with this token put it; Protected; what `writable` raises;
    VerificationFailed if the content is another one; TargetGone for a folder, account or group that is not there;
    Unsupported, ActionFailed.
    """
    putting = _Putting(placing, content.size, protected, writable)
    try:
        if await _in_thread(putting.begin):
            sha256 = placing.sha256 or await _sha256_of(content)
            return await _in_thread(partial(putting.earlier, sha256))
        for offset in range(0, content.size, PIECE):
            piece = await _piece(content, offset)
            await _in_thread(partial(putting.write, piece))
        return await _in_thread(putting.finish)
    except BaseException:
        await _in_thread(putting.drop)
        raise
    finally:
        putting.close()


async def _piece(content: Bytes, offset: int) -> bytes:
    length = min(PIECE, content.size - offset)
    piece = await content.read(offset, length)
    if len(piece) != length:
        raise ActionFailed("The content ended early", got=f"{len(piece)} bytes", expected=f"{length} at {offset}")
    return piece


async def _sha256_of(content: Bytes) -> str:
    found = hashlib.sha256()
    for offset in range(0, content.size, PIECE):
        found.update(await _piece(content, offset))
    return found.hexdigest()


_Result = TypeVar("_Result")


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Its result; who is cancelled meanwhile is told so when it has come to its end, so that it can be undone."""
    running = asyncio.get_running_loop().run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        running.exception()  # retrieved: being cancelled weighs more
        raise cancelled
    return running.result()


class _Putting:
    """One put, in steps that block. `drop` what it made unless it is finished; `close` it in any case."""

    def __init__(self, placing: Placing, size: int, protected: Protection, writable: Check) -> None:
        self._placing = placing
        self._size = size
        self._protected = protected
        self._writable = writable
        self._held = ExitStack()
        self._made: list[tuple[int, bytes]] = []
        self._folder = self._file = -1
        self._name = b""
        self._temporary: bytes | None = None
        self._real = placing.path
        self._owner = (0, 0)
        self._hash = hashlib.sha256()

    # --- before ---

    def begin(self) -> bool:
        """Find the folder, ask everybody, make the temporary file; True if what is there may be an earlier run's."""
        with _explained(self._placing.path):
            self._owner = _owner(self._placing)
            self._open_folder()
            self._ask()
            temporary = aside_name(f"put-{self._placing.token or secrets.token_hex(8)}")
            _remove_leftover(self._folder, temporary)
            there = self._there()
            if there is not None:
                self._refuse_others(there)
                return True
            self._refuse_no_room()
            self._file = os.open(temporary, _NEW, 0o600, dir_fd=self._folder)
            self._temporary = temporary
            self._held.callback(os.close, self._file)
            return False

    def _open_folder(self) -> None:
        parent, self._name = _split(self._placing.path)
        existing, missing = _deepest(parent) if self._placing.make_folders else (parent, ())
        self._folder = self._hold(open_folder(existing))
        self._real = _real(self._folder, (*missing, self._name))
        # Before the first folder is made: nothing shall be changed where nothing may be put.
        self._writable(self._real)
        _refuse_shut(self._folder, self._real)
        for name in missing:
            self._make_folder(name)
        if missing:  # somebody may have moved them since
            self._real = _real(self._folder, (self._name,))
            self._writable(self._real)

    def _make_folder(self, name: bytes) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self._folder)
            self._made.append((self._folder, name))
            os.fsync(self._folder)
        self._folder = self._hold(os.open(name, _FOLDER, dir_fd=self._folder))

    def _hold(self, descriptor: int) -> int:
        self._held.callback(os.close, descriptor)
        return descriptor

    def _ask(self) -> None:
        """Is this a place where even a new file would do harm? It is asked as the file that it will be."""
        of_it = (stat.S_IFREG | self._placing.mode, 0, 0, 1, *self._owner, self._size, 0, 0, 0)
        self._refuse_protected(os.stat_result(of_it))

    def _refuse_protected(self, status: os.stat_result) -> None:
        why = self._protected(self._real, status)
        if why is not None:
            raise Protected(f"No file may be put to {self._real}", got=why)

    def _refuse_no_room(self) -> None:
        """Seen before the disk is full: other programs need it too."""
        found = os.fstatvfs(self._folder)
        free = found.f_bavail * found.f_frsize
        if found.f_blocks and free < self._size:  # some file systems tell nothing
            raise ActionFailed(
                f"There is no room for {self._real}", got=f"{free} bytes free", expected=self._size, hint=_ROOM
            )

    # --- what is there ---

    def _there(self) -> os.stat_result | None:
        try:
            return os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _refuse_others(self, there: os.stat_result) -> None:
        if self._placing.token and self._is_as_ordered(there):
            return
        self._refuse_protected(there)
        raise Conflict(f"Something is at {self._real} already", got=f"{there.st_size} bytes", hint=_LOOK)

    def _is_as_ordered(self, there: os.stat_result) -> bool:
        """Not yet its content."""
        now = (stat.S_IFMT(there.st_mode), stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid, there.st_size)
        return now == (stat.S_IFREG, self._placing.mode, *self._owner, self._size)

    def earlier(self, sha256: str) -> FileInfo:
        """What an earlier run put there, on the disk when it returns; Conflict if it is something else."""
        with _explained(self._real):
            opened = self._hold(os.open(self._name, _READ, dir_fd=self._folder))
            status = os.fstat(opened)
            if not self._is_as_ordered(status) or _sha256_in(opened) != sha256:
                self._refuse_protected(status)
                raise Conflict(f"Another file is at {self._real} already", got=f"{status.st_size} bytes", hint=_LOOK)
            os.fsync(opened)
            os.fsync(self._folder)  # it may have been killed just before
            return info_of(status)

    # --- the deed ---

    def write(self, piece: bytes) -> None:
        """The next bytes of it."""
        rest = memoryview(piece)
        with _explained(self._real):
            while rest:
                rest = rest[os.write(self._file, rest) :]
        self._hash.update(piece)

    def finish(self) -> FileInfo:
        """Verify it, give it its owner, its mode, and its name."""
        expected, got = self._placing.sha256, self._hash.hexdigest()
        if expected and got != expected:
            raise VerificationFailed(f"The content for {self._real} is another one", got=got, expected=expected)
        with _explained(self._real):
            self._give_owner()
            os.fsync(self._file)
            self._give_name()
            return info_of(os.fstat(self._file))

    def _give_owner(self) -> None:
        """The owner first: a new one clears setuid. An ACL that the folder gave could let more people in."""
        with suppress(OSError):
            os.removexattr(self._file, _ACL)
        os.fchown(self._file, *self._owner)
        os.fchmod(self._file, self._placing.mode)
        if not self._is_as_ordered(found := os.fstat(self._file)):
            raise Unsupported(
                f"The file system of {self._real} keeps another owner or mode",
                got=f"{found.st_uid}:{found.st_gid}, mode {stat.S_IMODE(found.st_mode):o}",
                expected=f"{self._owner[0]}:{self._owner[1]}, mode {self._placing.mode:o}",
                hint="Order what it can keep, or put the file somewhere else.",
            )

    def _give_name(self) -> None:
        try:
            place(self._folder, self._temporary or b"", self._name)
        except FileExistsError as error:
            there = self._there()
            if there is not None:
                self._refuse_protected(there)
            raise Conflict(f"Something came to {self._real} meanwhile", hint=_LOOK) from error
        if not self._is_mine(self._name):
            raise NotVerified(f"{self._real} was swapped while it was put", hint="Look at who may write to its folder.")

    def _is_mine(self, name: bytes) -> bool:
        try:
            found = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return False
        return same_file(found, os.fstat(self._file))

    # --- after ---

    def drop(self) -> None:
        """Remove what was made: the file under either name, then the folders; what others put there meanwhile stays."""
        if self._temporary is not None:
            for name in filter(self._is_mine, (self._temporary, self._name)):
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._folder)
        for folder, name in reversed(self._made):
            with suppress(OSError):
                os.rmdir(name, dir_fd=folder)

    def close(self) -> None:
        """Let go of everything."""
        self._held.close()


def _sha256_in(opened: int) -> str:
    found = hashlib.sha256()
    while piece := os.read(opened, PIECE):
        found.update(piece)
    return found.hexdigest()


# --- where to --------------------------------------------------------------------------------------------------------


def _split(path: EndpointPath) -> tuple[bytes, bytes]:
    parent, _, name = path.raw.rpartition(b"/")
    if name in {b"", b".", b".."}:
        raise Invalid(f"{path} is no name for a file", expected="a path that ends with a name")
    return parent or b"/", name


def _deepest(path: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """The part of a path that is there, and the folders that are missing below it."""
    steps = [step for step in path.split(b"/") if step not in {b"", b"."}]
    there = len(steps)
    while there and not os.path.lexists(b"/" + b"/".join(steps[:there])):
        there -= 1
    missing = tuple(steps[there:])
    if b".." in missing or len(missing) > MOST_FOLDERS:
        raise Invalid(
            f"The folders above {EndpointPath.of(path)} cannot be made",
            got=f"{len(missing)} are missing",
            expected=f"at most {MOST_FOLDERS}, none of them `..`",
        )
    return b"/" + b"/".join(steps[:there]), missing


def _real(folder: int, names: tuple[bytes, ...]) -> EndpointPath:
    found = path_of(folder)
    if not os.fstat(folder).st_nlink or not found.startswith(b"/"):
        raise TargetGone("Its folder was removed, or the agent does not see it", got=EndpointPath.of(found))
    full = b"/".join((found.rstrip(b"/"), *names))
    if len(full) > MAX_PATH_BYTES:
        raise Unsupported("The real path of the file is too long", expected=f"at most {MAX_PATH_BYTES} bytes")
    return EndpointPath.of(full)


def _refuse_shut(folder: int, path: EndpointPath) -> None:
    """Seen before anything is made: in a folder that is append-only, a temporary file could not be removed again."""
    mount = mount_of(folder)
    if mount.kind in MADE_UP or is_below(path, _KERNELS) is not None:
        raise Unsupported(
            f"No file can be put to {path}",
            got=f"the kernel makes up what is there ({mount.kind})",
            expected="a file system on a disk or in memory",
        )
    if os.fstatvfs(folder).f_flag & os.ST_RDONLY:
        raise _read_only(path)
    if (flags_of(folder) or 0) & (IMMUTABLE | APPEND_ONLY):
        raise Unsupported(
            f"No file can be put to {path}: its folder is immutable or append-only",
            hint="See lsattr; chattr -i or -a makes it writable.",
        )


def _remove_leftover(folder: int, temporary: bytes) -> None:
    """What an earlier run of this token left half done."""
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)


# --- for whom --------------------------------------------------------------------------------------------------------


def _owner(placing: Placing) -> tuple[int, int]:
    """Numbers of account and group; TargetGone if they are not there, Invalid for a number that cannot be one."""
    uid, group = _account(placing.user)
    if placing.group is not None:
        return uid, _group(placing.group)
    if group is None:
        raise TargetGone(f"There is no account {uid}, so its group is not known", hint="Name the group too.")
    return uid, group


def _account(user: str | None) -> tuple[int, int | None]:
    try:
        if user is None:
            return 0, 0
        if not _is_number(user):
            found = pwd.getpwnam(user)
            return found.pw_uid, found.pw_gid
        with suppress(KeyError):
            return int(user), pwd.getpwuid(int(user)).pw_gid
        return int(user), None
    except (KeyError, ValueError) as error:
        raise _unknown("account", user, "getent passwd") from error


def _group(group: str) -> int:
    try:
        return int(group) if _is_number(group) else grp.getgrnam(group).gr_gid
    except (KeyError, ValueError) as error:
        raise _unknown("group", group, "getent group") from error


def _is_number(text: str) -> bool:
    """Invalid for a number that nobody can have."""
    if not (text.isascii() and text.isdecimal()):
        return False
    if len(text) > len(str(_MOST_ID)) or int(text) > _MOST_ID:
        raise Invalid("No account or group has this number", got=text[:100], expected=f"at most {_MOST_ID}")
    return True


def _unknown(what: str, name: str | None, program: str) -> TargetGone:
    return TargetGone(
        f"There is no such {what} on this endpoint",
        got=(name or "")[:100],
        hint=f"`{program}` lists them; or give its number.",
    )


# --- what went wrong -------------------------------------------------------------------------------------------------

_ROOM = "Make room there, or put it somewhere else."

_MEANINGS: dict[int, tuple[type[StanchError], str, str | None]] = {
    errno.ENOENT: (TargetGone, "The folder of {} is not there", "With --make-folders, it is made."),
    errno.ENOTDIR: (TargetGone, "What is above {} is no folder", None),
    errno.ESTALE: (TargetGone, "The folder of {} has vanished from its network file system", None),
    errno.ELOOP: (
        Unsupported,
        "The way to {} leads in a circle, or through another process's view of the files (/proc/PID/root)",
        "Name its real path.",
    ),
    errno.ENAMETOOLONG: (ActionFailed, "A part of {} is longer than its file system allows", "Choose a shorter name."),
    errno.ENOSPC: (ActionFailed, "There is no room for {}", _ROOM),
    errno.EDQUOT: (ActionFailed, "The quota leaves no room for {}", "Raise the quota, or put it somewhere else."),
    errno.EFBIG: (ActionFailed, "{} would be larger than its file system allows", "Put it somewhere else."),
    errno.EPERM: (ActionFailed, "The agent may not put {} there", "Its file system, or a security module, forbids it."),
    errno.EACCES: (ActionFailed, "The agent may not put {} there", "The rights of its folder, or a security module."),
    errno.EINVAL: (ActionFailed, "The file system of {} does not take it", "It may not know this owner, or this name."),
    errno.EISDIR: (ActionFailed, "A folder is where {} is written at first", "Remove the folder .stanch-put-…"),
    errno.EEXIST: (ActionFailed, "Something is where {} is written at first", "Remove the file .stanch-put-…"),
}


@contextmanager
def _explained(path: EndpointPath) -> Iterator[None]:
    """What a person can do something about, instead of OSError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EROFS:
            raise _read_only(path) from error
        kind, message, hint = _MEANINGS.get(error.errno or 0, (ActionFailed, "{} cannot be written", None))
        raise kind(message.format(path), got=error.strerror, hint=hint) from error


def _read_only(path: EndpointPath) -> Unsupported:
    return Unsupported(
        f"No file can be put to {path}: its file system is mounted read-only", hint="It must be mounted writable first."
    )
