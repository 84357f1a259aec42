"""What leads frames around our firewall or rewrites them behind it: tc filters, BPF programs, late chains of others.

The kernel does not show netfilter's egress hook what tc or a BPF program at a device's ingress or egress hands to
another device, so no rule of ours can drop it: all that can be done is to look, and to say so.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from stanch.agent.host.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Netlink, attributes, each_attribute
from stanch.agent.host.owner import GET_CHAIN
from stanch.agent.host.tablespec import LAST
from stanch.core.errors import ActionFailed

_GET_QDISC, _GET_FILTER = 38, 46
_TCMSG = struct.Struct("=BxxxiIII")  # family, device, handle, parent, info
_PARENTS = (0xFFFF_FFF2, 0xFFFF_FFF3)
"""Of the filters at ingress and at egress."""

_KIND, _OPTIONS = 1, 2
_HOLDERS = {"clsact", "ingress"}
_ACTIONS = {"u32": 7, "flower": 3, "matchall": 2, "basic": 3, "fw": 4, "route": 6, "cgroup": 1, "flow": 9}
"""By kind of filter: which of its options holds the actions. A filter of a kind that we do not know is told of."""

_HARMLESS = {"gact", "police", "skbedit", "csum", "connmark", "ctinfo", "sample", "gate", "simple"}
"""Actions that neither send a frame elsewhere nor give it another address."""

_BPF_QUERY = 16
_BPF_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_QUERY = struct.Struct("=IIIIQI4xQQQQ")  # device, where, flags, flags, programs, count, and four that we leave empty
_PLACES = {46: "TCX", 47: "TCX", 54: "netkit", 55: "netkit"}

_GENERIC_LENGTH = 4
_TABLE, _HOOK = 1, 4
_HOOK_NUMBER, _HOOK_PRIORITY, _HOOK_DEVICE, _HOOK_DEVICES = 1, 2, 3, 4
_NETDEV, _EGRESS = 5, struct.pack(">I", 1)


def detours(devices: Mapping[int, str]) -> tuple[str, ...]:
    """One line for each way around the firewall, of these devices by their index; the loopback may be among them."""
    found: dict[str, None] = {}
    for look in (_filters, _programs, _late_chains):
        found.update(dict.fromkeys(_tried(look, devices)))
    return tuple(found)


def _tried(look: Callable[[Mapping[int, str]], Iterator[str]], devices: Mapping[int, str]) -> list[str]:
    """What is found until the kernel refuses: it may have no tc, no BPF, or nothing of nf_tables."""
    found: list[str] = []
    with suppress(OSError, ActionFailed):
        found.extend(look(devices))
    return found


# --- tc --------------------------------------------------------------------------------------------------------------


def _filters(devices: Mapping[int, str]) -> Iterator[str]:
    with Netlink(NETLINK_ROUTE) as netlink:
        holders = {
            index
            for payload in netlink.dump(_GET_QDISC, _TCMSG.pack(0, 0, 0, 0, 0))
            for index, kind, _options in [parse_traffic_control(payload)]
            if kind in _HOLDERS and index in devices
        }
        for index in sorted(holders):
            moving = {what for parent in _PARENTS for what in _moving(netlink, index, parent)}
            if moving:
                yield (
                    f"{devices[index]}: a tc filter on it ({', '.join(sorted(moving))}) can send frames around the "
                    "firewall, which does not see what tc redirects."
                )


def _moving(netlink: Netlink, index: int, parent: int) -> set[str]:
    """What of the filters at one parent can move frames."""
    try:
        payloads = list(netlink.dump(_GET_FILTER, _TCMSG.pack(0, index, 0, parent, 0)))
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
            return set()
        raise
    return {what for payload in payloads for what in moving_parts(*parse_traffic_control(payload)[1:])}


def parse_traffic_control(payload: bytes) -> tuple[int, str, bytes]:
    """Read one message about a queueing discipline or a filter: device, kind and options; ActionFailed if malformed."""
    if len(payload) < _TCMSG.size:
        raise ActionFailed("The kernel's list of traffic control makes no sense", got=f"{len(payload)} bytes")
    found = attributes(payload[_TCMSG.size :])
    return _TCMSG.unpack_from(payload)[1], _text(found.get(_KIND, b"")), found.get(_OPTIONS, b"")


def moving_parts(kind: str, options: bytes) -> set[str]:
    """What of a filter can send a frame elsewhere or rewrite it: the filter itself, or some of its actions."""
    if kind not in _ACTIONS:
        return {kind} if kind else set()
    held = attributes(options).get(_ACTIONS[kind], b"")
    actions = {_text(attributes(one).get(_KIND, b"")) for _number, one in each_attribute(held)}
    return actions - _HARMLESS


# --- BPF programs that hang on the device itself ---------------------------------------------------------------------


def _programs(devices: Mapping[int, str]) -> Iterator[str]:
    call = _BPF_CALL.get(platform.machine())
    if call is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for index, name in devices.items():
        for place in sorted({what for where, what in _PLACES.items() if _hangs_there(libc, call, index, where)}):
            yield f"{name}: a BPF program on it ({place}) can send frames around the firewall, which does not see them."


def _hangs_there(libc: ctypes.CDLL, call: int, index: int, where: int) -> bool:
    asked = ctypes.create_string_buffer(_QUERY.pack(index, where, 0, 0, 0, 0, 0, 0, 0, 0), _QUERY.size)
    if libc.syscall(call, _BPF_QUERY, asked, _QUERY.size) == 0:
        return bool(_QUERY.unpack(asked.raw)[5])
    if (code := ctypes.get_errno()) in {errno.EPERM, errno.ENOSYS}:
        raise OSError(code, os.strerror(code))
    return False  # older kernels know no such place, and only one kind of device has the last two


# --- chains of others ------------------------------------------------------------------------------------------------


def _late_chains(_devices: Mapping[int, str]) -> Iterator[str]:
    with Netlink(NETLINK_NETFILTER) as netlink:
        for payload in netlink.dump(GET_CHAIN, struct.pack(">BBH", _NETDEV, 0, 0)):
            table, names = parse_late_chain(payload)
            for name in names:
                yield f"{name}: a chain of the table netdev {table} is as late as ours, and can rewrite what leaves."


def parse_late_chain(payload: bytes) -> tuple[str, list[str]]:
    """The table and the devices of an egress chain of others that may come behind ours; no devices for all others."""
    found = attributes(payload[_GENERIC_LENGTH:])
    table, hook = _text(found.get(_TABLE, b"")), attributes(found.get(_HOOK, b""))
    late = hook.get(_HOOK_PRIORITY) == struct.pack(">i", LAST) and hook.get(_HOOK_NUMBER) == _EGRESS
    if not late or table.startswith("stanch"):
        return table, []
    names = {_text(one) for _number, one in each_attribute(hook.get(_HOOK_DEVICES, b""))}
    return table, sorted(names | {_text(hook[_HOOK_DEVICE])} if _HOOK_DEVICE in hook else names)


def _text(raw: bytes) -> str:
    text = raw.rstrip(b"\0").decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else "?" for one in text)
