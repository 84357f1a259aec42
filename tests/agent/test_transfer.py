"""Evidence through cuts, outages and changes of its source, over real TLS."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.backoff import Backoff
from stanch.agent.gateway import Gateway
from stanch.agent.resolve import AddressBook
from stanch.agent.transfer import EvidenceSender, both
from stanch.core.errors import ActionFailed, Denied, Invalid
from tests.fakes.gateway import Cut, FakeGateway, gateway

PART = 1000
SOME_MOMENTS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["before", "after"])), max_size=6)


@dataclass
class Bytes:
    """A source in memory."""

    data: bytes
    name: str = "/tmp/x"
    reads: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        self.reads.append(offset)
        return self.data[offset : offset + length]


@dataclass
class Told:
    """Progress as it was told."""

    done: list[tuple[int, int | None]] = field(default_factory=list)

    def __call__(self, done: int, total: int | None, unit: str, text: str = "") -> None:
        self.done.append((done, total))


def content(size: int) -> bytes:
    return bytes(n * 7 % 251 for n in range(size))


def impatient() -> Backoff:
    return Backoff(first=0.01, longest=0.05)


@asynccontextmanager
async def sending(server: FakeGateway, folder: Path, told: Told | None = None) -> AsyncIterator[EvidenceSender]:
    state = folder / "state"
    identity = server.identity(state)
    book = AddressBook(state / "addresses.json", urls=identity.urls)
    async with Gateway(tls=identity.tls(state), targets=book.targets) as way:
        yield EvidenceSender(task="tsk_1", gateway=way, progress=told or Told(), backoff=impatient, part_bytes=PART)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    async with gateway(tmp_path) as one:
        yield one


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 5 * PART, 5 * PART + 17])
async def test_every_size_arrives_whole(server, tmp_path, size):
    """Whatever the size, the server has the same bytes, and each part was sent once."""
    told = Told()
    async with sending(server, tmp_path, told) as sender:
        ref = await sender.send(Bytes(content(size)))
    assert b"".join(data for _, data in sorted(server.parts.items())) == content(size)
    assert (ref.size, ref.sha256) == (size, hashlib.sha256(content(size)).hexdigest())
    assert server.puts == list(range(-(-size // PART)))
    assert told.done[-1] == (size, size)


async def test_parts_that_are_there_are_not_sent_again(server, tmp_path):
    """After a restart of the agent only the missing parts travel."""
    data = content(4 * PART)
    server.parts = {0: data[:PART], 2: data[2 * PART : 3 * PART]}
    async with sending(server, tmp_path) as sender:
        await sender.send(Bytes(data))
    assert server.puts == [1, 3]


@settings(max_examples=12)
@given(cuts=SOME_MOMENTS)
async def test_a_cut_costs_at_most_one_part(tmp_path_factory, cuts):
    """Cuts at any part, before or after its commit, are overcome, and each sends at most that part again."""
    folder = tmp_path_factory.mktemp("cuts")
    data, left = content(5 * PART + 3), list(cuts)

    def cut(n: int, moment: str) -> None:
        if (n, moment) in left:
            left.remove((n, moment))
            raise Cut

    async with gateway(folder) as server, sending(server, folder) as sender:
        server.on_put = cut
        ref = await sender.send(Bytes(data))
    assert ref.sha256 == hashlib.sha256(data).hexdigest()
    assert len(server.puts) == 6 + len(cuts) - len(left)
    assert not left


async def test_an_outage_is_waited_out(server, tmp_path):
    """A server that is unwell, or away, is asked again until it is back."""
    server.unwell = 3
    async with sending(server, tmp_path) as sender, asyncio.TaskGroup() as group:
        await server.stop()
        sent = group.create_task(sender.send(Bytes(content(3 * PART))))
        await asyncio.sleep(0)
        await server.start()
    assert sent.result().size == 3 * PART
    assert server.unwell == 0


async def test_a_source_that_changed_before_is_detected(server, tmp_path):
    """A part that the server has with another hash means that the file is another one by now."""
    server.parts = {1: b"x" * PART}
    async with sending(server, tmp_path) as sender:
        with pytest.raises(ActionFailed, match="changed while it was sent"):
            await sender.send(Bytes(content(3 * PART)))
    assert server.parts[1] == b"x" * PART


async def test_a_source_that_changes_meanwhile_is_detected(server, tmp_path):
    """A part that the server refuses, since it has another one by now, means that the source changed."""

    def swap(n: int, moment: str) -> None:
        if (n, moment) == (1, "before"):
            server.parts[1] = b"other"

    server.on_put = swap
    async with sending(server, tmp_path) as sender:
        with pytest.raises(ActionFailed, match="changed while it was sent"):
            await sender.send(Bytes(content(3 * PART)))


async def test_a_source_that_shrinks_is_detected(server, tmp_path):
    """A source that gives fewer bytes than it promised is not padded."""

    class Shrinking(Bytes):
        @property
        def size(self) -> int:
            return len(self.data) + 1

    async with sending(server, tmp_path) as sender:
        with pytest.raises(ActionFailed, match="changed while it was sent"):
            await sender.send(Shrinking(content(2 * PART)))
    assert server.finished is None


async def test_a_refusal_is_not_tried_again(server, tmp_path):
    """What the server refuses for good, such as an unknown identity, ends at once."""
    state = tmp_path / "state"
    identity = server.identity(state)
    identity.save(state, server.authority.credentials("somebody-else"))
    book = AddressBook(state / "addresses.json", urls=identity.urls)
    async with Gateway(tls=identity.tls(state), targets=book.targets) as way:
        sender = EvidenceSender(task="tsk_1", gateway=way, progress=Told(), backoff=impatient, part_bytes=PART)
        with pytest.raises(Denied):
            await sender.send(Bytes(b"x"))


async def test_cancelling_ends_the_wait_for_the_server(server, tmp_path):
    """The time limit of the task ends even a transfer that waits for a server that is away."""
    async with sending(server, tmp_path) as sender:
        await server.stop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sender.send(Bytes(content(PART)))


async def test_at_most_two_parts_are_read_ahead_of_the_server(server, tmp_path):
    """Memory stays flat: a part is read only when the one before the last has arrived."""
    source = Bytes(content(6 * PART))
    ahead: list[int] = []
    server.on_put = lambda n, _moment: ahead.append(len(source.reads) - n)
    async with sending(server, tmp_path) as sender:
        await sender.send(source)
    assert max(ahead) <= 2


async def test_a_malformed_answer_is_an_error(server, tmp_path):
    """An answer that is not what the protocol says is reported, not trusted."""
    async with sending(server, tmp_path) as sender:
        sender._gateway.request = answer_nonsense
        with pytest.raises(Invalid, match="malformed"):
            await sender.send(Bytes(b"x"))


async def answer_nonsense(*_args: object, **_options: object) -> bytes:
    return b"[]"


async def test_both_raises_the_first_error_alone_and_cancels_the_other():
    """Two things at once fail as one would."""
    cancelled = asyncio.Event()

    async def fails() -> None:
        raise ActionFailed("no")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ActionFailed):
        await both(fails(), waits())
    assert cancelled.is_set()
