"""Uploads on their way to an endpoint: range by range, through cuts and outages, never of another length."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.agent.backoff import Backoff
from stanch.agent.gateway import Gateway
from stanch.agent.resolve import AddressBook
from stanch.agent.uploads import GatewayUploads
from stanch.core.errors import ActionFailed, Denied, NotFound, Unavailable
from stanch.core.frames import UPLOAD_PATH
from stanch.core.types import Upload
from tests.fakes.gateway import gateway

RANGE = 100
DATA = bytes(n % 251 for n in range(1000))


def named(size: int = len(DATA)) -> Upload:
    return Upload(id="upl_1", name="tool", size=size, sha256="0" * 64)


@dataclass
class Answers:
    """A gateway that has `DATA`, and answers each request as a test wants."""

    change: Callable[[bytes], bytes] = lambda data: data
    errors: list[Exception] = field(default_factory=list)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def request(self, method: str, path: str, body: bytes = b"", *, headers: dict[str, str]) -> bytes:
        self.asked.append((method, path, headers["Range"]))
        if self.errors:
            raise self.errors.pop(0)
        first, last = map(int, headers["Range"].removeprefix("bytes=").split("-"))
        return self.change(DATA[first : last + 1])

    def uploads(self) -> GatewayUploads:
        return GatewayUploads(
            task="tsk_1", gateway=self, backoff=lambda: Backoff(first=0.001, longest=0.002), range_bytes=RANGE
        )


@given(pieces=st.lists(st.integers(0, 350), max_size=12))
async def test_what_is_read_is_what_the_server_has(pieces: list[int]) -> None:
    """In whatever pieces it is read, each range is asked for once."""
    answers, offset = Answers(), 0
    async with answers.uploads().open(named()) as content:
        assert content.size == len(DATA)
        for piece in pieces:
            length = min(piece, len(DATA) - offset)
            assert await content.read(offset, length) == DATA[offset : offset + length]
            offset += length
    assert len(answers.asked) == max(1, -(-offset // RANGE))
    assert len(set(answers.asked)) == len(answers.asked)


async def test_it_names_the_task_and_bounds_what_it_asks_for() -> None:
    """The server gives it only to a task that needs it, and never more than a range at once."""
    answers = Answers()
    async with answers.uploads().open(named(150)) as content:
        assert await content.read(0, 150) == DATA[:150]
    path = f"{UPLOAD_PATH}/upl_1?task=tsk_1"
    assert answers.asked == [("GET", path, "bytes=0-99"), ("GET", path, "bytes=100-149")]


async def test_an_empty_one_needs_no_request() -> None:
    """There is nothing to fetch."""
    answers = Answers()
    async with answers.uploads().open(named(0)) as content:
        assert (content.size, await content.read(0, 0)) == (0, b"")
    assert answers.asked == []


async def test_outages_are_waited_out() -> None:
    """At the beginning and in the middle."""
    answers = Answers(errors=[Unavailable("away")] * 3)
    async with answers.uploads().open(named()) as content:
        answers.errors = [Unavailable("away")] * 2
        assert await content.read(0, 300) == DATA[:300]
    assert len(answers.asked) == 3 + 1 + 2 + 2


@pytest.mark.parametrize("error", [NotFound("gone"), Denied("revoked")])
async def test_what_the_server_refuses_ends_at_once(error: Exception) -> None:
    """Before anything is made of it; one that is gone is said so."""
    answers = Answers(errors=[error])
    with pytest.raises(type(error)) as raised:
        async with answers.uploads().open(named()):
            pytest.fail("it must not be opened")
    assert len(answers.asked) == 1
    if isinstance(error, NotFound):
        assert "does not have this upload any more" in str(raised.value)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda _data: DATA + b"x"])
async def test_another_length_is_refused(change: Callable[[bytes], bytes]) -> None:
    """A server that sends less, more, or all of it."""
    with pytest.raises(ActionFailed, match="as it was asked to"):
        async with Answers(change=change).uploads().open(named()):
            pytest.fail("it must not be opened")


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 1001), (1000, 1), (5, -1)])
async def test_nothing_outside_can_be_read(offset: int, length: int) -> None:
    """The size is that of the order."""
    async with Answers().uploads().open(named()) as content:
        with pytest.raises(ActionFailed):
            await content.read(offset, length)


async def test_cancelling_ends_the_wait() -> None:
    """The time limit of the task ends even a wait for a server that is away."""
    answers = Answers(errors=[Unavailable("away")] * 100_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), answers.uploads().open(named()):
            pytest.fail("it must not be opened")


# --- over real TLS ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def fetching(folder: Path, content: dict[str, bytes]) -> AsyncIterator[tuple[object, GatewayUploads]]:
    async with gateway(folder) as server:
        server.uploads = content
        identity = server.identity(folder / "state")
        book = AddressBook(folder / "state" / "addresses.json", urls=identity.urls)
        async with Gateway(tls=identity.tls(folder / "state"), targets=book.targets) as way:
            yield server, GatewayUploads(task="tsk_1", gateway=way, backoff=impatient, range_bytes=RANGE)


def impatient() -> Backoff:
    return Backoff(first=0.01, longest=0.05)


async def test_cuts_in_the_middle_of_a_range_are_overcome(tmp_path: Path) -> None:
    """A range of which only a part came is asked for again."""
    async with fetching(tmp_path, {"upl_1": DATA}) as (server, uploads), uploads.open(named()) as content:
        server.cut_uploads = 3
        assert await content.read(0, len(DATA)) == DATA
        assert server.cut_uploads == 0


async def test_one_that_is_gone_is_not_found(tmp_path: Path) -> None:
    """As the server says it."""
    async with fetching(tmp_path, {}) as (_, uploads):
        with pytest.raises(NotFound, match="any more"):
            async with uploads.open(named()):
                pytest.fail("it must not be opened")
