"""The namespaces of one sequence: an endpoint with a container and a macvlan device, the outside, the server's network.

```
 container  10.88.0.2 fd88::2 --- br0 10.88.0.1 fd88::1 \\
 macvlan    192.0.2.11 2001:db8:1::11 -- on eth0 -------- endpoint eth0 192.0.2.10 2001:db8:1::10
                                                              |
                                                          wire0 192.0.2.1 2001:db8:1::1
                                 outside (routes; 203.0.113.66 and others) -- to-server ---- server 198.51.100.20
```

They have no names: they die with the process that made them.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.netns import Netns, netns

HOST = ("192.0.2.10", "2001:db8:1::10")
MACVLAN = ("192.0.2.11", "2001:db8:1::11")
CONTAINER = ("10.88.0.2", "fd88::2")
BEHIND = ("10.88.0.0/24", "fd88::/64")
GATEWAY = ("192.0.2.1", "2001:db8:1::1")
"""The outside on the endpoint's own link, from which somebody calls it."""

EVIL = ("203.0.113.66", "2001:db8:c2::66")
"""What the endpoint must not reach while it is isolated."""

PARTNER = ("203.0.113.99", "2001:db8:c2::99")
"""What exclusions leave open."""

NUISANCE = ("203.0.113.77", "2001:db8:c2::77")
"""What is blocked."""

SERVERS = (("198.51.100.20", "2001:db8:2::20"), ("198.51.100.21", "2001:db8:2::21"))
"""Where the server is at first, and where it may move to."""

WIRES = "wire"
WIRE = f"{WIRES}0"

_LINES = {
    "endpoint": f"""
link add name br0 type bridge
addr add 10.88.0.1/24 dev br0
addr add fd88::1/64 dev br0 nodad
link set br0 up
link set pod0 master br0
link set pod0 up
addr add {HOST[0]}/24 dev eth0
addr add {HOST[1]}/64 dev eth0 nodad
link set eth0 up
route add default via 192.0.2.1
route add ::/0 via 2001:db8:1::1
""",
    "outside": f"""
addr add 192.0.2.1/24 dev {WIRE}
addr add 2001:db8:1::1/64 dev {WIRE} nodad
link set {WIRE} up
addr add 198.51.100.1/24 dev to-server
addr add 2001:db8:2::1/64 dev to-server nodad
link set to-server up
route add {BEHIND[0]} via {HOST[0]}
route add {BEHIND[1]} via {HOST[1]}
"""
    + "".join(
        f"addr add {four}/32 dev lo\naddr add {six}/128 dev lo nodad\n" for four, six in (EVIL, PARTNER, NUISANCE)
    ),
    "server": f"""
addr add {SERVERS[0][0]}/24 dev eth0
addr add {SERVERS[0][1]}/64 dev eth0 nodad
link set eth0 up
route add default via 198.51.100.1
route add ::/0 via 2001:db8:2::1
""",
    "container": f"""
addr add {CONTAINER[0]}/24 dev eth0
addr add {CONTAINER[1]}/64 dev eth0 nodad
link set eth0 up
route add default via 10.88.0.1
route add ::/0 via fd88::1
""",
    "macvlan": f"""
addr add {MACVLAN[0]}/24 dev eth0
addr add {MACVLAN[1]}/64 dev eth0 nodad
link set eth0 up
route add default via 192.0.2.1
route add ::/0 via 2001:db8:1::1
""",
}
UPLINK = f"""
addr replace {HOST[1]}/64 dev eth0 nodad
route replace default via 192.0.2.1
route replace ::/0 via 2001:db8:1::1
"""
"""What the endpoint's uplink loses when it goes down."""

_FORWARD = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")

_PROMOTE = "/proc/sys/net/ipv4/conf/all/promote_secondaries"
"""Otherwise the second address of a network goes with the first."""


@dataclass(frozen=True)
class Lab:
    """All namespaces, wired and with their addresses."""

    endpoint: Netns
    outside: Netns
    server: Netns
    container: Netns
    macvlan: Netns
    cables: dict[str, str] = field(default_factory=dict)
    """Devices that were plugged in later: name on the endpoint to the name of the wire outside."""

    @classmethod
    def made(cls, stack: ExitStack) -> "Lab":
        """All of it; gone when the stack is closed."""
        names = ("endpoint", "outside", "server", "container", "macvlan")
        lab = cls(**{name: stack.enter_context(netns()) for name in names})
        _cable(lab.outside, WIRE, lab.endpoint, "eth0", 10)
        _cable(lab.outside, "to-server", lab.server, "eth0", 20)
        _cable(lab.endpoint, "pod0", lab.container, "eth0", 30)
        for name in ("outside", "endpoint", "server", "container"):
            batch(getattr(lab, name), _LINES[name])
        lab.endpoint.command(
            f"ip link add link eth0 name mv0 netns {lab.macvlan.path} index 40 type macvlan mode bridge"
        )
        batch(lab.macvlan, f"link set mv0 name eth0{_LINES['macvlan']}")
        for place in (lab.endpoint, lab.outside):
            place.call(_switch_on, *_FORWARD)
        lab.server.call(_switch_on, _PROMOTE)
        return lab

    def address_server(self, number: int) -> None:
        """The server gets these addresses besides those that it has."""
        four, six = SERVERS[number]
        batch(self.server, f"addr replace {four}/24 dev eth0\naddr replace {six}/64 dev eth0 nodad")

    def unaddress_server(self, number: int) -> None:
        """These are taken away from the server."""
        four, six = SERVERS[number]
        batch(self.server, f"addr del {four}/24 dev eth0\naddr del {six}/64 dev eth0")
        batch(self.server, "route replace default via 198.51.100.1\nroute replace ::/0 via 2001:db8:2::1")

    def plug(self, device: str, number: int) -> None:
        """A new device on the endpoint, with a wire of its own to the outside, and a way over it to everybody."""
        far = f"{WIRES}{number}"
        _cable(self.outside, far, self.endpoint, device, 100 + 2 * number)
        batch(self.outside, f"addr add 10.99.{number}.1/24 dev {far}\nlink set {far} up")
        batch(self.endpoint, f"addr add 10.99.{number}.2/24 dev {device}\nlink set {device} up")
        self.cables[device] = far

    def unplug(self, device: str) -> None:
        """It is gone."""
        batch(self.endpoint, f"link del {device}")
        del self.cables[device]

    def rename(self, device: str, new: str) -> None:
        """It gets another name, while it is up where the kernel allows that."""
        batch(self.endpoint, f"link set {device} down\nlink set {device} name {new}\nlink set {new} up")
        self.cables[new] = self.cables.pop(device)


def batch(place: Netns, lines: str) -> None:
    """Several commands of `ip`, in one program."""
    place.command("ip -batch -", stdin=lines.strip() + "\n")


def _cable(one: Netns, name: str, other: Netns, far: str, index: int) -> None:
    # With one index on both sides the kernel takes a second to notice that the link is up.
    one.command(
        f"ip link add name {name} index {1000 + index}"
        f" type veth peer name {far} index {2000 + index} netns {other.path}"
    )


def _switch_on(*switches: str) -> None:
    for switch in switches:
        with open(switch, "w", encoding="ascii") as file:  # noqa: PTH123 - one word into a switch of the kernel
            file.write("1")
