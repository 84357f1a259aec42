"""Do indicators know the machine?"""

import os
import pwd
import shutil
import struct
import time
from pathlib import Path

import pytest

from stanch.agent.host import items_system
from stanch.agent.host.items import Parts
from stanch.agent.host.items_system import parse_release
from stanch.core.ioc.terms import DOCUMENTS
from tests.agent.host.items_world import collect, found
from tests.netns import netns, wire

RELEASE = """
NAME="Debian GNU/Linux"
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID='12'
BUILD_ID=7
not a line
"""
CPU = "processor : 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu vmx hypervisor\n"
MEMORY = "MemTotal:        1000 kB\nMemFree:  1 kB\nMemAvailable:     500 kB\n"
NETWORKD = "ADDRESS=10.0.0.7\nSERVER_ADDRESS=10.0.0.1\n"
DHCLIENT = """
lease {
  option dhcp-server-identifier 10.0.0.2;
  option dhcp-server-identifier 999.0.0.2;
  expire 4 2020/09/13 12:26:40;
}
"""
UTMP = struct.pack("=hxxi32s4s32s256s52x", 7, 1, b"pts/0", b"", b"alice", b"")


@pytest.fixture
def parts(tmp_path) -> Parts:
    """A machine of which everything is known."""
    files = {
        "etc/os-release": RELEASE,
        "etc/machine-id": "0" * 32,
        "etc/resolv.conf": "nameserver 10.0.0.1\nsearch corp.example other.example\n",
        "proc/cpuinfo": CPU,
        "proc/meminfo": MEMORY,
        "sys/class/dmi/id/bios_date": "01/02/2020\n",
        "sys/class/dmi/id/bios_version": "v1\n",
        "run/systemd/netif/leases/2": NETWORKD,
        "run/systemd/sessions/c1": "CLASS=user\nUSER=bob\n",
        "var/lib/dhcp/dhclient.eth0.leases": DHCLIENT,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "run/utmp").write_bytes(UTMP)
    os.utime(tmp_path / "etc/machine-id", (1_600_000_000, 1_600_000_000))
    zone = tmp_path / "usr/share/zoneinfo/Europe/Berlin"
    zone.parent.mkdir(parents=True)
    there = Path("/usr/share/zoneinfo/Europe/Berlin")
    if there.exists():
        shutil.copy(there, zone)
        (tmp_path / "etc/localtime").symlink_to(zone)
    return Parts(root=tmp_path, proc=tmp_path / "proc", sys=tmp_path / "sys")


async def only(parts: Parts, *paths: str):
    """The values of these paths."""
    (item,) = await collect("SystemInfoItem", paths or None, parts)
    return item.values


async def test_what_files_say_is_known(parts):
    """System, processor, firmware, memory, people, leases."""
    values = await only(parts)
    expected = {
        "OS": ("Debian GNU/Linux 12 (bookworm)",),
        "productName": ("Debian GNU/Linux",),
        "patchLevel": ("12",),
        "buildNumber": ("7",),
        "processor": ("Some CPU @ 3 GHz",),
        "procConfigInfo/vmGuest": ("yes",),
        "procConfigInfo/virtualization": ("yes",),
        "biosInfo/biosDate": ("01/02/2020",),
        "biosInfo/biosVersion": ("v1",),
        "totalphysical": (1_024_000,),
        "availphysical": (512_000,),
        "installDate": (1_600_000_000.0,),
        "loggedOnUser": ("alice", "bob"),
        "networkArray/networkInfo/dhcpServerArray/dhcpServer": ("10.0.0.1", "10.0.0.2"),
        "networkArray/networkInfo/dhcpLeaseExpires": (1_600_000_000.0,),
    }
    assert {path: values[path] for path in expected} == expected


async def test_a_lease_that_says_no_end_leaves_it_open(parts):
    """That nobody says when it ends does not mean that there is no end."""
    (parts.root / "var/lib/dhcp/dhclient.eth0.leases").unlink()
    paths = {path for path in DOCUMENTS["SystemInfoItem"] if "dhcp" in path}
    assert await only(parts, *paths) == {"networkArray/networkInfo/dhcpServerArray/dhcpServer": ("10.0.0.1",)}
    (parts.root / "run/systemd/netif/leases/2").unlink()
    assert await only(parts, *paths) == dict.fromkeys(paths, ())


