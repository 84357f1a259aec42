"""What an exclusion opens on a host with containers: the host, and not what is behind it."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from stanch.core.exclusion import Direction, Opening, Ports, Transport
from tests.agent.host.beside.place import HOST_FLOWS, OUTSIDE, Flow, Held, Observer, attempts, new_place, passes
from tests.agent.host.beside.products import DOCKER_FLOWS, build_docker, restore, tables

pytestmark = pytest.mark.root

PARTNER = (ip_network(OUTSIDE.four), ip_network(OUTSIDE.six))
BEHIND = tuple(flow for flow in DOCKER_FLOWS if flow not in HOST_FLOWS)


@pytest.fixture
def held() -> Iterator[Held]:
    """A Docker host with a published port."""
    with new_place() as place:
        build_docker(place)
        for command, text in restore("nft", tables("docker")):
            place.endpoint.command(command, stdin=text)
        for flow in DOCKER_FLOWS:
            passes(place, flow)
        made = Held(place)
        try:
            yield made
        finally:
            made.close()


def assert_cut(held: Held, flows: tuple[Flow, ...]) -> None:
    observer = Observer(held.place)
    with attempts(held.place, flows):
        held.fence()
        frames = [frame for heard in observer.leaks().values() for frame in heard]
    assert [frame for frame in frames if not is_echo_reply(frame)] == []


def is_echo_reply(frame: bytes) -> bool:
    """The host itself may answer a ping of those who are allowed."""
    return frame[23:24] + frame[34:35] == b"\x01\0" or frame[20:21] + frame[54:55] == b"\x3a\x81"


def test_an_allowed_network_is_open_to_the_host_only(held):
    """The host and the partner talk, translated or not; containers and published ports stay cut off from it."""
    held.isolate(*(Opening(network=network) for network in PARTNER))
    assert_cut(held, BEHIND)
    for flow in HOST_FLOWS:
        passes(held.place, flow)


def test_an_allowed_port_is_that_of_the_host(held):
    """Docker translates a published port before anybody asks whether it is allowed, so it does not open."""
    held.isolate(
        *(
            Opening(network=network, transport=transport, direction=Direction.IN, local=Ports(8080, 8080))
            for network in PARTNER
            for transport in (Transport.TCP, Transport.UDP)
        )
    )
    assert_cut(held, DOCKER_FLOWS)
