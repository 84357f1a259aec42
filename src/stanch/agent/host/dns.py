"""The agent's own questions for names: on its own marked sockets, at the upstream resolvers.

The firewall of an isolated endpoint lets these through and nobody else's. The same way is taken when the endpoint is
not isolated, so that an isolation changes nothing about how a name is found. Where it finds nothing, the system's own
library is asked too: it knows other ways (split DNS, multicast DNS, DNS over TLS), which end with an isolation.

An answer is believed if it comes from the resolver that was asked, to the random port that it was asked from, with the
random number and the question that were sent. dnspython reads it; it is imported with the first question (1 MB).
"""

import asyncio
import socket
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stanch.agent.host.mark import mark
from stanch.agent.host.resolvers import Resolvers, read_hosts, read_resolvers
from stanch.agent.host.slow_questions import SlowQuestions
from stanch.core.types import AnyAddress, parse_address

if TYPE_CHECKING:
    from dns.message import Message

DNS_PORT = 53
TRY_SECONDS = 2.0
TRIES = 2
"""At each resolver."""

AT_ONCE = 20
"""Names that are asked for at the same time."""

MAX_ADDRESSES = 64
"""Of one name."""

MAX_TOLD = 2000
MAX_STRAYS = 50
"""Datagrams that are no answer, before the resolver counts as silent."""

LIBRARY_SECONDS = 1.0
"""For the system's library, about a name that the resolvers do not know: an isolated endpoint's cannot answer."""

_MAX_DATAGRAM = 4096
_TRUNCATED, _RESPONSE = 0x02, 0x80
_HEADER = 12

Found = Mapping[str, tuple[AnyAddress, ...]]


class NoAnswer(OSError):
    """No resolver has answered: the name may have addresses or not."""


