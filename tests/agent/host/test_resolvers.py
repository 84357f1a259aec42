"""Where a machine asks for names."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.resolvers import MAX_RESOLVERS, UPSTREAMS, Resolvers, read_hosts, read_resolvers
from tests.fakes.dns import machine

STUB = "nameserver 127.0.0.53\noptions edns0\n"


def upstream(root: Path) -> list[str]:
    return [str(one) for one in read_resolvers(root).upstream]


def test_configured_resolvers_are_asked(tmp_path):
    """In their order, without comments, repetitions and what is no address."""
    text = "# nameserver 10.9.9.9\nnameserver 10.0.0.1\n nameserver\t2001:db8::1 \nnameserver 10.0.0.1\nnameserver x\n"
    assert upstream(machine(tmp_path, {"etc/resolv.conf": text})) == ["10.0.0.1", "2001:db8::1"]


@pytest.mark.parametrize("path", UPSTREAMS)
def test_behind_a_resolver_of_the_machine_its_upstreams_are_asked(tmp_path, path):
    """systemd-resolved and NetworkManager say where they ask."""
    root = machine(tmp_path, {"etc/resolv.conf": STUB, str(path): "nameserver 10.0.0.1\nnameserver 127.0.0.1\n"})
    assert upstream(root) == ["10.0.0.1"]
    assert read_resolvers(root).configured == (ip_address("127.0.0.53"),)


def test_a_remote_resolver_beside_a_local_one_is_enough(tmp_path):
    """Only where every resolver is the machine itself, others are looked for."""
    root = machine(
        tmp_path, {"etc/resolv.conf": STUB + "nameserver 10.0.0.1", str(UPSTREAMS[0]): "nameserver 10.0.0.2"}
    )
    assert upstream(root) == ["10.0.0.1"]


def test_a_machine_without_resolvers(tmp_path):
    """Nothing is made up."""
    assert read_resolvers(tmp_path) == Resolvers()
    assert upstream(machine(tmp_path, {"etc/resolv.conf": STUB})) == []


def test_their_number_is_bounded(tmp_path):
    """However many lines there are."""
    text = "".join(f"nameserver 10.0.0.{n}\n" for n in range(200))
    assert len(upstream(machine(tmp_path, {"etc/resolv.conf": text}))) == MAX_RESOLVERS


def test_a_zone_is_for_the_socket_not_for_the_firewall(tmp_path):
    """A link-local resolver is dialled on its device; rules know its address."""
    found = read_resolvers(machine(tmp_path, {"etc/resolv.conf": "nameserver fe80::1%eth0"}))
    assert ([str(one) for one in found.upstream], [str(one) for one in found.remote]) == (["fe80::1%eth0"], ["fe80::1"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", ["web.a.test", "web.b.test", "web"]),
        ("web.a", ["web.a", "web.a.a.test", "web.a.b.test"]),
        ("w.", ["w."]),
    ],
)
def test_short_names_are_looked_for_in_the_domains_first(name, expected):
    """A name with a dot is first tried as it is; with a dot at its end it means itself."""
    assert list(Resolvers(search=("a.test", "b.test")).candidates(name)) == expected


def test_the_last_search_line_counts(tmp_path):
    """Domains are bounded, and what cannot be one is left out."""
    root = machine(tmp_path, {"etc/resolv.conf": f"domain x.test\nsearch A.test. {'y' * 300} b.test c d e f g"})
    assert read_resolvers(root).search == ("a.test", "b.test", "c", "d", "e")


def test_the_hosts_file(tmp_path):
    """Aliases, both families, capitals, comments."""
    text = "10.0.0.1 Web.test web # other\n2001:db8::1\tweb.test\nnonsense web\n#10.0.0.2 web\n\n"
    root = machine(tmp_path, {"etc/hosts": text})
    found = read_hosts(["web.test", "WEB", "other"], root)
    assert {name: [str(one) for one in addresses] for name, addresses in found.items()} == {
        "web.test": ["10.0.0.1", "2001:db8::1"],
        "WEB": ["10.0.0.1"],
    }


@given(st.binary(max_size=500))
def test_no_content_breaks_the_readers(tmp_path_factory, content):
    """Whatever the files hold, there are resolvers or none."""
    root = machine(tmp_path_factory.mktemp("machine"), {"etc/resolv.conf": "", "etc/hosts": ""})
    for name in ("etc/resolv.conf", "etc/hosts"):
        (root / name).write_bytes(b"nameserver " + content)
    assert len(read_resolvers(root).upstream) <= MAX_RESOLVERS
    read_hosts(["a"], root)
