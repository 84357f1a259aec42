"""What starts by itself on an endpoint: every place that Linux looks at when it boots, logs somebody in, or waits.

A part of `core.host`, which says what these protocols are for.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Collection, Sequence
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field, StringConstraints

from stanch.core.model import LooseModel, Model
from stanch.core.types import EndpointPath, Instant, Mode, Sha256, Text, TypeInfo, VaultId

DISABLED = "# stanch-disabled "
"""Begins a line that Stanch commented out: `# stanch-disabled TASK: the line as it was`."""

_DISABLED = re.compile(re.escape(DISABLED) + r"([0-9A-Za-z_-]{1,64}): ?(.*)", re.DOTALL)


def disabled_line(task: str, line: str) -> str:
    """The line (without its end), commented out by this task; `read_disabled` gives it back exactly."""
    return f"{DISABLED}{task}: {line}"


def read_disabled(text: str) -> tuple[str, str] | None:
    """The task that commented a line out, and the line as it was; None for any other line."""
    found = _DISABLED.fullmatch(text)
    return (found[1], found[2]) if found else None


def autorun_id(place: "Place", path: str, text: str) -> str:
    r"""What names something that starts by itself: its place, its file, and the text of its line (not its number).

    The text is the line as it stands in the file (spaces around it do not count); of a line that Stanch commented out,
    the line as it was; of one that goes on over several lines, the first. For a file as a whole it is empty. What is
    masked by a link of its name (units, drop-ins, generators) is named by the folder of that link, and its name: so it
    keeps its id. Odd bytes may come as surrogates or as `\xff`.
    """
    parts = (place.value.encode(), *(_plain(one.strip(" \t\r\n")) for one in (path, text)))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _plain(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").encode()


UNPACKAGED_PROGRAM = "no package has brought its program"
CHANGED_PROGRAM = "its program is not as its package brought it"
"""Notes by which an autorun of a package is told to start something else."""


class Place(StrEnum):
    """Where something starts from."""

    SYSTEMD_UNIT = "systemd-unit"
    """Services, sockets, paths, mounts, targets' drop-ins; of the system and of users."""
    SYSTEMD_TIMER = "systemd-timer"
    SYSTEMD_GENERATOR = "systemd-generator"
    """Programs that write units at boot; environment generators and system-shutdown hooks too."""
    CRON = "cron"
    """/etc/crontab, cron.d, cron.hourly and so on, anacron, users' crontabs."""
    AT = "at"
    INIT = "init"
    """/etc/init.d, inittab, rc folders."""
    RC = "rc"
    """rc.local and its like."""
    SHELL = "shell"
    """profile, bashrc, zshrc, ... of the system and of users."""
    DESKTOP = "desktop"
    """XDG autostart, of the system and of users."""
    PRELOAD = "preload"
    """ld.so.preload, and LD_PRELOAD in environment files."""
    PAM = "pam"
    UDEV = "udev"
    MODULES = "modules"
    """modules-load.d, /etc/modules, install lines of modprobe.d."""
    SSH_KEY = "ssh-key"
    """authorized_keys of every account; rc files of SSH."""
    SUDO = "sudo"
    """sudoers and sudoers.d."""
    KERNEL = "kernel"
    """The kernel's command line: init=, module parameters, and the rest."""
    OTHER = "other"
    """MOTD scripts, network hooks (if-up.d, NetworkManager), package manager hooks, Python's .pth, ..."""


AutorunId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{16}$"),
    TypeInfo("autorun", "0123456789abcdef", "Something that starts by itself, as list-autoruns tells its id."),
]


class Autorun(Model):
    """Something that starts by itself."""

    id: AutorunId
    """Names it on this endpoint: the same as long as its place and its text are."""

    place: Place
    """Where it starts from."""

    name: Text
    """What people call it: the unit, the job, the key's comment."""

    path: EndpointPath
    """The file that says so."""

    line: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """The line of that file, from 1; 0 for the file as a whole."""

    command: Text = ""
    """What it starts, or the line itself."""

    program: EndpointPath | None = None
    """The first program or library that it names, where it can be told."""

    program_sha256: Sha256 | None = None
    """Of that program."""

    user: Text = ""
    """As whom."""

    enabled: bool = True
    """Does it start at the next occasion?"""

    running: bool = False
    """Does it run now? For units that systemd tells of."""

    disabled_by: Annotated[str, Field(max_length=64)] = ""
    """The task of Stanch that disabled it."""

    sha256: Sha256 | None = None
    """Of the file."""

    owner: Text = ""
    """Who owns the file."""

    mode: Mode | None = None
    """Its permissions."""

    modified: Instant | None = None
    """When the file was changed last."""

    package: Text = ""
    """The package that the file belongs to; empty for none."""

    differs: bool | None = None
    """Is it another file than the package brought? Null if nobody can tell."""

    notes: Annotated[tuple[Text, ...], Field(max_length=20)] = ()
    """What deserves a look: writable by others, its program is gone, in a folder for temporary files, ..."""


