"""The demo's laboratory: an endpoint, an outside world and a server, in namespaces that are made and removed here.

```
 endpoint (net, pid, mount, uts)        outside (net)                        server (net)
 eth0 192.0.2.10 -------- to-endpoint 192.0.2.1 | 198.51.100.1 to-server -------- eth0 198.51.100.20
      2001:db8:1::10                  routes; command-and-control listens             2001:db8:2::20
                                      on 203.0.113.66 and 2001:db8:c2::66
```

The main network namespace gets no device, address, route or rule. Whatever dies is cleaned up: every program carries
a parent-death signal, the endpoint's processes end with its pid namespace, and a lab whose owner is dead is swept by
the next one, which knows it by the owner's pid and start time in its folder's name.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from stanch.core.errors import StanchError, Unavailable, Unsupported
from stanch.demo.ending import undisturbed
from stanch.demo.program import ENVIRONMENT, Program, status_of

LABS = Path("/run/stanch-demo")
NEEDED_PROGRAMS = ("ip", "nsenter", "unshare", "setpriv", "nft")
NEEDED_PACKAGES = "iproute2, util-linux and nftables"
IP_SECONDS = 30.0
HOSTNAME = "web-01"
_FOLDER = re.compile(r"(st-[0-9a-z-]{1,40})\.(\d{1,9})\.(\d{1,19})", re.ASCII)

ENDPOINT_V4, ENDPOINT_V6 = "192.0.2.10", "2001:db8:1::10"
SERVER_V4, SERVER_V6 = "198.51.100.20", "2001:db8:2::20"
C2_V4, C2_V6 = "203.0.113.66", "2001:db8:c2::66"
SHOP_V4, SHOP_V6 = "203.0.113.80", "2001:db8:c2::80"
WIRE = "to-endpoint"
"""The outside's device at the other end of the endpoint's cable: what is not seen here did not come out."""

_ENDPOINT_NET = f"""\
link set lo up
link set eth0 up
addr add {ENDPOINT_V4}/24 dev eth0
addr add {ENDPOINT_V6}/64 dev eth0 nodad
route add default via 192.0.2.1
route add ::/0 via 2001:db8:1::1
"""
_SERVER_NET = f"""\
link set lo up
link set eth0 up
addr add {SERVER_V4}/24 dev eth0
addr add {SERVER_V6}/64 dev eth0 nodad
route add default via 198.51.100.1
route add ::/0 via 2001:db8:2::1
"""
_OUTSIDE_NET = f"""\
link set lo up
link set {WIRE} up
link set to-server up
addr add 192.0.2.1/24 dev {WIRE}
addr add 2001:db8:1::1/64 dev {WIRE} nodad
addr add 198.51.100.1/24 dev to-server
addr add 2001:db8:2::1/64 dev to-server nodad
addr add {C2_V4}/32 dev lo
addr add {C2_V6}/128 dev lo nodad
addr add {SHOP_V4}/32 dev lo
addr add {SHOP_V6}/128 dev lo nodad
"""
_NO_DAD = "for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 > $f; done"
_FORWARD = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that a lab belongs to; pid and start time, so that a later process is not mistaken for it."""

    pid: int
    started: int

    @classmethod
    def me(cls) -> Self:
        """This process."""
        status = status_of(os.getpid())
        return cls(os.getpid(), status.started if status else 0)

    def alive(self) -> bool:
        """Does exactly this process still run?"""
        status = status_of(self.pid)
        return status is not None and status.started == self.started and status.state != "Z"


def folder_name(lab: str, owner: Owner) -> str:
    """The name of a lab's folder: everything that a sweep needs, there from the first moment."""
    return f"{lab}.{owner.pid}.{owner.started}"


def read_folder_name(name: str) -> tuple[str, Owner] | None:
    """The lab and its owner; None if the name is not one of ours."""
    found = _FOLDER.fullmatch(name)
    return (found[1], Owner(int(found[2]), int(found[3]))) if found else None


