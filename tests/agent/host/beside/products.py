"""The products that share a host's packet filter: their devices, their rules, how they load them again, what they open.

The rules of firewalld and of ufw were written by those programs themselves, in a namespace; the others are written in
the style of the product, with its names of chains, its marks and its order of jumps.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tests.agent.host.beside.place import (
    DATA,
    ENDPOINT,
    HOST_FLOWS,
    HOST_PORT,
    OUTSIDE,
    OUTSIDE_PORT,
    POD_PORT,
    UPLINK,
    Flow,
    Held,
    Pair,
    Place,
    address_pod,
    both,
    new_place,
    passes,
)

Step = tuple[str, str]
"""A command to run on the endpoint, and what it reads."""


@dataclass(frozen=True)
class Product:
    """One product, or several that share a host."""

    name: str
    build: Callable[[Place], None]
    load: tuple[Step, ...]
    reload: tuple[Step, ...]
    """Everything that it does when it is restarted, worst case: first its rules are gone, then they come back."""

    flows: tuple[Flow, ...]
    flushes_everything: bool = False
    """Does its reload flush the whole ruleset, ours included?"""


def data(name: str) -> str:
    return (DATA / name).read_text()


def fill(name: str, **values: str) -> str:
    return Template(data(name)).substitute(values)


# --- how rules are loaded --------------------------------------------------------------------------------------------


def restore(kind: str, *pairs: tuple[str, str]) -> tuple[Step, ...]:
    """Texts for IPv4 and IPv6, the first of which replaces what is there, the others being added."""
    return tuple(
        (f"ip{version}tables-{kind}-restore -w 5{' --noflush' if number else ''}", text)
        for number, pair in enumerate(pairs)
        for version, text in zip(("", "6"), pair, strict=True)
    )


def tables(name: str) -> tuple[str, str]:
    return data(f"{name}.v4"), data(f"{name}.v6")


def restart(kind: str, *pairs: tuple[str, str]) -> tuple[Step, ...]:
    """All chains are emptied and those of the product removed, every policy accepts; then all is loaded again."""
    empty = [(_emptied(four), _emptied(six)) for four, six in pairs]
    return (*(step for pair in empty for step in restore(kind, pair)), *restore(kind, *pairs))


def _emptied(text: str) -> str:
    kept = [line.replace(" DROP ", " ACCEPT ") for line in text.splitlines() if not line.startswith("-")]
    return "".join(f"{line}\n" for line in kept if not (line.startswith(":") and " - " in line))


# --- what products open ----------------------------------------------------------------------------------------------


def out(pod: Pair, *, masqueraded: bool = True) -> tuple[Flow, ...]:
    seen_as = ENDPOINT if masqueraded else pod
    return both("pod to outside", "first", OUTSIDE, OUTSIDE_PORT, ("outside", OUTSIDE_PORT), seen_as=seen_as)


def published(port: int, *, from_host: bool) -> tuple[Flow, ...]:
    outer = both("outside to published port", "outside", ENDPOINT, port, ("first", POD_PORT))
    inner = both("host to its own published port", "endpoint", ENDPOINT, port, ("first", POD_PORT))
    return (*outer, *(inner if from_host else ()))


def local(first: Pair, gateway: Pair) -> tuple[Flow, ...]:
    return (
        *both("host to pod", "endpoint", first, POD_PORT, ("first", POD_PORT)),
        *both("pod to host", "first", gateway, HOST_PORT, ("endpoint", HOST_PORT)),
    )


def neighbours(second: Pair) -> tuple[Flow, ...]:
    return both("pod to pod", "first", second, POD_PORT, ("second", POD_PORT))


# --- a pod behind a device of its own --------------------------------------------------------------------------------

ROUTED_GATEWAY, ROUTED = Pair("10.77.2.1", "fd77:2::1"), Pair("10.77.2.2", "fd77:2::2")


def build_routed(place: Place) -> None:
    pod = place.cable("first", "wire2")
    place.ip(
        f"addr add {ROUTED_GATEWAY.four}/24 dev wire2",
        f"addr add {ROUTED_GATEWAY.six}/64 dev wire2 nodad",
    )
    address_pod(pod, ROUTED, ROUTED_GATEWAY, 24, 64)


@contextmanager
def routed_pod(flows: Sequence[Flow]) -> Iterator[Held]:
    """An endpoint with a pod behind it and no rules, reachable without translation; each flow passes."""
    with new_place() as place:
        build_routed(place)
        place.knows_the_way_to("10.77.2.0/24", "fd77:2::/64")
        for flow in flows:
            passes(place, flow)
        made = Held(place)
        try:
            yield made
        finally:
            made.close()


ROUTED_FLOWS = (*HOST_FLOWS, *out(ROUTED), *published(8080, from_host=False), *local(ROUTED, ROUTED_GATEWAY))


def _plain(kind: str) -> Product:
    own = tables("plain")
    return Product(f"iptables-{kind}", build_routed, restore(kind, own), restart(kind, own), ROUTED_FLOWS)


def _firewalld() -> Product:
    load = (("nft -f -", data("firewalld.nft")),)
    gone = ("nft -f -", "delete table inet firewalld")
    return Product("firewalld", build_routed, load, (gone, *load), ROUTED_FLOWS)


def _ufw() -> Product:
    own = tables("ufw")
    flows = tuple(flow for flow in ROUTED_FLOWS if not flow.name.startswith("pod to host"))
    return Product("ufw", build_routed, restore("nft", own), restart("nft", own), flows)


def _nftables_conf() -> Product:
    load = (("nft -f -", data("nftables.conf")),)
    stop = ("nft flush ruleset", "")
    return Product("nftables.conf", build_routed, load, (stop, *load), ROUTED_FLOWS, flushes_everything=True)


_SWAP = """
create blocklist-new hash:net family inet hashsize 1024 maxelem 65536 comment
add blocklist-new 198.51.100.0/24 comment "a botnet"
swap blocklist-new blocklist
destroy blocklist-new
"""


def _ipset() -> Product:
    own = tables("ipset")
    return Product(
        "ipset",
        build_routed,
        (("ipset restore", data("ipset.ipset")), *restore("nft", own)),
        (("ipset restore", _SWAP), *restart("nft", own)),
        ROUTED_FLOWS,
    )


# --- Docker and libvirt: pods on a bridge ----------------------------------------------------------------------------

DOCKER_GATEWAY = Pair("172.17.0.1", "fd00:d0c::1")
DOCKER, DOCKER_SECOND = Pair("172.17.0.2", "fd00:d0c::2"), Pair("172.17.0.3", "fd00:d0c::3")


def build_docker(place: Place) -> None:
    place.bridge("docker0", DOCKER_GATEWAY)
    place.show_bridged_frames(on=True)
    place.bridge("br-5d1f0a8c7e21", Pair("172.18.0.1", "fd00:d0d::1"))
    place.plug("first", "veth3f1c2ab", "docker0", DOCKER, DOCKER_GATEWAY)
    place.plug("second", "veth9d04e7f", "docker0", DOCKER_SECOND, DOCKER_GATEWAY)


DOCKER_FLOWS = (
    *HOST_FLOWS,
    *out(DOCKER),
    *published(8080, from_host=True),
    *local(DOCKER, DOCKER_GATEWAY),
    *neighbours(DOCKER_SECOND),
)


def _docker(kind: str, version: str) -> Product:
    own = tables(version)
    return Product(f"{version}-{kind}", build_docker, restore(kind, own), restart(kind, own), DOCKER_FLOWS)


def _docker_by_nftables() -> Product:
    """Docker 29 and later, told to write tables of its own instead of those of iptables."""
    name = "docker29.template"
    load = (
        ("nft -f -", fill(name, ip="ip", pod=DOCKER.four, target=DOCKER.four, network="172.17.0.0/16")),
        ("nft -f -", fill(name, ip="ip6", pod=DOCKER.six, target=f"[{DOCKER.six}]", network="fd00:d0c::/64")),
    )
    gone = ("nft -f -", "delete table ip docker-bridges; delete table ip6 docker-bridges")
    return Product("docker29-nftables", build_docker, load, (gone, *load), DOCKER_FLOWS)


LIBVIRT_GATEWAY = Pair("192.168.122.1", "fd00:122::1")
LIBVIRT, LIBVIRT_SECOND = Pair("192.168.122.10", "fd00:122::10"), Pair("192.168.122.11", "fd00:122::11")


def build_libvirt(place: Place) -> None:
    place.bridge("virbr0", LIBVIRT_GATEWAY)
    place.show_bridged_frames(on=False)
    place.plug("first", "vnet0", "virbr0", LIBVIRT, LIBVIRT_GATEWAY)
    place.plug("second", "vnet1", "virbr0", LIBVIRT_SECOND, LIBVIRT_GATEWAY)


def _libvirt() -> Product:
    own = tables("libvirt")
    flows = (*HOST_FLOWS, *out(LIBVIRT), *local(LIBVIRT, LIBVIRT_GATEWAY), *neighbours(LIBVIRT_SECOND))
    return Product("libvirt", build_libvirt, restore("nft", own), restart("nft", own), flows)


# --- Kubernetes ------------------------------------------------------------------------------------------------------


def kube_proxy(pod: Pair, cluster: Pair) -> tuple[str, str]:
    name = "kube-proxy.template"
    return (
        fill(name, pod=pod.four, target=pod.four, one="32", cluster=cluster.four, service=SERVICE.four,
             loopback="127.0.0.0/8"),
        fill(name, pod=pod.six, target=f"[{pod.six}]", one="128", cluster=cluster.six, service=SERVICE.six,
             loopback="::1/128"),
    )  # fmt: skip


SERVICE = Pair("10.96.0.20", "fd10:96::20")


def kubernetes_flows(first: Pair, second: Pair, gateway: Pair) -> tuple[Flow, ...]:
    return (
        *HOST_FLOWS,
        *out(first),
        *published(30080, from_host=True),
        *both("host to service", "endpoint", SERVICE, 80, ("first", POD_PORT)),
        *both("pod to service", "second", SERVICE, 80, ("first", POD_PORT), seen_as=second),
        *local(first, gateway),
        *neighbours(second),
    )


def _kubernetes(name: str, kind: str, build: Callable[[Place], None], texts: Sequence[tuple[str, str]],
                flows: tuple[Flow, ...], *, sets: tuple[Step, ...] = ()) -> Product:  # fmt: skip
    return Product(name, build, (*sets, *restore(kind, *texts)), restart(kind, *texts), flows)


FLANNEL_GATEWAY = Pair("10.244.1.1", "fd10:244:0:1::1")
FLANNEL, FLANNEL_SECOND = Pair("10.244.1.2", "fd10:244:0:1::2"), Pair("10.244.1.3", "fd10:244:0:1::3")
REMOTE = Pair("10.244.2.9", "fd10:244:0:2::9")
"""A pod on another node."""


def build_flannel(place: Place) -> None:
    place.bridge("cni0", FLANNEL_GATEWAY)
    place.show_bridged_frames(on=True)
    place.plug("first", "veth1c9e02d4", "cni0", FLANNEL, FLANNEL_GATEWAY)
    place.plug("second", "veth77ab31f0", "cni0", FLANNEL_SECOND, FLANNEL_GATEWAY)
    for remote in (REMOTE.four + "/32", REMOTE.six + "/128"):
        place.outside.command(f"ip addr add {remote} dev lo")
    for device, here, there, networks in (
        ("flannel.1", ENDPOINT.four, OUTSIDE.four, ("10.244.1.0/24", "10.244.2.0/24")),
        ("flannel-v6.1", ENDPOINT.six, OUTSIDE.six, ("fd10:244:0:1::/64", "fd10:244:0:2::/64")),
    ):
        _tunnel(place, device, (here, there), networks)


def _tunnel(place: Place, device: str, ends: tuple[str, str], networks: tuple[str, str]) -> None:
    """A VXLAN device on both nodes, each with a static entry for the other, as flannel makes them."""
    macs = ("0e:00:00:00:00:01", "0e:00:00:00:00:02")
    for side, node in enumerate((place.endpoint, place.outside)):
        own, other = networks[side].partition("/")[0], networks[1 - side].partition("/")[0]
        node.command(
            f"ip link add {device} address {macs[side]} type vxlan id 1 dev {UPLINK} local {ends[side]}"
            " dstport 8472 nolearning"
        )
        node.command(f"ip addr add {own}/{128 if ':' in own else 32} dev {device}")
        node.command(f"ip link set {device} up")
        node.command(f"bridge fdb append {macs[1 - side]} dev {device} dst {ends[1 - side]}")
        node.command(f"ip neigh replace {other} lladdr {macs[1 - side]} dev {device} nud permanent")
        source = f" src {REMOTE.six if ':' in own else REMOTE.four}" if side else ""
        node.command(f"ip route add {networks[1 - side]} via {other} dev {device} onlink{source}")


FLANNEL_FLOWS = (
    *kubernetes_flows(FLANNEL, FLANNEL_SECOND, FLANNEL_GATEWAY),
    *both("pod to pod of another node", "first", REMOTE, OUTSIDE_PORT, ("outside", OUTSIDE_PORT), seen_as=FLANNEL),
    *both("pod of another node to pod", "outside", FLANNEL, POD_PORT, ("first", POD_PORT), seen_as=REMOTE),
)


def _flannel() -> Product:
    texts = (kube_proxy(FLANNEL, Pair("10.244.0.0/16", "fd10:244::/56")), tables("flannel"))
    return _kubernetes("flannel", "nft", build_flannel, texts, FLANNEL_FLOWS)


CALICO, CALICO_SECOND = Pair("192.168.10.2", "fd20:c0de::2"), Pair("192.168.10.3", "fd20:c0de::3")
CALICO_GATEWAY = Pair("169.254.1.1", "fe80::ecee:eeff:feee:eeee")


def build_calico(place: Place) -> None:
    place.ip(
        f"link add vxlan.calico type vxlan id 4096 dev {UPLINK} local {ENDPOINT.four} dstport 4789 nolearning",
        "addr add 192.168.10.0/32 dev vxlan.calico",
        "link set vxlan.calico up",
    )
    for name, device, own in (("first", "cali1a2b3c4d5e6", CALICO), ("second", "cali9f8e7d6c5b4", CALICO_SECOND)):
        pod = place.cable(name, device)
        place.ip(
            f"link set {device} down",
            f"link set {device} address ee:ee:ee:ee:ee:ee",
            f"link set {device} up",
            f"route add {own.four}/32 dev {device} scope link",
            f"route add {own.six}/128 dev {device}",
        )
        place.endpoint.call(Path(f"/proc/sys/net/ipv4/conf/{device}/proxy_arp").write_text, "1")
        address_pod(pod, own, CALICO_GATEWAY, 32, 128)


def _calico(kind: str) -> Product:
    texts = (kube_proxy(CALICO, Pair("192.168.0.0/16", "fd20:c0de::/48")), tables("calico"))
    flows = kubernetes_flows(CALICO, CALICO_SECOND, ENDPOINT)
    sets = (("ipset restore", data("calico.ipset")),)
    return _kubernetes(f"calico-{kind}", kind, build_calico, texts, flows, sets=sets)


CILIUM_HOST = Pair("10.0.1.10", "fd00:10:1::10")
CILIUM, CILIUM_SECOND = Pair("10.0.1.2", "fd00:10:1::2"), Pair("10.0.1.3", "fd00:10:1::3")
CILIUM_CLUSTER = Pair("10.0.0.0/16", "fd00:10::/32")


def build_cilium(place: Place) -> None:
    place.ip(
        "link add cilium_host type veth peer name cilium_net",
        f"addr add {CILIUM_HOST.four}/32 dev cilium_host",
        f"addr add {CILIUM_HOST.six}/128 dev cilium_host nodad",
        "link set cilium_host up",
        "link set cilium_net up",
        "link add cilium_vxlan type vxlan external dstport 8472",
        "link set cilium_vxlan up",
        # Packets for the proxy are delivered here, and the table `local` is asked after them.
        "rule add pref 9 fwmark 0x200/0xf00 lookup 2004",
        "rule add pref 100 lookup local",
        "rule del pref 0 lookup local",
        "route add local 0.0.0.0/0 dev lo table 2004",
    )
    for name, device, own in (("first", "lxc0a1b2c3d4e5f", CILIUM), ("second", "lxcf5e4d3c2b1a0", CILIUM_SECOND)):
        pod = place.cable(name, device)
        place.ip(
            f"route add {own.four}/32 dev {device} scope link",
            f"route add {own.six}/128 dev {device}",
            f"neigh add proxy {CILIUM_HOST.six} dev {device}",
        )
        place.endpoint.call(Path(f"/proc/sys/net/ipv4/conf/{device}/proxy_arp").write_text, "1")
        place.endpoint.call(Path(f"/proc/sys/net/ipv6/conf/{device}/proxy_ndp").write_text, "1")
        address_pod(pod, own, CILIUM_HOST, 32, 128)


def _cilium() -> Product:
    name = "cilium.template"
    own = (
        fill(name, loop="127.0.0.1", loopback="127.0.0.0/8", node="10.0.1.0/24", cluster=CILIUM_CLUSTER.four,
             host=CILIUM_HOST.four),
        fill(name, loop="::1", loopback="::1/128", node="fd00:10:1::/64", cluster=CILIUM_CLUSTER.six,
             host=CILIUM_HOST.six),
    )  # fmt: skip
    texts = (kube_proxy(CILIUM, CILIUM_CLUSTER), own)
    return _kubernetes("cilium", "nft", build_cilium, texts, kubernetes_flows(CILIUM, CILIUM_SECOND, CILIUM_HOST))


# --- several at once -------------------------------------------------------------------------------------------------


def _mixture() -> Product:
    """Docker by the old tables of the kernel, a service with ipsets by the new ones, and nft tables that accept all."""
    own = (("nft -f -", data("mixture.nft")),)
    accepting = tuple((command, _without_conflicts(text)) for command, text in restore("nft", tables("ipset")))
    docker = tables("docker")
    return Product(
        "everything-at-once",
        build_docker,
        (("ipset restore", data("ipset.ipset")), *accepting, *restore("legacy", docker), *own),
        (
            *restart("legacy", docker),
            ("nft -f -", "delete table inet site; delete table bridge site"),
            *accepting,
            *own,
        ),
        DOCKER_FLOWS,
    )


def _without_conflicts(text: str) -> str:
    """A service that closes nothing and publishes nothing of its own: Docker does."""
    lines = [line.replace(" DROP ", " ACCEPT ") for line in text.splitlines() if " DNAT " not in line]
    return "".join(f"{line}\n" for line in lines)


PRODUCTS = (
    _docker("nft", "docker"),
    _docker("legacy", "docker"),
    _docker("nft", "docker28"),
    _docker_by_nftables(),
    _flannel(),
    _calico("nft"),
    _calico("legacy"),
    _cilium(),
    _libvirt(),
    _firewalld(),
    _ufw(),
    _nftables_conf(),
    _plain("nft"),
    _plain("legacy"),
    _ipset(),
    _mixture(),
)
