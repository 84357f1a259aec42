"""The way from a terminal to its person: broken connections cost nothing, and what is hostile ends it."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stanch.agent.backoff import Backoff
from stanch.agent.terminal_link import TerminalLink, short_waits
from stanch.core.errors import Denied, Invalid, NotFound, Unavailable
from stanch.core.terminal import Closed, Why
from stanch.core.terminal_wire import BUFFER, ON_THE_WAY, Gone, HangUp, Have, Joined, Over, Resize, pack
from stanch.core.types import seconds
from tests.fakes.terminal_person import FakePerson, MemorySocket
from tests.fakes.waiting import eventually

CLOSED = Closed(why=Why.EXIT, code=0, pid=7, sent=3, received=0)
AT_ONCE = Joined(have=0)


def quick() -> Backoff:
    return Backoff(first=0.001, longest=0.002)


def link(person: FakePerson, **more) -> TerminalLink:
    fields = {"backoff": quick, "join_within": seconds(20), "grace": seconds(20)}
    return TerminalLink(task="tsk_1", dial=person.dial, **fields | more)


@asynccontextmanager
async def joined(person: FakePerson, **more):
    async with link(person, **more) as one:
        yield one


async def write(one: TerminalLink, data: bytes) -> None:
    """What a shell writes, waiting for room as it does."""
    while data:
        while not one.outgoing.room:
            one.room.clear()
            await one.room.wait()
        piece, data = data[: one.outgoing.room], data[one.outgoing.room :]
        one.outgoing.put(piece)
        one.wake()


async def read(one: TerminalLink, count: int) -> bytes:
    """What a shell reads."""
    got = b""
    while len(got) < count:
        while not one.typed.waiting:
            one.news.clear()
            await one.news.wait()
        piece = one.typed.first(1000)
        one.typed.pass_on(len(piece))
        got += piece
        one.wake()
    return got


async def test_bytes_go_both_ways_and_the_end_is_told():
    """What is written is shown, what is typed arrives, and how it closed is the last word."""
    person = FakePerson()
    async with joined(person) as one:
        await write(one, b"hello")
        person.type("ls\n")
        assert await read(one, 3) == b"ls\n"
        await person.until(lambda: person.told and person.told[-1] == 3)
        await one.finish(CLOSED)
    assert (bytes(person.shown), person.closed) == (b"hello", CLOSED)
    assert person.dialled == ["/v1/terminals/tsk_1"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=8), st.integers(1, 150_000), st.integers(1, 5000))
def test_connections_that_break_anywhere_lose_and_double_nothing(cuts, written, typed):
    """Whatever breaks when, both sides have every byte once, in order, and the end is told."""

    async def story():
        person = FakePerson(cuts=cuts)
        output, keys = bytes(n % 251 for n in range(written)), bytes(n % 241 for n in range(typed))
        async with joined(person) as one, asyncio.timeout(20):
            person.type(keys)
            async with asyncio.TaskGroup() as group:
                group.create_task(write(one, output))
                got = group.create_task(read(one, typed))
            await one.finish(CLOSED)
        assert got.result() == keys
        assert bytes(person.shown) == output
        assert person.closed == CLOSED

    asyncio.run(story())


async def test_words_of_the_person_get_through():
    """Another size is told to whom it concerns; hanging up ends it, and the connection stays for the last word."""
    person, sizes = FakePerson(), []
    async with joined(person) as one:
        one.resized = lambda columns, rows: sizes.append((columns, rows))
        person.say(Resize(columns=132, rows=43))
        person.say(HangUp())
        assert await asyncio.wait_for(asyncio.shield(one.over), 20) is Why.LEFT
        assert sizes == [(132, 43)]
        await one.finish(CLOSED)
    assert person.closed == CLOSED


async def test_words_get_through_though_nothing_is_read():
    """A shell that does not read what was pasted can still be hung up."""
    person = FakePerson()
    async with joined(person) as one:
        person.type(b"x" * (ON_THE_WAY - 1))
        person.say(HangUp())
        assert await asyncio.wait_for(asyncio.shield(one.over), 20) is Why.LEFT
        assert one.typed.waiting == ON_THE_WAY - 1
        assert person.told == []


async def test_what_is_not_passed_on_has_not_arrived():
    """After a break the server still keeps what the shell has not taken, and it is not doubled."""
    person = FakePerson()
    async with joined(person) as one:
        person.type(b"abcdef")
        await eventually(lambda: one.typed.waiting == 6)
        person.cut()
        await person.until(lambda: len(person.dialled) == 2)
        person.type(b"gh")
        assert await read(one, 8) == b"abcdefgh"


async def test_who_takes_nothing_costs_one_buffer():
    """Without acknowledgements there is no more room than the buffer; then the shell waits."""
    person = FakePerson(acknowledges=False)
    async with joined(person, finish_within=seconds(0.01)) as one:
        one.outgoing.put(b"x" * BUFFER)
        one.wake()
        await person.until(lambda: len(person.shown) == BUFFER)
        assert one.outgoing.room == 0
        await one.finish(CLOSED)
    # Nobody says that it arrived: told all the same that it is closed.
    assert person.closed == CLOSED


@pytest.mark.parametrize("refusal", [NotFound("nobody"), Invalid("strange")])
async def test_a_server_that_knows_nothing_of_it_is_not_asked_again(refusal):
    """If nobody waits there, nothing is begun: Unavailable, at once."""
    person = FakePerson(refuses=refusal)
    with pytest.raises(Unavailable, match="no shell was started"):
        async with link(person):
            raise AssertionError("it did begin")
    assert len(person.dialled) == 1


@pytest.mark.parametrize("refusal", [Unavailable("away"), Denied("another certificate")])
async def test_a_server_that_cannot_be_joined_in_time(refusal):
    """An outage is waited out as long as it may take, and no longer."""
    person = FakePerson(refuses=refusal)
    with pytest.raises(Unavailable, match="no shell was started"):
        async with link(person, join_within=seconds(0.05)):
            raise AssertionError("it did begin")
    assert len(person.dialled) > 1


async def test_a_server_that_says_nothing_is_not_waited_for():
    """A connection without a first word is no connection."""
    person = FakePerson(says=[])

    @asynccontextmanager
    async def silent(path):
        yield MemorySocket.pair()[0]

    person.dial = silent
    with pytest.raises(Unavailable, match="no shell was started"):
        async with link(person, join_within=seconds(0.05)):
            raise AssertionError("it did begin")


async def test_an_outage_is_waited_out():
    """The server may be away when the task begins, as while it restarts."""
    person = FakePerson(refuses=Unavailable("restarting"))

    async def come_back():
        await person.until(lambda: len(person.dialled) >= 3)
        person.refuses = None

    async with asyncio.TaskGroup() as group:
        group.create_task(come_back())
        async with joined(person) as one:
            await write(one, b"x")
            await person.sees("x")


@pytest.mark.parametrize("trouble", [NotFound("gone"), Unavailable("away")])
async def test_a_server_that_does_not_come_back_ends_it(trouble):
    """Gone for good ends it at once, an outage when it has lasted too long."""
    person = FakePerson()
    async with joined(person, grace=seconds(0.05)) as one:
        person.refuses = trouble
        person.cut()
        assert await asyncio.wait_for(asyncio.shield(one.over), 20) is Why.LINK
        await one.finish(CLOSED)  # there is nobody to tell, and no waiting for it


HOSTILE = {
    "no word": ["null"],
    "not joined first": [Have(have=0)],
    "data first": [pack(0, b"x")],
    "more than we wrote": [Joined(have=5)],
    "bytes are missing": [Joined(have=0, first=7)],
    "refused": [Gone(error=NotFound("nobody").body())],
}
LATER = {
    "no word": ["{}"],
    "joined again": [AT_ONCE],
    "closed": [Over(closed=CLOSED)],
    "acknowledged too much": [Have(have=9)],
    "a hole": [pack(3, b"x")],
    "no data": [b"123"],
    "too much": [pack(n * 32_000, b"x" * 32_000) for n in range(ON_THE_WAY // 32_000 + 1)],
    "refused": [Gone(error=NotFound("nobody").body())],
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_a_hostile_server_starts_nothing(how):
    """What is wrong from the first word on is Unavailable, and is not tried again."""
    person = FakePerson(says=HOSTILE[how])
    with pytest.raises(Unavailable, match="no shell was started"):
        async with link(person):
            raise AssertionError("it did begin")
    assert len(person.dialled) == 1


@pytest.mark.parametrize("how", LATER)
async def test_a_server_that_turns_hostile_ends_it(how):
    """A wrong word later on ends the terminal instead of being guessed at."""
    person = FakePerson(says=[AT_ONCE, *LATER[how]])
    async with link(person) as one:
        assert await asyncio.wait_for(asyncio.shield(one.over), 20) is Why.LINK
        assert one.typed.waiting <= ON_THE_WAY
    assert len(person.dialled) == 1


async def test_much_is_told_at_once_and_little_in_a_moment():
    """Acknowledgements are few: not one for each key."""
    person = FakePerson()
    async with joined(person) as one:
        person.type(b"x" * 100_000)
        await read(one, 100_000)
        await person.until(lambda: person.told and person.told[-1] == 100_000)
        assert len(person.told) <= 5


def test_the_waits_are_short():
    """Somebody sits there: the server is asked again within seconds."""
    waits = short_waits()
    assert all(waits.next() <= 5 for _ in range(20))


async def test_leaving_early_leaves_nothing():
    """Who is cancelled while joining has no connection left."""
    person = FakePerson(refuses=Unavailable("away"))
    one = link(person)
    entering = asyncio.get_running_loop().create_task(one.__aenter__())
    await person.until(lambda: person.dialled)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert one._staying.done()
