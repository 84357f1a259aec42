"""Does an isolation tell a connection that stands from one that is only being tried?"""

from collections.abc import Sequence
from typing import Any

import pytest

from stanch.actions.isolate import Isolate, isolate
from stanch.core.action import Verdict
from tests.fakes.host import FakeEndpoint, socket_to


@pytest.fixture
def endpoint() -> FakeEndpoint:
    """One that is about to be isolated."""
    return FakeEndpoint()


async def verdict_of(endpoint: FakeEndpoint, looks: Sequence[Sequence[Any]]) -> Verdict:
    """What verify says if the kernel shows these sockets, one list at each look; the last list from then on."""
    params = Isolate()
    result = await isolate.run(endpoint.host, params)
    shown = list(looks)

    async def forbidden_sockets(_rules: Any) -> tuple[Any, ...]:
        return tuple(shown.pop(0) if len(shown) > 1 else shown[0])

    endpoint.firewall.forbidden_sockets = forbidden_sockets  # type: ignore[method-assign]  # what the kernel shows
    assert isolate.verify is not None
    return (await isolate.verify(endpoint.host, params, result)).verdict


async def test_a_connection_that_stands_is_a_failure(endpoint: FakeEndpoint) -> None:
    """It is there at each look, whatever its state is called meanwhile."""
    socket = socket_to("203.0.113.9:443")
    assert await verdict_of(endpoint, [[socket]]) is Verdict.ABSENT


async def test_attempts_that_are_refused_are_none(endpoint: FakeEndpoint) -> None:
    """A program that goes on trying shows another attempt at each look, and none of them stands."""
    attempts = [[socket_to(f"203.0.113.9:{port}")] for port in range(1, 9)]
    assert await verdict_of(endpoint, attempts) is Verdict.IN_PLACE


async def test_one_that_is_gone_at_the_second_look_is_none(endpoint: FakeEndpoint) -> None:
    """It was being refused at the first."""
    assert await verdict_of(endpoint, [[socket_to("203.0.113.9:443")], []]) is Verdict.IN_PLACE
