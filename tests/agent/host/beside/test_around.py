"""Ways around the usual path of a packet that others may configure: redirection, duplication, translation."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from stanch.agent.host.tablespec import LAST
from stanch.core.network import IsolationState, KernelIsolation
from tests.agent.host.beside.place import (
    HOST_FLOWS,
    OUTSIDE,
    POD_PORT,
    UPLINK,
    Held,
    Observer,
    begun,
    both,
)
from tests.agent.host.beside.products import ROUTED, ROUTED_GATEWAY, local, out, routed_pod
from tests.agent.host.world import SERVER_PORT, start_tcp

pytestmark = pytest.mark.root

LOOPBACK = both("host to itself", "endpoint", ROUTED_GATEWAY, 6000, ("endpoint", 6000))
FLOWS = (
    *HOST_FLOWS,
    *out(ROUTED, masqueraded=False),
    *local(ROUTED, ROUTED_GATEWAY),
    *both("outside to pod", "outside", ROUTED, POD_PORT, ("first", POD_PORT)),
)


@pytest.fixture
def held() -> Iterator[Held]:
    """An endpoint with a pod behind it and no rules, reachable without translation."""
    with routed_pod(FLOWS) as made:
        yield made


def heard(held: Held) -> dict[str, list[bytes]]:
    """What the outside and the pod hear of everything that is tried, loopback included."""
    observer = Observer(held.place)
    with ExitStack() as opened:
        for flow in (*FLOWS, *LOOPBACK):
            opened.enter_context(begun(held.place, flow))
        held.fence()
        return dict(observer.leaks())


def _netdev(hook: str, device: str, *statements: str) -> str:
    rules = "\n".join(statements)
    return (
        f'table netdev other {{\nchain {hook} {{\ntype filter hook {hook} device "{device}" priority -400; '
        f"policy accept;\n{rules}\n}}\n}}"
    )


# --- what nft and iptables can do ------------------------------------------------------------------------------------

NFT_WAYS = {
    "forwarded at the ingress": _netdev("ingress", "wire2", 'meta l4proto udp fwd to "wire1"'),
    "duplicated at the ingress": _netdev("ingress", "wire2", 'meta l4proto udp dup to "wire1"'),
    "duplicated at the egress": _netdev("egress", "lo", 'meta l4proto udp dup to "wire1"'),
    "duplicated by address": (
        "table ip other {\n"
        "chain out {\ntype filter hook output priority -400;\nmeta l4proto udp dup to 10.77.1.2\n}\n"
        'chain in {\ntype filter hook prerouting priority -400;\nmeta l4proto udp dup to 10.77.1.2 device "wire1"\n}\n'
        "}"
    ),
    "loopback translated to the outside": (
        "table ip other {\n"
        "chain out {\ntype nat hook output priority -100;\nip daddr 10.77.2.1 udp dport 6000 dnat to 10.77.1.2\n}\n"
        "chain post {\ntype nat hook postrouting priority 100;\nmasquerade\n}\n"
        "}"
    ),
}


@pytest.mark.parametrize("way", NFT_WAYS.values(), ids=NFT_WAYS)
def test_nft_leads_nothing_around_the_isolation(held, way):
    """Packets that nft forwards, duplicates or translates on the way still meet the egress of the device."""
    held.place.endpoint.command("nft -f -", stdin=way)
    free = heard(held)
    held.place.endpoint.command("nft flush table " + way.split(" {")[0].removeprefix("table "))
    plain = heard(held)
    assert sum(map(len, free.values())) != sum(map(len, plain.values()))  # it does what it is there for
    held.place.endpoint.command("nft -f -", stdin=way)
    held.isolate()
    assert heard(held) == {}


def test_copies_of_iptables_do_not_leave(held):
    """What the target TEE sends to a second gateway is cut as well."""
    for chain, kind in (("PREROUTING", "legacy"), ("OUTPUT", "nft")):
        held.place.endpoint.command(f"iptables-{kind} -t mangle -A {chain} -p udp -j TEE --gateway {OUTSIDE.four}")
    held.isolate()
    assert heard(held) == {}


def test_a_mark_that_changes_the_route_opens_nothing(held):
    """Policy routing by a mark that a foreign rule sets leads to a device whose egress is ours too."""
    held.place.ip("rule add fwmark 7 lookup 77", f"route add default via {OUTSIDE.four} dev {UPLINK} table 77")
    held.place.endpoint.command("iptables-nft -t mangle -A OUTPUT -p udp -j MARK --set-mark 7")
    held.isolate()
    assert heard(held) == {}


# --- our server's address, translated by others ----------------------------------------------------------------------


def _translated(target: str) -> str:
    return (
        "table ip other {\nchain out {\ntype nat hook output priority -100; policy accept;\n"
        f"ip daddr {OUTSIDE.four} tcp dport {SERVER_PORT} {target}\n}}\n}}"
    )


def test_a_server_that_others_translate_to_elsewhere_is_cut(held):
    """A foreign rule that sends the server's connections elsewhere opens no way there: they end at the egress."""
    endpoint, outside = held.place.endpoint, held.place.outside
    endpoint.command("nft -f -", stdin=_translated("dnat to 10.77.1.2:4444"))
    with outside.listen(OUTSIDE.four, 4444), endpoint.connect(OUTSIDE.four, SERVER_PORT):
        pass  # without isolation it is led there
    observer = Observer(held.place)
    assert held.isolate().state is IsolationState.ISOLATED
    observer.leaks()
    with outside.listen(OUTSIDE.four, 4444) as listener, start_tcp(endpoint, OUTSIDE.four, SERVER_PORT):
        endpoint.command("nft delete table ip other")
        held.fence()
        assert observer.leaks() == {}
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_server_that_others_translate_to_this_host_is_reached_there(held):
    """A transparent proxy on the endpoint keeps working: it gets the connection by the loopback."""
    endpoint = held.place.endpoint
    endpoint.command("nft -f -", stdin=_translated("redirect to :3128"))
    held.isolate()
    with endpoint.listen("0.0.0.0", 3128) as proxy, endpoint.connect(OUTSIDE.four, SERVER_PORT) as call:
        answer = endpoint.accept(proxy)
        call.sendall(b"by proxy")
        assert answer.recv(8) == b"by proxy"


