"""Does a copy of an item reach the server, while the item stays?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.quarantine_get import QuarantineGet, quarantine_get
from stanch.core.errors import NotFound, Unsupported, VerificationFailed
from stanch.core.files import Kind
from stanch.core.types import EndpointPath
from stanch.core.vault import Taking, Why, item_id
from tests.fakes.host import FakeEndpoint
from tests.fakes.killing import killed_at_every_step

PATH, ITEM = EndpointPath("/home/eve/dropper"), item_id("tsk_0", 0)
ORDER = QuarantineGet(item=ITEM)


async def with_item(content=b"\x7fELF, or so it says", kind=Kind.FILE):
    endpoint = FakeEndpoint()
    endpoint.files.add(PATH, content, kind=kind)
    await endpoint.vault.take(Taking(id=ITEM, path=PATH, why=Why.QUARANTINE, kinds=tuple(Kind)))
    endpoint.life.steps.clear()
    return endpoint


@given(st.binary(max_size=50))
async def test_its_bytes_are_evidence(content):
    """Whatever they are, under the name that the file had; the item is still there."""
    endpoint = await with_item(content)
    result = await quarantine_get.run(endpoint.host, ORDER)
    assert endpoint.evidence.kept[result.evidence.id] == content
    assert (result.evidence.name, result.path, result.info.size) == (PATH, PATH, len(content))
    assert set(endpoint.vault.kept) == {ITEM}
    assert all(step.startswith("evidence") for step in endpoint.life.steps)


async def test_an_item_that_is_not_there():
    """In the run and in the plan."""
    for call in (quarantine_get.run, quarantine_get.plan):
        with pytest.raises(NotFound, match=ITEM):
            await call(FakeEndpoint().host, ORDER)


async def test_what_has_no_content_cannot_be_fetched():
    """A folder, say."""
    with pytest.raises(Unsupported, match="got a folder"):
        await quarantine_get.run((await with_item(kind=Kind.FOLDER)).host, ORDER)


async def test_a_damaged_item_is_no_evidence():
    """Nothing is kept on the server under its name."""
    endpoint = await with_item()
    endpoint.vault.damage(ITEM)
    with pytest.raises(VerificationFailed):
        await quarantine_get.run(endpoint.host, ORDER)
    assert endpoint.evidence.kept == {}


async def test_a_plan_tells_the_size_and_sends_nothing():
    """Nothing changes on the endpoint either way."""
    endpoint = await with_item()
    plan = await quarantine_get.plan(endpoint.host, ORDER)
    assert (plan.changes, plan.steps[0].what, plan.steps[0].target) == (False, "Send 19 bytes", PATH)
    assert endpoint.life.steps == []


async def test_killed_anywhere_it_is_sent_again():
    """As one piece of evidence."""
    for endpoint in await killed_at_every_step(with_item, quarantine_get, ORDER):
        result = await quarantine_get.run(endpoint.host, ORDER)
        assert set(endpoint.evidence.kept) == {result.evidence.id}
