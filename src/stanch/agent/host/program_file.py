"""A program that is to be run, held by descriptors: what it is, what runs a script, and whether the owner allows it.

The path is walked once. What is checked is what is held, and what is held is executed: see `by_path`. All of it blocks:
call it in a thread.
"""

import errno
import fcntl
import hashlib
import hmac
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from stanch.agent.host.inode_flags import reopened
from stanch.agent.host.pinned import pin
from stanch.agent.path_rules import PathRules, is_below
from stanch.core.errors import ActionFailed, Invalid, StanchError, TargetGone, Unsupported
from stanch.core.files import Kind
from stanch.core.types import EndpointPath

ELF, SCRIPT = "an ELF program", "a script"

_FIRST = 256
"""Bytes of a file in which the kernel looks for an interpreter."""

MAX_COPIED = 256 * 1_048_576
"""Bytes of a program that is copied so that nobody can change it."""

_MFD_EXEC = 0x10
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_SHEBANG = re.compile(rb"#![ \t]*([^ \t\n\0]+)[ \t]*([^\n\0]*)")
_CHUNK = 1_048_576
_EVERYBODYS = tuple(map(EndpointPath, ("/tmp", "/var/tmp", "/dev/shm", "/run/user")))  # noqa: S108 - to warn of them
_ANYBODY_EXECUTES = 0o111
_OTHERS_WRITE = 0o022
_MAX_LINKS = 40
_SET_ID = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramFile:
    """A file that can be executed. Borrows its descriptors."""

    path: EndpointPath
    """All links resolved."""

    descriptor: int
    """Open for reading."""

    script: tuple[str, ...] = ()
    """For a script: its interpreter, as it names it, and the argument that it gives it."""

    interpreter: EndpointPath | None = None
    """Of a script, all links resolved."""

    interpreter_descriptor: int | None = None

    by_path: bool
    """Is it executed by its path?

    It is nicer by its path: the process gets its name, a script finds what lies beside it. But a path may be given to
    another file between our look and the kernel's, or the interpreter's. So it is done only where root alone could: no
    folder on the way, nor the file, belongs to or can be written by anybody else. Otherwise the descriptor is executed,
    and a script is handed to its interpreter as `/proc/self/fd/N`: then there is nothing to swap.
    """

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return SCRIPT if self.script else ELF

    @property
    def status(self) -> os.stat_result:
        """As it is now."""
        return os.fstat(self.descriptor)

    @property
    def state(self) -> tuple[int, int, int]:
        """What changes with its content."""
        now = self.status
        return now.st_size, now.st_mtime_ns, now.st_ctime_ns

    def sha256(self) -> str:
        """Of its content. OSError."""
        digest, offset = hashlib.sha256(), 0
        while piece := os.pread(self.descriptor, _CHUNK, offset):
            digest.update(piece)
            offset += len(piece)
        return digest.hexdigest()

    def check_hash(self, expected: str) -> None:
        """TargetGone if it holds something else than was meant."""
        if not hmac.compare_digest(found := self.sha256(), expected.lower()):
            raise TargetGone(f"{self.path} is another file than the one that was meant", got=found, expected=expected)

    def pinned(self, expected: str | None, stack: ExitStack) -> "ProgramFile":
        """What holds exactly this, and goes on to; itself if any content will do.

        Whoever may write to a file could do so after it was hashed: a script is read while it runs. So of a file that
        is not root's alone a copy is made that nobody can write to, in memory, and that one is hashed and executed.
        """
        if expected is None:
            return self
        meant = self if self._is_roots else replace(self, descriptor=_sealed_copy(self, stack), by_path=False)
        meant.check_hash(expected)
        return meant

    @property
    def _is_roots(self) -> bool:
        now = self.status
        return now.st_uid == 0 and not now.st_mode & _OTHERS_WRITE

    def warnings(self) -> Iterator[str]:
        """What a person should know before it is run."""
        now, where = self.status, is_below(self.path, _EVERYBODYS)
        if self.interpreter is not None:
            yield f"It is a script, run by {self.interpreter}"
        if now.st_uid:
            yield f"It belongs to the account {now.st_uid}, which can change it"
        if now.st_mode & _OTHERS_WRITE:
            yield f"Others may write to it: mode {stat.S_IMODE(now.st_mode):04o}"
        if now.st_mode & _SET_ID:
            yield f"It changes its user or group by itself: mode {stat.S_IMODE(now.st_mode):04o}"
        if where is not None:
            yield f"It is below {where}, where everybody may put files"
        if not self.by_path:
            yield "Others than root could put another file in its place; so this very file is run by its descriptor"