class SystemResolver:
    """Asks the system's library, which goes by nsswitch.conf."""

    def __init__(self) -> None:
        self._library = SlowQuestions[list[str]]("resolver")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name, none if there is no such name; OSError if nobody tells."""
        return await self._library.ask((host, port), lambda: _ask_library(host, port))


def _ask_library(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except ValueError:  # it cannot be a name
        return []
    except socket.gaierror as error:
        if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}:
            return []
        raise
    addresses = [str(info[4][0]) for info in found]
    return [address for address in addresses if "%" not in address]


class HostNames:
    """Finds the addresses of host names for the agent itself."""

    def __init__(self, root: Path = Path("/"), *, port: int = DNS_PORT, try_seconds: float = TRY_SECONDS) -> None:
        self._root = root
        self._client = Client(port=port, try_seconds=try_seconds)
        self._system = SystemResolver()
        self._told_by_library: set[str] = set()
        """Names that the resolvers do not know, as with split DNS: their word that there is no such name is none."""

    async def __call__(self, host: str, _port: int) -> Sequence[str]:
        """The addresses of one name, as text, from whoever finds it first; OSError if there are none."""
        known = read_hosts([host], self._root).get(host)
        if known:
            return [str(one) for one in known]
        ways = [self._library(host)]
        resolvers = self.resolvers()
        if resolvers.upstream:
            ways.append(self._client.addresses(host, resolvers))
        return [str(one) for one in await _first_found(host, ways)]

    def resolvers(self) -> Resolvers:
        """Where names are asked for."""
        return read_resolvers(self._root)

    async def many(self, names: Collection[str], *, within: float) -> Found:
        """The addresses of these names, none for a name that has none; who is missing got no answer in time."""
        resolvers = self.resolvers()
        found = dict(await asyncio.to_thread(read_hosts, names, self._root))
        turns = asyncio.Semaphore(AT_ONCE)

        async def find(name: str) -> None:
            async with turns:
                with suppress(OSError, ValueError):
                    found[name] = await self._ask(name, resolvers)

        with suppress(TimeoutError):
            async with asyncio.timeout(within), asyncio.TaskGroup() as group:
                for name in set(names) - found.keys():
                    group.create_task(find(name))
        return found

    async def _ask(self, name: str, resolvers: Resolvers) -> tuple[AnyAddress, ...]:
        """The addresses, none if there is no such name; NoAnswer if nobody tells, or whoever told before is silent."""
        own: tuple[AnyAddress, ...] | None = None
        if resolvers.upstream:
            with suppress(OSError):
                own = await self._client.addresses(name, resolvers)
        if own:
            return own
        try:
            async with asyncio.timeout(LIBRARY_SECONDS if resolvers.upstream else None):
                found = await self._library(name)
        except OSError:
            if own is None or name in self._told_by_library:
                raise NoAnswer(f"nobody answers for {name}") from None
            return own
        self._note(name, told=bool(found))
        return found

    def _note(self, name: str, *, told: bool) -> None:
        self._told_by_library.discard(name)
        if told and len(self._told_by_library) < MAX_TOLD:
            self._told_by_library.add(name)

    async def _library(self, name: str) -> tuple[AnyAddress, ...]:
        found = await self._system(name, DNS_PORT)
        return tuple(dict.fromkeys(map(parse_address, found)))[:MAX_ADDRESSES]


async def _first_found(
    name: str, ways: Sequence[Coroutine[Any, Any, tuple[AnyAddress, ...]]]
) -> tuple[AnyAddress, ...]:
    """What the first way that finds something has found; NoAnswer if none does."""
    found: asyncio.Future[tuple[AnyAddress, ...]] = asyncio.get_running_loop().create_future()

    async def go(way: Coroutine[Any, Any, tuple[AnyAddress, ...]]) -> None:
        with suppress(OSError, ValueError):
            addresses = await way
            if addresses and not found.done():
                found.set_result(addresses)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(go(way)) for way in ways]
        found.add_done_callback(lambda _: [one.cancel() for one in tasks])
    if not found.done():
        raise NoAnswer(f"{name} has no address")
    return found.result()


class Client:
    """A DNS client that can only ask for addresses."""

    def __init__(self, *, port: int = DNS_PORT, try_seconds: float = TRY_SECONDS) -> None:
        self._port = port
        self._try_seconds = try_seconds
        self._silent: list[AnyAddress] = []
        """Resolvers that did not answer, the latest last: they are asked after all others."""

    async def addresses(self, name: str, resolvers: Resolvers) -> tuple[AnyAddress, ...]:
        """The addresses of both families; none if there is no such name. NoAnswer if nobody tells."""
        for candidate in resolvers.candidates(name):
            found = await self._both_families(candidate, resolvers.upstream)
            if found:
                return found
        return ()

    async def _both_families(self, name: str, servers: Sequence[AnyAddress]) -> tuple[AnyAddress, ...]:
        answers = await asyncio.gather(
            self._ask_all(name, "A", servers), self._ask_all(name, "AAAA", servers), return_exceptions=True
        )
        failed = [one for one in answers if isinstance(one, BaseException)]
        found = [address for one in answers if not isinstance(one, BaseException) for address in one]
        if failed and not found:
            raise failed[0]
        return tuple(dict.fromkeys(found))[:MAX_ADDRESSES]

    async def _ask_all(self, name: str, kind: str, servers: Sequence[AnyAddress]) -> list[AnyAddress]:
        """Ask one resolver after the other, then all again; the first that answers is right."""
        query = _question(name, kind)
        for _ in range(TRIES):
            for server in sorted(servers, key=lambda one: self._silent.index(one) if one in self._silent else -1):
                try:
                    found = await self._ask(query, server)
                except (OSError, TimeoutError):
                    self._note(server, silent=True)
                else:
                    self._note(server, silent=False)
                    return found
        raise NoAnswer(f"no resolver answers for {name}")

    def _note(self, server: AnyAddress, *, silent: bool) -> None:
        self._silent = [one for one in self._silent if one != server] + [server] * silent
        del self._silent[:-MAX_ADDRESSES]

    async def _ask(self, query: "Message", server: AnyAddress) -> list[AnyAddress]:
        async with asyncio.timeout(self._try_seconds):
            answer = await _by_datagram(query, server, self._port)
            if answer is None:  # it is longer than a datagram
                answer = await _by_stream(query, server, self._port)
        return _addresses_in(answer)


# --- on the wire -----------------------------------------------------------------------------------------------------


@contextmanager
def _opened(server: AnyAddress, port: int, kind: socket.SocketKind) -> Iterator[tuple[socket.socket, Any]]:
    """A socket of the agent's own, and the place to connect it to."""
    # Numeric: this only turns the text, and its zone, into what the kernel takes.
    found = socket.getaddrinfo(str(server), port, type=kind, flags=socket.AI_NUMERICHOST)
    family, _, _, _, place = found[0]
    with socket.socket(family, kind) as sock:
        sock.setblocking(False)
        mark(sock)
        yield sock, place


