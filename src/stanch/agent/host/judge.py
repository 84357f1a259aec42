"""What two listed tables amount to on this machine: the kernel's isolation, in words."""

from collections.abc import Sequence
from pathlib import Path

from stanch.agent.host.links import Link
from stanch.agent.host.listing import Listed
from stanch.agent.host.ruleset import Device
from stanch.core.network import IsolationState, KernelIsolation

MAX_LINES = 100


def judge(
    inet: Listed | None,
    netdev: Listed | None,
    devices: Sequence[Link],
    xdp_sockets: int,
    detours: Sequence[str] = (),
) -> KernelIsolation:
    """What two listed tables amount to on a machine with these devices and these ways around its firewall."""
    armed = [one for one in (inet, netdev) if one is not None and one.armed]
    around = (*_around(devices, xdp_sockets), *detours)[:MAX_LINES]
    if not armed:
        return KernelIsolation(state=IsolationState.RELEASED, rules=None, remaining=None, not_covered=around)
    covered = netdev.devices if netdev in armed and netdev is not None else frozenset()
    egress = armed[0].egress
    bare = [_bare(link.device, egress=egress) for link in devices if link.device not in covered]
    not_covered = (*bare, *around)[:MAX_LINES]
    whole = len(armed) == (2 if egress else 1) and inet in armed
    damaged = not (whole and all(one.whole and one.rules == armed[0].rules for one in armed))
    return KernelIsolation(
        state=IsolationState.PARTIAL if damaged or not_covered else IsolationState.ISOLATED,
        rules=armed[0].rules,
        remaining=armed[0].remaining,
        damaged=damaged,
        not_covered=not_covered,
    )


def _bare(device: Device, *, egress: bool) -> str:
    why = ""
    if not egress:
        why = " (this kernel or nft cannot filter what leaves a device)"
    elif not device.coverable:
        why = " (nft cannot be told its name)"
    return (
        f"{device.name}: frames of raw sockets and bridges can leave, and reach devices that share it: "
        f"there is no egress chain on it{why}."
    )


def _around(devices: Sequence[Link], xdp_sockets: int) -> tuple[str, ...]:
    lines = [
        f"{link.device.name}: it runs an XDP program, which can answer and forward frames before any firewall."
        for link in devices
        if link.xdp
    ]
    if xdp_sockets:
        lines.append(f"{xdp_sockets} AF_XDP sockets are open: they send and receive around the firewall.")
    return tuple(lines[:MAX_LINES])


def xdp_sockets(table: Path = Path("/proc/thread-self/net/protocols")) -> int:
    """How many AF_XDP sockets the calling thread's namespace has; 0 where the kernel knows none."""
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(fields[2]) for fields in map(str.split, lines) if fields[:1] == ["XDP"] and fields[2].isdigit())
