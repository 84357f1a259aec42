"""The types parse what people write, refuse the rest as pydantic expects, and show what they parse."""

from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr, TypeAdapter, ValidationError

from stanch.core.errors import Invalid
from stanch.core.types import (
    MAX_PATH_BYTES,
    Address,
    Duration,
    EndpointPath,
    EvidenceRef,
    Id,
    Label,
    Network,
    Pid,
    Port,
    Secret,
    Sha256,
    describe,
    hours,
    minutes,
    parse_network,
    parse_pin,
    seconds,
    show_duration,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def parse(annotation: Any, value: object) -> Any:
    """The value that a field of this type has."""
    return TypeAdapter(annotation).validate_python(value)


def refuses(annotation: Any, value: object) -> bool:
    """Does the type refuse it as pydantic expects? Any other exception passes through."""
    try:
        parse(annotation, value)
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize("annotation", [Duration, Network, Address, EndpointPath, Sha256, Pid, Port, Id, Label, Secret])
@given(value=JSON)
def test_foreign_values_are_parsed_or_refused(annotation: Any, value: object) -> None:
    """No value from a JSON body makes a type raise anything but a validation error."""
    assert refuses(annotation, value) in {True, False}


@pytest.mark.parametrize("annotation", [Duration, Network, Address, EndpointPath, Sha256, Pid, Port, EvidenceRef])
def test_types_describe_themselves(annotation: Any) -> None:
    """Each type has a name, a sentence and an example, also when it is optional or inside a tuple."""
    info = describe(annotation)
    assert info is not None
    assert all((info.name, info.example, info.help))
    assert describe(annotation | None) == info
    assert describe(Annotated[tuple[annotation, ...], Field(max_length=3)]) == info


@pytest.mark.parametrize("annotation", [Duration, Network, EndpointPath, Sha256, Pid, Port])
def test_examples_are_valid(annotation: Any) -> None:
    """The example of a type is a value of the type."""
    info = describe(annotation)
    assert info is not None
    assert not refuses(annotation, info.example)


def test_a_plain_type_describes_nothing() -> None:
    """An annotation that carries no description has none."""
    assert describe(int) is None


# --- durations -------------------------------------------------------------------------------------------------------


@given(st.integers(min_value=1, max_value=9999 * 3600))
def test_durations_survive_being_shown(count: int) -> None:
    """What show_duration writes parses to the same duration."""
    assert parse(Duration, show_duration(timedelta(seconds=count))) == timedelta(seconds=count)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", seconds(90)),
        ("30m", minutes(30)),
        ("5h", hours(5)),
        ("1h30m", minutes(90)),
        ("2d", hours(48)),
        ("1w", hours(168)),
        (" 5H ", hours(5)),
        (90, seconds(90)),
        (1.5, seconds(1.5)),
        (minutes(3), minutes(3)),
        ("9999h", hours(9999)),
    ],
)
def test_durations_are_read(text: object, expected: timedelta) -> None:
    """A duration is read from text, a number of seconds, or a timedelta."""
    assert parse(Duration, text) == expected


NO_TEXTS = ("", "h", "5", "5 h", "-5h", "1m1h", "0s", "10000h", "٣s", "9" * 38 + "s", "1" * 50 + "s", True, None, [])
NO_NUMBERS = (0, -1, 1e300, -1e300, 10**400, -(10**400), float("nan"), float("inf"), float("-inf"))


@pytest.mark.parametrize("wrong", [*NO_TEXTS, *NO_NUMBERS], ids=lambda wrong: repr(wrong)[:20])
def test_wrong_durations_are_refused(wrong: object) -> None:
    """What is no duration, or outside 1 second to 9999 hours, is refused and not overflowed."""
    assert refuses(Duration, wrong)


def test_units_cannot_be_mixed_up() -> None:
    """The helpers that name a unit agree with one another."""
    assert seconds(3600) == minutes(60) == hours(1)


# --- networks --------------------------------------------------------------------------------------------------------


@given(st.ip_addresses(), st.integers(0, 128))
def test_networks_survive_being_shown(address: Any, bits: int) -> None:
    """A network that was parsed is shown as text that parses to itself."""
    network = parse_network(str(ip_network((address, min(bits, address.max_prefixlen)), strict=False)))
    assert parse_network(str(network)) == network
    assert parse_network(network) is network


@given(st.ip_addresses(v=4), st.integers(96, 128))
def test_mapped_networks_become_ipv4(address: Any, bits: int) -> None:
    """A v4-mapped network is the IPv4 network that the kernel's sockets mean."""
    found = parse_network(f"::ffff:{address}/{bits}")
    assert isinstance(found, IPv4Network)
    assert found.prefixlen == bits - 96
    assert address in found


def test_wider_networks_stay_ipv6() -> None:
    """A network that holds more than mapped addresses stays an IPv6 network."""
    assert isinstance(parse_network("::/0"), IPv6Network)
    assert isinstance(parse_network("::ffff:0:0/95"), IPv6Network)


@pytest.mark.parametrize(
    "wrong", ["", "10.0.0", "10.0.0.0/33", "fe80::1%eth0", "fe80::/10%x", "host", "1.2.3.4/8/9", 5]
)
def test_wrong_networks_are_refused(wrong: object) -> None:
    """What is no network, or has a zone id, is refused."""
    assert refuses(Network, wrong)


@given(st.ip_addresses())
def test_addresses_survive_being_shown(address: Any) -> None:
    """An address that was parsed is shown as text that parses to itself."""
    found = parse(Address, str(address))
    assert parse(Address, str(found)) == found


