"""Network isolation and blocks on this host: `core.host.Firewall` by nftables and sock_diag.

Bound to one network namespace: each call first checks that it is the one it was made for. The kernel's tables are the
only memory; whatever this process forgets, `isolation` and `blocks` read back.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property, partial

import structlog

from stanch.agent.host import blocks as block_tables
from stanch.agent.host.arming import arming
from stanch.agent.host.cgroups import Hierarchy, hierarchy
from stanch.agent.host.detours import detours
from stanch.agent.host.judge import judge, xdp_sockets
from stanch.agent.host.links import LOOPBACK, links, local_addresses
from stanch.agent.host.listing import Listed, parse
from stanch.agent.host.namespace import Namespace
from stanch.agent.host.nft import Listing, Nft
from stanch.agent.host.openings import Layout, layout
from stanch.agent.host.owner import Looking
from stanch.agent.host.reach import Reach
from stanch.agent.host.remembered import Remembered
from stanch.agent.host.ruleset import TABLE, Device, Frame, closed, tables
from stanch.agent.host.sockets import Open, connected, destroy, open_netlink
from stanch.agent.host.tables import Tables, can_own
from stanch.agent.host.tables_watch import Change, Watch
from stanch.agent.host.tablespec import Table
from stanch.core.errors import ActionFailed, Invalid, StanchError, Unsupported
from stanch.core.network import Block, IsolationRules, IsolationState, KernelIsolation, Peer, Socket
from stanch.core.types import AnyAddress

_TRIES = 3
"""A device may vanish between its listing and the transaction that names it."""

SMALL = 50
"""Openings with which the tables are in force as fast as without."""

log = structlog.get_logger(__name__)


class _Prepared:
    """Rules, and what is worked out from them."""

    def __init__(self, rules: IsolationRules, kept: Layout) -> None:
        self.rules = rules
        self.layout = kept

    @cached_property
    def canonical(self) -> IsolationRules:
        return self.layout.rules


class NftFirewall:
    """Isolation and blocks of one network namespace. Close it to end its nft; what is in force stays.

    `own`: hold the tables so that nobody else can change them? None for wherever the kernel can.
    """

    def __init__(self, namespace: Namespace, *, nft: Nft | None = None, own: bool | None = None) -> None:
        if namespace.kind != "net":
            raise Invalid("A firewall needs a network namespace", got=namespace.kind, expected="net")
        self._namespace = namespace
        self._nft = nft or Nft()
        self._own = own
        self._looking = Looking()
        self._tables = Tables(self._nft, TABLE, own=self._owns, looking=self._looking)
        self._block_tables = Tables(self._nft, block_tables.TABLE, own=self._owns, looking=self._looking)
        self._secret = secrets.randbelow(2**31 - 1) + 1
        self._egress = self._fib = True
        self._remembered = Remembered(self._tables.state, port=lambda: self._tables.owner.port)
        self._prepared: _Prepared | None = None
        self._held = False
        """Did we put an isolation in force, and not lift it since?"""
        self._put_last: object = None
        """What it was made of, but for its time."""
        self._groups: dict[str, int] = {}
        self._exempt: frozenset[tuple[AnyAddress, int]] = frozenset()

    async def isolate(self, rules: IsolationRules, *, lift_after: timedelta | None) -> None:
        """Put the rules in force in one transaction, replacing earlier ones.

        Raises Unsupported if the kernel cannot, Invalid if they are too many, TargetGone if a control group of theirs
        does not exist now, Conflict if the tables belong to another process.
        """
        self._namespace.check()
        prepared = self._prepared_for(rules)
        kept = prepared.layout
        tree = self._known_groups(kept)
        prefix = "" if tree is None else tree.prefix
        wanted = (prepared, tuple(link.device for link in links()), dict(self._groups))
        if wanted == self._put_last and await self._tables.rearm(arming(lift_after)):
            log.info("isolated-for-another-time", lift_after=_seconds(lift_after))
            return
        self._put_last = None
        frame = Frame(lift_after=lift_after, secret=self._secret, cgroups=prefix)
        if self._held and kept.size > SMALL and self._tables.is_open():
            # A thousand openings take a tenth of a second: until they are back, all but the server is closed.
            await self._put(self._tables, partial(_tables, closed(kept), replace(frame, quiet=True)))
        devices = await self._put(self._tables, partial(_tables, kept, frame))
        self._held = True
        self._put_last = wanted if self._egress else None
        log.info(
            "isolated",
            servers=[f"{peer.address} port {peer.port}" for peer in kept.servers],
            allowed=len(rules.allow),
            devices=[one.name for one in devices],
            lift_after=_seconds(lift_after),
        )

    async def lift(self) -> bool:
        """Remove our tables in one transaction; False if there were none."""
        self._namespace.check()
        lifted = await self._tables.drop()
        self._groups = {}
        self._held = False
        self._put_last = None
        if lifted:
            log.info("isolation-lifted")
        return lifted

    async def isolation(self) -> KernelIsolation:
        """What is in force, and what the tables do not reach on this machine."""
        self._namespace.check()
        try:
            inet, netdev = self._remembered.get() or await self._listed()
        except Invalid as error:
            log.warning("isolation-unreadable", error=str(error))
            return KernelIsolation(
                state=IsolationState.PARTIAL,
                rules=None,
                remaining=None,
                damaged=True,
                not_covered=(f"{error.message}.",),
            )
        there = links()
        names = {LOOPBACK: "lo", **{one.device.index: one.device.name for one in there}}
        return judge(inet, netdev, there, xdp_sockets(), detours(names))

    async def _listed(self) -> tuple[Listed | None, Listed | None]:
        began = self._remembered.now()
        listings = await self._tables.listings()
        inet = _read(listings[0])
        netdev = _read(listings[1], like=inet)
        self._remembered.keep((inet, netdev), began=began)
        return inet, netdev

    def is_in_force(self, now: KernelIsolation, rules: IsolationRules) -> bool:
        """Does the kernel enforce these rules, all of them, whatever their order and however networks are cut?"""
        try:
            return now.rules is not None and not now.damaged and now.rules == self._prepared_for(rules).canonical
        except Invalid:
            return False

    async def forbidden_sockets(self, rules: IsolationRules) -> tuple[Socket, ...]:
        """Connected sockets to peers that the rules do not allow; loopback excepted."""
        self._namespace.check()
        # A busy host has a hundred thousand sockets: reading them must not hold up the link.
        return await asyncio.to_thread(self._list_forbidden, rules)

    async def destroy_sockets(self, rules: IsolationRules) -> int:
        """Destroy every forbidden socket, idle ones included; how many. Unsupported if the kernel cannot."""
        self._namespace.check()
        return _told(await asyncio.to_thread(self._destroy_forbidden, rules))

    async def block(self, blocks: Sequence[Block], *, servers: Sequence[Peer]) -> None:
        """Let exactly these blocks be in force, in one transaction; what goes to our own servers is never dropped."""
        self._namespace.check()
        self._exempt = frozenset((one.address, one.port) for one in servers)
        if not blocks:
            await self._block_tables.drop()
            return

        def make(devices: Sequence[Device], *, egress: bool, fib: bool) -> list[Table]:  # noqa: ARG001 - no use for it
            return block_tables.tables(blocks, servers, devices, egress=egress)

        await self._put(self._block_tables, make)
        log.info("blocked", blocks=len(blocks))

    async def blocks(self) -> tuple[Block, ...]:
        """The blocks in force, cut into networks that do not overlap; Invalid if the table is none of ours."""
        self._namespace.check()
        inet, _netdev = await self._block_tables.listings()
        return () if inet is None or _is_empty(inet) else block_tables.parse(inet)

    async def destroy_blocked(self, block: Block) -> int:
        """Destroy every connected socket to a network, but not to our own servers; how many."""
        self._namespace.check()
        return _told(await asyncio.to_thread(self._destroy_blocked, block))

    async def own_addresses(self) -> frozenset[AnyAddress]:
        """Every address of this machine, the loopback's included."""
        self._namespace.check()
        return local_addresses()

    async def watch(self) -> AsyncIterator[Change]:
        """What others change in our tables, and what the machine's devices and addresses become, for ever.

        Begins with `Lost`: nobody has watched until now. Unsupported if the kernel does not tell.
        """
        self._namespace.check()
        names = {TABLE, block_tables.TABLE}
        async with Watch(tables=names, is_ours=self._is_ours, groups=self._changed_groups) as watch:
            async for change in watch:
                yield change

    async def close(self) -> None:
        """End the nft child, and let go of the tables; they stay in force."""
        self._tables.close()
        self._block_tables.close()
        self._looking.close()
        await self._nft.close()

    # --- putting tables in place -------------------------------------------------------------------------------------

    async def _owns(self) -> bool:
        if self._own is None:
            self._own = await can_own(self._nft)
        return self._own

    async def _put(self, where: Tables, make: Callable[..., list[Table]]) -> Sequence[Device]:
        for attempt in range(_TRIES if self._egress else 0):
            devices = [link.device for link in links()]
            try:
                # Some kernels lack what a first try asks for; without it the same is slower.
                fib = self._fib and not attempt
                await where.put(make(devices, egress=True, fib=fib), anew=attempt > 0)
            except ActionFailed as error:
                log.warning("tables-refused", table=where.name, error=str(error))
            except Unsupported as error:
                log.warning("tables-refused", table=where.name, error=str(error))
                # At first a chain that somebody replaced may be the reason; in the end, that there are no egress hooks.
                if attempt == _TRIES - 1:
                    await self._put_without_egress(where, make((), egress=False, fib=False))
                    self._egress = False
                    return ()
            else:
                self._fib = fib
                return devices
        await self._put_without_egress(where, make((), egress=False, fib=False))
        return ()

    async def _put_without_egress(self, where: Tables, wanted: list[Table]) -> None:
        try:
            await where.put(wanted)
        except (Unsupported, ActionFailed):
            await where.put(wanted, anew=True)
        log.warning("tables-without-egress", table=where.name)

    def _prepared_for(self, rules: IsolationRules) -> "_Prepared":
        """Repairs and looks ask for the same rules again and again."""
        if self._prepared is None or self._prepared.rules != rules:
            self._prepared = _Prepared(rules, layout(rules))
        return self._prepared

    def _known_groups(self, kept: Layout) -> Hierarchy | None:
        """The tree of control groups, if the rules name any, all of which must exist."""
        paths = {one.cgroup for one in kept.bound if one.cgroup is not None}
        if not paths:
            self._groups = {}
            return None
        tree = hierarchy()
        for path in sorted(paths):
            tree.check(path)
        self._groups = {path: tree.number(path) for path in paths}
        return tree

    def _changed_groups(self) -> bool:
        """Was a control group of the rules made again? The kernel's rules still mean the old one."""
        if not self._groups:
            return False
        try:
            tree = hierarchy()
        except StanchError:
            return False
        now = {path: tree.number(path) for path in self._groups}
        changed = any(number and number != self._groups[path] for path, number in now.items())
        self._groups = {path: number or self._groups[path] for path, number in now.items()}
        return changed

    def _is_ours(self, port: int) -> bool:
        return port in self._nft.pids or port in self._tables.owner.ports or port in self._block_tables.owner.ports

    # --- in a thread: the namespace is the thread's, so it is checked again ------------------------------------------

    def _list_forbidden(self, rules: IsolationRules) -> tuple[Socket, ...]:
        self._namespace.check()
        with open_netlink() as netlink:
            return tuple(one.shown() for one in forbidden(connected(netlink), rules, local_addresses()))

    def _destroy_forbidden(self, rules: IsolationRules) -> int:
        self._namespace.check()
        with open_netlink() as netlink:
            return destroy(netlink, forbidden(connected(netlink), rules, local_addresses()))

    def _destroy_blocked(self, block: Block) -> int:
        self._namespace.check()
        own, network = local_addresses(), block.network
        with open_netlink() as netlink:
            return destroy(
                netlink,
                [
                    one
                    for one in connected(netlink)
                    if one.remote.version == network.version
                    and one.remote in network
                    and not (one.remote.is_loopback or one.remote in own)
                    and not (one.protocol == "tcp" and (one.remote, one.remote_port) in self._exempt)
                ],
            )