class Unread(Model):
    """A place that could not be looked at."""

    path: EndpointPath
    """Which."""

    why: Text
    """Why not."""


class Method(StrEnum):
    """How something is disabled."""

    VAULT = "vault"
    """Its file is in the vault."""
    LINE = "line"
    """Its line is commented out."""
    MASK = "mask"
    """A link to /dev/null stands where its file would have to be to count: a unit is masked."""


MAX_ENTRY = 65_536
"""Bytes of an entry that can be commented out, with all its lines."""


class Way(LooseModel):
    """How one thing is disabled: all that it takes to enable it again exactly. Written down before anything changes."""

    id: Annotated[str, Field(max_length=16)]
    """Of the autorun."""

    task: Annotated[str, Field(max_length=64)] = ""
    """The task that disables it: it is in the mark of a line."""

    place: Place
    """Where it starts from."""

    name: Text
    """What people call it."""

    method: Method
    """How."""

    path: EndpointPath
    """The file that is changed or taken, or where the link is put; all links on the way to it resolved."""

    file: EndpointPath | None = None
    """The file that says so, where that is another one."""

    lines: Annotated[
        tuple[Annotated[str, Field(max_length=4 * MAX_ENTRY)], ...],
        Field(max_length=100),
    ] = ()
    r"""The entries, for LINE, without their last line ends: they are found again by their text. Odd bytes as \xff.

    More than one where the same line stands there several times, with other spaces around it.
    """

    before: Sha256 | None = None
    """Of the file before; null for what is no regular file."""

    modified_ns: Annotated[int, Field(ge=-(2**80), le=2**80)] | None = None
    """When the file was changed last, before; in nanoseconds since 1970. For LINE."""

    flags: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """The inode flags of the file before: immutable and append-only have to be cleared to change it. For LINE."""

    takes: bool = False
    """Does the file go to the vault? Always for VAULT; for MASK, if the link is put in its own place."""

    item: VaultId | None = None
    """What is in the vault of it."""

    was_running: bool = False
    """Does its unit run, and is it stopped?"""


class Autoruns(Protocol):
    """What starts by itself on this machine."""

    def list(self, places: Collection[Place]) -> AsyncIterator[Sequence[Autorun | Unread]]:
        """All of these places, in batches."""
        ...

    async def find(self, autorun: str) -> Autorun | None:
        """The one of this id, or None."""
        ...

    async def why_not(self, one: Autorun) -> str | None:
        """Why it cannot be disabled (the machine would not start without it, it is only told, ...), or None."""
        ...

    async def way(self, one: Autorun) -> Way:
        """How it would be disabled; changes nothing. Of what `takes` to the vault, the action takes care.

        Conflict if it is disabled already; TargetGone; Unsupported for what cannot be changed safely.
        """
        ...

    async def disable(self, way: Way) -> None:
        """Comment it out or mask it, once its file is in the vault if that goes there; repeating it changes nothing.

        Conflict if the file is another one than `way.before` says: nothing is changed then.
        """
        ...

    async def enable(self, way: Way) -> tuple[str, ...]:
        """Take back what `disable` did; what of it could not be, in words. Repeating it changes nothing.

        Conflict, with the line, if its mark is not there any more; NotFound if its file is gone.
        """
        ...

    async def is_disabled(self, way: Way) -> bool:
        """Is it as `disable` left it? Of what is in the vault: is nothing at its place?"""
        ...

    async def reload(self, places: Collection[Place]) -> tuple[str, ...]:
        """Let systemd and udev read again what they know of these places, where they run; what did not work."""
        ...

    async def stop(self, ways: Sequence[Way]) -> tuple[str, ...]:
        """End the units of these that run, where systemd does; what did not work. Repeating it changes nothing."""
        ...

    async def start(self, ways: Sequence[Way]) -> tuple[str, ...]:
        """Start their units again, where systemd runs; what did not work. Repeating it changes nothing."""
        ...