@pytest.mark.parametrize("zone", ["eth0", "0", "\n; flush ruleset", "x" * 1000], ids=lambda zone: zone[:5])
def test_addresses_have_no_zone(zone: str) -> None:
    """A zone id is foreign text that would reach the firewall's ruleset: it is refused."""
    assert refuses(Address, f"fe80::1%{zone}")


def test_mapped_addresses_become_ipv4() -> None:
    """A v4-mapped address is the IPv4 address that the kernel's sockets mean."""
    assert parse(Address, "::ffff:10.0.0.5") == ip_address("10.0.0.5")


# --- paths -----------------------------------------------------------------------------------------------------------

RAW_PATHS = st.binary(max_size=60).map(lambda raw: b"/" + raw.replace(b"\0", b"0"))
TRICKY_PATHS = st.lists(st.sampled_from([b"\\", b"x", b"5c", b"ff", b"F", b"\xff", b"\xc3", b"\xa9", b"/"])).map(
    lambda parts: b"/" + b"".join(parts)
)


@given(RAW_PATHS | TRICKY_PATHS)
def test_paths_keep_every_byte(raw: bytes) -> None:
    """Any path of the kernel has a text form that leads back to the same bytes, through JSON too."""
    path = EndpointPath.of(raw)
    assert path.raw == raw
    again = TypeAdapter(EndpointPath).validate_json(TypeAdapter(EndpointPath).dump_json(path))
    assert again.raw == raw
    path.encode("utf-8")


@given(st.text(max_size=40).map("/".__add__))
def test_typed_paths_are_kept(text: str) -> None:
    """A path that a person types is refused or kept as it is."""
    assert refuses(EndpointPath, text) or parse(EndpointPath, text) == text


@pytest.mark.parametrize(
    "wrong",
    ["", "etc/passwd", "~/x", "/a\0b", r"/a\x00b", "/" + "a" * MAX_PATH_BYTES, r"\x41/a", "/a\ud800", 5, None, b"/a"],
)
def test_wrong_paths_are_refused(wrong: object) -> None:
    """A path that is relative, has a NUL (escaped or not), or is too long is refused."""
    assert refuses(EndpointPath, wrong)


def test_an_escaped_slash_can_begin_a_path() -> None:
    """The bytes decide, not the text."""
    assert parse(EndpointPath, r"\x2fetc").raw == b"/etc"


@pytest.mark.parametrize("raw", [b"/home/t/\xff\xfe", b"/\xc3(", b"/\xff\\x41"])
def test_bytes_that_are_no_text_come_in_as_a_shell_hands_them_over(raw: bytes) -> None:
    """They are the same path, in a form that can be sent."""
    path = parse(EndpointPath, raw.decode("utf-8", "surrogateescape"))
    sent = TypeAdapter(EndpointPath).dump_json(path)
    assert TypeAdapter(EndpointPath).validate_json(sent) == path
    assert path.isascii()


def test_paths_have_a_name() -> None:
    """The last component of a path is its name."""
    assert EndpointPath("/etc/passwd").name == "passwd"


# --- the rest --------------------------------------------------------------------------------------------------------


def test_hashes_are_kept_in_lower_case() -> None:
    """Spaces and capitals of a pasted hash do not matter."""
    assert parse(Sha256, f"  {'AB' * 32} ") == "ab" * 32
    assert refuses(Sha256, "ab" * 31)
    assert refuses(Sha256, "zz" * 32)


def test_secrets_do_not_show() -> None:
    """A secret is neither in its repr nor in JSON."""
    adapter: TypeAdapter[SecretStr] = TypeAdapter(Secret)
    secret = adapter.validate_python("hunter2")
    assert "hunter2" not in repr(secret)
    assert b"hunter2" not in adapter.dump_json(secret)


@pytest.mark.parametrize("wrong", ["", "a b", "../etc", "a" * 65, "a\n", "é"])
def test_ids_cannot_be_paths(wrong: str) -> None:
    """An identifier holds nothing that a path, a shell or a header would read."""
    assert refuses(Id, wrong)


@pytest.mark.parametrize("wrong", ["env", "=prod", "env=a b", "env=prod\n", "a" * 64 + "=x"])
def test_labels_are_key_and_value(wrong: str) -> None:
    """A label is key=value in plain characters."""
    assert refuses(Label, wrong)


def test_pins_may_be_written_in_several_ways() -> None:
    """Colons, capitals, spaces and a prefix do not matter."""
    digits = "ab" * 32
    colons = ":".join(["AB"] * 32)
    assert {parse_pin(digits), parse_pin(colons), parse_pin(f" sha256:{digits}\n")} == {digits}


@pytest.mark.parametrize("pin", ["", "abc", "g" * 64, "a" * 63, "a" * 65, "٣" * 64])
def test_a_wrong_pin_is_refused(pin: str) -> None:
    """What is no SHA-256 is told as such, with where to find one."""
    with pytest.raises(Invalid, match="first start"):
        parse_pin(pin)


@pytest.mark.parametrize("text", ["", "env", "=prod", "env=a b", "a=b\n", "x" * 64 + "=1", "a=b=c"])
def test_a_wrong_label_is_told_in_words(text: str) -> None:
    """A person reads what a label looks like, not a regular expression."""
    with pytest.raises(ValidationError, match="KEY=VALUE such as env=prod"):
        TypeAdapter(Label).validate_python(text)