def forbidden(sockets: Iterable[Open], rules: IsolationRules, own: Container[AnyAddress]) -> list[Open]:
    """Those whose peer the rules do not allow. Peers with an address of this host are always allowed, DHCP if it is."""
    reach = Reach(rules, groups=_group_numbers)
    return [
        one
        for one in sockets
        if not (one.is_only_remembered or (one.is_dhcp and rules.dhcp) or one.remote in own) and not reach.allows(one)
    ]


def _group_numbers(path: str) -> frozenset[int]:
    try:
        return hierarchy().numbers(path)
    except StanchError:
        return frozenset()


def _seconds(lasts: timedelta | None) -> float | None:
    return None if lasts is None else lasts.total_seconds()


def _told(destroyed: int) -> int:
    if destroyed:
        log.info("sockets-destroyed", count=destroyed)
    return destroyed


def _tables(kept: Layout, frame: Frame, devices: Sequence[Device], *, egress: bool, fib: bool) -> list[Table]:
    return tables(kept, replace(frame, devices=devices, egress=egress, fib=fib))


def _read(listing: Listing | None, *, like: Listed | None = None) -> Listed | None:
    return None if listing is None or _is_empty(listing) else parse(listing, like=like)


def _is_empty(listing: Mapping[str, object]) -> bool:
    """Is it a table without anything in it? One that is owned is made before it is filled."""
    items = listing.get("nftables")
    return isinstance(items, list) and all(isinstance(one, dict) and not {"set", "chain"} & set(one) for one in items)
