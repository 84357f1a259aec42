"""Terms of the machine: SystemInfoItem."""

from collections.abc import Mapping

from stanch.core.ioc.items import Cost, Kind, Supported

_NETWORK = "networkArray/networkInfo"

_SYSTEM: Mapping[str, Supported] = {
    "machine": Supported(Kind.STRING, "the name of the machine, without its domain"),
    "hostname": Supported(Kind.STRING, "the name of the machine as it is set"),
    "domain": Supported(
        Kind.STRING, "the domain in its name, or else the first that resolv.conf searches; none if there is none"
    ),
    "platform": Supported(Kind.STRING, "linux"),
    "OS": Supported(Kind.STRING, "name and version of the distribution (PRETTY_NAME in os-release)"),
    "productName": Supported(Kind.STRING, "name of the distribution (NAME in os-release)"),
    "patchLevel": Supported(Kind.STRING, "version of the distribution (VERSION_ID in os-release)"),
    "buildNumber": Supported(Kind.STRING, "build of the distribution (BUILD_ID in os-release)"),
    "kernelVersion": Supported(Kind.STRING, "release of the kernel, as uname -r has it"),
    "OSbitness": Supported(Kind.STRING, "64-bit or 32-bit"),
    "processor": Supported(Kind.STRING, "name of the processor, or of the architecture where it has no name"),
    "procType": Supported(Kind.STRING, "the architecture, as uname -m has it"),
    "procConfigInfo/vmGuest": Supported(Kind.STRING, "yes or no: is it a virtual machine? (x86)"),
    "procConfigInfo/virtualization": Supported(Kind.STRING, "yes or no: can it run virtual machines? (x86)"),
    "biosInfo/biosDate": Supported(Kind.STRING, "date of the firmware, as the firmware says it"),
    "biosInfo/biosVersion": Supported(Kind.STRING, "version of the firmware"),
    "uptime": Supported(Kind.DURATION, "time since boot"),
    "date": Supported(Kind.DATE, "when the scan looked"),
    "installDate": Supported(Kind.DATE, "when the machine got its id (/etc/machine-id was written)"),
    "timezone": Supported(Kind.STRING, "Europe/Berlin, ... (/etc/localtime)"),
    "timezoneStandard": Supported(Kind.STRING, "what the zone calls standard time: CET"),
    "timezoneDST": Supported(Kind.STRING, "what the zone calls summer time: CEST; none if it has none"),
    "gmtoffset": Supported(Kind.STRING, "what is added to UTC now: +01:00"),
    "totalphysical": Supported(Kind.INT, "bytes of memory"),
    "availphysical": Supported(Kind.INT, "bytes of memory that programs can still get"),
    "user": Supported(Kind.STRING, "the account of the agent"),
    "loggedOnUser": Supported(Kind.STRING, "accounts that are logged in (utmp, systemd-logind)", Cost.LOOKUP),
    "appVersion": Supported(Kind.STRING, "the version of Stanch's agent"),
    "MAC": Supported(Kind.STRING, "hardware address of the device of the default route, as 02:ab:... and as 02-AB-..."),
    "primaryIpAddress": Supported(Kind.IP, "the address with which it goes out: the IPv4 one if there are two"),
    "primaryIpv4Address": Supported(Kind.IP, "first IPv4 address of the device of the default route"),
    "primaryIpv6Address": Supported(Kind.IP, "first global IPv6 address of the device of the default route"),
    f"{_NETWORK}/adapter": Supported(Kind.STRING, "names of its network devices but the loopback"),
    f"{_NETWORK}/MAC": Supported(Kind.STRING, "their hardware addresses, as `MAC`"),
    f"{_NETWORK}/ipArray/ipInfo/ipAddress": Supported(Kind.IP, "their IPv4 addresses"),
    f"{_NETWORK}/ipArray/ipInfo/ipv6Address": Supported(Kind.IP, "their IPv6 addresses"),
    f"{_NETWORK}/ipArray/ipInfo/subnetMask": Supported(Kind.STRING, "masks of their IPv4 networks: 255.255.255.0"),
    f"{_NETWORK}/ipGatewayArray/ipGateway": Supported(Kind.IP, "the next hops of the default routes"),
    f"{_NETWORK}/dhcpServerArray/dhcpServer": Supported(
        Kind.IP, "who gave them their addresses (leases of systemd-networkd, NetworkManager and dhclient)", Cost.LOOKUP
    ),
    f"{_NETWORK}/dhcpLeaseExpires": Supported(
        Kind.DATE, "when they have to ask for them again (leases of dhclient; not known of others)", Cost.LOOKUP
    ),
}

SYSTEM: Mapping[str, Mapping[str, Supported]] = {"SystemInfoItem": _SYSTEM}
"""Document to path to what it is here."""
