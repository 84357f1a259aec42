"""The outside world's bookkeeping, and its listeners on loopback."""

import argparse
import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.demo import attack, client, outside
from stanch.demo.outside import MAX_STREAMS, Arrivals, Outside, Stream
from stanch.demo.program import wait_until
from stanch.demo.questions import OutsideWorld, Span
from stanch.demo.wire import Known


@given(st.lists(st.floats(0, 1000), max_size=50), st.floats(0, 1000), st.floats(0, 1000))
def test_a_span_counts_exactly_what_lies_in_it(times: list[float], since: float, until: float):
    """The count is that of the arrivals from `since` up to, and without, `until`."""
    stream = Stream(times=sorted(times))
    inside = [one for one in times if since <= one < until]
    found = stream.between(since, until)
    assert found["count"] == len(inside)
    assert (found["first"], found["last"]) == (min(inside, default=None), max(inside, default=None))


def test_lines_that_are_no_beacons_are_ignored():
    """Hostile lines neither raise nor open a stream."""
    arrivals = Arrivals()
    for line in (b"", b"\xff\xfe", b"tcp4", b"tcp4 x", b"tcp4 -1", b"../etc 1", b"a b c", b"tcp4 " + b"9" * 300):
        arrivals.note_line(line)
    assert arrivals.streams == {}
    arrivals.note_line(b"tcp4 7\n")
    assert arrivals.streams["tcp4"].last_sequence == 7


def test_the_number_of_streams_is_bounded():
    """Names beyond the bound are dropped, known ones still count."""
    arrivals = Arrivals()
    for number in range(MAX_STREAMS + 10):
        arrivals.note(f"s{number}", 1, 1.0)
    arrivals.note("s0", 2, 2.0)
    assert len(arrivals.streams) == MAX_STREAMS
    assert len(arrivals.streams["s0"].times) == 2


def test_a_span_joins_streams():
    """Counts add up, `first` and `last` look over all of the names, missing ones are nothing."""
    span = Span({"a": {"count": 2, "first": 1.0, "last": 5.0}, "b": {"count": 1, "first": 3.0, "last": 3.0}}, (), (), 9)
    assert (span.count("a", "b", "c"), span.first("a", "b"), span.last("b", "c")) == (3, 1.0, 3.0)
    assert span.last("c") is None


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until(true: Callable[[], object]) -> None:
    """Wait until it is true, a bounded time."""
    assert await asyncio.to_thread(wait_until, lambda: bool(true()), within=10)


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[OutsideWorld]:
    """The outside world on loopback, and the story's connection to it."""
    control = folder / "control.sock"
    chosen = argparse.Namespace(c2=["127.0.0.1"], shop=["127.0.0.1"], wire="", control=str(control))
    serving = asyncio.create_task(Outside(Known()).serve(chosen))
    await until(control.exists)
    with await asyncio.to_thread(OutsideWorld, control) as world:
        yield world
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


@pytest.fixture
def _ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports that are free here."""
    beacon, idle, shop = free_port(), free_port(), free_port()
    for module in (attack, outside):
        monkeypatch.setattr(module, "BEACON_PORT", beacon)
        monkeypatch.setattr(module, "IDLE_PORT", idle)
    for module in (client, outside):
        monkeypatch.setattr(module, "SHOP_PORT", shop)


@pytest.mark.usefixtures("_ports")
async def test_beacons_and_questions_are_counted(tmp_path: Path):
    """Each beacon over TCP and UDP and each question of the client is seen once, in its own stream."""
    async with listening(tmp_path) as world:

        def send() -> None:
            tcp, udp = attack.TcpBeacon("tcp4", "127.0.0.1"), attack.UdpBeacon("udp4", "127.0.0.1")
            for sequence in range(1, 6):
                tcp.send(sequence)
                udp.send(sequence)
                client.ask("127.0.0.1", sequence)
            tcp.close()
            udp.close()

        await asyncio.to_thread(send)
        await until(lambda: world.seen().count("tcp4", "udp4", "client4") >= 15)
        span = await asyncio.to_thread(world.seen)
        assert {name: stream["count"] for name, stream in span.streams.items()} == {"tcp4": 5, "udp4": 5, "client4": 5}
        assert (await asyncio.to_thread(world.seen, since=span.now)).count("tcp4", "udp4", "client4") == 0


@pytest.mark.usefixtures("_ports")
async def test_an_idle_connection_is_pushed_into_and_its_end_is_told(tmp_path: Path):
    """Bytes reach the endpoint while it lives; a reset shows as the connection's end, with its name."""
    async with listening(tmp_path) as world:
        idle = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", attack.IDLE_PORT))
        await until(lambda: world.seen().idle)
        pushed = await asyncio.to_thread(world.push, 4)
        assert pushed.idle[0]["state"] == "open"
        assert await asyncio.to_thread(idle.recv, 100) == b"wake up\n"
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close by reset
        idle.close()
        await until(lambda: world.seen().idle[0]["state"] != "open")
        assert (await asyncio.to_thread(world.seen)).idle[0]["state"] == "ECONNRESET"
