"""Are the containers of an endpoint told, with what deserves a look, and within what a report may take?"""

import pytest

from stanch.actions import list_containers as module
from stanch.actions.list_containers import ListContainers, list_containers
from stanch.core.containers import Runtime
from tests.fakes.host import FakeEndpoint


@pytest.fixture
def endpoint():
    endpoint = FakeEndpoint()
    endpoint.containers.add("shop", image="registry.example/shop:3", notes=("privileged",))
    endpoint.containers.add("blog", state="paused", runtime="podman", user=1000)
    endpoint.containers.add("old", state="stopped", image="registry.example/old:1")
    return endpoint


async def names(endpoint, **params):
    return [one.name for one in (await list_containers(endpoint.host, ListContainers(**params))).containers]


async def test_those_that_run_or_are_paused(endpoint):
    """One that does not run is left out, and counted."""
    assert await names(endpoint) == ["shop", "blog"]
    assert (await list_containers(endpoint.host, ListContainers())).total == 3


async def test_all_of_them(endpoint):
    """Those that do not run, too."""
    assert await names(endpoint, all=True) == ["shop", "blog", "old"]


@pytest.mark.parametrize(("text", "found"), [
    ("SHOP", ["shop"]),
    ("privileged", ["shop"]),
    ("registry.example", ["shop", "old"]),
    ("nothing such", []),
])  # fmt: skip
async def test_those_that_match(endpoint, text, found):
    """By name, image or note, in either case."""
    assert await names(endpoint, all=True, match=text) == found


async def test_it_says_who_told(endpoint):
    """Which runtimes answer, and why the others do not."""
    endpoint.containers.ways = [Runtime(name="docker", place="/run/docker.sock", answers=False, detail="it is silent")]
    result = await list_containers(endpoint.host, ListContainers())
    assert [str(one) for one in result.runtimes] == ["docker at /run/docker.sock: it is silent"]


async def test_it_is_cut_where_a_report_ends(endpoint, monkeypatch):
    """The first rows are sent, and it is said that there are more."""
    whole = await list_containers(endpoint.host, ListContainers())
    assert not whole.cut
    monkeypatch.setattr(module, "MAX_BYTES", len(whole.containers[0].model_dump_json()) + 10)
    result = await list_containers(endpoint.host, ListContainers())
    assert (result.containers, result.cut) == (whole.containers[:1], True)


async def test_it_changes_nothing(endpoint):
    """It only reads."""
    await list_containers(endpoint.host, ListContainers(all=True))
    assert endpoint.life.steps == []
    assert list_containers.read_only
