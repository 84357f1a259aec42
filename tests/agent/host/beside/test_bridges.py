"""What never meets the hook of forwarded packets: frames inside a bridge, and devices that share the uplink."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from stanch.core.network import IsolationState
from tests.agent.host.beside.place import (
    ENDPOINT,
    HOST_FLOWS,
    OUTSIDE,
    OUTSIDE_PORT,
    POD_PORT,
    UPLINK,
    Flow,
    Held,
    Observer,
    Pair,
    Place,
    attempts,
    begun,
    both,
    new_place,
    passes,
)
from tests.agent.host.beside.products import local, neighbours
from tests.agent.host.world import SERVER_PORT, Tap

pytestmark = pytest.mark.root

FIRST, SECOND = Pair("10.77.1.11", "fd77:1::11"), Pair("10.77.1.12", "fd77:1::12")
OUTWARD = both("guest to outside", "first", OUTSIDE, OUTSIDE_PORT, ("outside", OUTSIDE_PORT), seen_as=FIRST)
INWARD = both("outside to guest", "outside", FIRST, POD_PORT, ("first", POD_PORT))


def address_guest(place: Place, name: str, own: Pair) -> None:
    """A guest with an address of the uplink's own network."""
    place.where(name).command(f"ip addr add {own.four}/24 dev eth0")
    place.where(name).command(f"ip addr add {own.six}/64 dev eth0 nodad")


@pytest.fixture
def bridged(request) -> Iterator[Held]:
    """A host whose uplink is a port of a bridge, as are two virtual machines; the parameter: are frames filtered?"""
    with new_place() as place:
        place.show_bridged_frames(on=getattr(request, "param", False))
        place.ip(
            "link add br0 type bridge",
            f"addr flush dev {UPLINK}",
            f"link set {UPLINK} master br0",
            f"addr add {ENDPOINT.four}/24 dev br0",
            f"addr add {ENDPOINT.six}/64 dev br0 nodad",
            "link set br0 up",
        )
        for name, device, own in (("first", "vnet0", FIRST), ("second", "vnet1", SECOND)):
            place.cable(name, device)
            place.ip(f"link set {device} master br0")
            address_guest(place, name, own)
        yield from _held(place)


@pytest.fixture
def shared() -> Iterator[Held]:
    """A host with two containers on macvlan devices of its uplink."""
    with new_place() as place:
        share(place, "macvlan mode bridge")
        yield from _held(place)


def share(place: Place, kind: str) -> None:
    """Two containers on devices that share the uplink."""
    for name, own in (("first", FIRST), ("second", SECOND)):
        pod = place.pod(name)
        place.ip(f"link add eth0 netns {pod.path} link {UPLINK} type {kind}")
        pod.command("ip link set eth0 up")
        address_guest(place, name, own)


def _held(place: Place) -> Iterator[Held]:
    made = Held(place)
    try:
        yield made
    finally:
        made.close()


def try_all(held: Held, flows: tuple[Flow, ...]) -> dict[str, bytes]:
    """Everything that anybody hears of these flows, by place."""
    observer = Observer(held.place)
    with attempts(held.place, flows):
        held.fence()
        return {name: b"".join(frames) for name, frames in observer.leaks().items()}


@pytest.mark.parametrize("bridged", [False, True], indirect=True, ids=["frames unseen", "frames filtered"])
def test_a_bridged_uplink_is_cut(bridged):
    """Guests on the host's own network reach neither the outside, nor each other, nor the host; nobody reaches them."""
    flows = (*HOST_FLOWS, *OUTWARD, *INWARD, *neighbours(SECOND), *local(FIRST, ENDPOINT))
    for flow in flows:
        passes(bridged.place, flow)
    state = bridged.isolate()
    assert (state.state, state.not_covered) == (IsolationState.ISOLATED, ())
    assert try_all(bridged, flows) == {}
    bridged.lift()
    for flow in flows:
        passes(bridged.place, flow)


def test_a_guest_on_the_bridge_does_not_reach_the_server_either(bridged):
    """Our server is open to the host, and to nobody behind it: a guest's frames are cut as they enter the bridge."""
    server = both("guest to server", "first", OUTSIDE, SERVER_PORT, ("outside", SERVER_PORT))
    for flow in server:
        passes(bridged.place, flow)
    bridged.isolate()
    tap, observer = Tap(bridged.place.outside, UPLINK), Observer(bridged.place)
    with begun(bridged.place, server[0]):
        bridged.fence()
        assert not any(socket.inet_aton(FIRST.four) in frame for frame in tap.frames())
        assert observer.leaks() == {}


def test_macvlan_containers_reach_nobody_outside(shared):
    """Frames of containers that share the uplink are dropped as they leave."""
    for flow in OUTWARD:
        passes(shared.place, flow)
    shared.isolate()
    assert try_all(shared, OUTWARD) == {}


def test_macvlan_containers_do_not_reach_each_other(shared):
    """Frames between two containers that share the uplink enter by it as well, and are dropped there."""
    flows = neighbours(SECOND)
    for flow in flows:
        passes(shared.place, flow)
    shared.isolate()
    assert try_all(shared, flows) == {}
    shared.lift()
    for flow in flows:
        passes(shared.place, flow)


@pytest.mark.parametrize("kind", ["macvlan mode bridge", "macvlan mode vepa", "macvlan mode private"])
def test_containers_that_share_the_uplink_hear_nothing(kind):
    """What the outside sends to a container on a device that shares the uplink is dropped as it enters."""
    with new_place() as place:
        share(place, kind)
        for flow in INWARD:
            passes(place, flow)
        with closing(Held(place)) as held:
            state = held.isolate()
            assert (state.state, state.not_covered) == (IsolationState.ISOLATED, ())
            assert try_all(held, (*INWARD, *OUTWARD)) == {}
            held.lift()
        for flow in INWARD:
            passes(place, flow)


def test_a_host_on_a_macvlan_device_of_its_own_keeps_its_server():
    """What enters for a device above the uplink is judged as what enters for the host."""
    with new_place() as place:
        place.ip(
            f"addr flush dev {UPLINK}",
            f"link add own0 link {UPLINK} type macvlan mode bridge",
            f"addr add {ENDPOINT.four}/24 dev own0",
            f"addr add {ENDPOINT.six}/64 dev own0 nodad",
            "link set own0 up",
        )
        with closing(Held(place)) as held:
            assert held.isolate().state is IsolationState.ISOLATED
            held.fence()
            assert try_all(held, HOST_FLOWS) == {}