def test_what_others_translate_to_the_server_is_cut(held):
    """A connection to somebody else is refused before a foreign rule can lead it to the server."""
    endpoint = held.place.endpoint
    text = _translated(f"dnat to {OUTSIDE.four}:{SERVER_PORT}").replace(
        f"ip daddr {OUTSIDE.four}", "ip daddr 10.77.1.9"
    )
    endpoint.command("nft -f -", stdin=text)
    held.isolate()
    with held.place.outside.listen(OUTSIDE.four, SERVER_PORT), pytest.raises(ConnectionRefusedError):
        endpoint.connect("10.77.1.9", SERVER_PORT)


# --- below and behind us ----------------------------------------------------------------------------------------------


def _is_said(state: KernelIsolation, device: str) -> bool:
    return any(device in line for line in state.not_covered)


@pytest.mark.parametrize(
    ("device", "hook", "how", "to"),
    [
        ("wire2", "ingress", "redirect", UPLINK),
        (UPLINK, "ingress", "mirror", "wire2"),
        ("lo", "egress", "mirror", UPLINK),
    ],
    ids=["pod to uplink", "uplink to pod", "loopback to uplink"],
)
def test_what_tc_redirects_is_cut_or_it_is_said(held, device, hook, how, to):
    """Frames that a tc filter (or a BPF program, as Cilium's) hands to another device are cut, or reported."""
    endpoint = held.place.endpoint
    endpoint.command(f"tc qdisc add dev {device} clsact")
    endpoint.command(
        f"tc filter add dev {device} {hook} protocol all u32 match u32 0 0 action mirred egress {how} dev {to}"
    )
    state = held.isolate()
    assert heard(held) == {} or _is_said(state, device)


@pytest.mark.parametrize("priority", [-301, 0, LAST - 1, LAST])
@pytest.mark.parametrize("first", [True, False], ids=["before the isolation", "during it"])
def test_what_an_egress_chain_of_others_rewrites_is_cut(held, priority, first):
    """A packet for the server that a foreign chain readdresses as it leaves is cut: ours comes last, or it is said."""
    endpoint = held.place.endpoint
    text = (
        f'table netdev other {{\nchain out {{\ntype filter hook egress device "{UPLINK}" priority {priority};\n'
        f"ip daddr {OUTSIDE.four} tcp dport {SERVER_PORT} ip daddr set 10.77.1.3 tcp dport set 4444\n}}\n}}"
    )
    if first:
        endpoint.command("nft -f -", stdin=text)
    state = held.isolate()
    if not first:
        endpoint.command("nft -f -", stdin=text)
    observer = Observer(held.place)
    with start_tcp(endpoint, OUTSIDE.four, SERVER_PORT):
        endpoint.command("nft delete table netdev other")
        held.fence()
        assert observer.leaks() == {} or (priority == LAST and _is_said(state, UPLINK))