async def test_what_the_kernel_says_is_known(parts):
    """Names, release, times, our own account."""
    values = await only(parts)
    machine = os.uname()
    assert values["hostname"] == (machine.nodename,)
    assert values["machine"] == (machine.nodename.partition(".")[0],)
    assert values["kernelVersion"] == (machine.release,)
    assert values["user"] == (pwd.getpwuid(os.geteuid()).pw_name,)
    assert abs(values["date"][0] - time.time()) < 60
    assert abs(values["uptime"][0] - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60


@pytest.mark.parametrize(("name", "domain"), [("web.inner.example", "inner.example"), ("web", "corp.example")])
async def test_the_domain_is_that_of_the_name_or_the_first_that_is_searched(parts, monkeypatch, name, domain):
    """A name that has one says it best."""
    monkeypatch.setattr(items_system, "_hostname", lambda: name)
    values = await only(parts, "domain", "machine", "hostname")
    assert values == {"domain": (domain,), "machine": ("web",), "hostname": (name,)}


async def test_the_time_zone_is_known(parts):
    """Its name, what it calls its times, and how far it is from UTC now."""
    if not (parts.root / "etc/localtime").exists():
        pytest.skip("this machine has no time zones")
    values = await only(parts, "timezone", "timezoneStandard", "timezoneDST", "gmtoffset")
    assert values["timezone"] == ("Europe/Berlin",)
    assert (values["timezoneStandard"], values["timezoneDST"]) == (("CET",), ("CEST",))
    assert values["gmtoffset"][0] in {"+01:00", "+02:00"}


async def test_a_pipe_in_place_of_the_time_zone_stops_nobody(parts):
    """Whatever is no time zone is not known."""
    (parts.root / "etc/localtime").unlink(missing_ok=True)
    os.mkfifo(parts.root / "etc/localtime")
    assert await only(parts, "timezone", "machine") == {"machine": (os.uname().nodename.partition(".")[0],)}


async def test_without_a_time_zone_it_is_utc(parts):
    """As for the C library."""
    (parts.root / "etc/localtime").unlink(missing_ok=True)
    values = await only(parts, "timezone", "timezoneStandard", "timezoneDST", "gmtoffset")
    assert values == {"timezone": ("UTC",), "timezoneStandard": ("UTC",), "timezoneDST": (), "gmtoffset": ("+00:00",)}


async def test_of_an_empty_system_less_is_known_and_nothing_raised(tmp_path):
    """What cannot be read is left out, or known not to be there."""
    values = await only(Parts(root=tmp_path, proc=tmp_path, sys=tmp_path))
    assert values["OS"] == ()
    assert values["installDate"] == ()
    assert "totalphysical" not in values
    assert "procConfigInfo/vmGuest" not in values


async def test_only_what_is_wanted_is_read(parts, monkeypatch):
    """The kernel is not asked for its network for the sake of a name."""

    def ask(*_arguments):
        raise AssertionError("it was asked")

    monkeypatch.setattr(items_system, "Netlink", ask)
    assert (await only(parts, "OS")).keys() == {"OS"}


@pytest.mark.root
def test_the_network_of_the_machine_is_found(parts):
    """Devices, addresses, gateways, and which of them is the way out."""
    with netns() as left, netns() as right:
        made = wire(left, right, 8)
        left.command("ip link set dev wire8 address 02:ab:cd:00:00:01")
        left.command(f"ip addr replace {made.left6}/64 dev wire8 nodad")
        left.command(f"ip route add default via {made.right4} dev wire8 metric 10")
        left.command(f"ip -6 route add default via {made.right6} dev wire8 metric 20")
        network = "SystemInfoItem/networkArray/networkInfo"
        terms = [
            (f"{network}/adapter", "is", "wire8"),
            (f"{network}/MAC", "is", "02-AB-CD-00-00-01"),
            (f"{network}/ipArray/ipInfo/ipAddress", "is", made.left4),
            (f"{network}/ipArray/ipInfo/ipv6Address", "is", made.left6),
            (f"{network}/ipArray/ipInfo/subnetMask", "is", "255.255.255.0"),
            (f"{network}/ipGatewayArray/ipGateway", "is", made.right4),
            (f"{network}/ipGatewayArray/ipGateway", "is", made.right6),
            ("SystemInfoItem/primaryIpv4Address", "is", made.left4),
            ("SystemInfoItem/primaryIpv6Address", "is", made.left6),
            ("SystemInfoItem/primaryIpAddress", "is", made.left4),
            ("SystemInfoItem/MAC", "is", "02:ab:cd:00:00:01"),
        ]
        for term in terms:
            assert left.run(lambda term=term: found(term, parts=parts)), term
        assert left.run(lambda: found((f"{network}/adapter", "is", "lo"), parts=parts)) == []
        (item,) = left.run(lambda: collect("SystemInfoItem", parts=parts))
        assert item.values.keys() == DOCUMENTS["SystemInfoItem"].keys()
        empty = {path for path, value in item.values.items() if not value}
        assert empty <= {"timezoneDST"}  # where no time zones are installed


def test_a_machine_without_a_way_out_has_no_primary_address():
    """It is known to have none."""
    values = items_system._primary({}, [], [])
    assert values == dict.fromkeys(("primaryIpv4Address", "primaryIpv6Address", "primaryIpAddress", "MAC"), ())


def test_only_lines_of_the_usual_form_count():
    """In quotes of either kind, or without."""
    assert parse_release(iter(['A="b c"', "D='e'", "F=g", "h=i", "#J=k", "", "L"])) == {"A": "b c", "D": "e", "F": "g"}
