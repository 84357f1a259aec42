"""Packs on their way: range by range, on where it was, through outages, and never what was not signed."""

from pathlib import Path

import pytest

from stanch.agent import content_fetching
from stanch.agent.backoff import Backoff
from stanch.agent.content_fetching import PackFetcher, fitting
from stanch.agent.content_files import MASK
from stanch.agent.content_store import ContentStore
from stanch.core.content import CONTENT_PATH, PackRef
from stanch.core.errors import ActionFailed, Denied, NotFound, Refused, Unavailable, VerificationFailed
from tests.fakes.packs import PackGateway

FILES = {f"{n:02}.yar": b"rule r%d { condition: false }\n" % n * 20 for n in range(10)}
RANGE = 1000


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


def fetcher(store: ContentStore, gateway: PackGateway) -> PackFetcher:
    return PackFetcher(store, gateway, backoff=lambda: Backoff(first=0.001, longest=0.002), range_bytes=RANGE)


def plain(store: ContentStore, ref: PackRef) -> bytes:
    return store.path(ref.sha256).read_bytes().translate(MASK)


def half_of(store: ContentStore, ref: PackRef, data: bytes) -> None:
    part = store.part(ref)
    part.append(data)
    part.close()


async def test_it_comes_in_ranges(store: ContentStore) -> None:
    """Each range is asked for once, in order, and the whole is a pack in the store."""
    gateway = PackGateway()
    ref = gateway.publish("apt", FILES)
    index = await fetcher(store, gateway).fetch(ref)
    assert [one.name for one in index.files] == sorted(FILES)
    assert plain(store, ref) == gateway.packs[ref.sha256]
    starts = range(0, ref.size, RANGE)
    path = f"{CONTENT_PATH}/{ref.sha256}"
    assert gateway.asked == [(path, f"bytes={n}-{min(n + RANGE, ref.size) - 1}") for n in starts]
    assert [one.name for one in store.path("x").parent.iterdir()] == [f"{ref.sha256}.pack"]


async def test_it_goes_on_where_it_was(store: ContentStore) -> None:
    """What an earlier start has fetched is not fetched again."""
    gateway = PackGateway()
    ref = gateway.publish("apt", FILES)
    half_of(store, ref, gateway.packs[ref.sha256][:2500])
    await fetcher(store, gateway).fetch(ref)
    assert gateway.asked[0][1] == "bytes=2500-3499"


@pytest.mark.parametrize("left", [b"x" * 2500, b"x" * 100_000])
async def test_damaged_halves_are_fetched_anew(store: ContentStore, left: bytes) -> None:
    """Half a pack that is not what it should be, or longer than the whole, is thrown away, and costs one more try."""
    gateway = PackGateway()
    ref = gateway.publish("apt", FILES)
    half_of(store, ref, left)
    await fetcher(store, gateway).fetch(ref)
    assert plain(store, ref) == gateway.packs[ref.sha256]


async def test_what_is_there_is_not_fetched(store: ContentStore) -> None:
    """A pack that was kept is looked through again, and no request is made."""
    gateway = PackGateway()
    ref = gateway.publish("apt", FILES)
    await fetcher(store, gateway).fetch(ref)
    gateway.asked.clear()
    assert len((await fetcher(store, gateway).fetch(ref)).files) == len(FILES)
    assert gateway.asked == []


async def test_what_is_there_and_damaged_is_fetched_anew(store: ContentStore) -> None:
    """When the server goes back to a pack that the disk has damaged since, it comes again."""
    gateway = PackGateway()
    ref = gateway.publish("apt", {"a.yar": b"rule a { condition: false }"})
    fetcher = PackFetcher(store, gateway)
    await fetcher.fetch(ref)
    path = store.path(ref.sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    await fetcher.fetch(ref)
    assert store.checked(ref).files[0].name == "a.yar"


async def test_outages_are_waited_out(store: ContentStore) -> None:
    """A server that does not answer is asked again until it does."""
    gateway = PackGateway(errors=[Unavailable("down")] * 3)
    await fetcher(store, gateway).fetch(gateway.publish("apt", FILES))
    assert [one[1] for one in gateway.asked[:4]] == ["bytes=0-999"] * 4


async def test_without_a_server_nobody_waits(store: ContentStore) -> None:
    """Where there is no way to a server, an outage is an error at once."""
    gateway = PackGateway(errors=[Unavailable("No address of the server is known")])
    ref = gateway.publish("apt", FILES)
    with pytest.raises(Unavailable):
        await PackFetcher(store, gateway, patient=False).fetch(ref)
    assert len(gateway.asked) == 1


async def test_a_word_of_the_server_ends_it(store: ContentStore) -> None:
    """A pack that is gone, or not for this endpoint, is no outage."""
    gateway = PackGateway()
    ref = gateway.publish("apt", FILES)
    gateway.errors = [Denied("not for you")]
    with pytest.raises(Denied):
        await fetcher(store, gateway).fetch(ref)
    gateway.packs.clear()
    with pytest.raises(NotFound, match=r"does not have apt 1 any more.*order update-content"):
        await fetcher(store, gateway).fetch(ref)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda _data: b""])
async def test_a_range_of_another_length_ends_it(store: ContentStore, change) -> None:
    """Fewer or more bytes than were asked for are not written down."""
    gateway = PackGateway(change=change)
    ref = gateway.publish("apt", FILES)
    with pytest.raises(ActionFailed, match="as it was asked to"):
        await fetcher(store, gateway).fetch(ref)
    assert not store.has(ref.sha256, ref.size)


async def test_what_was_not_signed_is_not_kept(store: ContentStore) -> None:
    """A pack of the right length and another content is refused, and nothing of it is left to go on with."""
    gateway = PackGateway(change=lambda data: data.replace(b"false", b"true "))
    ref = gateway.publish("apt", FILES)
    with pytest.raises(VerificationFailed, match="not what the server signed"):
        await fetcher(store, gateway).fetch(ref)
    assert not store.has(ref.sha256, ref.size)
    gateway.change = lambda data: data
    await fetcher(store, gateway).fetch(ref)
    assert store.has(ref.sha256, ref.size)


async def test_a_full_disk_refuses_it(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room no request is made."""
    gateway = PackGateway()
    ref = gateway.publish("apt", FILES)
    monkeypatch.setattr(store, "free", lambda: ref.size - 1)
    with pytest.raises(Refused, match="no room"):
        await fetcher(store, gateway).fetch(ref)
    assert gateway.asked == []


def test_all_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into the bytes of all is left out, the others in the order of their names."""
    monkeypatch.setattr(content_fetching, "MAX_TOTAL", 25)
    gateway = PackGateway()
    refs = tuple(gateway.have(name, name.encode() * 10) for name in "cab")
    fits, not_fitting = fitting(refs)
    assert [one.name for one in fits] == ["a", "b"]
    assert [one.name for one in not_fitting] == ["c"]
