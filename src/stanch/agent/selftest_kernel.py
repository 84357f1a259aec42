"""Can the kernel do what the agent asks of it? Tried in namespaces and on processes and groups of our own."""

import ctypes
import os
import re
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex

from stanch.agent.host.cgroups import hierarchy
from stanch.agent.host.inventory import capabilities
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.processes import LinuxProcesses
from stanch.agent.host.program_group import parent_group
from stanch.agent.host.ruleset import Device, render
from stanch.agent.host.run import Child, Finished, find, run
from stanch.agent.host.sockets import connected, open_netlink
from stanch.agent.selftest_probe import Bench, Finding, Probe, failed, limited, ok, skipped
from stanch.core.errors import StanchError, Unsupported
from stanch.core.network import IsolationRules, Peer
from stanch.core.types import hours, seconds
from stanch.worker.ask import Request, ask

RULES = IsolationRules(servers=(Peer(address=ip_address("192.0.2.1"), port=8444),))
"""The address is one for documentation; in a namespace without devices nobody is cut off by them."""

LOOPBACK = Device(index=1, name="lo")
"""The only device of a new namespace."""

_NEW_KERNEL = "Linux 5.16 or later with CONFIG_NF_TABLES_INET and CONFIG_NF_TABLES_NETDEV can do all of it."
_WITHIN = seconds(15)
_GROUP = re.compile(r"([0-9]{1,10})-[0-9a-f]{8}")


# --- network ---------------------------------------------------------------------------------------------------------


async def firewall(_bench: Bench) -> Finding:
    """Are the rules of an isolation taken, all of them, in a network namespace made for them?"""
    find("nft")
    done = await _in_a_namespace(egress=True)
    if done.returncode == 0:
        return ok("the rules of an isolation are taken, in a network namespace of their own")
    said = _words(done)
    if "unshare" in said:
        return skipped(f"no network namespace can be made: {said}", "Run it as root, outside of a container.")
    without = await _in_a_namespace(egress=False)
    if without.returncode == 0:
        return limited(f"rules are taken, but for what leaves through devices: {said}", _NEW_KERNEL)
    return failed(
        f"the rules are refused: {_words(without)}", f"Is nf_tables loaded (modprobe nf_tables)? {_NEW_KERNEL}"
    )


async def _in_a_namespace(*, egress: bool) -> Finished:
    # If the namespace cannot be made, unshare says so and starts nothing: the machine's own rules are never touched.
    text = render(RULES, [LOOPBACK], lift_after=hours(1), egress=egress)
    return await run(["unshare", "-n", find("nft"), "-f", "-"], stdin=text.encode(), within=_WITHIN)


def _words(done: Finished) -> str:
    said = (done.stderr + done.stdout).decode("utf-8", "backslashreplace").strip()
    return said.partition("\n")[0][:500] or f"exit status {done.returncode}"


async def connections(bench: Bench) -> Finding:
    """Can open connections be listed, and cut?"""
    said = (await bench.in_thread(capabilities))["sock-destroy"]
    try:
        count = len(await bench.in_thread(_connected))
    except OSError as error:
        return failed(f"connections cannot be listed: {error.strerror}", "Is the module inet_diag there?")
    if said != "yes":
        hint = "A kernel with CONFIG_INET_DIAG_DESTROY, and root. Packets are dropped all the same."
        return limited(f"{count} connections are seen, but none could be cut: {said}", hint)
    return ok(f"{count} connections are seen, and could be cut")


def _connected() -> list[object]:
    with open_netlink() as netlink:
        return [*connected(netlink)]


# --- processes -------------------------------------------------------------------------------------------------------


async def processes(_bench: Bench) -> Finding:
    """Is a process of our own found and ended through its descriptor?"""
    here = LinuxProcesses(Namespace.current("pid"), groups=lambda: None)
    child = await Child.start(["sleep", "60"])
    try:
        one = await here.find(child.pid)
        if one is None:
            return failed(f"process {child.pid}, our own, is not found", "Mount proc: mount -t proc proc /proc")
        await here.kill(one.id)
        left = await here.wait_gone([one.id], within=seconds(5))
    finally:
        await child.close()
    if left:
        return failed("a process of our own did not end within 5 s", "Is the machine very busy?")
    return ok("a process of our own was found, and ended through its descriptor")


async def control_groups(bench: Bench) -> Finding:
    """Can a group be made, and what could be limited in it?"""
    return await bench.in_thread(lambda: _control_groups(bench.group_prefix))


def _control_groups(prefix: str, parent: Path | None = None) -> Finding:
    try:
        root = hierarchy().root
    except Unsupported as error:
        return limited(error.got or error.message, "Boot with systemd.unified_cgroup_hierarchy=1.")
    above = parent or parent_group() or root
    _sweep(above, prefix)
    group = above / f"{prefix}{os.getpid()}-{token_hex(4)}"
    try:
        group.mkdir()
    except OSError as error:
        return limited(f"{above}: {error.strerror}", "Root, and a writable /sys/fs/cgroup: containers often have none.")
    try:
        return _told(above, group)
    finally:
        with suppress(OSError):
            group.rmdir()


def _sweep(above: Path, prefix: str) -> None:
    """Remove the groups of tests that were killed: they are empty, and belong to nobody."""
    with suppress(OSError):
        for one in above.glob(f"{prefix}*"):
            found = _GROUP.fullmatch(one.name.removeprefix(prefix))
            if found and not Path(f"/proc/{found[1]}").exists():
                with suppress(OSError):
                    one.rmdir()


def _told(above: Path, group: Path) -> Finding:
    there = (above / "cgroup.controllers").read_text().split()
    missing = [one for one in ("memory", "pids", "cpu") if one not in there]
    lacks = [one for one in ("cgroup.freeze", "cgroup.kill") if not (group / one).exists()]
    seen = f"a group below {above} was made and removed; controllers: {' '.join(there) or 'none'}"
    if lacks:
        return limited(f"{seen}; no {' and no '.join(lacks)}", "Linux 5.14 or later.")
    if missing:
        hint = (
            f"Programs are run without limits of {', '.join(missing)}. systemd gives them to the agent's unit "
            "with Delegate=; a machine with control groups of version 1 cannot."
        )
        return limited(seen, hint)
    return ok(seen)


# --- confinement -----------------------------------------------------------------------------------------------------

_FAN_CLOEXEC, _FAN_NONBLOCK, _FAN_CLASS_CONTENT = 0x1, 0x2, 0x4
_EXEC_PERM_SINCE = (5, 0)


async def execution(_bench: Bench) -> Finding:
    """Could the kernel ask before it starts a program? Only asked for a descriptor: nothing is watched."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _FAN_CLOEXEC | _FAN_NONBLOCK | _FAN_CLASS_CONTENT
    descriptor = libc.fanotify_init(ctypes.c_uint(flags), ctypes.c_uint(os.O_RDONLY | os.O_CLOEXEC))
    if descriptor < 0:
        said = os.strerror(ctypes.get_errno())
        hint = "Root with CAP_SYS_ADMIN, and a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS. Containers have neither."
        return limited(f"programs cannot be kept from starting: {said}", hint)
    os.close(descriptor)
    release = os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _EXEC_PERM_SINCE:
        return limited(f"Linux {release} does not tell of programs that start", "Linux 5.0 or later does.")
    return ok("the kernel gives a descriptor for permission events; nothing is watched")


async def worker(_bench: Bench) -> Finding:
    """Is what opens hostile bytes shut in?"""
    try:
        answer = await ask(Request(kind="text"), b"stanch\n", within=seconds(8))
    except StanchError as error:
        return failed(f"{error.message} ({error.got})", "Is the installation complete? Evidence cannot be previewed.")
    open_ = [f"{name.replace('_', ' ')} ({why})" for name, why in answer.confined.items() if why != "yes"]
    if open_:
        return limited(f"not shut in by {', '.join(open_)}"[:1000], "A newer kernel, and root, confine it further.")
    return ok(f"shut in by {', '.join(answer.confined).replace('_', ' ')}")


KERNEL_PROBES = (
    Probe(name="firewall", look=firewall, within=seconds(35)),
    Probe(name="connections", look=connections, within=seconds(10)),
    Probe(name="processes", look=processes, within=seconds(15)),
    Probe(name="control-groups", look=control_groups, within=seconds(10)),
    Probe(name="execution-prevention", look=execution, within=seconds(5)),
    Probe(name="worker", look=worker, within=seconds(10)),
)
