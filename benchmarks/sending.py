"""The ends of `benchmarks.transfer`: an endpoint that sends files as evidence, and a bare HTTPS server as the floor.

`serve PEM` answers PUTs whose bodies it drops, and `line PORT RATE` is a slower way to a port. `send` does what JSON
lines on standard input ask for, one after the other: as an endpoint with a real identity, through the agent's own
transfer and the agent's own HTTPS client.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import structlog
import uvloop
from aiohttp import web

from benchmarks.echo import context
from benchmarks.simulated import Fleet, say
from stanch.agent.backoff import Backoff
from stanch.agent.gateway import Gateway
from stanch.agent.resolve import Target
from stanch.agent.transfer import EvidenceSender
from stanch.core.envelope import AddressesBody, OrderBody, verify
from stanch.core.files import Extent
from stanch.core.frames import LINK_PATH, PART_BYTES, Deliver, read_server_frame

BURST = 0.005
"""Seconds that a line may be behind, and makes up for."""


async def serve(pem: str) -> None:
    """Read and drop."""

    async def put(request: web.Request) -> web.Response:
        async for _ in request.content.iter_any():
            pass
        return web.Response(text="{}")

    app = web.Application()
    app.router.add_put("/{n}", put)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context(pem, server=True)).start()
    say(port=runner.addresses[0][1])
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file that is open, as an action hands it to the transfer."""

    name: str
    size: int
    descriptor: int

    async def read(self, offset: int, length: int) -> bytes:
        """These bytes."""
        return await asyncio.to_thread(os.pread, self.descriptor, length, offset)

    async def extents(self) -> Sequence[Extent]:
        """Where it holds data."""
        return list(self._extents())

    def _extents(self) -> Iterator[Extent]:
        at = 0
        while at < self.size:
            try:
                first = os.lseek(self.descriptor, at, os.SEEK_DATA)
            except OSError:  # no more data
                return
            at = os.lseek(self.descriptor, first, os.SEEK_HOLE)
            yield Extent(first, at - first)


@contextmanager
def opened(path: str) -> Iterator[FileSource]:
    """The file at this path."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield FileSource(path, os.fstat(descriptor).st_size, descriptor)
    finally:
        os.close(descriptor)


class Counting(Gateway):
    """The agent's client, which counts the parts that it is given."""

    puts = 0

    async def request(
        self, method: str, path: str, body: bytes | bytearray = b"", *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The same."""
        self.puts += method == "PUT"
        return await super().request(method, path, body, headers=headers)


async def line(port: int, rate: float) -> None:
    """A line before that port which passes so many bytes a second to it."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float | None) -> None:
        due = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
                if rate is not None:
                    due = max(due + len(data) / rate, time.monotonic() - BURST)
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
        writer.transport.abort()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(forward(reader, there_writer, rate), forward(there_reader, writer, None))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    say(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


@dataclass
class Cutter:
    """A relay before the gateway that breaks its connections, each time after another number of bytes."""

    port: int
    after: list[int]
    """Bytes at which to cut, in order."""
    cuts: int = 0
    passed: int = 0
    lives: set[asyncio.Task[None]] = field(default_factory=set)

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.port)
        back = asyncio.get_running_loop().create_task(self._pass(there_reader, writer, count=False))
        self.lives.add(back)
        await self._pass(reader, there_writer, count=True)
        for one in (writer, there_writer):
            one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        try:
            while data := await reader.read(65_536):
                self.passed += len(data) if count else 0
                if count and self.after and self.passed >= self.after[0]:
                    self.after.pop(0)
                    self.cuts += 1
                    return
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass


@asynccontextmanager
async def cutting(port: int, after: list[int]) -> AsyncIterator[tuple[int, Cutter]]:
    """The port of a relay, and the relay."""
    cutter = Cutter(port, after)
    server = await asyncio.start_server(cutter.relay, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], cutter


class Endpoint:
    """One enrolled endpoint with a link, which hears orders and works on none of them."""

    def __init__(self, fleet: Fleet, name: str, tls: Any) -> None:
        self.fleet, self.name, self.tls = fleet, name, tls
        self.tasks: asyncio.Queue[str] = asyncio.Queue()
        self.key: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen(self) -> None:
        """Keep the link."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.tls)) as session,
            session.ws_connect(self.fleet.url + LINK_PATH, compress=0, autoping=True) as socket,
        ):
            await socket.send_str(self.fleet.hello(self.name))
            async for message in socket:
                frame = read_server_frame(message.data)
                if isinstance(frame, Deliver):
                    self._take(frame)

    def _take(self, frame: Deliver) -> None:
        envelope = verify(frame.envelope, keys=self.fleet.keys, endpoint=self.name, now=None, versions={})
        match envelope.body:
            case AddressesBody(evidence_key=key) if not self.key.done():
                self.key.set_result(key)
            case OrderBody(task=task):
                self.tasks.put_nowait(task)
            case _:
                pass

    async def send(self, path: str, port: int) -> dict[str, object]:
        """A file as evidence, through this port."""
        key, task = await self.key, await self.tasks.get()
        targets = (Target("127.0.0.1", port, "127.0.0.1"),)
        async with Counting(tls=self.tls, targets=lambda: targets) as gateway:
            sender = EvidenceSender(
                task=task,
                gateway=gateway,
                progress=lambda *_: None,
                recipient=lambda: key,
                backoff=lambda: Backoff(first=0.01, longest=0.05),
            )
            with opened(path) as source:
                cpu, started = time.process_time(), time.monotonic()
                ref = await sender.send(source)
                taken = time.monotonic() - started
        return {
            "seconds": taken,
            "cpu": time.process_time() - cpu,
            "puts": gateway.puts,
            "sha256": ref.sha256,
            "evidence": ref.id,
        }

    async def send_cut(self, path: str, port: int, cuts: int, size: int) -> dict[str, object]:
        """The same, with so many cuts at random among `size` bytes."""
        chosen = random.Random(4)
        async with cutting(port, sorted(chosen.randrange(size) for _ in range(cuts))) as (relayed, cutter):
            sent = await self.send(path, relayed)
        return {**sent, "cuts": cutter.cuts, "passed": cutter.passed}


async def bare(path: str, port: int, pem: str) -> dict[str, object]:
    """A file in bare PUTs, part after part."""
    targets = (Target("127.0.0.1", port, "127.0.0.1"),)
    async with Gateway(tls=context(pem, server=False), targets=lambda: targets) as gateway:
        with opened(path) as source:
            cpu, started = time.process_time(), time.monotonic()
            for n, offset in enumerate(range(0, source.size, PART_BYTES)):
                data = await source.read(offset, min(PART_BYTES, source.size - offset))
                await gateway.request("PUT", f"/{n}", data)
            return {"seconds": time.monotonic() - started, "cpu": time.process_time() - cpu}


async def send() -> None:
    """Enrol, listen, and do what is asked for."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    fleet = Fleet(json.loads(await lines.readline()))
    ((name, tls),) = await fleet.enrol()
    endpoint = Endpoint(fleet, name, tls)
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(endpoint.listen())
        await endpoint.key
        say(endpoint=name)
        while line := await lines.readline():
            asked = json.loads(line)
            match asked.pop("do"):
                case "bare":
                    say(**await bare(**asked))
                case "cut":
                    say(**await endpoint.send_cut(**asked))
                case _:
                    say(**await endpoint.send(**asked))
        listening.cancel()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(serve(sys.argv[2]))
    elif sys.argv[1] == "line":
        uvloop.run(line(int(sys.argv[2]), float(sys.argv[3])))
    else:
        uvloop.run(send())
