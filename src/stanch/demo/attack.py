"""The demo's harmless attack: it only talks, waits and writes one file. Standard library only; runs on the endpoint.

A tree of five processes: `dropper` writes a file into a user's folder and starts `loader`, which starts `beacon`
(TCP and UDP, IPv4 and IPv6, ten times a second), `idle` (one silent connection per family, which only receives) and
`ping` (whole frames by AF_PACKET, past every packet filter hook but egress). Each says one JSON line when it starts.
"""

import argparse
import errno
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

BEACON_PORT, IDLE_PORT = 4444, 4445
BEACON_SECONDS = 0.1
CONNECT_SECONDS = 0.3
FILE_BYTES = 9 * 1_048_576
PING_MAGIC = b"stanch-demo-ping"
ROLES = ("dropper", "loader", "beacon", "idle", "ping")
ETH_IPV4, ETH_IPV6 = 0x0800, 0x86DD
USER_ID = 1000


def say(**facts: object) -> None:
    """One JSON line to whoever watches."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def fork(role: str, run: Callable[[], NoReturn]) -> int:
    """Start a child that does only this, under a name of its own; its pid."""
    child = os.fork()
    if child == 0:
        become(role)
        run()
    return child


def become(role: str) -> None:
    """Take a short name in the process table, and say who is here."""
    Path("/proc/self/comm").write_text(role)
    say(role=role, pid=os.getpid())


# --- beacon ----------------------------------------------------------------------------------------------------------


class TcpBeacon:
    """One connection that is opened again whenever it breaks."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._socket: socket.socket | None = None

    def send(self, sequence: int) -> None:
        """Send one line, whatever it takes within a beat or three."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection((self.address, BEACON_PORT), CONNECT_SECONDS)
            self._socket.sendall(line(self.name, sequence))
        except OSError:
            self.close()

    def close(self) -> None:
        """Forget a broken connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class UdpBeacon:
    """Datagrams from one socket."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._socket = socket.socket(family_of(address), socket.SOCK_DGRAM)

    def send(self, sequence: int) -> None:
        """Send one datagram; a refusal by the kernel is what the demo hopes for."""
        with suppress(OSError):
            self._socket.sendto(line(self.name, sequence), (self.address, BEACON_PORT))

    def close(self) -> None:
        """Send no more."""
        self._socket.close()


def line(name: str, sequence: int) -> bytes:
    """What a listener gets: who and which."""
    return f"{name} {sequence}\n".encode()


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def version_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def beacon(addresses: Sequence[str]) -> NoReturn:
    """Call home for ever."""
    kinds = (("tcp", TcpBeacon), ("udp", UdpBeacon))
    beacons = [make(f"{kind}{version_of(one)}", one) for kind, make in kinds for one in addresses]
    sequence = 0
    while True:
        sequence += 1
        for one in beacons:
            one.send(sequence)
        time.sleep(BEACON_SECONDS)


# --- idle ------------------------------------------------------------------------------------------------------------


def idle(addresses: Sequence[str]) -> NoReturn:
    """Hold one silent connection per family, and say what comes of it."""
    waiting = selectors.DefaultSelector()
    for one in addresses:
        connection = socket.create_connection((one, IDLE_PORT))
        waiting.register(connection, selectors.EVENT_READ, (connection, one))
    say(idle="open", connections=len(waiting.get_map()))
    while waiting.get_map():
        for key, _ in waiting.select():
            connection, address = key.data
            if not hear(connection, address):
                waiting.unregister(connection)
                connection.close()
    rest_for_ever()


def hear(connection: socket.socket, address: str) -> bool:
    """Say what arrived; False when the connection is dead."""
    try:
        data = connection.recv(1024)
    except OSError as error:
        say(idle="dead", address=address, error=errno.errorcode.get(error.errno or 0, str(error)))
        return False
    say(idle="received" if data else "closed", address=address, bytes=len(data))
    return bool(data)


def rest_for_ever() -> NoReturn:
    """Stay in the process table."""
    while True:
        time.sleep(3600)


# --- ping ------------------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_v4(source: str, target: str, payload: bytes) -> bytes:
    """An IPv4 packet with an ICMP echo request."""
    ends = socket.inet_aton(source) + socket.inet_aton(target)
    icmp = struct.pack("!BBHHH", 8, 0, 0, 0x5354, 1) + payload
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0, 64, socket.IPPROTO_ICMP, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + icmp


def echo_v6(source: str, target: str, payload: bytes) -> bytes:
    """An IPv6 packet with an ICMPv6 echo request."""
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target)
    icmp = struct.pack("!BBHHH", 128, 0, 0, 0x5354, 1) + payload
    pseudo = ends + struct.pack("!I3xB", len(icmp), socket.IPPROTO_ICMPV6)
    icmp = icmp[:2] + struct.pack("!H", checksum(pseudo + icmp)) + icmp[4:]
    return struct.pack("!IHBB", 6 << 28, len(icmp), socket.IPPROTO_ICMPV6, 64) + ends + icmp


def ping(device: str, addresses: Sequence[str]) -> NoReturn:
    """Put whole frames on the wire, past the IP stack."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw.bind((device, 0))
    ethernet = b"\xff" * 6 + raw.getsockname()[4]
    ends = [(own_address(one), one) for one in addresses]
    sequence = 0
    while True:
        sequence += 1
        for source, target in ends:
            make, kind = (echo_v6, ETH_IPV6) if ":" in target else (echo_v4, ETH_IPV4)
            packet = make(source, target, PING_MAGIC + struct.pack("!I", sequence))
            with suppress(OSError):  # an egress filter answers ENOBUFS
                raw.send(ethernet + struct.pack("!H", kind) + packet)
        time.sleep(BEACON_SECONDS)


def own_address(target: str) -> str:
    """Which address of ours the kernel would use to reach the target; nothing is sent."""
    with socket.socket(family_of(target), socket.SOCK_DGRAM) as probe:
        probe.connect((target, BEACON_PORT))
        return str(probe.getsockname()[0])


# --- the tree --------------------------------------------------------------------------------------------------------


def drop(path: Path) -> None:
    """Write the file that the responders will fetch: no program, just bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(FILE_BYTES))
    os.chown(path, USER_ID, USER_ID)


def load(device: str, addresses: Sequence[str]) -> NoReturn:
    """Start the three that do something."""
    fork("beacon", lambda: beacon(addresses))
    fork("idle", lambda: idle(addresses))
    fork("ping", lambda: ping(device, addresses))
    rest_for_ever()


def begin(path: Path, device: str, addresses: Sequence[str]) -> NoReturn:
    """What the victim opened: leave a file behind and start the rest."""
    drop(path)
    fork("loader", lambda: load(device, addresses))
    rest_for_ever()


def main() -> None:
    """Start the tree, and collect its root when somebody has ended it."""
    parser = argparse.ArgumentParser(description="A harmless attack for the demo.")
    parser.add_argument("--c2", action="append", required=True, help="address to call, once per family")
    parser.add_argument("--device", default="eth0", help="device for raw pings")
    parser.add_argument("--file", type=Path, required=True, help="file to leave behind")
    chosen = parser.parse_args()
    os.waitpid(fork("dropper", lambda: begin(chosen.file, chosen.device, chosen.c2)), 0)


if __name__ == "__main__":
    main()
