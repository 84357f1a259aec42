"""Does an exclusion say what people wrote, in one form, and refuse what cannot be meant?"""

import json
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stanch.core.exclusion import (
    EVERYWHERE,
    MAX_TEXT,
    Direction,
    Exclusion,
    Opening,
    Ports,
    Transport,
    address_network,
    fixed_networks,
    leaves_everything_open,
    openings,
)
from stanch.core.types import describe, parse_network

ADAPTER = TypeAdapter(tuple[Exclusion, ...])

# --- any valid exclusion ---------------------------------------------------------------------------------------------

networks = st.builds(
    lambda address, prefix: parse_network(f"{address}/{prefix % (address.max_prefixlen + 1)}"),
    st.ip_addresses(),
    st.integers(0, 128),
)
labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
hosts = st.lists(labels, min_size=1, max_size=5).map(".".join)
singles = st.integers(1, 65_535).map(lambda n: Ports(n, n))
ranges = st.tuples(st.integers(1, 65_535), st.integers(1, 65_535)).map(lambda two: Ports(min(two), max(two)))
users = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,31}\$?", fullmatch=True)
units = st.from_regex(r"[A-Za-z0-9_.:@\\-]{1,40}", fullmatch=True)


@st.composite
def exclusions(draw: st.DrawFn) -> Exclusion:
    """One that means something."""
    direction, transport = draw(st.sampled_from(Direction)), draw(st.sampled_from(Transport))
    ports = st.none() if not transport.has_ports else st.none() | (singles if direction is Direction.BOTH else ranges)
    whose = draw(st.sampled_from(["", "unit", *(["user"] if direction is Direction.OUT else [])]))
    parts: dict[str, Any] = {
        "peer": draw(st.none() | networks | hosts),
        "remote": draw(ports),
        "local": draw(ports),
        **({} if not whose else {whose: draw({"user": users, "unit": units}[whose])}),
    }
    try:
        return Exclusion(direction=direction, transport=transport, **parts)
    except ValueError:
        # A host name that is a number at its end, or a word of the language.
        return Exclusion(direction=direction, transport=transport, **{**parts, "peer": None})


@given(exclusions())
def test_its_text_is_its_form(one: Exclusion) -> None:
    """What is shown parses to the same, on the command line and in JSON."""
    assert Exclusion.parse(str(one)) == one
    assert len(str(one)) <= MAX_TEXT
    plain = json.loads(ADAPTER.dump_json((one,)))
    assert plain == [str(one)]
    assert ADAPTER.validate_python(plain) == (one,)


words = st.sampled_from(
    [
        *("in", "out", "both", "any", "tcp", "udp", "icmp", "remote", "local", "user", "unit", "443", "1-2", "::/0"),
        *("10.0.0.0/8", "a.b", "-", "", "/", ":", "%", "root", "80-", "-80", "\u0661", "\u0663.4.5.6", "fe80::1%eth0"),
        *("a" * 64, "0" * 30),
    ]
)


@given(st.lists(words | st.text(max_size=8), max_size=9).map(" ".join) | st.text(max_size=2 * MAX_TEXT))
def test_any_text_is_an_exclusion_or_refused(text: str) -> None:
    """Nothing but ValueError comes out, with what was got and expected; what passes has one form."""
    one, why = parsed(text)
    assert (one is None) == ("expected" in why)
    assert len(why) < 2 * MAX_TEXT
    assert one is None or Exclusion.parse(str(one)) == one


def parsed(text: str) -> tuple[Exclusion | None, str]:
    """The exclusion, or why it is none."""
    try:
        return Exclusion.parse(text), ""
    except ValueError as error:
        return None, str(error)


# --- what it means ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    {
        "10.0.0.0/8": {"peer": ip_network("10.0.0.0/8")},
        "10.1.2.3/8": {"peer": ip_network("10.0.0.0/8")},
        "any": {"peer": None},
        "tcp any": {"peer": None, "transport": Transport.TCP},
        "any any": {"peer": None},
        "both any any": {"peer": None},
        "icmp 2001:db8::1": {"peer": ip_network("2001:db8::1"), "transport": Transport.ICMP},
        "out any user backup": {"peer": None, "direction": Direction.OUT, "user": "backup"},
        "any unit backup@1.service": {"peer": None, "unit": "backup@1.service"},
        "both any unit backup.service": {"peer": None, "unit": "backup.service"},
        "out tcp any remote 8000-8100": {
            "peer": None,
            "direction": Direction.OUT,
            "transport": Transport.TCP,
            "remote": Ports(8000, 8100),
        },
        "in  tcp\t192.0.2.0/24 local 0022": {
            "peer": ip_network("192.0.2.0/24"),
            "direction": Direction.IN,
            "transport": Transport.TCP,
            "local": Ports(22, 22),
        },
        "out udp Time.Example.COM. local 123 remote 123": {
            "peer": "time.example.com",
            "direction": Direction.OUT,
            "transport": Transport.UDP,
            "remote": Ports(123, 123),
            "local": Ports(123, 123),
        },
        "::ffff:192.0.2.0/120": {"peer": ip_network("192.0.2.0/24")},
        "::ffff:0.0.0.0/96": {"peer": ip_network("0.0.0.0/0")},
        "out any user remote": {"peer": None, "direction": Direction.OUT, "user": "remote"},
    }.items(),
)
def test_what_people_write(text: str, parts: dict[str, Any]) -> None:
    """The words in any of their orders, addresses as networks, mapped IPv4 as IPv4, names in small letters."""
    assert Exclusion.parse(text) == Exclusion(**parts)


