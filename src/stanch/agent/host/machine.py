"""This machine, brought down: `core.machine` on Linux.

It is init that brings a machine down in order; who is asked depends on which init has pid 1. Nothing is done from
within a pid namespace that is not the machine's own: what has pid 1 there is some program of a container.

There is one exception, for a namespace that somebody has made around this agent and says so (`apart_from`): there,
reboot(2) ends the namespace's own pid 1, and no machine. See reboot(2), "Behavior inside PID namespaces".
"""

import asyncio
import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path

from stanch.agent.host.clock import boot_id, boot_seconds
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.run import Finished, find, run
from stanch.core.errors import ActionFailed, Protected, Unsupported
from stanch.core.machine import Ending, Hindrance
from stanch.core.types import seconds

FIRST_PID_NAMESPACE = 0xEFFF_FFFC
"""The inode of the pid namespace that the kernel itself has made: PROC_PID_INIT_INO."""

PROGRAMS: Mapping[str, Mapping[Ending, Sequence[str]]] = {
    "systemd": {
        # Inhibitors were looked at before, by `hindrances`; whoever is logged in was told, or not, by the action.
        Ending.REBOOT: ("systemctl", "--ignore-inhibitors", "--no-wall", "reboot"),
        Ending.SHUTDOWN: ("systemctl", "--ignore-inhibitors", "--no-wall", "poweroff"),
    },
    "openrc-init": {
        Ending.REBOOT: ("openrc-shutdown", "--reboot", "now"),
        Ending.SHUTDOWN: ("openrc-shutdown", "--poweroff", "now"),
    },
    "runit": {Ending.REBOOT: ("runit-init", "6"), Ending.SHUTDOWN: ("runit-init", "0")},
    "init": {Ending.REBOOT: ("reboot",), Ending.SHUTDOWN: ("poweroff",)},
}
"""The name of the program that has pid 1, to what asks it. `init` is SysV's, busybox's, Upstart's."""

_ASK_WITHIN = seconds(30)
_MAGIC, _MAGIC2 = 0xFEE1DEAD, 672274793
_COMMANDS = {Ending.REBOOT: 0x01234567, Ending.SHUTDOWN: 0x4321FEDC}
_SYS_REBOOT = {"x86_64": 169, "aarch64": 142, "riscv64": 142, "s390x": 88, "ppc64le": 88}

_PACKAGE_LOCKS = (
    ("dpkg", "var/lib/dpkg/lock"),
    ("apt", "var/lib/dpkg/lock-frontend"),
    ("rpm", "var/lib/rpm/.rpm.lock"),
    ("rpm", "usr/lib/sysimage/rpm/.rpm.lock"),
)
_PACMAN_LOCK = "var/lib/pacman/db.lck"
_INHIBITORS = "run/systemd/inhibit"
_MAX_INHIBITORS = 100
_MAX_FILE = 4096
_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid
_INHIBITS = re.compile(r"^WHAT=(?:.*:)?shutdown(?::.*)?$", re.MULTILINE)

Start = Callable[[Sequence[str]], Awaitable[Finished]]


