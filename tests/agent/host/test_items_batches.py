"""Are batches small whatever is in them, and do their threads end?"""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.host import items_batches
from stanch.agent.host.items_batches import MAX_BATCH, MAX_TEXT, MAX_WEIGHT, bounded, chunks, in_batches, weight_of
from stanch.core.ioc.items import CUT, Item


def item(number: int, text: str = "") -> Item:
    """One of many."""
    return Item(document="ProcessItem", name=str(number), values={"arguments": (text,)})


async def batches(items) -> list[list[Item]]:
    """All of them."""
    return [list(batch) async for batch in in_batches(lambda _stop: iter(items))]


async def test_all_come_in_order_and_few_at_a_time():
    """None is lost between two batches."""
    made = [item(number) for number in range(2 * MAX_BATCH + 5)]
    found = await batches(made)
    assert [one for batch in found for one in batch] == made
    assert max(map(len, found)) == MAX_BATCH


async def test_heavy_items_come_in_batches_of_few():
    """A batch is no heavier than one item may be."""
    made = [item(number, "x" * (MAX_WEIGHT // 3)) for number in range(7)]
    found = await batches(made)
    assert [one for batch in found for one in batch] == made
    assert all(sum(map(weight_of, batch)) <= MAX_WEIGHT for batch in found)
    assert len(found) == 4


async def test_nothing_gives_no_batch():
    """No empty batch comes."""
    assert await batches([None, None]) == []


async def test_a_maker_is_told_when_nobody_wants_more():
    """Breaking off sets its event, and it is asked for no more."""
    told = []

    def make(stop):
        told.append(stop)
        for number in range(10 * MAX_BATCH):
            told.append(number)
            yield item(number)

    stream = in_batches(make)
    assert len(await anext(stream)) == MAX_BATCH
    await stream.aclose()
    assert told[0].is_set()
    assert told[-1] == MAX_BATCH - 1


async def test_the_event_loop_goes_on_while_items_are_made():
    """They are made in a thread."""
    here, there = threading.get_ident(), []
    go = threading.Event()

    def make(_stop):
        assert go.wait(10)
        there.append(threading.get_ident())
        yield item(1)

    async def later() -> None:
        go.set()

    stream = in_batches(make)
    first, _ = await asyncio.gather(anext(stream), later())
    assert len(first) == 1
    assert there != [here]
    await stream.aclose()


async def test_an_error_comes_out():
    """What a maker raises is not lost in its thread."""

    def make(_stop):
        yield item(1)
        raise LookupError("gone")

    with pytest.raises(LookupError):
        [batch async for batch in in_batches(make)]


async def test_what_is_slow_is_handed_over_early(monkeypatch):
    """A thread does not gather for long, so that a scan can be broken off."""
    monkeypatch.setattr(items_batches, "MAX_PIECE", -1)
    assert [len(one) for one in await batches([item(1), item(2)])] == [1, 1]


values = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.lists(
        st.text(max_size=20) | st.integers() | st.text("xy", min_size=1).map(lambda one: one * 40_000), max_size=30
    ),
)


@given(values, st.sets(st.sampled_from("abcdefgh")))
def test_an_item_is_bounded_and_has_only_what_is_wanted(found, wanted):
    """Each value once; the short lists whole, and none lost altogether."""
    made = bounded(found, frozenset(wanted))
    assert made.keys() == found.keys() & wanted
    assert weight_of(Item(document="d", name="n", values=made)) <= MAX_WEIGHT
    for path, kept in made.items():
        unique = list(dict.fromkeys(one[:MAX_TEXT] if isinstance(one, str) else one for one in found[path]))
        whole = kept[-1:] != (CUT,)
        told = kept if whole else kept[:-1]
        assert list(told) == unique[: len(told)]
        assert whole == (len(told) == len(unique) and all(len(str(one)) <= MAX_TEXT for one in found[path]))


def test_numbers_come_in_chunks():
    """The last may be shorter."""
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []
