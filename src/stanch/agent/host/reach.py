"""What the rules leave reachable: the same decision as the kernel's, for sockets that exist already."""

from collections.abc import Callable
from dataclasses import dataclass

from stanch.agent.host.mark import AGENT_MARK, MARK_BITS
from stanch.agent.host.openings import Shape, canonical, plain_address
from stanch.agent.host.sockets import Open
from stanch.core.exclusion import Opening, Transport
from stanch.core.network import IsolationRules
from stanch.core.types import AnyAddress, AnyNetwork

_DNS = 53


@dataclass(frozen=True, slots=True)
class _Way:
    """What of a network is open, and to whom."""

    shape: Shape
    uid: int | None
    groups: frozenset[int] | None

    def opens(self, one: Open) -> bool:
        """Is this socket among it? Who opened the conversation cannot be told any more."""
        shape = self.shape
        return (
            shape.transport in {Transport.ANY, one.protocol}
            and shape.remote.first <= one.remote_port <= shape.remote.last
            and shape.local.first <= one.local_port <= shape.local.last
            and self.uid in {None, one.uid}
            and (self.groups is None or one.group in self.groups)
        )


class Reach:
    """The rules as a question that is answered fast: a busy host has a hundred thousand sockets."""

    def __init__(
        self, rules: IsolationRules, *, groups: Callable[[str], frozenset[int]] = lambda _: frozenset()
    ) -> None:
        """`groups`: the numbers of a control group and those below it."""
        kept = canonical(rules)
        self._servers = frozenset((peer.address, peer.port) for peer in kept.servers)
        self._proxies = frozenset((peer.address, peer.port) for peer in kept.proxies)
        self._resolvers = frozenset(kept.resolvers)
        self._ways: dict[tuple[int, int], dict[int, list[_Way]]] = {}
        numbers = {one.cgroup: groups(one.cgroup) for one in kept.allow if one.cgroup is not None}
        for one in kept.allow:
            self._add(one.network, _way(one, numbers))

    def _add(self, network: AnyNetwork, way: _Way) -> None:
        shift = network.max_prefixlen - network.prefixlen
        starts = self._ways.setdefault((network.version, shift), {})
        starts.setdefault(int(network.network_address) >> shift, []).append(way)

    def allows(self, one: Open) -> bool:
        """Whether this socket may go on."""
        remote = plain_address(one.remote)
        if remote.is_loopback or (one.protocol == "tcp" and (remote, one.remote_port) in self._servers):
            return True
        if one.mark & MARK_BITS == AGENT_MARK and self._is_our_way(one, remote):
            return True
        return any(way.opens(one) for way in self._around(remote))

    def _is_our_way(self, one: Open, remote: AnyAddress) -> bool:
        is_proxy = one.protocol == "tcp" and (remote, one.remote_port) in self._proxies
        return is_proxy or (one.remote_port == _DNS and remote in self._resolvers)

    def _around(self, address: AnyAddress) -> list[_Way]:
        number = int(address)
        return [
            way
            for (version, shift), starts in self._ways.items()
            if version == address.version
            for way in starts.get(number >> shift, ())
        ]


def _way(one: Opening, numbers: dict[str, frozenset[int]]) -> _Way:
    return _Way(Shape.of(one), one.uid, None if one.cgroup is None else numbers[one.cgroup])