@pytest.mark.parametrize(
    ("text", "why"),
    {
        "": "a network, an address, a host name or any",
        "out": "a network, an address",
        "tcp": "a network, an address",
        "out tcp remote 443": "a network, an address",
        "10.0.0.0/33": "a network or an address",
        "10.0.0": "a network or an address",
        "10": "a network or an address",
        "fe80::1%eth0": "without a zone id",
        "out fe80::1%1/64": "without a zone id",
        "evil.com/8": "a network or an address",
        "a..b": "a host name",
        ".a": "a host name",
        "-a.b": "a host name",
        "a-.b": "a host name",
        "a.b.443": "a host name",
        "a" * 64: "a host name",
        "exämple.com": "a host name",
        "a_b!.com": "a host name",
        "10.0.0.0/8 remote 443": "tcp or udp before the peer",
        "icmp any local 1": "tcp or udp before the peer",
        "tcp any remote 1-2": "a range opens one direction only",
        "both udp any local 1-2": "a range opens one direction only",
        "out tcp any remote 2-1": "smaller end first",
        "tcp any remote 0": "a port from 1 to 65535",
        "tcp any remote 65536": "a port from 1 to 65535",
        "tcp any remote 1-": "a port from 1 to 65535",
        "tcp any remote 443,444": "a port from 1 to 65535",
        "tcp any remote ٤٤٣": "a port from 1 to 65535",
        "any user root": "expected out",
        "in any user root": "expected out",
        "out any user root unit a.service": "one of them",
        "out any user ro;ot": "the name of a user",
        "out any user " + "a" * 34: "the name of a user",
        "any unit ../../etc": "the name of a unit",
        "tcp any remote 1 remote 2": "each once",
        "tcp any remote": "with its value",
        "any 10.0.0.1 10.0.0.2": "each once",
        "any in": "a host name",
        "x" * 701: "at most 700",
    }.items(),
)
def test_what_cannot_be_meant_is_refused(text: str, why: str) -> None:
    """Each mistake has its reason, in words."""
    with pytest.raises(ValueError, match=why):
        Exclusion.parse(text)


@pytest.mark.parametrize("value", [None, True, 443, 1.5, ["10.0.0.0/8"], {"peer": "any"}, b"any"])
def test_what_is_no_text_is_refused(value: object) -> None:
    """JSON's null is not a host called none."""
    with pytest.raises(ValueError, match="expected text"):
        Exclusion.parse(value)
    with pytest.raises(ValidationError):
        ADAPTER.validate_python([value])


@pytest.mark.parametrize("value", [IPv4Network("10.0.0.0/8"), IPv6Network("2001:db8::/32")])
def test_a_network_is_an_exclusion(value: IPv4Network | IPv6Network) -> None:
    """Everything from and to it."""
    assert Exclusion.parse(value) == Exclusion(peer=value)


def test_a_mapped_network_cannot_hide_in_ipv6() -> None:
    """It would open nothing: the kernel's sockets know it as IPv4."""
    with pytest.raises(ValueError, match="IPv4"):
        Exclusion(peer=IPv6Network("::ffff:10.0.0.0/104"))


@pytest.mark.parametrize("text", ["a" * 240 + "!", "a." * 120 + "!", "a-" * 120 + ".", "_" * 253 + "-"])
def test_a_name_that_nearly_fits_is_refused_at_once(text: str) -> None:
    """No text makes the form of a name look at it again and again: a thousand of them, none of them believed."""
    for n in range(1000):
        with pytest.raises(ValueError, match="expected"):
            Exclusion.parse(f"{text}{n % 10}!")


def test_it_describes_itself() -> None:
    """The type has a name, an example that parses, and a bounded JSON schema."""
    info = describe(tuple[Exclusion, ...])
    assert info is not None
    assert info.name == "exclusion"
    assert str(Exclusion.parse(info.example)) == info.example
    schema = TypeAdapter(Exclusion).json_schema()
    assert schema == {
        "type": "string",
        "format": "stanch-exclusion",
        "examples": [info.example],
        "maxLength": MAX_TEXT,
    }


