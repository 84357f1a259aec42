"""What exclusions mean on an endpoint: hosts, accounts, units and profiles in numbers."""

import asyncio
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import names as module
from stanch.agent.host.dns import MAX_ADDRESSES, Found
from stanch.agent.host.names import MAX_NAMES, LinuxNames, may_be_opened
from stanch.agent.host.resolvers import Resolvers
from stanch.core.exclusion import Exclusion, Profile
from stanch.core.network import Resolved
from tests.fakes.dns import machine

RESOLVER = ip_address("10.0.0.53")
MOUNTS = "30 25 0:26 / /cg rw - cgroup2 cgroup2 rw\n"


@dataclass
class Hosts:
    """A resolver in memory: a name that is not there gets no answer."""

    known: dict[str, tuple[str, ...]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    upstream: tuple[str, ...] = (str(RESOLVER),)

    def resolvers(self) -> Resolvers:
        return Resolvers(upstream=tuple(map(ip_address, self.upstream)))

    async def many(self, names: Collection[str], *, within: float) -> Found:
        assert within <= 5
        self.asked += names
        return {name: tuple(map(ip_address, self.known[name])) for name in names if name in self.known}


def users(name: str) -> int:
    return {"backup": 34, "1000": 7}[name]


async def resolve(names: LinuxNames, *exclusions: str, profiles: Collection[Profile] = ()) -> Resolved:
    return await names.resolve([Exclusion.parse(one) for one in exclusions], list(profiles))


def networks(found: Resolved) -> list[str]:
    return [str(one.network) for one in found.openings]


def made(root: Path, hosts: Hosts | None = None, **options: object) -> LinuxNames:
    return LinuxNames(root=root, hosts=hosts or Hosts(), find_user=users, **options)


async def test_networks_need_nobody(tmp_path):
    """They are as they are, each once, and no resolver is opened for them."""
    hosts = Hosts()
    found = await resolve(made(tmp_path, hosts), "10.0.0.0/8", "2001:db8::1", "10.0.0.0/8", "any")
    assert networks(found) == ["10.0.0.0/8", "2001:db8::1/128", "0.0.0.0/0", "::/0"]
    assert (found.resolvers, found.not_open, hosts.asked) == ((), (), [])


async def test_a_name_is_its_addresses(tmp_path):
    """Of both families, with the ports of the exclusion; and the resolvers are opened to the agent."""
    hosts = Hosts({"a.test": ("192.0.2.1", "2001:db8::1")})
    found = await resolve(made(tmp_path, hosts), "out tcp a.test remote 443", "in tcp a.test local 22")
    assert networks(found) == ["192.0.2.1/32", "2001:db8::1/128"] * 2
    assert [str(one.remote or one.local) for one in found.openings] == ["443", "443", "22", "22"]
    assert (found.resolvers, hosts.asked) == ((RESOLVER,), ["a.test"])


@pytest.mark.parametrize(("has_names", "expected"), [(True, (RESOLVER,)), (False, ())])
async def test_a_server_with_a_name_needs_the_resolvers(tmp_path, has_names, expected):
    """An isolated endpoint must be able to follow its server to another address."""
    found = await resolve(made(tmp_path, server_has_names=lambda: has_names), "10.0.0.1")
    assert found.resolvers == expected


async def test_without_an_upstream_it_is_said_that_names_grow_old(tmp_path):
    """A machine that only knows its own resolver cannot ask while it is isolated."""
    found = await resolve(made(tmp_path, Hosts({"a.test": ("192.0.2.1",)}, upstream=())), "a.test")
    assert networks(found) == ["192.0.2.1/32"]
    assert "no upstream resolver is known" in found.not_open[0]


async def test_a_name_that_gets_no_answer_keeps_its_addresses_for_a_day(tmp_path):
    """An outage of the resolvers closes nothing; an answer without addresses does."""
    now, hosts = [0.0], Hosts({"a.test": ("192.0.2.1",)})
    names = made(tmp_path, hosts, seconds=lambda: now[0])
    await resolve(names, "a.test")
    hosts.known = {}
    now[0] = 86_399.0
    assert networks(await resolve(names, "a.test")) == ["192.0.2.1/32"]
    now[0] = 86_400.0
    assert (await resolve(names, "a.test")).not_open == ("a.test opens nothing: no resolver answers for it",)
    hosts.known = {"a.test": ("192.0.2.2",)}
    assert networks(await resolve(names, "a.test")) == ["192.0.2.2/32"]
    hosts.known = {"a.test": ()}
    assert (await resolve(names, "a.test")).not_open == ("a.test opens nothing: it has no address",)


async def test_a_name_cannot_open_what_is_no_peer(tmp_path):
    """Whoever answers for the name may be hostile: good addresses count, the others are told."""
    hosts = Hosts({"a.test": ("127.0.0.1", "192.0.2.1", "0.0.0.0"), "b.test": ("::1",)})
    found = await resolve(made(tmp_path, hosts), "a.test", "b.test")
    assert networks(found) == ["192.0.2.1/32"]
    assert set(found.not_open) == {
        "a.test has the address 127.0.0.1, which no name may open",
        "a.test has the address 0.0.0.0, which no name may open",
        "b.test has the address ::1, which no name may open",
        "b.test opens nothing: no address of it may be opened",
    }


@pytest.mark.parametrize(
    "address",
    ["127.0.0.53", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1", "255.255.255.255"],
)
def test_addresses_that_are_no_peers(address):
    """Loopback, unspecified, link-local, multicast, broadcast."""
    assert not may_be_opened(ip_address(address))


async def test_many_addresses_and_many_names_are_bounded(tmp_path):
    """Neither a hostile resolver nor an enormous list fills the kernel."""
    hosts = Hosts({"n0.test": tuple(f"192.0.2.{n}" for n in range(200))})
    found = await resolve(made(tmp_path, hosts), *(f"n{n}.test" for n in range(MAX_NAMES + 2)))
    assert len(found.openings) == MAX_ADDRESSES
    assert len(hosts.asked) == MAX_NAMES
    assert len(found.not_open) <= module.MAX_LINES


async def test_an_account_is_its_number(tmp_path):
    """By name, or by number where no account has that name."""
    found = await resolve(made(tmp_path), "out any user backup", "out 10.0.0.1 user 1000", "out 10.0.0.1 user 65534")
    assert [one.uid for one in found.openings] == [34, 34, 7, 65534]


@pytest.mark.parametrize("user", ["nobody-here", "4294967295", "99999999999"])
async def test_an_account_that_is_not_there_opens_nothing(tmp_path, user):
    """And says so; -1, the number that means everybody to some calls, is no account."""
    found = await resolve(made(tmp_path), f"out any user {user}")
    assert (found.openings, found.not_open) == ((), (f"user {user} opens nothing: there is no such account",))


async def test_accounts_that_cannot_be_read_keep_their_numbers(tmp_path, monkeypatch):
    """A directory server that cannot be reached from an isolated endpoint stops nothing."""
    monkeypatch.setattr(module, "WITHIN_SECONDS", 0.05)
    over, hangs = threading.Event(), False

    def find(_name: str) -> int:
        if hangs:
            over.wait(20)
        return 34

    names = LinuxNames(root=tmp_path, hosts=Hosts(), find_user=find)
    assert (await resolve(names, "out 10.0.0.1 user backup")).openings[0].uid == 34
    hangs = True
    assert (await resolve(names, "out 10.0.0.1 user backup")).openings[0].uid == 34
    assert "cannot be read" in (await resolve(names, "out 10.0.0.1 user other")).not_open[0]
    over.set()


async def test_a_unit_is_its_control_group(tmp_path):
    """One that runs; one that does not opens nothing."""
    group = {"cg/system.slice/backup.service/cgroup.events": "populated 1\n", "proc/self/mountinfo": MOUNTS}
    found = await resolve(made(machine(tmp_path, group)), "any unit backup", "10.0.0.1 unit other.service")
    assert [one.cgroup for one in found.openings] == ["system.slice/backup.service"] * 2
    assert found.not_open == ("unit other.service opens nothing: it does not run",)


async def test_profiles_are_what_the_machine_is_configured_for(tmp_path):
    """Their names are resolved as any other; what they do not open is told."""
    root = machine(tmp_path, {"etc/chrony.conf": "pool time.test iburst\n"})
    names = made(root, Hosts({"time.test": ("192.0.2.3",)}))
    found = await resolve(names, profiles=[Profile.NTP, Profile.UPDATES, Profile.DHCP])
    assert [(str(one.network), str(one.transport), str(one.remote)) for one in found.openings] == [
        ("192.0.2.3/32", "udp", "123")
    ]
    assert found.not_open == ("updates opens nothing: no package source on a network is configured",)


async def test_one_failure_spoils_nothing_else(tmp_path):
    """What can be resolved is, whatever else cannot."""
    found = await resolve(made(tmp_path), "10.0.0.1", "gone.test", "out any user nobody-here", "any unit none")
    assert networks(found) == ["10.0.0.1/32"]
    assert len(found.not_open) == 3


async def test_the_real_machine_can_be_asked():
    """With the files of the machine on which this runs."""
    async with asyncio.timeout(30):
        found = await LinuxNames().resolve([Exclusion.parse("out 192.0.2.1 user root")], [])
    assert [one.uid for one in found.openings] == [0]


EXCLUSIONS = st.sampled_from(
    ["10.0.0.1", "any", "a.test", "gone.test", "bad.test", "out any user backup", "out any user x", "a.test unit u"]
)


@given(st.lists(EXCLUSIONS, max_size=12), st.lists(st.sampled_from(Profile), max_size=4))
def test_every_exclusion_opens_something_or_says_why(tmp_path_factory, exclusions, profiles):
    """Nothing is lost in silence, and no name opens an address that is no peer."""
    hosts = Hosts({"a.test": ("192.0.2.1",), "bad.test": ("127.0.0.1",)})
    names = made(tmp_path_factory.mktemp("machine"), hosts)
    found = asyncio.run(resolve(names, *exclusions, profiles=profiles))
    silent = {"gone.test", "bad.test", "out any user x", "a.test unit u"} & set(exclusions)
    assert len([line for line in found.not_open if "opens nothing" in line]) == len(silent) + len(
        set(profiles) - {Profile.DHCP}
    )
    assert bool(found.openings) is bool(set(exclusions) - silent)


async def test_what_nobody_tells_is_unknown_and_not_nothing(tmp_path):
    """Silence about a name or an account is told apart from the word that there is none."""
    hosts = Hosts({"gone.test": ()})
    words = ("silent.test", "gone.test", "out 10.0.0.1 user nobody-here")
    found = await resolve(made(tmp_path, hosts), *words)
    assert [str(one) for one in found.unknown] == ["silent.test"]
    assert len(found.not_open) == 3

    def unreadable(_name: str) -> int:
        raise OSError("the directory does not answer")

    found = await resolve(LinuxNames(root=tmp_path, hosts=Hosts(), find_user=unreadable), "out 10.0.0.1 user backup")
    assert [str(one) for one in found.unknown] == ["out 10.0.0.1 user backup"]


async def test_an_address_with_a_zone_in_the_hosts_file_is_passed_over(tmp_path):
    """No firewall can do anything with it, and it must not end anything."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("2001:db8::1%eth0 a.test b.test\n192.0.2.1 a.test\n")
    found = await LinuxNames(root=tmp_path).resolve([Exclusion.parse("a.test")], [])
    assert networks(found) == ["192.0.2.1/32"]
