"""What the kernel says of a container's first process: when it began, and what it shares with the machine.

Nobody in the container can change what is read here: its namespaces, its capabilities and what is mounted in it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from stanch.agent.host.configured import lines_of, text_of

MAX_MOUNTS = 1_048_576
"""Bytes of a table of mounts."""

_NAMESPACES = {"pid": "processes", "net": "network", "mnt": "files", "ipc": "shared memory"}
_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock")
_TICKS = os.sysconf("SC_CLK_TCK")
_OWN_ID = re.compile(r"containers/([0-9a-f]{64})/")
_OWN_FILES = frozenset({"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"})


class Facts:
    """What is told of one container after the other; what it is compared with is read once, when it is needed first."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc

    def began(self, ticks: int) -> datetime | None:
        """When something began so many ticks after boot; None if /proc does not tell when that was."""
        return None if self._boot is None else datetime.fromtimestamp(self._boot + ticks / _TICKS, UTC)

    def notes(self, pid: int) -> Iterator[str]:
        """What deserves a look about the container that has this first process; nothing if that has gone."""
        shared = [name for name in _NAMESPACES if _is_shared(self._proc, pid, name)]
        if self._is_privileged(pid):
            yield "privileged: it has every capability that root of this machine has"
        for name in shared:
            yield f"it shares the {name} namespace ({_NAMESPACES[name]}) with the machine"
        if "mnt" not in shared:
            yield from self._mounted(pid)

    @cached_property
    def _boot(self) -> int | None:
        boot = next((line.split()[1] for line in lines_of(self._proc / "stat") if line.startswith("btime ")), "")
        return int(boot) if boot.isdigit() else None

    @cached_property
    def _ours(self) -> int:
        return _capabilities(self._proc / "self/status", "CapBnd")

    @cached_property
    def _root(self) -> str | None:
        """The device of the machine's root file system."""
        return next((one[1] for one in _mounts(self._proc, "self") if one[2] == "/" and one[0] == "/"), None)

    def _is_privileged(self, pid: int) -> bool:
        """Capabilities count only in the user namespace of the machine: in one of its own every root has all."""
        its = _capabilities(self._proc / str(pid) / "status", "CapEff")
        return bool(self._ours) and self._ours & its == self._ours and _is_shared(self._proc, pid, "user")

    def _mounted(self, pid: int) -> Iterator[str]:
        seen = set[str]()
        for source, device, place in _mounts(self._proc, str(pid)):
            control = next((one for one in _SOCKETS if source.endswith(f"/{one}") or place.endswith(f"/{one}")), None)
            if control and control not in seen:
                seen.add(control)
                yield f"{control} is mounted in it: whoever has that, has the machine"
            if source == "/" and device == self._root and "/" not in seen:
                seen.add("/")
                yield f"the machine's root file system is mounted in it at {place[:200]}"


def _is_shared(proc: Path, pid: int, name: str) -> bool:
    with suppress(OSError):
        return os.readlink(proc / str(pid) / "ns" / name) == os.readlink(proc / "self/ns" / name)  # noqa: PTH115 - magic links
    return False


def _capabilities(status: Path, name: str) -> int:
    found = next((line.split()[-1] for line in lines_of(status) if line.startswith(f"{name}:")), "0")
    return int(found, 16) if re.fullmatch(r"[0-9a-f]{1,16}", found) else 0


def _mounts(proc: Path, process: str) -> Iterator[tuple[str, str, str]]:
    """Of each mount: what of its file system is mounted, the device, and where."""
    for line in text_of(proc / process / "mountinfo", limit=MAX_MOUNTS).split("\n"):
        fields = line.split(" ", 5)
        if len(fields) > 5:  # noqa: PLR2004 - id, parent, device, root, mount point, the rest
            yield fields[3], fields[2], fields[4]


def own_containers(proc: Path) -> frozenset[str]:
    """The id of the container that we are in, by the files that Docker and Podman mount into each; usually none."""
    files = (source for source, _device, place in _mounts(proc, "self") if place in _OWN_FILES)
    return frozenset(found[1] for source in files if (found := _OWN_ID.search(source)))


def ancestors(proc: Path, pid: int) -> frozenset[int]:
    """This process and all above it."""
    found = set[int]()
    while pid > 0 and pid not in found:
        found.add(pid)
        parent = next(
            (line.split()[-1] for line in lines_of(proc / str(pid) / "status") if line.startswith("PPid:")), "0"
        )
        pid = int(parent) if parent.isdigit() else 0
    return frozenset(found)
