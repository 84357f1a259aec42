"""What exclusions mean on this endpoint: host names, accounts, units and profiles, in numbers (`core.host.Names`)."""

import asyncio
import pwd
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from stanch.agent.host.dns import AT_ONCE, MAX_ADDRESSES, Found, HostNames
from stanch.agent.host.profiles import exclusions_of
from stanch.agent.host.resolvers import Resolvers
from stanch.agent.host.slow_questions import SlowQuestions
from stanch.agent.host.units import Units
from stanch.core.exclusion import Exclusion, Opening, Profile, address_network, fixed_networks, openings
from stanch.core.network import Resolved
from stanch.core.types import AnyAddress, AnyNetwork

MAX_NAMES = 1000
WITHIN_SECONDS = 5.0
KEEP_SECONDS = 86_400.0
"""How long an address outlives the last answer that named it, while there is no other."""

MAX_UID = 2**32 - 2
BROADCAST = ip_address("255.255.255.255")
MAX_LINES = 1000

NO_ANSWER = "no resolver answers for it"
UNREADABLE = "the accounts cannot be read"

FindUser = Callable[[str], int]
"""The uid of an account; KeyError if there is none."""


class Hosts(Protocol):
    """Finds addresses (`agent.host.dns.HostNames`)."""

    def resolvers(self) -> Resolvers:
        """Where names are asked for."""
        ...

    async def many(self, names: Collection[str], *, within: float) -> Found:
        """The addresses of these names; who is missing got no answer."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Meanings:
    """What the names of one call mean; text instead of a meaning is the reason why there is none."""

    hosts: Mapping[str, tuple[AnyNetwork, ...] | str]
    users: Mapping[str, int | str]
    units: Mapping[str, Sequence[str] | str]
    refused: Sequence[str]
    """Addresses that no name may open, one line each."""

    def unknown(self, one: Exclusion) -> bool:
        """Is it not that it means nothing, but that nobody tells what it means?"""
        user = self.users.get(one.user or "", "")
        return self.hosts.get(one.name or "") == NO_ANSWER or (isinstance(user, str) and user.startswith(UNREADABLE))

    def of(self, one: Exclusion) -> list[Opening] | str:
        """An exclusion in numbers, or why it opens nothing."""
        networks = fixed_networks(one) or self.hosts[one.name or ""]
        uid = None if one.user is None else self.users[one.user]
        cgroups: Sequence[str | None] | str = (None,) if one.unit is None else self.units[one.unit]
        if isinstance(networks, str):
            return f"{one.name} opens nothing: {networks}"
        if isinstance(uid, str):
            return f"user {one.user} opens nothing: {uid}"
        if isinstance(cgroups, str):
            return f"unit {one.unit} opens nothing: {cgroups}"
        return [opening for cgroup in cgroups for opening in openings(one, networks, uid=uid, cgroup=cgroup)]


@dataclass(slots=True)
class Memory:
    """Addresses of names, for the time when nobody answers."""

    seconds: Callable[[], float]
    known: dict[str, tuple[tuple[AnyAddress, ...], float]] = field(default_factory=dict)

    def update(self, asked: Collection[str], found: Found) -> Mapping[str, tuple[AnyAddress, ...] | None]:
        """What is known of each name now; None if nobody has ever told."""
        now = self.seconds()
        self.known |= {name: (addresses, now) for name, addresses in found.items()}
        self.known = {name: one for name, one in self.known.items() if now - one[1] < KEEP_SECONDS}
        while len(self.known) > 2 * MAX_NAMES:
            del self.known[min(self.known, key=lambda name: self.known[name][1])]
        return {name: self.known[name][0] if name in self.known else None for name in asked}


class LinuxNames:
    """Names on this machine."""

    def __init__(
        self,
        *,
        root: Path = Path("/"),
        hosts: Hosts | None = None,
        find_user: FindUser = lambda name: pwd.getpwnam(name).pw_uid,
        server_has_names: Callable[[], bool] = lambda: False,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`server_has_names`: does the agent look for a name of its own server, or of the proxy on the way?"""
        self._root = root
        self._hosts = hosts or HostNames(root)
        self._find_user = find_user
        self._server_has_names = server_has_names
        self._memory = Memory(seconds)
        self._uids: dict[str, int] = {}
        self._accounts = SlowQuestions[int]("accounts")

    async def resolve(self, exclusions: Sequence[Exclusion], profiles: Sequence[Profile]) -> Resolved:
        """All of them in numbers, within seconds; what cannot be resolved is told, not raised."""
        configured = await asyncio.to_thread(lambda: [exclusions_of(one, self._root) for one in profiles])
        wanted = list(dict.fromkeys([*exclusions, *(one for each in configured for one in each.exclusions)]))
        lines = [line for each in configured for line in each.not_open]
        names = list(dict.fromkeys(one.name for one in wanted if one.name is not None))
        resolvers = self._hosts.resolvers().remote if names or self._server_has_names() else ()
        if not resolvers and (names or self._server_has_names()):
            lines.append("no upstream resolver is known: names are not kept up to date while the endpoint is isolated")
        meanings = await self._meanings(names, wanted)
        found = [meanings.of(one) for one in wanted]
        lines += [*meanings.refused, *(one for one in found if isinstance(one, str))]
        opened = [opening for one in found if not isinstance(one, str) for opening in one]
        unknown = {one: line for one, line in zip(wanted, found, strict=True) if meanings.unknown(one)}
        return Resolved(
            openings=tuple(dict.fromkeys(opened)),
            resolvers=resolvers,
            not_open=tuple(dict.fromkeys(lines))[:MAX_LINES],
            unknown={one: line for one, line in unknown.items() if isinstance(line, str)},
        )

    async def _meanings(self, names: Sequence[str], wanted: Iterable[Exclusion]) -> Meanings:
        users = {one.user for one in wanted if one.user is not None}
        units = frozenset(one.unit for one in wanted if one.unit is not None)
        known, uids, groups = await asyncio.gather(
            self._find_hosts(names[:MAX_NAMES]),
            self._find_users(users),
            asyncio.to_thread(Units(self._root).groups, units),
        )
        over = dict.fromkeys(names[MAX_NAMES:], f"there are more than {MAX_NAMES} names")
        return Meanings(
            hosts={**{name: _networks(addresses) for name, addresses in known.items()}, **over},
            users=uids,
            units=groups,
            refused=[line for name, addresses in known.items() for line in _refused(name, addresses)],
        )

    async def _find_hosts(self, names: Sequence[str]) -> Mapping[str, tuple[AnyAddress, ...] | None]:
        found = await self._hosts.many(names, within=WITHIN_SECONDS) if names else {}
        return self._memory.update(names, found)

    async def _find_users(self, users: Collection[str]) -> dict[str, int | str]:
        found: dict[str, int | str] = {user: self._uids.get(user, UNREADABLE) for user in users}

        turns = asyncio.Semaphore(AT_ONCE)

        async def find(user: str) -> None:
            async with turns:
                try:
                    found[user] = self._uids[user] = await self._accounts.ask(user, lambda: self._uid(user))
                except KeyError:
                    self._uids.pop(user, None)
                    found[user] = "there is no such account"
                except (OSError, ValueError) as error:
                    found[user] = self._uids.get(user, f"{UNREADABLE}: {error}")

        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_SECONDS), asyncio.TaskGroup() as group:
                for user in sorted(users)[:MAX_NAMES]:
                    group.create_task(find(user))
        return found

    def _uid(self, user: str) -> int:
        # A name of digits is an account's name first, as it is to chown.
        try:
            return self._find_user(user)
        except KeyError:
            if user.isascii() and user.isdecimal() and int(user) <= MAX_UID:
                return int(user)
            raise


def _networks(addresses: tuple[AnyAddress, ...] | None) -> tuple[AnyNetwork, ...] | str:
    """What a name opens, or why it opens nothing."""
    if addresses is None:
        return NO_ANSWER
    good = [address_network(str(one)) for one in addresses if may_be_opened(one)]
    return tuple(good[:MAX_ADDRESSES]) or ("no address of it may be opened" if addresses else "it has no address")


def may_be_opened(address: AnyAddress) -> bool:
    """May a name open this? Whoever answers for the name must not open what is not a peer on a network."""
    odd = address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast
    return not odd and address != BROADCAST


def _refused(name: str, addresses: tuple[AnyAddress, ...] | None) -> Iterator[str]:
    for address in addresses or ():
        if not may_be_opened(address):
            yield f"{name} has the address {address}, which no name may open"
