"""Tests of stanch.actions.list_content."""

from stanch.actions.list_content import Awaited, list_content
from tests.fakes.host import FakeEndpoint


async def test_it_tells_what_is_there_and_what_is_awaited() -> None:
    """Installed content, versions that the server wants and that are not in use, and ClamAV where it answers."""
    endpoint = FakeEndpoint()
    same, old = endpoint.content.add("same"), endpoint.content.add("old")
    endpoint.content.publish("old", version=2)
    endpoint.content.publish("new", version=7)
    endpoint.scanner.clamav = "ClamAV 1.4.2/27500"
    result = await list_content(endpoint.host, list_content.parse({}))
    assert result.content == (same, old)
    assert result.awaited == (Awaited(name="old", version=2), Awaited(name="new", version=7))
    assert result.clamav == "ClamAV 1.4.2/27500"


async def test_an_endpoint_without_anything_says_so() -> None:
    """Nothing installed, nothing awaited, no ClamAV."""
    result = await list_content(FakeEndpoint().host, list_content.parse({}))
    assert (result.content, result.awaited, result.clamav) == ((), (), "")
