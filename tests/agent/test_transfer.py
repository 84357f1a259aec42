"""Evidence through cuts, outages and changes of its source, over real TLS."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrage import x25519

from stanch.agent.backoff import Backoff
from stanch.agent.gateway import Gateway
from stanch.agent.resolve import AddressBook
from stanch.agent.transfer import EvidenceSender, both
from stanch.core.errors import ActionFailed, Denied, Invalid
from stanch.core.files import Extent
from stanch.core.frames import Encoding
from tests.fakes.gateway import Cut, FakeGateway, gateway

PART = 1000
SOME_MOMENTS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["before", "after"])), max_size=6)


@dataclass
class Bytes:
    """A source in memory."""

    data: bytes
    name: str = "/tmp/x"
    reads: list[int] = field(default_factory=list)
    pieces: list[Extent] | None = None

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        self.reads.append(offset)
        return self.data[offset : offset + length]

    async def extents(self) -> Sequence[Extent]:
        return [Extent(0, len(self.data))] if self.pieces is None else self.pieces


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
async def sending(
    server: FakeGateway, folder: Path, told: Told | None = None, *, key: str | None = None
) -> AsyncIterator[EvidenceSender]:
    """A sender that was told the key of this server, or another one."""
    state = folder / "state"
    identity = server.identity(state)
    book = AddressBook(state / "addresses.json", urls=identity.urls)
    async with Gateway(tls=identity.tls(state), targets=book.targets) as way:
        yield EvidenceSender(
            task="tsk_1",
            gateway=way,
            progress=told or Told(),
            recipient=lambda: key_of(server) if key is None else key,
            backoff=impatient,
            part_bytes=PART,
        )


def key_of(server: FakeGateway) -> str:
    return "" if server.custody is None else str(server.custody.to_public())


@pytest.fixture(params=["new", "old"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FakeGateway]:
    """A server of today, or one that knows neither keys nor holes."""
    async with gateway(tmp_path) as one:
        if request.param == "new":
            one.custody, one.takes_holes = x25519.Identity.generate(), True
        yield one


@pytest.fixture
async def new_server(tmp_path: Path) -> AsyncIterator[FakeGateway]:
    """One of today."""
    async with gateway(tmp_path) as one:
        one.custody, one.takes_holes = x25519.Identity.generate(), True
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


@settings(max_examples=20, deadline=None)
@given(cuts=SOME_MOMENTS, sealed=st.booleans())
async def test_a_cut_costs_at_most_one_part(tmp_path_factory, cuts, sealed):
    """Cuts at any part, before or after its commit, are overcome, and each sends at most that part again."""
    folder = tmp_path_factory.mktemp("cuts")
    data, left = content(5 * PART + 3), list(cuts)

    def cut(n: int, moment: str) -> None:
        if (n, moment) in left:
            left.remove((n, moment))
            raise Cut

    async with gateway(folder) as server, sending(server, folder) as sender:
        server.on_put = cut
        server.custody = x25519.Identity.generate() if sealed else None
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
            await sender.send(Shrinking(content(2 * PART), pieces=[Extent(0, 2 * PART + 1)]))
    assert server.finished is None


async def test_a_refusal_is_not_tried_again(server, tmp_path):
    """What the server refuses for good, such as an unknown identity, ends at once."""
    state = tmp_path / "state"
    identity = server.identity(state)
    identity.save(state, server.authority.credentials("somebody-else"))
    book = AddressBook(state / "addresses.json", urls=identity.urls)
    async with Gateway(tls=identity.tls(state), targets=book.targets) as way:
        sender = EvidenceSender(
            task="tsk_1", gateway=way, progress=Told(), recipient=str, backoff=impatient, part_bytes=PART
        )
        with pytest.raises(Denied):
            await sender.send(Bytes(b"x"))


async def test_cancelling_ends_the_wait_for_the_server(server, tmp_path):
    """The time limit of the task ends even a transfer that waits for a server that is away."""
    async with sending(server, tmp_path) as sender:
        await server.stop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sender.send(Bytes(content(PART)))


async def test_at_most_three_parts_are_in_memory(server, tmp_path):
    """Memory stays flat: one part is sent, one is ready, and one is read and sealed."""
    source = Bytes(content(6 * PART))
    ahead: list[int] = []
    server.on_put = lambda n, _moment: ahead.append(len(source.reads) - n)
    async with sending(server, tmp_path) as sender:
        await sender.send(source)
    assert max(ahead) <= 3


# --- sealed ----------------------------------------------------------------------------------------------------------


async def test_parts_leave_sealed(new_server, tmp_path):
    """Nothing of the content is in what is sent, and what helps is compressed first."""
    noise, text = secrets.token_bytes(PART), b"attack at dawn " * 100
    data = noise + text[:PART]
    async with sending(new_server, tmp_path) as sender:
        ref = await sender.send(Bytes(data))
    assert [new_server.bodies[n][0] for n in (0, 1)] == [Encoding.AGE, Encoding.ZSTD_AGE]
    assert noise[:100] not in new_server.bodies[0][1]
    assert b"attack" not in new_server.bodies[1][1]
    assert len(new_server.bodies[1][1]) < PART / 2
    assert ref.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("key", ["", "age1nonsense", "AGE-SECRET-KEY-1"])
async def test_without_a_usable_key_parts_leave_plain(new_server, tmp_path, key):
    """The link is encrypted, and the server seals them: evidence must not be lost for want of a key."""
    async with sending(new_server, tmp_path, key=key) as sender:
        await sender.send(Bytes(content(2 * PART)))
    assert [one for one, _ in new_server.bodies.values()] == [Encoding.PLAIN, Encoding.PLAIN]


async def test_a_server_that_knows_no_compression_gets_none(new_server, tmp_path):
    """What a server does not say that it takes, it does not get."""
    new_server.encodings = (Encoding.AGE,)
    async with sending(new_server, tmp_path) as sender:
        await sender.send(Bytes(bytes(PART), pieces=[Extent(0, PART)]))
    assert [one for one, _ in new_server.bodies.values()] == [Encoding.AGE]


# --- sparse ----------------------------------------------------------------------------------------------------------

HOLES = {
    "nothing but a hole": (5 * PART + 17, []),
    "a hole at the end": (5 * PART + 17, [Extent(0, 10)]),
    "a hole at the start": (5 * PART + 17, [Extent(4 * PART + 1, PART)]),
    "data across a border": (6 * PART, [Extent(2 * PART - 1, 2)]),
    "data at both ends": (6 * PART, [Extent(0, 1), Extent(6 * PART - 1, 1)]),
    "no holes": (2 * PART, [Extent(0, 2 * PART)]),
}


def sparse(size: int, pieces: list[Extent]) -> Bytes:
    data = bytearray(size)
    for one in pieces:
        data[one.offset : one.offset + one.length] = b"x" * min(one.length, size - one.offset)
    return Bytes(bytes(data), pieces=pieces)


def with_data(source: Bytes) -> list[int]:
    return [n for n in range(-(-source.size // PART)) if any(source.data[n * PART : (n + 1) * PART])]


@pytest.mark.parametrize("case", HOLES)
async def test_parts_in_holes_are_neither_read_nor_sent(new_server, tmp_path, case):
    """And the hash of the whole is that of the file with its zeros."""
    source = sparse(*HOLES[case])
    async with sending(new_server, tmp_path) as sender:
        ref = await sender.send(source)
    assert ref.sha256 == hashlib.sha256(source.data).hexdigest()
    assert new_server.puts == [offset // PART for offset in source.reads] == with_data(source)
    assert sum(len(new_server.parts[n]) for n in new_server.puts) == new_server.begun[0].data


@pytest.mark.parametrize("case", HOLES)
async def test_an_old_server_gets_the_zeros(tmp_path, case):
    """Still without reading them."""
    source = sparse(*HOLES[case])
    async with gateway(tmp_path) as server, sending(server, tmp_path) as sender:
        ref = await sender.send(source)
    assert ref.sha256 == hashlib.sha256(source.data).hexdigest()
    assert server.puts == list(range(-(-source.size // PART)))
    assert [offset // PART for offset in source.reads] == with_data(source)
    assert server.holes is None


async def test_a_hole_where_data_was_means_that_the_source_changed(new_server, tmp_path):
    """The server has data of a part that is a hole by now."""
    new_server.parts = {3: b"x" * PART}
    async with sending(new_server, tmp_path) as sender:
        with pytest.raises(ActionFailed, match="changed while it was sent"):
            await sender.send(sparse(5 * PART, [Extent(0, 10)]))


async def test_progress_counts_holes(new_server, tmp_path):
    """The end is the size of the file."""
    told = Told()
    async with sending(new_server, tmp_path, told) as sender:
        await sender.send(sparse(5 * PART + 17, [Extent(0, 10)]))
    assert told.done[-1] == (5 * PART + 17, 5 * PART + 17)


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