# --- everything ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "everything"),
    [
        (("any",), True),
        (("in any",), True),
        (("out any",), True),
        (("udp any",), True),
        (("0.0.0.0/0",), True),
        (("::/0",), True),
        (("out tcp any remote 1-65535",), True),
        (("0.0.0.0/1", "128.0.0.0/1"), True),
        (("in 0.0.0.0/1", "out 128.0.0.0/1"), True),
        (("::/1", "10.0.0.0/8", "8000::/1"), True),
        ((), False),
        (("0.0.0.0/1", "128.0.0.0/2"), False),
        (("0.0.0.0/1", "8000::/1"), False),
        (("0.0.0.0/1", "icmp 128.0.0.0/1"), False),
        (("0.0.0.0/1", "out tcp 128.0.0.0/1 remote 1-65534"), False),
        (("out tcp any remote 443",), False),
        (("out any user root",), False),
        (("any unit a.service",), False),
        (("icmp any",), False),
        (("example.com", "out tcp a.example.com"), False),
    ],
)
def test_what_leaves_everything_open(texts: tuple[str, ...], *, everything: bool) -> None:
    """A whole address family, alone or together; not a port, an account, a unit, ICMP, or a name."""
    assert leaves_everything_open([Exclusion.parse(one) for one in texts]) is everything


@given(st.lists(networks, max_size=6))
def test_pieces_are_everything_if_they_cover_everything(pieces: list[IPv4Network | IPv6Network]) -> None:
    """As many addresses as a family has, however it is cut, are everything; one address less is not."""
    size = {4: 2**32, 6: 2**128}
    covered = {4: 0, 6: 0}
    for one in pieces:
        inside = any(other != one and other.version == one.version and one.subnet_of(other) for other in pieces)
        covered[one.version] += 0 if inside else one.num_addresses
    for version in (4, 6):
        covered[version] -= sum(
            (pieces.count(one) - 1) * one.num_addresses
            for one in {*pieces}
            if one.version == version
            and not any(other != one and other.version == version and one.subnet_of(other) for other in pieces)
        )
    expected = any(covered[version] >= size[version] for version in (4, 6))
    assert leaves_everything_open([Exclusion(peer=one) for one in pieces]) is expected


# --- in numbers ------------------------------------------------------------------------------------------------------


def test_openings_keep_every_part() -> None:
    """One for each network, with the protocol, direction and ports of the words."""
    one = Exclusion.parse("out tcp any remote 443 local 1024-65535 user backup")
    made = openings(one, EVERYWHERE, uid=34, cgroup=None)
    assert [opening.network for opening in made] == [*EVERYWHERE]
    assert {(o.transport, o.direction, o.remote, o.local, o.uid, o.cgroup) for o in made} == {
        (Transport.TCP, Direction.OUT, Ports(443, 443), Ports(1024, 65535), 34, None)
    }


@pytest.mark.parametrize(
    ("opening", "plain"),
    [
        (Opening(network=EVERYWHERE[0]), True),
        (Opening(network=EVERYWHERE[0], uid=0), False),
        (Opening(network=EVERYWHERE[0], cgroup="a"), False),
        (Opening(network=EVERYWHERE[0], direction=Direction.IN), False),
        (Opening(network=EVERYWHERE[0], transport=Transport.UDP), False),
        (Opening(network=EVERYWHERE[0], transport=Transport.TCP, remote=Ports(1, 1)), False),
    ],
)
def test_plain_is_just_a_network(opening: Opening, *, plain: bool) -> None:
    """Account 0 narrows, too."""
    assert opening.is_plain is plain


def test_only_names_need_resolving() -> None:
    """A network is itself, any is both families, a name is unknown."""
    assert fixed_networks(Exclusion.parse("10.0.0.0/8")) == (ip_network("10.0.0.0/8"),)
    assert fixed_networks(Exclusion.parse("any")) == EVERYWHERE
    assert fixed_networks(Exclusion.parse("example.com")) is None
    assert Exclusion.parse("example.com").name == "example.com"
    assert Exclusion.parse("any").name is None


@given(st.ip_addresses())
def test_an_address_is_a_network_of_one(address: Any) -> None:
    """Of its own family, or of IPv4 if it is mapped."""
    found = address_network(str(address))
    assert found.num_addresses == 1
    assert found.network_address == (getattr(address, "ipv4_mapped", None) or ip_address(address))


@pytest.mark.parametrize(
    ("direction", "inward", "outward"),
    [(Direction.IN, True, False), (Direction.OUT, False, True), (Direction.BOTH, True, True)],
)
def test_directions(direction: Direction, *, inward: bool, outward: bool) -> None:
    """Both is each."""
    assert (direction.inward, direction.outward) == (inward, outward)
