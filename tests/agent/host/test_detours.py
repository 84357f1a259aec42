"""What leads frames around the firewall, found by asking the kernel."""

import ctypes
import platform
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host.detours import detours, moving_parts, parse_late_chain, parse_traffic_control
from stanch.agent.host.links import LOOPBACK, links
from stanch.agent.host.netlink import attribute
from stanch.agent.host.tablespec import LAST
from stanch.core.errors import ActionFailed
from tests.netns import Netns, netns, wire


@pytest.fixture
def endpoint() -> Iterator[Netns]:
    """A namespace with one device to somewhere else."""
    with netns() as made, netns() as outside:
        wire(made, outside, 1)
        yield made


_ABSENT = ("qdisc kind is unknown", "No such file", "classifier not found", "load TC action module")


def tc(endpoint: Netns, line: str) -> None:
    """Set it up; skip if this kernel has not all of it."""
    try:
        endpoint.command(f"tc {line}")
    except AssertionError as error:
        if any(one in str(error) for one in _ABSENT):
            pytest.skip("this kernel has no such queue, filter or action")
        raise


def found(endpoint: Netns) -> tuple[str, ...]:
    """What is told of all devices, the loopback included."""
    return endpoint.call(lambda: detours({LOOPBACK: "lo", **{one.device.index: one.device.name for one in links()}}))


@pytest.mark.root
@pytest.mark.kernel_option
@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("qdisc add dev wire1 root fq_codel",),
        ("qdisc add dev wire1 root handle 1: htb default 1",),
        ("qdisc add dev wire1 clsact",),
        ("qdisc add dev wire1 clsact", "filter add dev wire1 egress protocol ip u32 match u32 0 0 action drop"),
        ("qdisc add dev wire1 ingress", "filter add dev wire1 parent ffff: u32 match u32 0 0 action skbedit mark 1"),
    ],
)
def test_ordinary_traffic_control_is_nothing(endpoint, lines):
    """Queues, and filters that only drop or mark, lead nothing around the firewall."""
    for line in lines:
        tc(endpoint, line)
    assert found(endpoint) == ()


@pytest.mark.root
@pytest.mark.kernel_option
@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("action", ["mirred egress redirect dev wire1", "pedit ex munge ip dst set 192.0.2.1"])
@pytest.mark.parametrize("match", ["u32 match u32 0 0", "matchall", "flower"])
def test_filters_that_move_or_rewrite_frames_are_told(endpoint, hook, match, action):
    """The device, the loopback too, and what it is."""
    tc(endpoint, "qdisc add dev lo clsact")
    tc(endpoint, f"filter add dev lo {hook} protocol ip {match} action {action}")
    (line,) = found(endpoint)
    assert line.startswith(f"lo: a tc filter on it ({action.split()[0]})")


_PROGRAM = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)
"""Return -1, which means: let the next one decide."""


def _bpf(command: int, content: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    asked = ctypes.create_string_buffer(content, 120)
    return int(libc.syscall(321, command, asked, 120))


def attach(index: int, where: int) -> None:
    """Hang a program on a device; skip if the kernel cannot."""
    code, licence = ctypes.create_string_buffer(_PROGRAM), ctypes.create_string_buffer(b"GPL")
    loaded = _bpf(5, struct.pack("=IIQQ", 3, 2, ctypes.addressof(code), ctypes.addressof(licence)))
    if loaded < 0 or _bpf(8, struct.pack("=IIII", index, loaded, where, 0)) < 0:
        pytest.skip("this kernel hangs no BPF programs on devices")


@pytest.mark.root
@pytest.mark.kernel_option
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of the call is another")
@pytest.mark.parametrize("where", [46, 47])
def test_a_bpf_program_on_a_device_is_told(endpoint, where):
    """At its ingress or its egress, and only of the device that has one."""
    assert found(endpoint) == ()
    (index,) = endpoint.call(lambda: [one.device.index for one in links()])
    endpoint.call(lambda: attach(index, where))
    (line,) = found(endpoint)
    assert line.startswith("wire1: a BPF program on it (TCX)")


@pytest.mark.root
@pytest.mark.kernel_option
@pytest.mark.parametrize(("priority", "hook"), [(LAST - 1, "egress"), (LAST, "ingress")])
def test_chains_of_others_that_cannot_follow_ours_are_nothing(endpoint, priority, hook):
    """Those that come earlier, and those that see only what enters."""
    text = f'table netdev other {{ chain one {{ type filter hook {hook} device "wire1" priority {priority}; }}; }}'
    endpoint.command("nft -f -", stdin=text)
    assert found(endpoint) == ()


@pytest.mark.root
@pytest.mark.kernel_option
def test_a_chain_of_others_as_late_as_ours_is_told(endpoint):
    """Of each device that it is on."""
    text = (
        f"table netdev other {{ chain one {{ type filter hook egress devices = {{ wire1, lo }} priority {LAST}; }}; }}"
    )
    endpoint.command("nft -f -", stdin=text)
    assert [line.split(":")[0] for line in found(endpoint)] == ["lo", "wire1"]
    endpoint.command("nft delete table netdev other")
    assert found(endpoint) == ()


def test_a_filter_of_an_unknown_kind_is_told():
    """What we cannot read may do anything; a classifier that is a program does."""
    assert moving_parts("bpf", b"") == {"bpf"}
    assert moving_parts("something new", b"") == {"something new"}
    assert moving_parts("u32", b"") == set()
    assert moving_parts("u32", attribute(7, attribute(1, attribute(1, b"gact\0")))) == set()


@given(st.binary(max_size=200), st.sampled_from(["u32", "flower", "bpf", ""]))
def test_any_bytes_are_read_or_an_error(data, kind):
    """Whatever the kernel, or somebody in its place, answers."""
    for read in (parse_traffic_control, parse_late_chain, lambda one: moving_parts(kind, one)):
        with suppress(ActionFailed):
            read(data)