def missing() -> str | None:
    """Why a lab cannot be made here, or None."""
    if os.geteuid() != 0:
        return "it needs root, to make network, pid and mount namespaces"
    absent = [name for name in NEEDED_PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found: install {NEEDED_PACKAGES}"
    tried = subprocess.run(  # a container's root may be none
        ["unshare", "--fork", "--pid", "--mount", "--uts", "--net", "--mount-proc", "true"],
        check=False,
        capture_output=True,
        timeout=IP_SECONDS,
    )
    return None if tried.returncode == 0 else f"namespaces are refused here: {_said(tried.stderr)}"


def _said(output: bytes) -> str:
    return output.decode(errors="replace").strip()[:500]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a short command ended."""

    code: int
    printed: str
    complained: str
    """In brief."""


def ran(*argv: str, lines: str = "") -> Ran:
    """Run a short command, given `lines` on its input."""
    done = subprocess.run(
        argv, input=lines.encode(), env=dict(ENVIRONMENT), capture_output=True, timeout=IP_SECONDS, check=False
    )
    return Ran(done.returncode, done.stdout.decode(errors="replace"), _said(done.stderr))


def output_of(*argv: str, lines: str = "") -> str:
    """What a short command prints, given `lines` on its input; Unavailable with its own words if it fails."""
    done = ran(*argv, lines=lines)
    if done.code != 0:
        raise Unavailable(f"{' '.join(argv[:5])} failed", got=done.complained)
    return done.printed


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace, and how to get into it."""

    netns: str

    @property
    def enter(self) -> tuple[str, ...]:
        """A command line goes after this."""
        return ("nsenter", f"--net=/run/netns/{self.netns}", "--")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The endpoint's namespaces; `init` is its pid 1, by the number it has out here."""

    init: int

    @property
    def enter(self) -> tuple[str, ...]:
        """A command line goes after this."""
        return ("nsenter", f"--target={self.init}", "--mount", "--uts", "--pid", "--net", "--")

    def path(self, inside: str) -> Path:
        """A path of the endpoint as it is reached from out here, past every program on it."""
        return Path(f"/proc/{self.init}/root") / inside.lstrip("/")

    def alive(self, pid: int) -> bool:
        """Does the endpoint's own process table have this pid?"""
        return self.path(f"/proc/{pid}/stat").exists()

    def running(self, module: str) -> tuple[int, ...]:
        """The endpoint's own pids of this Python module, from its process table."""
        entries = (one for one in self.path("/proc").iterdir() if one.name.isdecimal())
        return tuple(int(one.name) for one in entries if module.encode() in _words_of(one))

    def run(self, *argv: str) -> Ran:
        """Run a short command there, as root."""
        return ran(*self.enter, *argv)

    def connections(self, *peers: str) -> tuple[str, ...]:
        """The established TCP connections to these addresses, as the endpoint's kernel lists them."""
        wanted = [word for peer in peers for word in ("or", "dst", f"[{peer}]" if ":" in peer else peer)][1:]
        listed = output_of(*self.enter, "ss", "-Htn", "state", "established", "(", *wanted, ")")
        return tuple(" ".join(line.split()) for line in listed.splitlines())


def _words_of(process: Path) -> list[bytes]:
    """Its command line; none if it has ended."""
    with suppress(OSError):
        return (process / "cmdline").read_bytes().split(b"\0")
    return []


class Lab:
    """A context: namespaces, folder and programs are there inside it, and gone after it."""

    def __init__(self, *, labs: Path = LABS, name: str | None = None) -> None:
        self.name = name or f"st-{secrets.token_hex(3)}"
        self.folder = labs / folder_name(self.name, Owner.me())
        self.outside = Place(f"{self.name}-outside")
        self.server = Place(f"{self.name}-server")
        self._wire = Place(f"{self.name}-endpoint")
        self._stack = ExitStack()
        self._endpoint: Endpoint | None = None
        self.started: list[int] = []
        """The pids of all programs that were started."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint's namespaces; there once the lab was entered."""
        if self._endpoint is None:
            raise StanchError("The lab was not entered")
        return self._endpoint

    def __enter__(self) -> Self:
        reason = missing()
        if reason:
            raise Unsupported("No lab can be made here", got=reason)
        sweep(self.folder.parent)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every program and remove everything; safe to call twice."""
        self._stack.close()

    def start(
        self,
        place: "Place | Endpoint",
        argv: Sequence[str],
        *,
        log: str,
        env: Mapping[str, str] | None = None,
        ends_on: int = signal.SIGTERM,
    ) -> Program:
        """Start a program that lives no longer than the lab; its output goes to a file of the lab's folder."""
        with undisturbed():
            program = Program.start((*place.enter, *argv), log=self.folder / log, env=env, ends_on=ends_on)
            self.started.append(program.process.pid)
            return self._stack.enter_context(program)

    def _build(self) -> None:
        self._stack.callback(_remove, self.name, self.folder)
        self.folder.mkdir(parents=True, mode=0o700)
        for place in (self._wire, self.outside, self.server):
            output_of("ip", "netns", "add", place.netns)
        self._cable(self._wire, WIRE)
        self._cable(self.server, "to-server")
        for place, lines in ((self._wire, _ENDPOINT_NET), (self.outside, _OUTSIDE_NET), (self.server, _SERVER_NET)):
            output_of(*place.enter, "sh", "-ec", _NO_DAD)
            output_of("ip", "-n", place.netns, "-batch", "-", lines=lines)
        output_of(*self.outside.enter, "sh", "-ec", _FORWARD)
        self._endpoint = self._boot()

    def _cable(self, place: Place, other_end: str) -> None:
        output_of(
            *("ip", "link", "add", "eth0", "netns", place.netns),
            *("type", "veth", "peer", "name", other_end, "netns", self.outside.netns),
        )

    def _boot(self) -> Endpoint:
        """Start the endpoint's pid 1 and wait until its file systems are in place."""
        spaces = ("unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--mount-proc", "--")
        argv = (*spaces, sys.executable, "-m", "stanch.demo.init", HOSTNAME)
        init = self.start(self._wire, argv, log="init.log", ends_on=signal.SIGKILL)
        init.wait_for_line("ready", within=IP_SECONDS)
        endpoint = Endpoint(init.only_child())
        self._stack.callback(_halt, endpoint.init, init)
        return endpoint


def _halt(pid: int, parent: Program) -> None:
    """End pid 1 of the endpoint, and with it everything there, while its parent still waits to collect it."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.kill(pid, signal.SIGKILL)
        parent.process.wait(IP_SECONDS)


def sweep(labs: Path = LABS) -> list[str]:
    """Remove the labs whose owner is dead; their names."""
    swept = []
    for folder in labs.iterdir() if labs.is_dir() else ():
        found = read_folder_name(folder.name)
        if found is not None and not found[1].alive():
            _remove(found[0], folder)
            swept.append(found[0])
    return swept


def _remove(lab: str, folder: Path) -> None:
    for end in ("endpoint", "outside", "server"):
        if Path(f"/run/netns/{lab}-{end}").exists():
            subprocess.run(["ip", "netns", "del", f"{lab}-{end}"], check=False, capture_output=True, timeout=IP_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()
