"""A small DNS server over UDP and TCP: what a resolver answers, with faults on request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = Mapping[str, tuple[str, ...]]
"""Name to addresses, or to `alias NAME`."""


@dataclass
class FakeDns:
    """Its attributes are the test's switches and records."""

    records: Records = field(default_factory=dict)
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    truncates: bool = False
    silent: bool = False
    forge: Callable[[dns.message.Message], list[bytes]] = lambda _answer: []
    """Datagrams that are sent before the true answer."""

    asked: list[str] = field(default_factory=list)
    streams: int = 0
    port: int = 0

    def answer(self, wire: bytes) -> dns.message.Message:
        """What is true."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text().lower().rstrip("."), question.rdtype
        self.asked.append(f"{name} {dns.rdatatype.to_text(kind)}")
        answer = dns.message.make_response(query)
        answer.set_rcode(self.rcode if name in self.records or self.rcode else dns.rcode.NXDOMAIN)
        seen: set[str] = set()
        while name in self.records and name not in seen:
            seen.add(name)
            alias = next((one[6:] for one in self.records[name] if one.startswith("alias ")), "")
            found = [one for one in self.records[name] if not alias and (":" in one) == (kind == dns.rdatatype.AAAA)]
            if found:
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, *found))
            if alias:
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", f"{alias}."))
            name = alias
        return answer

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question over TCP."""
        self.streams += 1
        with closing(writer), suppress(asyncio.IncompleteReadError, OSError):
            length = int.from_bytes(await reader.readexactly(2))
            wire = self.answer(await reader.readexactly(length)).to_wire()
            writer.write(len(wire).to_bytes(2) + wire)
            await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: FakeDns) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, wire: bytes, place: tuple[str, int]) -> None:
        answer = self.server.answer(wire)
        if self.server.silent:
            return
        if self.server.truncates:
            answer.flags |= dns.flags.TC
            answer.answer = []
        for one in [*self.server.forge(answer), answer.to_wire()]:
            self.transport.sendto(one, place)


@asynccontextmanager
async def dns_server(records: Records, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[FakeDns]:
    """A server that answers until the end of the block, on one port of both kinds."""
    server = FakeDns(records)
    streams = await asyncio.start_server(server.stream, host, port)
    server.port = streams.sockets[0].getsockname()[1]
    datagrams, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(server), local_addr=(host, server.port)
    )
    try:
        yield server
    finally:
        datagrams.close()
        streams.close()
        await streams.wait_closed()


def machine(root: Path, files: Mapping[str, str]) -> Path:
    """A root folder with these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
