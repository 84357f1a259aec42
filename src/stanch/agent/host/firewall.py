"""Network isolation on this host: `core.host.Firewall` by nftables and sock_diag.

Bound to one network namespace: each call first checks that it is the one it was made for. The kernel's tables are the
only memory; whatever this process forgets, `isolation` reads back.
"""

import asyncio
from collections.abc import Container, Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import structlog

from stanch.agent.host.links import Link, links, local_addresses
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.nft import Family, Nft
from stanch.agent.host.ruleset import LIFT, TABLE, Device, Listed, Reach, canonical, parse, render
from stanch.agent.host.sockets import Open, connected, destroy, open_netlink
from stanch.core.errors import ActionFailed, Invalid, Unsupported
from stanch.core.host import IsolationRules, IsolationState, KernelIsolation, Socket
from stanch.core.types import AnyAddress

_TRIES = 3
"""A device may vanish between its listing and the transaction that names it."""

_MAX_LINES = 100
_TABLES: tuple[tuple[Family, str], ...] = (("inet", TABLE), ("netdev", TABLE))

log = structlog.get_logger(__name__)


class NftFirewall:
    """Isolation of one network namespace. Close it to end its nft."""

    def __init__(self, namespace: Namespace, *, nft: Nft | None = None) -> None:
        if namespace.kind != "net":
            raise Invalid("A firewall needs a network namespace", got=namespace.kind, expected="net")
        self._namespace = namespace
        self._nft = nft or Nft()

    async def isolate(self, rules: IsolationRules, *, lift_after: timedelta | None) -> None:
        """Put the rules in force in one transaction, replacing earlier ones; Unsupported if the kernel cannot."""
        self._namespace.check()
        kept = canonical(rules)
        devices = await self._apply(kept, lift_after)
        log.info(
            "isolated",
            servers=[f"{peer.address} port {peer.port}" for peer in kept.servers],
            allowed=len(kept.allow),
            devices=[one.name for one in devices],
            lift_after=None if lift_after is None else lift_after.total_seconds(),
        )

    async def lift(self) -> bool:
        """Remove our tables in one transaction; False if there were none."""
        self._namespace.check()
        if not any(await self._nft.tables(*_TABLES)):
            return False
        await self._nft.apply(LIFT)
        log.info("isolation-lifted")
        return True

    async def isolation(self) -> KernelIsolation:
        """What is in force, and what the tables do not reach on this machine."""
        self._namespace.check()
        try:
            inet, netdev = (parse(listing) if listing else None for listing in await self._nft.tables(*_TABLES))
        except Invalid as error:
            log.warning("isolation-unreadable", error=str(error))
            return KernelIsolation(
                state=IsolationState.PARTIAL, rules=None, remaining=None, not_covered=(f"{error.message}.",)
            )
        return judge(inet, netdev, links(), xdp_sockets())

    async def forbidden_sockets(self, rules: IsolationRules) -> tuple[Socket, ...]:
        """Connected sockets to peers that the rules do not allow; loopback excepted."""
        self._namespace.check()
        # A busy host has a hundred thousand sockets: reading them must not hold up the link.
        return await asyncio.to_thread(self._list_forbidden, rules)

    async def destroy_sockets(self, rules: IsolationRules) -> int:
        """Destroy every forbidden socket, idle ones included; how many. Unsupported if the kernel cannot."""
        self._namespace.check()
        destroyed = await asyncio.to_thread(self._destroy_forbidden, rules)
        if destroyed:
            log.info("sockets-destroyed", count=destroyed)
        return destroyed

    async def close(self) -> None:
        """End the nft child; the tables stay."""
        await self._nft.close()

    async def _apply(self, rules: IsolationRules, lift_after: timedelta | None) -> Sequence[Device]:
        for _ in range(_TRIES):
            devices = [link.device for link in links()]
            try:
                await self._nft.apply(render(rules, devices, lift_after=lift_after))
            except Unsupported:
                if not devices:
                    raise
                break  # perhaps only the egress hook is missing
            except ActionFailed as error:
                log.warning("isolation-refused", error=str(error))
            else:
                return devices
        await self._nft.apply(render(rules, (), lift_after=lift_after))
        log.warning("isolation-without-egress")
        return ()

    # --- in a thread: the namespace is the thread's, so it is checked again ------------------------------------------

    def _list_forbidden(self, rules: IsolationRules) -> tuple[Socket, ...]:
        self._namespace.check()
        with open_netlink() as netlink:
            return tuple(one.shown() for one in forbidden(connected(netlink), rules, local_addresses()))

    def _destroy_forbidden(self, rules: IsolationRules) -> int:
        self._namespace.check()
        with open_netlink() as netlink:
            return destroy(netlink, forbidden(connected(netlink), rules, local_addresses()))


def forbidden(sockets: Iterable[Open], rules: IsolationRules, own: Container[AnyAddress]) -> list[Open]:
    """Those whose peer the rules do not allow. Peers with an address of this host, and DHCP, are always allowed."""
    reach = Reach(rules)
    return [
        one
        for one in sockets
        if not (one.is_only_remembered or one.is_dhcp or one.remote in own)
        and not reach.allows(one.protocol, one.remote, one.remote_port)
    ]


def judge(inet: Listed | None, netdev: Listed | None, devices: Sequence[Link], xdp_sockets: int) -> KernelIsolation:
    """What two listed tables amount to on a machine with these devices."""
    armed = [one for one in (inet, netdev) if one is not None and one.armed]
    around = _around(devices, xdp_sockets)
    if not armed:
        return KernelIsolation(state=IsolationState.RELEASED, rules=None, remaining=None, not_covered=around)
    covered = netdev.devices if netdev in armed and netdev is not None else frozenset()
    bare = [link.device for link in devices if link.device not in covered]
    whole = len(armed) == 2 and all(one.whole and one.rules == armed[0].rules for one in armed)  # noqa: PLR2004 - both
    return KernelIsolation(
        state=IsolationState.ISOLATED if whole and not bare else IsolationState.PARTIAL,
        rules=armed[0].rules,
        remaining=armed[0].remaining,
        not_covered=(*(_bare(device) for device in bare), *around)[:_MAX_LINES],
    )


def _bare(device: Device) -> str:
    why = "" if device.coverable else " (nft cannot be told its name)"
    return f"{device.name}: frames of raw sockets and bridges can leave, there is no egress chain on it{why}."


def _around(devices: Sequence[Link], xdp_sockets: int) -> tuple[str, ...]:
    lines = [
        f"{link.device.name}: it runs an XDP program, which can answer and forward frames before any firewall."
        for link in devices
        if link.xdp
    ]
    if xdp_sockets:
        lines.append(f"{xdp_sockets} AF_XDP sockets are open: they send and receive around the firewall.")
    return tuple(lines[:_MAX_LINES])


def xdp_sockets(table: Path = Path("/proc/thread-self/net/protocols")) -> int:
    """How many AF_XDP sockets the calling thread's namespace has; 0 where the kernel knows none."""
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(fields[2]) for fields in map(str.split, lines) if fields[:1] == ["XDP"] and fields[2].isdigit())
