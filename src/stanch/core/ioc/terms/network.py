"""Terms of the network: PortItem, ArpEntryItem, RouteEntryItem, DnsEntryItem."""

from collections.abc import Mapping

from stanch.core.ioc.items import Cost, Kind, Supported

_PORT: Mapping[str, Supported] = {
    "isIPv6": Supported(Kind.BOOL, "are its addresses of IPv6? IPv4 inside IPv6 counts as IPv4"),
    "protocol": Supported(Kind.STRING, "TCP, UDP, UDPLITE or RAW"),
    "state": Supported(
        Kind.STRING,
        "ESTABLISHED, LISTEN (and LISTENING), SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT, "
        "LAST_ACK, CLOSING; UNCONN of a socket without connections",
    ),
    "localIP": Supported(Kind.IP, "the address on this side"),
    "localPort": Supported(Kind.INT, "the port on this side; the protocol's number for RAW"),
    "remoteIP": Supported(Kind.IP, "the address of the other side; none where there is no other side"),
    "remotePort": Supported(Kind.INT, "the port of the other side; none where there is no other side"),
    "pid": Supported(
        Kind.INT,
        "the process that has it open, one item for each; none for a connection that only the kernel still has",
        Cost.LOOKUP,
    ),
    "process": Supported(Kind.STRING, "name of that process, as ProcessItem/name", Cost.LOOKUP),
    "path": Supported(Kind.STRING, "program of that process, as ProcessItem/path", Cost.LOOKUP),
}

_ARP: Mapping[str, Supported] = {
    "Interface": Supported(Kind.STRING, "name of the network device"),
    "InterfaceType": Supported(Kind.STRING, "kind of the device: Ethernet, Loopback, Tunnel, Infiniband, PPP, Other"),
    "IPv4Address": Supported(Kind.IP, "address of the neighbour; none if it is IPv6"),
    "IPv6Address": Supported(Kind.IP, "address of the neighbour; none if it is IPv4"),
    "PhysicalAddress": Supported(
        Kind.STRING, "its hardware address, as 02:ab:... and as 02-AB-...; none if it did not answer"
    ),
    "CacheType": Supported(Kind.STRING, "Static or Dynamic"),
    "State": Supported(
        Kind.STRING, "Reachable, Stale, Delay, Probe, Incomplete (and Unreachable), Failed (and Unreachable), Permanent"
    ),
    "IsRouter": Supported(Kind.BOOL, "has it said that it is a router? (IPv6)"),
}

_ROUTE: Mapping[str, Supported] = {
    "IsIPv6": Supported(Kind.BOOL, "is it a route of IPv6?"),
    "Interface": Supported(Kind.STRING, "names of the network devices; none of a route to nowhere"),
    "Destination": Supported(Kind.IP, "the network; all zeros for the default route"),
    "Netmask": Supported(Kind.IP, "how much of it counts, as an address"),
    "Gateway": Supported(Kind.IP, "the next hops; none if the network is reached directly"),
    "RouteType": Supported(
        Kind.STRING, "unicast, local, broadcast, anycast, multicast, blackhole, unreachable, prohibit, throw, nat"
    ),
    "Protocol": Supported(Kind.STRING, "who has set it: kernel, boot, static, ra, dhcp, bird, zebra, ..., or a number"),
    "Metric": Supported(Kind.INT, "its priority: the least wins"),
    "MTU": Supported(Kind.STRING, "bytes of a packet, where the route says it; none else"),
    "Flags": Supported(Kind.STRING, "as route(8) shows them: U, G, H, !"),
    "IsLoopback": Supported(Kind.BOOL, "does it lead over the loopback device?"),
}

_DNS: Mapping[str, Supported] = {
    "Host": Supported(Kind.STRING, "the name: in /etc/hosts, or that systemd-resolved was asked for (IDN as xn--...)"),
    "RecordName": Supported(Kind.STRING, "the name of the record; the same as Host"),
    "RecordType": Supported(Kind.STRING, "A, AAAA, CNAME, MX, TXT, ...; of an answer that was `no` too"),
    "TimeToLive": Supported(Kind.INT, "seconds that it is still believed; none for /etc/hosts"),
    "DataLength": Supported(Kind.INT, "bytes of the address; none of other records"),
    "RecordData/IPv4Address": Supported(Kind.IP, "address of an A record"),
    "RecordData/IPv6Address": Supported(Kind.IP, "address of an AAAA record"),
    "RecordData/Host": Supported(Kind.STRING, "the name to which a CNAME, DNAME, NS or PTR record leads"),
    "RecordData/MxHost": Supported(Kind.STRING, "the mail server of an MX record"),
    "RecordData/Preference": Supported(Kind.INT, "the preference of an MX record"),
    "RecordData/String": Supported(Kind.STRING, "a text of a TXT record"),
    "RecordData/TargetHost": Supported(Kind.STRING, "the server of an SRV record"),
    "RecordData/Port": Supported(Kind.INT, "the port of an SRV record"),
    "RecordData/Priority": Supported(Kind.INT, "the priority of an SRV record"),
    "RecordData/Weight": Supported(Kind.INT, "the weight of an SRV record"),
    "RecordData/Error": Supported(Kind.STRING, "NXDOMAIN, NODATA, ... where the answer was `no`"),
}

NETWORK: Mapping[str, Mapping[str, Supported]] = {
    "PortItem": _PORT,
    "ArpEntryItem": _ARP,
    "RouteEntryItem": _ROUTE,
    "DnsEntryItem": _DNS,
}
"""Document to path to what it is here."""
