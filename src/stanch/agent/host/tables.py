"""Tables of ours in the kernel: filled in one transaction, owned where the kernel can, replaced in place.

Two ways. Plain: one transaction that also makes the table. Owned: the table is made through netlink, filled by nft
while it is an orphan for a moment, and taken again. Where a table is of the wrong kind, or a set or chain in it was
replaced by another kind, it must be made anew: meanwhile a plain copy under another name, the bridge, stands in for it.
"""

import errno
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import structlog

from stanch.agent.host.nft import Listing, Nft
from stanch.agent.host.owner import Kernel, Looking, Owner, has_rules, look
from stanch.agent.host.remembered import State, state_of
from stanch.agent.host.tablespec import NOTHING, Family, Parts, Table, ending, rule_statements, set_statements
from stanch.core.errors import ActionFailed, Conflict, StanchError, Unsupported

FAMILIES: tuple[Family, ...] = ("inet", "netdev")

_TRIAL = "stanch_trial"
_CANNOT = {errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}

log = structlog.get_logger(__name__)

_Kernels = dict[tuple[Family, str], Kernel]


class Tables:
    """The tables of one name, inet and netdev."""

    def __init__(self, nft: Nft, name: str, *, own: Callable[[], Awaitable[bool]], looking: Looking) -> None:
        self.name = name
        self._looking = looking
        self._bridge = f"{name}_bridge"
        self._nft = nft
        self._own = own
        self.owner = Owner(name)
        self._closing: list[tuple[Family, str, str]] = []
        """The chains that were put there last and end with what drops."""
        self._left: State | None = None
        """What the kernel had after our last change."""
        self._timed: list[tuple[Family, str]] = []
        """The sets whose element says how long the tables are in force."""

    async def put(self, wanted: Sequence[Table], *, anew: bool = False) -> None:
        """Bring the kernel to these tables, and remove others of our name.

        `anew`: make them from nothing instead of replacing what is in them. Raises Unsupported if the kernel cannot,
        ActionFailed with nft's words, Conflict if another process owns them; then what was in force still is.
        """
        owns, there = await self._own(), self._look()
        wrong = any(self._is_plain(there, table.family) for table in wanted)
        try:
            if anew or (owns and wrong):
                await self._through_bridge(wanted, there, owns=owns)
            else:
                await self._in_place(wanted, there, owns=owns)
            self._closing = [
                (table.family, self.name, chain.name)
                for table in wanted
                for chain in table.chains
                if chain.rules and _ends_all(chain.rules[-1])
            ]
        except BaseException:
            self._timed = []
            raise
        finally:
            if owns:
                self._take_what_is_there()
            self._left = self.state()

    async def rearm(self, element: str) -> bool:
        """Let the same be in force for another time; False if it is not, as far as can be told, what we put there."""
        if not self._timed or self._left is None or self.state() != self._left:
            return False
        owns = bool(self.owner.port)
        self.owner.release()
        lines = [
            line
            for family, name in self._timed
            for line in (
                f"flush set {family} {self.name} {name};",
                f"add element {family} {self.name} {name} {{ {element} }};",
            )
        ]
        try:
            await self._nft.apply(_joined(lines))
        except ActionFailed:
            return False
        finally:
            if owns:
                self._take_what_is_there()
            self._left = self.state()
        return True

    def state(self) -> State | None:
        """What the kernel has of these tables; None if it does not tell."""
        return state_of(self.name, self._looking)

    async def drop(self) -> bool:
        """Remove them in one transaction; False if there were none."""
        there = self._look()
        self.owner.release()
        try:
            if there:
                await self._nft.apply(_joined(_deleted(there)))
        except StanchError:
            # It may have been done before nft died, and then been asked for once more.
            if self._look():
                self._take_what_is_there()
                raise
        return any(name == self.name for _family, name in there)

    async def listings(self) -> list[Listing | None]:
        """The kernel's listing of each, inet first; None where there is none."""
        return await self._nft.tables(*((family, self.name) for family in FAMILIES))

    def is_open(self) -> bool:
        """Is one of the chains that drop what is left gone, or without rules?"""
        return not all(has_rules(*one, self._looking) for one in self._closing)

    def close(self) -> None:
        """Let go; the tables stay in force, as orphans if they were owned."""
        self.owner.release()

    def _look(self) -> _Kernels:
        there = look([self.name, self._bridge], self._looking)
        for (family, name), one in there.items():
            if one.owner and one.owner != self.owner.port:
                raise Conflict(
                    "The firewall's tables belong to another process",
                    got=f"table {family} {name}, owned by the netlink port {one.owner}",
                    expected="nobody, or us",
                    hint="The running agent owns them: let it make the change, or end it first.",
                )
        return there

    def _is_plain(self, there: _Kernels, family: Family) -> bool:
        one = there.get((family, self.name))
        return one is not None and not one.persists

    def _take_what_is_there(self) -> None:
        try:
            there = look([self.name], self._looking)
            families = [family for (family, _name), one in there.items() if one.persists]
            if families:
                self.owner.take(families)
        except (OSError, StanchError) as error:
            # In force all the same; and who removes it is told by the watch.
            log.warning("tables-not-owned", table=self.name, error=str(error))

    # --- transactions ------------------------------------------------------------------------------------------------

    async def _in_place(self, wanted: Sequence[Table], there: _Kernels, *, owns: bool) -> None:
        missing = [table.family for table in wanted if (table.family, self.name) not in there]
        await self._make(missing, owns=owns)
        try:
            await self._fill(self.name, wanted, there)
        except StanchError:
            if missing:  # leave no empty table behind
                with suppress(StanchError):
                    await self._nft.apply(_joined(_deleted({(family, self.name) for family in missing})))
            raise

    async def _through_bridge(self, wanted: Sequence[Table], there: _Kernels, *, owns: bool) -> None:
        families = [table.family for table in wanted]
        bridges = [(family, self._bridge) for family in families]
        ours = [key for key in there if key[1] == self.name]
        # One may be there, and all that is in force, if this was cut short before.
        before = {key: one for key, one in there.items() if key[1] == self._bridge}
        self.owner.release()
        try:
            if missing := [key[0] for key in bridges if key not in before]:
                await self._nft.apply(_joined(_added(missing, self._bridge)))
            await self._fill(self._bridge, wanted, before)
        except StanchError:
            await self._nft.apply(_joined(_deleted(look([self._bridge], self._looking))))
            raise
        # If anything fails from here on, the bridge is what is in force.
        if ours:
            await self._nft.apply(_joined(_deleted(ours)))
        await self._make(families, owns=owns)
        await self._fill(self.name, wanted, {key: Kernel(0, 0, NOTHING) for key in bridges})

    async def _make(self, families: Sequence[Family], *, owns: bool) -> None:
        """New and empty tables, which nobody owns."""
        self.owner.release()
        if not families:
            return
        if not owns:
            await self._nft.apply(_joined(_added(families, self.name)))
            return
        try:
            self.owner.take(families)
        except OSError as error:
            kind = Unsupported if error.errno in _CANNOT else ActionFailed
            raise kind("The kernel did not make our tables", got=error.strerror) from error
        finally:
            self.owner.release()

    async def _fill(self, name: str, wanted: Sequence[Table], there: _Kernels) -> None:
        """Sets first, then all rules at once, and nothing else of our names is left."""
        keys = {(table.family, name) for table in wanted}
        parts = {key: there[key].parts if key in there else NOTHING for key in keys}
        end = ending(Parts(sets=frozenset(one for each in parts.values() for one in each.sets)))
        if end is None:
            raise ActionFailed("Sets are left of too many changes that were cut short", got=f"all endings in {name}")
        sets = [line for table in wanted for line in set_statements(table, name, end)]
        await self._nft.apply(_joined(sets))
        lines = _deleted([key for key in there if key not in keys])
        for table in wanted:
            lines += rule_statements(table, name, end, parts[table.family, name])
        await self._nft.apply(_joined(lines))
        self._timed = [(table.family, f"{one.name}_{end}") for table in wanted for one in table.sets if one.times]


def _ends_all(rule: str) -> bool:
    return "counter drop" in rule or "counter reject" in rule


def _added(families: Iterable[Family], name: str) -> list[str]:
    return [f"add table {family} {name};" for family in families]


def _deleted(tables: Iterable[tuple[Family, str]]) -> list[str]:
    return [f"delete table {family} {name};" for family, name in tables]


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


async def can_own(nft: Nft) -> bool:
    """Does this kernel keep owned tables when their owner is gone, and can this nft list them? Linux 6.9 and later do.

    Tried with an empty table.
    """
    trial = Owner(_TRIAL)
    try:
        trial.take(["inet"])
        try:
            return await nft.table("inet", _TRIAL) is not None
        finally:
            trial.delete(["inet"])
    except (OSError, StanchError) as error:
        log.info("tables-cannot-be-owned", error=str(error))
        return False
    finally:
        trial.release()
