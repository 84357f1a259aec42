"""Rules of others that come earlier than ours, or at the same moment: they open nothing, but they can close."""

from collections.abc import Iterator

import pytest

from stanch.agent.host.tablespec import LAST
from stanch.core.network import IsolationState
from tests.agent.host.beside.place import (
    HOST_FLOWS,
    OUTSIDE,
    POD_PORT,
    Held,
    Observer,
    attempts,
    both,
    foreign,
)
from tests.agent.host.beside.products import ROUTED, ROUTED_GATEWAY, local, out, routed_pod
from tests.agent.host.world import SERVER_PORT

pytestmark = pytest.mark.root

FLOWS = (
    *HOST_FLOWS,
    *out(ROUTED, masqueraded=False),
    *local(ROUTED, ROUTED_GATEWAY),
    *both("outside to pod", "outside", ROUTED, POD_PORT, ("first", POD_PORT)),
)


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    """An endpoint with a pod behind it and no rules, reachable without translation."""
    with routed_pod(FLOWS) as made:
        yield made


def assert_cut(held: Held, state: IsolationState = IsolationState.ISOLATED) -> None:
    """Nothing passes but the server's connections, and that is what the state says."""
    assert held.state().state is state
    observer = Observer(held.place)
    with attempts(held.place, FLOWS):
        held.fence()
        assert observer.leaks() == {}


def accepting(family: str, priority: int) -> str:
    """A table that accepts everything, in every hook of its family, at one priority."""
    hooks = ["prerouting", "input", "forward", "output", "postrouting"]
    chains = [
        f"chain {hook} {{ type filter hook {hook} priority {priority}; policy accept; counter accept; }}"
        for hook in hooks
    ]
    return "\n".join([f"table {family} early {{", *chains, "}"])


def accepting_devices(priority: int) -> str:
    """The same in the hooks of the devices."""
    chains = [
        f'chain {hook}_{device} {{ type filter hook {hook} device "{device}" priority {priority}; accept; }}'
        for hook in ("ingress", "egress")
        for device in ("wire1", "wire2")
    ]
    return "\n".join(["table netdev early {", *chains, "}"])


@pytest.mark.parametrize("priority", [-2147483648, -400, -301, -300, 2147483647])
@pytest.mark.parametrize("family", ["ip", "ip6", "inet", "netdev"])
def test_an_accept_of_others_opens_nothing(held, family, priority):
    """Whoever accepts, before us, at our priority or after us, before the isolation or during it: all stays cut."""
    text = accepting_devices(priority) if family == "netdev" else accepting(family, priority)
    endpoint = held.place.endpoint
    endpoint.command("nft -f -", stdin=text)
    before = foreign(held.place)
    try:
        # A chain at the very last place may come after ours: it is cut, and told.
        late = (family, priority) == ("netdev", LAST)
        says = IsolationState.PARTIAL if late else IsolationState.ISOLATED
        held.isolate()
        assert_cut(held, says)
        assert foreign(held.place) == before
        endpoint.command(f"nft delete table {family} early")
        endpoint.command("nft -f -", stdin=text)  # now it is registered later than ours
        assert_cut(held, says)
    finally:
        held.lift()
        endpoint.command(f"nft delete table {family} early")


RAW_AND_MANGLE = """*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -j ACCEPT
-A OUTPUT -j ACCEPT
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -j MARK --set-xmark 0x1/0x1
-A FORWARD -j ACCEPT
-A INPUT -j ACCEPT
-A OUTPUT -j MARK --set-xmark 0xffffffff
-A POSTROUTING -j ACCEPT
COMMIT
"""
NO_RULES = "".join(line for line in RAW_AND_MANGLE.splitlines(keepends=True) if not line.startswith("-A"))


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_raw_and_mangle_open_nothing(held, kind):
    """What the tables raw and mangle of iptables accept or mark, of the old kind and of the new, stays cut."""
    endpoint = held.place.endpoint
    held.isolate()
    try:
        for program in ("iptables", "ip6tables"):
            endpoint.command(f"{program}-{kind}-restore -w 5", stdin=RAW_AND_MANGLE)
        assert_cut(held)
    finally:
        held.lift()
        for program in ("iptables", "ip6tables"):
            endpoint.command(f"{program}-{kind}-restore -w 5", stdin=NO_RULES)


def test_without_connection_tracking_everything_is_cut_too(held):
    """A product that takes all packets out of connection tracking neither opens anything nor cuts the server."""
    endpoint = held.place.endpoint
    chains = "".join(
        f"chain {hook} {{ type filter hook {hook} priority -301; policy accept; notrack; }}\n"
        for hook in ("prerouting", "output")
    )
    endpoint.command("nft -f -", stdin=f"table inet early {{\n{chains}}}")
    held.isolate()
    try:
        assert_cut(held)
    finally:
        held.lift()
        endpoint.command("nft delete table inet early")


def test_what_others_drop_stays_dropped(held):
    """A foreign rule against our server is not overruled: the server is out of reach, and nothing else is open.

    An accept of ours is final in our own chain only. The state tells the truth about our rules; that the server cannot
    be reached is found by whoever asks it, as each isolation does before it is confirmed.
    """
    endpoint = held.place.endpoint
    closing = (
        "table inet early {\nchain output {\ntype filter hook output priority -400; policy accept;\n"
        f"tcp dport {SERVER_PORT} reject with tcp reset\n}}\n}}"
    )
    endpoint.command("nft -f -", stdin=closing)
    assert held.isolate().state is IsolationState.ISOLATED
    try:
        observer = Observer(held.place)
        for address in OUTSIDE:
            with held.place.outside.listen(address, SERVER_PORT), pytest.raises(ConnectionRefusedError):
                endpoint.connect(address, SERVER_PORT)
        with attempts(held.place, FLOWS):
            endpoint.command("nft delete table inet early")
            held.fence()
            assert observer.leaks() == {}
    finally:
        held.lift()
