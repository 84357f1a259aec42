"""Does the list show everything in the vault once, page by page, and how full it is?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.actions.quarantine_list import QuarantineList, quarantine_list
from stanch.core.errors import Invalid, NotFound
from stanch.core.taking import MAX_TOLD_BYTES
from stanch.core.types import EndpointPath, hours
from stanch.core.vault import Taking, Why, item_id
from tests.fakes.host import FakeEndpoint


async def filled(count, *, name="f"):
    """So many items, the first one deleted and to go in an hour, the others quarantined."""
    endpoint = FakeEndpoint()
    for n in range(count):
        path = EndpointPath(f"/tmp/{name}{n}")
        endpoint.files.add(path, b"x" * n, user="eve")
        why, lasts = (Why.QUARANTINE, None) if n else (Why.DELETED, hours(1))
        await endpoint.vault.take(Taking(id=item_id("tsk_1", n), path=path, why=why, lasts=lasts))
    return endpoint


def listing(**fields):
    return QuarantineList.model_validate(fields)


async def test_everything_is_told_the_newest_first():
    """With all that people ask of an item, and how full the vault is."""
    endpoint = await filled(3)
    page = await quarantine_list.run(endpoint.host, listing())
    assert [one.path for one in page.items] == ["/tmp/f2", "/tmp/f1", "/tmp/f0"]
    last = page.items[-1]
    assert (last.why, last.user, last.order, last.taken) == (Why.DELETED, "eve", "ord_1", endpoint.clock.now())
    assert last.until == endpoint.clock.now() + hours(1)
    assert (page.next, page.usage.items, page.usage.size) == (None, 3, 3)
    assert endpoint.life.steps[-1].startswith("vault.remove-original")


async def test_an_empty_vault_is_an_empty_page():
    """No error."""
    page = await quarantine_list.run(FakeEndpoint().host, listing())
    assert (page.items, page.next, page.usage.items) == ((), None, 0)


async def test_a_copy_and_damage_are_told():
    """What people must know before they restore it."""
    endpoint = FakeEndpoint()
    endpoint.files.add("/tmp/f", b"x")
    id_ = item_id("tsk_1", 0)
    await endpoint.vault.take(Taking(id=id_, path=EndpointPath("/tmp/f"), why=Why.QUARANTINE, keep_original=True))
    endpoint.vault.damage(id_, "cut short")
    (row,) = (await quarantine_list.run(endpoint.host, listing())).items
    assert (row.copy_only, row.damage) == (True, "cut short")


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"contains": "f1"}, ["/tmp/f1"]),
        ({"contains": "nothing"}, []),
        ({"why": "deleted"}, ["/tmp/f0"]),
        ({"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}, ["/tmp/f1"]),
        ({"why": "quarantine", "contains": "f0"}, []),
    ],
)
async def test_only_what_fits_is_told(fields, paths):
    """By path, content and purpose; all that is asked must fit."""
    page = await quarantine_list.run((await filled(3)).host, listing(**fields))
    assert [one.path for one in page.items] == paths


@given(st.integers(0, 12), st.integers(1, 5))
async def test_pages_hold_everything_once(count, limit):
    """Whatever the size of a page."""
    endpoint, seen, after = await filled(count), [], None
    while True:
        page = await quarantine_list.run(endpoint.host, listing(limit=limit, after=after))
        assert len(page.items) <= limit
        seen += [one.path for one in page.items]
        after = page.next
        if after is None:
            break
    assert seen == [f"/tmp/f{n}" for n in reversed(range(count))]


async def test_a_page_is_bounded_in_bytes():
    """Names of 4000 bytes make shorter pages, and nothing is left out."""
    endpoint = await filled(300, name="n" * 4000)
    first = await quarantine_list.run(endpoint.host, listing(limit=1000))
    assert len(first.model_dump_json()) < MAX_TOLD_BYTES + 10_000
    rest = await quarantine_list.run(endpoint.host, listing(limit=1000, after=first.next))
    assert len(first.items) + len(rest.items) == 300


async def test_an_item_that_went_meanwhile_ends_the_paging():
    """Clearly, instead of a page that starts anywhere."""
    endpoint = await filled(3)
    page = await quarantine_list.run(endpoint.host, listing(limit=1))
    await endpoint.vault.remove(page.next)
    with pytest.raises(NotFound, match="Start again"):
        await quarantine_list.run(endpoint.host, listing(limit=1, after=page.next))


@pytest.mark.parametrize("fields", [{"limit": 0}, {"limit": 1001}, {"after": "qrt_1"}, {"why": "odd"}])
def test_wrong_parameters_are_refused(fields):
    """Each bound."""
    with pytest.raises(Invalid):
        quarantine_list.parse(fields)