async def _by_datagram(query: "Message", server: AnyAddress, port: int) -> "Message | None":
    """The answer; None if it was cut to fit a datagram."""
    loop, question = asyncio.get_running_loop(), query.to_wire()
    with _opened(server, port, socket.SOCK_DGRAM) as (sock, place):
        # Connected, the kernel takes answers from there alone, and the port is a random one.
        sock.connect(place)
        sock.send(question)
        for _ in range(MAX_STRAYS):
            wire = await loop.sock_recv(sock, _MAX_DATAGRAM)
            if len(wire) >= _HEADER and wire[:2] == question[:2] and wire[2] & _RESPONSE and wire[2] & _TRUNCATED:
                return None
            answer = read_answer(query, wire)
            if answer is not None:
                return answer
    raise NoAnswer(f"{server} sends only what is no answer")


async def _by_stream(query: "Message", server: AnyAddress, port: int) -> "Message":
    loop, question = asyncio.get_running_loop(), query.to_wire()
    with _opened(server, port, socket.SOCK_STREAM) as (sock, place):
        await loop.sock_connect(sock, place)
        await loop.sock_sendall(sock, len(question).to_bytes(2) + question)
        length = int.from_bytes(await _exactly(sock, 2))
        answer = read_answer(query, await _exactly(sock, length))
    if answer is None:
        raise NoAnswer(f"{server} sends what is no answer")
    return answer


async def _exactly(sock: socket.socket, length: int) -> bytes:
    loop, got = asyncio.get_running_loop(), bytearray()
    while len(got) < length:
        some = await loop.sock_recv(sock, length - len(got))
        if not some:
            raise NoAnswer("the resolver has closed the connection")
        got += some
    return bytes(got)


def _question(name: str, kind: str) -> "Message":
    from dns.exception import DNSException
    from dns.message import make_query

    try:
        return make_query(name if name.endswith(".") else f"{name}.", kind)
    except (DNSException, ValueError) as error:
        raise NoAnswer(f"{name[:100]} is no name: {error}") from None


def read_answer(query: "Message", wire: bytes) -> "Message | None":
    """The answer to this question in these bytes, or None if they are anything else."""
    from dns.exception import DNSException
    from dns.message import from_wire

    try:
        answer = from_wire(wire)
        return answer if query.is_response(answer) else None
    except (DNSException, ValueError, LookupError):
        return None


def _addresses_in(answer: "Message") -> list[AnyAddress]:
    """What an answer tells, through its aliases, of which it may have a few; NoAnswer if it tells of trouble."""
    from dns.exception import DNSException
    from dns.message import QueryMessage
    from dns.rcode import Rcode

    if answer.rcode() not in {Rcode.NOERROR, Rcode.NXDOMAIN} or not isinstance(answer, QueryMessage):
        raise NoAnswer(f"the resolver answers with {answer.rcode().name}")
    try:
        records = answer.resolve_chaining().answer or ()
    except DNSException as error:
        raise NoAnswer(f"the answer contradicts itself: {error}") from None
    return [parse_address(one.address) for one in records][:MAX_ADDRESSES]
