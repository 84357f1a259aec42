"""Simulated agents: thousands of links over mutual TLS in one process, each verifying every envelope.

Started by benchmarks with what it needs as one JSON line on standard input; answers with JSON lines: `enrolled`,
`connected`, and for each round `{"acked": <time of the last acknowledgement>, "frames": ...}`, on the clock that all
processes of a machine share (CLOCK_MONOTONIC).
"""

import asyncio
import gc
import json
import resource
import secrets
import ssl
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc.jwk import OKPKey

from stanch.core.envelope import Kind, verify
from stanch.core.frames import (
    ENROL_PATH,
    LINK_PATH,
    Ack,
    Deliver,
    Enrolled,
    EnrolRequest,
    Hello,
    Inventory,
    Report,
    Welcome,
    read_server_frame,
)
from stanch.core.task import State

AT_ONCE = 100
"""Handshakes at a time."""

PROCESSES = {
    "total": 3,
    "processes": [
        {
            "pid": pid, "parent": pid - 1, "started": 4711 + pid, "user": "root", "name": "sleep", "state": "S",
            "executable": "/usr/bin/sleep", "arguments": "sleep 3600", "memory": 1_000_000, "depth": pid - 1,
        }
        for pid in (1, 2, 3)
    ],
}  # fmt: skip
"""The processes of a very small machine."""

ISOLATED = {
    "changed": True, "state": "isolated", "since": "2026-11-24T12:00:00Z", "until": "2026-11-24T17:00:00Z",
    "sockets_destroyed": 3,
}  # fmt: skip
RESULTS: Mapping[str, Mapping[str, Any]] = {"list_processes": PROCESSES, "isolate": ISOLATED}
"""What each of them answers, by action."""


@dataclass(slots=True)
class Round:
    """Who has been acknowledged in this round."""

    expected: int
    acked: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)
    received_bytes: int = 0
    sent_bytes: int = 0
    last: float = 0.0

    def ack(self) -> None:
        """One more."""
        self.acked += 1
        if self.acked == self.expected:
            self.last = time.monotonic()
            self.done.set()


class Fleet:
    """All simulated agents of this process."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self.url: str = setup["gateway"]
        self.token: str = setup["token"]
        self.ca: str = setup["ca"]
        self.count: int = setup["agents"]
        self.round = Round(self.count)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.keys: dict[str, OKPKey] = {}

    async def enrol(self) -> list[tuple[str, ssl.SSLContext]]:
        """Every agent with its own certificate; they share one private key, which saves only their own time."""
        gate = asyncio.Semaphore(20)
        plain = ssl.create_default_context(cadata=self.ca)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20)) as session:

            async def one(number: int) -> tuple[str, ssl.SSLContext]:
                async with gate:
                    request = EnrolRequest(
                        token=self.token, csr=self._csr(), inventory=Inventory(hostname=f"sim-{number}")
                    )
                    body = request.model_dump(mode="json")
                    async with session.post(self.url + ENROL_PATH, json=body, ssl=plain) as answer:
                        enrolled = Enrolled.model_validate_json(await answer.read())
                    self.keys = {key["kid"]: OKPKey.import_key(dict(key)) for key in enrolled.signing_keys}
                    return enrolled.endpoint, self._context(enrolled.certificate)

            return await asyncio.gather(*map(one, range(self.count)))

    def _csr(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agent")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(self.key, hashes.SHA256())
        return csr.public_bytes(serialization.Encoding.PEM).decode()

    def _context(self, certificate: str) -> ssl.SSLContext:
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self.ca)
        with tempfile.NamedTemporaryFile() as file:
            file.write(key + certificate.encode())
            file.flush()
            context.load_cert_chain(file.name)
        return context

    async def live(self, endpoint: str, context: ssl.SSLContext, gate: asyncio.Semaphore, up: asyncio.Event) -> None:
        """One agent, for ever."""
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with gate:
                socket = await session.ws_connect(self.url + LINK_PATH, compress=0, autoping=True)
                await socket.send_str(self.hello(endpoint))
                await socket.receive()
                up.set()
            async for message in socket:
                await self._answer(socket, endpoint, message.data)

    async def _answer(self, socket: aiohttp.ClientWebSocketResponse, endpoint: str, data: str) -> None:
        frame = read_server_frame(data)
        if isinstance(frame, Ack):
            self.round.ack()
        elif isinstance(frame, Deliver):
            envelope = verify(frame.envelope, keys=self.keys, endpoint=endpoint, now=None, versions={})
            if envelope.body.kind is Kind.ORDER:
                report = Report(
                    seq=1,
                    task=envelope.body.task,
                    state=State.DONE,
                    result=RESULTS[envelope.body.action],
                    at=time.time(),
                )
                text = report.model_dump_json(exclude_none=True)
                self.round.received_bytes, self.round.sent_bytes = len(data), len(text)
                await socket.send_str(text)
        else:
            assert isinstance(frame, Welcome), frame

    @staticmethod
    def hello(endpoint: str) -> str:
        """The first frame of one of them."""
        inventory = Inventory(hostname=f"sim-{endpoint[-8:]}", os="Debian 12", kernel="6.1", architecture="x86_64")
        hello = Hello(
            nonce=secrets.token_hex(8), agent_version="sim", inventory=inventory, actions=dict.fromkeys(RESULTS, 1)
        )
        return hello.model_dump_json()


def say(**message: object) -> None:
    """A JSON line to whoever started us."""
    print(json.dumps(message), flush=True)


async def run() -> None:
    """Enrol, connect, then one answer for each round that is asked for."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    gc.disable()  # what these agents cost is not the question
    fleet = Fleet(json.loads(await lines.readline()))
    agents = await fleet.enrol()
    say(enrolled=len(agents))
    await lines.readline()
    gate, started = asyncio.Semaphore(AT_ONCE), time.monotonic()
    ups = [asyncio.Event() for _ in agents]
    lives = [
        asyncio.get_running_loop().create_task(fleet.live(*one, gate, up)) for one, up in zip(agents, ups, strict=True)
    ]
    await asyncio.gather(*(up.wait() for up in ups))
    say(connected=len(agents), seconds=time.monotonic() - started)
    while await lines.readline():
        fleet.round = Round(fleet.count)
        say(ready=True)
        await fleet.round.done.wait()
        say(acked=fleet.round.last, received_bytes=fleet.round.received_bytes, sent_bytes=fleet.round.sent_bytes)
    for one in lives:
        one.cancel()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(run())