async def _start(argv: Sequence[str]) -> Finished:
    return await run(argv, within=_ASK_WITHIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxMachine:
    """The machine of one pid namespace; where its files are, and what starts a program, are parameters for tests."""

    namespace: Namespace
    apart_from: Namespace | None = None
    """The pid namespace outside, if this one was made around the agent: then only this one is ended, by reboot(2)."""
    root: Path = Path("/")
    user: int = field(default_factory=os.geteuid)
    start: Start = _start
    installed: Callable[[str], object] = find
    """Raises Unsupported for a program that is not."""

    async def boot_id(self) -> str:
        """Identifies this boot."""
        found = boot_id()
        if not found:
            raise ActionFailed(
                "The kernel does not tell which boot this is, so nobody could tell later whether there was another one",
                expected="/proc/sys/kernel/random/boot_id",
            )
        return found

    def up_for(self) -> timedelta:
        """How long this boot lasts."""
        return seconds(boot_seconds())

    async def why_not(self) -> str | None:
        """Why it cannot be brought down from here, or None."""
        try:
            self.namespace.check()
            if self.apart_from is not None:
                self._check_apart(self.apart_from)
            else:
                self._program(Ending.REBOOT)
        except (Protected, Unsupported) as error:
            return str(error)
        return None

    async def hindrances(self) -> tuple[Hindrance, ...]:
        """Updates under way, and what inhibits a shutdown."""
        return await asyncio.to_thread(lambda: (*self._updates(), *self._inhibitors()))

    async def bring_down(self, ending: Ending) -> None:
        """Begin; Protected or Unsupported if it must not be done from here, ActionFailed if init refuses."""
        self.namespace.check()
        if self.apart_from is not None:
            self._check_apart(self.apart_from)
            await asyncio.to_thread(os.sync)
            _end_namespace(ending, outside=self.apart_from)
            return
        argv = self._program(ending)
        done = await self.start(argv)
        if done.returncode != 0:
            said = (done.stderr or done.stdout)[-500:].decode("utf-8", "backslashreplace").strip()
            raise ActionFailed(
                f"{argv[0]} did not bring the machine down", got=said or f"exit status {done.returncode}"
            )

    async def await_end(self, *, within: timedelta) -> None:
        """Wait for the end, which is the agent's own."""
        await asyncio.sleep(within.total_seconds())

    def _program(self, ending: Ending) -> Sequence[str]:
        """What asks this machine's init; Unsupported in a container, or if this init is not known."""
        if self.namespace.inode != FIRST_PID_NAMESPACE:
            raise Unsupported(
                "This is a container, or another pid namespace of its own: the machine cannot be brought down from it",
                got=f"pid:[{self.namespace.inode}]",
                expected="the pid namespace of the machine itself",
                hint="Order it on the machine that runs the container.",
            )
        container = self._container()
        if container:
            raise Unsupported(
                "This is a container: the machine cannot be brought down from it",
                got=container,
                hint="Order it on the machine that runs the container.",
            )
        self._check_on_it()
        init = self._init()
        if init not in PROGRAMS:
            raise Unsupported(
                "Which program can bring this machine down is not known",
                got=f"pid 1 is {init!r}",
                expected=", ".join(PROGRAMS),
                hint="Bring it down by hand.",
            )
        argv = PROGRAMS[init][ending]
        self.installed(argv[0])
        return argv

    def _check_on_it(self) -> None:
        """Unsupported for an agent without its rights, or beside the machine: one that was set up for a trial."""
        if self.user != 0:
            raise Unsupported("Only root brings a machine down", got=f"user id {self.user}", expected="user id 0")
        with suppress(OSError):
            init = (self.root / "proc/1/ns/net").readlink()
            if init == Path("/proc/thread-self/ns/net").readlink():
                return
        raise Unsupported(
            "The agent is in another network namespace than init: it is not the agent of the machine itself",
            hint="Order it on the endpoint that is the machine.",
        )

    def _init(self) -> str:
        name = _text(self.root / "proc/1/comm").strip()
        return "systemd" if name == "init" and (self.root / "run/systemd/system").is_dir() else name

    def _container(self) -> str:
        """What says that this is a container, though it shares the machine's pid namespace; empty if nothing does."""
        marks = ("run/systemd/container", ".dockerenv", "run/.containerenv")
        return next((f"/{one} exists" for one in marks if (self.root / one).exists()), "")

    def _check_apart(self, outside: Namespace) -> None:
        """Protected unless this namespace is neither the machine's own nor the one outside."""
        own = self.namespace.inode
        if outside.kind != "pid" or own in {FIRST_PID_NAMESPACE, outside.inode}:
            raise Protected(
                "This is no pid namespace of its own: reboot(2) would bring the machine down",
                got=f"pid:[{own}]",
                expected=f"another one than pid:[{outside.inode}]",
            )

    def _updates(self) -> Iterator[Hindrance]:
        busy = [name for name, path in _PACKAGE_LOCKS if _is_locked(self.root / path)]
        busy += ["pacman"] if (self.root / _PACMAN_LOCK).exists() else []
        for name in dict.fromkeys(busy):
            yield Hindrance(f"{name} is changing packages, and may leave the machine unable to start", grave=True)

    def _inhibitors(self) -> Iterator[Hindrance]:
        """Programs that asked logind to put off a shutdown; a lock of mode `delay` holds nobody up for long."""
        with suppress(OSError):
            for path in islice((self.root / _INHIBITORS).iterdir(), _MAX_INHIBITORS):
                text = _text(path) if path.is_file() else ""
                if _INHIBITS.search(text) and re.search(r"^MODE=block", text, re.MULTILINE):
                    who, why = (_value(text, name) for name in ("WHO", "WHY"))
                    yield Hindrance(f"{who or 'a program'} asks not to shut down: {why or 'no reason'}", grave=True)


def _value(text: str, name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
    return found[1][:200] if found else ""


def _text(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return file.read(_MAX_FILE).decode("utf-8", "backslashreplace")
    return ""


def _is_locked(path: Path) -> bool:
    """Does a program hold a lock for writing on it? Asked without taking one."""
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            found = fcntl.fcntl(file, fcntl.F_GETLK, asked)
        finally:
            os.close(file)
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
    return False


def _end_namespace(ending: Ending, *, outside: Namespace) -> None:
    """End this pid namespace by reboot(2). Looked at once more right before, of this very thread."""
    here = Namespace.current("pid")
    number = _SYS_REBOOT.get(os.uname().machine)
    if here.inode in {FIRST_PID_NAMESPACE, outside.inode}:
        raise Protected("This is no pid namespace of its own: reboot(2) would bring the machine down")
    if number is None:
        raise Unsupported("The number of reboot(2) is not known here", got=os.uname().machine)
    libc = ctypes.CDLL(None, use_errno=True)
    # The raw call: nothing but the kernel looks at it.
    if libc.syscall(number, ctypes.c_uint(_MAGIC), ctypes.c_uint(_MAGIC2), ctypes.c_uint(_COMMANDS[ending]), None) != 0:
        code = ctypes.get_errno()
        raise ActionFailed(
            "reboot(2) failed", got=os.strerror(code), expected="CAP_SYS_BOOT" if code == errno.EPERM else None
        )
