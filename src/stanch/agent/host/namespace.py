"""A guard that ties whatever changes the machine to the one namespace in which it was meant to.

Tests and the demo run real firewalls and kill real processes in namespaces of their own, as root, beside the real
machine. Whoever makes changes is constructed with a `Namespace` and calls `check` before each of them, so that a thread
that ended up elsewhere is refused and changes nothing.
"""

import os
from dataclasses import dataclass
from typing import Literal, Self

from stanch.core.errors import Protected

Kind = Literal["net", "pid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """The identity of one network or pid namespace: no other has it while this one lives."""

    kind: Kind
    device: int
    inode: int

    @classmethod
    def current(cls, kind: Kind) -> Self:
        """The namespace of the calling thread; Protected if /proc cannot tell."""
        device, inode = _identity(kind)
        return cls(kind=kind, device=device, inode=inode)

    def check(self) -> None:
        """Raise Protected unless the calling thread is in this namespace."""
        device, inode = _identity(self.kind)
        if (device, inode) != (self.device, self.inode):
            raise Protected(
                f"This is another {self.kind} namespace than the one that may be changed",
                got=f"{self.kind}:[{inode}]",
                expected=f"{self.kind}:[{self.inode}]",
                hint="Start the agent inside the namespace that it is to protect.",
            )


def _identity(kind: Kind) -> tuple[int, int]:
    # Of the thread, not of the process: setns moves one thread, and children are started where that thread is.
    try:
        found = os.stat(f"/proc/thread-self/ns/{kind}")  # noqa: PTH116 - a magic link, not a path to walk
    except OSError as error:
        raise Protected(
            f"Cannot tell which {kind} namespace this is, so nothing may be changed in it",
            got=error.strerror,
            expected="the /proc of this pid namespace",
            hint="Mount proc: `mount -t proc proc /proc`.",
        ) from error
    return found.st_dev, found.st_ino
