"""What profiles open: whatever the machine's own configuration names."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.profiles import MAX_PLACES, exclusions_of
from stanch.core.exclusion import Direction, Profile
from tests.fakes.dns import machine


def opened(profile: Profile, root: Path) -> list[str]:
    return [str(one) for one in exclusions_of(profile, root).exclusions]


@pytest.mark.parametrize("profile", Profile)
def test_a_machine_without_configuration_opens_nothing(tmp_path, profile):
    """And says so, except for DHCP, which needs none."""
    found = exclusions_of(profile, tmp_path)
    assert found.exclusions == ()
    assert bool(found.not_open) is (profile is not Profile.DHCP)
    assert all(line.startswith(f"{profile} opens nothing") for line in found.not_open)


def test_dns_is_the_resolvers(tmp_path):
    """Those that are configured; behind the machine's own, its upstreams; by UDP, TCP and TLS."""
    stub = {"etc/resolv.conf": "nameserver 127.0.0.53"}
    root = machine(
        tmp_path, {**stub, "run/systemd/resolve/resolv.conf": "nameserver 10.0.0.1\nnameserver fe80::1%eth0"}
    )
    assert opened(Profile.DNS, root) == [
        "out udp 10.0.0.1 remote 53",
        "out udp fe80::1 remote 53",
        "out tcp 10.0.0.1 remote 53",
        "out tcp 10.0.0.1 remote 853",
        "out tcp fe80::1 remote 53",
        "out tcp fe80::1 remote 853",
    ]


@pytest.mark.parametrize(
    ("path", "text", "hosts"),
    [
        ("etc/systemd/timesyncd.conf", "[Time]\nNTP=a.test 10.0.0.1\n#FallbackNTP=no.test\n", ["a.test", "10.0.0.1"]),
        ("etc/systemd/timesyncd.conf.d/x.conf", "[Time]\nFallbackNTP = b.test", ["b.test"]),
        (
            "etc/chrony/chrony.conf",
            "pool p.test iburst\n! server no.test\nserver s.test minpoll 4\n",
            ["p.test", "s.test"],
        ),
        ("etc/chrony.conf", "peer 2001:db8::1 iburst\nrefclock SHM 0\n", ["2001:db8::1"]),
        ("etc/chrony/sources.d/x.sources", "server c.test", ["c.test"]),
        ("etc/ntp.conf", "server -4 d.test iburst\nserver 127.127.1.0\nrestrict 10.0.0.0\n", ["d.test"]),
        ("etc/ntpsec/ntp.conf", "pool 0.test. iburst\nserver\n", ["0.test"]),
    ],
)
def test_ntp_is_the_time_servers(tmp_path, path, text, hosts):
    """Of systemd, chrony and ntpd; clocks on the machine itself are none."""
    assert opened(Profile.NTP, machine(tmp_path, {path: text})) == [f"out udp {host} remote 123" for host in hosts]


def test_ntp_on_another_port(tmp_path):
    """As chrony may be told."""
    root = machine(tmp_path, {"etc/chrony.conf": "server a.test iburst port 11123\nserver b.test port x\n"})
    assert opened(Profile.NTP, root) == ["out udp a.test remote 11123", "out udp b.test remote 123"]


@pytest.mark.parametrize(
    ("path", "text", "places"),
    [
        ("etc/apt/sources.list", "deb http://a.test/debian stable main\n# deb http://no.test x\n", ["a.test 80"]),
        (
            "etc/apt/sources.list.d/x.list",
            (
                "deb [arch=amd64 signed-by=/x] https://b.test:8443/x stable main\ndeb-src mirror+http://m.test/l x\n"
                "deb cdrom:[Debian 12]/ x\ndeb file:/srv x\n"
            ),
            ["b.test 8443", "m.test 80"],
        ),
        (
            "etc/apt/sources.list.d/x.sources",
            (
                "Types: deb\nURIs: https://c.test/x\n http://d.test\n# http://no.test\nSuites: s\n\n"
                "Enabled: no\nURIs: http://off.test\n"
            ),
            ["c.test 443", "d.test 80"],
        ),
        (
            "etc/apt/apt.conf.d/01proxy",
            'Acquire::http::Proxy "http://cache.test:3142";\n// Acquire::http::Proxy "http://no.test:1";\n',
            ["cache.test 3142"],
        ),
        ("etc/apt/apt.conf", 'Acquire { http { Proxy "http://10.0.0.3:3128/"; }; };', ["10.0.0.3 3128"]),
        (
            "etc/yum.repos.d/x.repo",
            "[one]\nname=x\nbaseurl=https://e.test/$releasever\n  http://f.test/\n[two]\nenabled = 0\nbaseurl=http://off.test\n",
            ["e.test 443", "f.test 80"],
        ),
        ("etc/zypp/repos.d/x.repo", "[one]\nenabled=1\nbaseurl=http://g.test/x?y\n", ["g.test 80"]),
        ("etc/dnf/dnf.conf", "[main]\nproxy=http://h.test:3128\n", ["h.test 3128"]),
    ],
)
def test_updates_are_the_package_sources(tmp_path, path, text, places):
    """Of apt, dnf, yum and zypper, on the port of their URL, and the proxies that these go through."""
    expected = [f"out tcp {host} remote {port}" for host, port in (one.split() for one in places)]
    assert opened(Profile.UPDATES, machine(tmp_path, {path: text})) == expected


def test_what_a_mirror_list_names_is_not_open(tmp_path):
    """The list itself is, and it is said that its mirrors are not."""
    root = machine(tmp_path, {"etc/yum.repos.d/x.repo": "[x]\nmetalink=https://m.test/l?repo=x\n"})
    found = exclusions_of(Profile.UPDATES, root)
    assert [str(one) for one in found.exclusions] == ["out tcp m.test remote 443"]
    assert "not the mirrors" in found.not_open[0]


def test_their_number_is_bounded(tmp_path):
    """However many sources there are."""
    text = "".join(f"deb http://h{n}.test/ x y\n" for n in range(2000))
    assert len(opened(Profile.UPDATES, machine(tmp_path, {"etc/apt/sources.list": text}))) == MAX_PLACES


FILES = (
    "etc/resolv.conf",
    "etc/systemd/timesyncd.conf",
    "etc/chrony.conf",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/x.sources",
    "etc/apt/apt.conf",
    "etc/yum.repos.d/x.repo",
)
PIECES = st.sampled_from(
    [
        "server ",
        "deb ",
        "URIs: ",
        "baseurl=",
        "NTP=",
        'Proxy "',
        "http://",
        "[",
        "]",
        ":99999",
        "@",
        "\n",
        "\n ",
        "%",
        "a.b",
    ]
)


@given(st.lists(PIECES | st.text(max_size=8), max_size=40).map("".join))
def test_no_content_breaks_the_readers(tmp_path_factory, text):
    """Whatever the files hold, profiles open connections that the endpoint makes to one port, or nothing."""
    root = machine(tmp_path_factory.mktemp("machine"), dict.fromkeys(FILES, ""))
    for name in FILES:
        (root / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    for profile in Profile:
        for one in exclusions_of(profile, root).exclusions:
            assert one.direction is Direction.OUT
            assert one.remote is not None
            assert one.peer is not None