def _sealed_copy(file: ProgramFile, stack: ExitStack) -> int:
    """A descriptor of a copy in memory that nobody can change; Unsupported if it is too large. OSError."""
    copy = _memory()
    stack.callback(os.close, copy)
    offset = 0
    while piece := os.pread(file.descriptor, _CHUNK, offset):
        offset += len(piece)
        if offset > MAX_COPIED:
            raise Unsupported(
                f"{file.path} can be changed by others while it runs, and is too large to be copied first",
                got=f"more than {MAX_COPIED} bytes, of the account {file.status.st_uid}",
                hint="Put it with put-file in a place of root's own, or run it without --sha256.",
            )
        while piece:
            piece = piece[os.write(copy, piece) :]
    os.fchmod(copy, 0o755)
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    return copy


def _memory() -> int:
    """An empty file in memory. OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("stanch-program", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 6.3 all of them can be executed
            raise
        return os.memfd_create("stanch-program", flags)


def open_program(path: EndpointPath, rules: PathRules, stack: ExitStack) -> ProgramFile:
    """Hold what is to be run; the stack closes it.

    TargetGone if nothing is there, Invalid if it is no program, ForbiddenHere if the owner of the machine forbids it or
    its interpreter, Unsupported for what cannot be run this way.
    """
    real, descriptor = _open(path, stack)
    rules.check(real)
    rules.check_program(real)
    first = _beginning(descriptor, real)
    if first.startswith(b"\x7fELF"):
        return ProgramFile(path=real, descriptor=descriptor, by_path=_is_roots_alone(real))
    words = _interpreter_of(first, real)
    interpreter, held = _open_interpreter(words[0], real, stack)
    rules.check(interpreter)
    rules.check_interpreter(real, interpreter)
    return ProgramFile(
        path=real,
        descriptor=descriptor,
        script=words,
        interpreter=interpreter,
        interpreter_descriptor=held,
        by_path=all(map(_is_roots_alone, (real, interpreter, EndpointPath(words[0])))),
    )


def open_folder(path: EndpointPath, rules: PathRules, stack: ExitStack) -> int:
    """Hold the folder in which a program is to start; Invalid if it is none, TargetGone, ForbiddenHere."""
    held = stack.enter_context(pin(_resolved(path))) if path.raw.strip(b"/") else None
    if held is None:
        descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        return descriptor
    rules.check(held.path)
    if held.kind is not Kind.FOLDER:
        raise Invalid(f"{path} is no folder to start in", got=held.kind.words, expected="a folder")
    return held.descriptor


def _resolved(path: EndpointPath) -> EndpointPath:
    """What a path leads to. It is held afterwards without following anything, so that a swap is seen."""
    return EndpointPath.of(os.path.realpath(path.raw))


def _open(path: EndpointPath, stack: ExitStack) -> tuple[EndpointPath, int]:
    held = stack.enter_context(pin(_resolved(path)))
    if held.kind is not Kind.FILE:
        raise Invalid(f"{path} is no program", got=held.kind.words, expected="an executable file")
    mode = held.status.st_mode
    if not mode & _ANYBODY_EXECUTES:
        raise Invalid(
            f"{path} is not executable",
            got=f"mode {stat.S_IMODE(mode):04o}",
            expected="a mode such as 0755",
            hint="Put it again with put-file and the right mode.",
        )
    try:
        descriptor = reopened(held.descriptor)
    except OSError as error:
        raise ActionFailed(f"{path} cannot be read", got=error.strerror) from error
    stack.callback(os.close, descriptor)
    if os.fstatvfs(descriptor).f_flag & os.ST_NOEXEC:
        raise Invalid(f"{path} cannot be run: its file system is mounted noexec", hint="Put it somewhere else.")
    return held.path, descriptor


def _beginning(descriptor: int, path: EndpointPath) -> bytes:
    try:
        return os.pread(descriptor, _FIRST, 0)
    except OSError as error:
        raise ActionFailed(f"{path} cannot be read", got=error.strerror) from error


def _interpreter_of(first: bytes, path: EndpointPath) -> tuple[str, ...]:
    """What the first line of a script says: an interpreter, and at most one argument. Invalid if it is no script."""
    found = _SHEBANG.match(first)
    if found is None:
        raise Invalid(
            f"{path} is neither an ELF program nor a script",
            got=repr(first[:16]),
            expected="a file that begins with \\x7fELF or #!",
        )
    name = found[1]
    if not name.startswith(b"/") or found.end() == _FIRST:
        raise Invalid(f"{path} names no interpreter that can be found", got=repr(name[:100]), expected="a short path")
    argument = found[2].rstrip(b" \t\r")
    return tuple(map(os.fsdecode, (name, argument) if argument else (name,)))


def _open_interpreter(name: str, script: EndpointPath, stack: ExitStack) -> tuple[EndpointPath, int]:
    try:
        real, descriptor = _open(EndpointPath.of(os.fsencode(name)), stack)
    except (TargetGone, Invalid) as error:
        raise Invalid(
            f"{script} is a script whose interpreter cannot be run", got=error.message, expected=f"a program at {name}"
        ) from error
    if not _beginning(descriptor, real).startswith(b"\x7fELF"):
        raise Unsupported(f"{script} is a script whose interpreter is no ELF program", got=real)
    return real, descriptor


def _is_roots_alone(path: EndpointPath) -> bool:
    """Can nobody but root give this path to another file, nor write to the file?

    In a folder with the sticky bit, others can make files, and cannot rename or remove root's.
    """
    here = Path(os.fsdecode(path.raw))
    try:
        for _ in range(_MAX_LINKS):
            found = here.lstat()
            if found.st_uid or not all(_is_roots_folder(one.lstat()) for one in here.parents):
                return False
            if not stat.S_ISLNK(found.st_mode):
                return not found.st_mode & _OTHERS_WRITE
            here = here.parent / here.readlink()
    except OSError:
        return False
    return False


def _is_roots_folder(found: os.stat_result) -> bool:
    shut = not found.st_mode & _OTHERS_WRITE or bool(found.st_mode & stat.S_ISVTX) or stat.S_ISLNK(found.st_mode)
    return found.st_uid == 0 and shut


_MEANINGS: dict[tuple[str, int], tuple[type[StanchError], str]] = {
    ("execute", errno.E2BIG): (Invalid, "The arguments and environment for {} are too long for this machine"),
    ("execute", errno.ENOEXEC): (Invalid, "{} is damaged, or for another processor"),
    ("execute", errno.ENOENT): (Invalid, "{} needs a loader or an interpreter that is not here"),
    ("execute", errno.EACCES): (Invalid, "The user may not run {}"),
    ("execute", errno.EPERM): (Invalid, "The user may not run {}"),
    ("execute", errno.ETXTBSY): (ActionFailed, "{} is being written to"),
    ("execute", errno.ESTALE): (TargetGone, "{} was changed, or another file put in its place"),
    ("execute", errno.ENOMEM): (ActionFailed, "There is not enough memory for {}"),
    ("user", errno.EPERM): (Unsupported, "The agent may not run {} as another user"),
    ("folder", errno.EACCES): (Invalid, "The user may not enter the folder in which {} is to start"),
}
_HINTS = {"user": "The agent must be root, with CAP_SETUID and CAP_SETGID."}


def not_executed(stage: str, code: int, path: EndpointPath) -> StanchError:
    """Why the kernel did not execute a program, by how far it came and the number of the error."""
    kind, message = _MEANINGS.get((stage, code), (ActionFailed, "{} could not be started"))
    return kind(message.format(path), got=f"{os.strerror(code)} ({stage})", hint=_HINTS.get(stage))
