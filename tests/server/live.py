"""A real server on loopback with real TLS, people who use its API, and endpoints that are only a certificate."""

import asyncio
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from argon2 import PasswordHasher
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import OKPKey

from stanch.actions.list_processes import ProcessTable
from stanch.core.envelope import Envelope, verify
from stanch.core.frames import (
    ENROL_PATH,
    LINK_PATH,
    Ack,
    Deliver,
    FromAgent,
    FromServer,
    Hello,
    Interface,
    Inventory,
    Report,
    read_server_frame,
)
from stanch.server.main import Running, running
from stanch.server.services import Services
from stanch.server.settings import Settings
from tests.fakes.waiting import eventually

PASSWORD = "correct horse battery"
SOON = 10.0
"""The longest that a test waits for something that should come at once."""


def cheap_hasher() -> PasswordHasher:
    """Hashes that take no time; tests sign in often."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def new_csr(key: Any = None, *, name: str = "whatever") -> tuple[str, str]:
    """A signing request and its private key, both PEM."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    digest = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, digest)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return request.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


@dataclass
class Answer:
    """What came back from an HTTP request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the error."""
        return str(self.json["error"]["code"])


@dataclass
class Person:
    """Somebody with a browser or a shell."""

    url: str
    session: aiohttp.ClientSession
    token: str | None = None

    async def ask(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **how: Any) -> Answer:
        """A request to the API."""
        sent = dict(headers or {})
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        async with self.session.request(method, f"{self.url}/api/v1{path}", headers=sent, **how) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def sign_in(self, name: str = "admin", password: str = PASSWORD) -> Answer:
        """Get a token."""
        answer = await self.ask("POST", "/login", json={"name": name, "password": password})
        if answer.status == 200:
            self.token = answer.json["token"]
        return answer

    async def order(self, action: str, **body: Any) -> Answer:
        """Order an action."""
        return await self.ask("POST", f"/actions/{action}/orders", json=body)

    async def new_token(self, **wanted: Any) -> str:
        """An enrolment token."""
        answer = await self.ask("POST", "/tokens", json=wanted)
        assert answer.status == 201, answer.body
        return str(answer.json["token"])


@dataclass
class Agent:
    """An endpoint as the gateway sees it: a certificate, and whatever frames a test sends."""

    url: str
    endpoint: str
    tls: ssl.SSLContext
    session: aiohttp.ClientSession
    keys: Mapping[str, OKPKey]
    hostname: str
    heard: list[FromServer] = field(default_factory=list)

    def inventory(self, **changes: Any) -> Inventory:
        """What it says about itself."""
        said = {"hostname": self.hostname, "machine_id": f"machine-{self.hostname}", "boot_id": "boot-1", **changes}
        return Inventory(interfaces=(Interface(name="eth0", addresses=("10.0.0.5",)),), **said)

    def hello(self, **changes: Any) -> Hello:
        """The first frame."""
        said = {"agent_version": "1", "actions": {"list_processes": 1}, "nonce": "nonce-1", **changes}
        return Hello(inventory=said.pop("inventory", self.inventory()), **said)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Wire"]:
        """A WebSocket on which nothing was said yet."""
        async with self.session.ws_connect(self.url + LINK_PATH, ssl=self.tls, max_msg_size=0) as socket:
            yield Wire(self, socket)

    @asynccontextmanager
    async def linked(self, **changes: Any) -> AsyncIterator["Wire"]:
        """A link that is open: welcome and addresses have come."""
        async with self.connected() as wire:
            await wire.say(self.hello(**changes))
            welcome, addresses = await wire.hear(), await wire.hear()
            assert welcome.type == "welcome"
            assert isinstance(addresses, Deliver)
            yield wire

    async def ask(self, method: str, path: str, *, tls: ssl.SSLContext | None = None, **how: Any) -> Answer:
        """A plain request to the gateway."""
        async with self.session.request(method, self.url + path, ssl=tls or self.tls, **how) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    def opened(self, frame: FromServer) -> Envelope:
        """The envelope that was delivered, verified."""
        assert isinstance(frame, Deliver)
        return verify(frame.envelope, keys=self.keys, endpoint=self.endpoint, now=None, versions={})


@dataclass
class Wire:
    """One open WebSocket of an endpoint."""

    agent: Agent
    socket: aiohttp.ClientWebSocketResponse

    async def say(self, frame: FromAgent) -> None:
        """Send a frame."""
        await self.socket.send_str(frame.model_dump_json())

    async def hear(self) -> FromServer:
        """The next frame."""
        return read_server_frame(await self.socket.receive_str(timeout=SOON))

    async def hear_order(self) -> Envelope:
        """The next envelope, verified."""
        return self.agent.opened(await self.hear())

    async def hear_end(self) -> int | None:
        """Wait until the server closes the link; the code that it gave."""
        async with asyncio.timeout(SOON):
            async for _ in self.socket:
                pass
        return self.socket.close_code

    async def report(self, seq: int, task: str, state: str = "done", **more: Any) -> None:
        """Say what became of a task, and wait for the acknowledgement."""
        await self.say(Report(seq=seq, task=task, state=state, at=1, **more))
        await self.hear_ack(seq)

    async def hear_ack(self, *seqs: int) -> None:
        """Wait until all these were acknowledged."""
        waiting = set(seqs)
        while waiting:
            frame = await self.hear()
            if isinstance(frame, Ack):
                waiting -= set(frame.seqs)


@dataclass
class Live:
    """A running server and what is needed to talk to it."""

    server: Running
    session: aiohttp.ClientSession
    tls: ssl.SSLContext
    said: list[str]
    settings: Settings

    @property
    def services(self) -> Services:
        """Its parts, for looking behind the curtain."""
        return self.server.services

    def person(self) -> Person:
        """Somebody who has not signed in."""
        return Person(self.server.api_url, self.session)

    async def admin(self) -> Person:
        """The administrator, signed in."""
        person = self.person()
        answer = await person.sign_in()
        assert answer.status == 200, answer.body
        return person

    async def enrol(self, hostname: str = "web-01", *, token: str | None = None) -> Agent:
        """A new endpoint."""
        token = token or await (await self.admin()).new_token()
        return await enrol(self.server.gateway_url, self.session, self.tls, token=token, hostname=hostname)


PROCESSES = ProcessTable(total=0, processes=()).model_dump(mode="json")
"""A result of `list_processes`."""


async def enrol(
    url: str, session: aiohttp.ClientSession, tls: ssl.SSLContext, *, token: str, hostname: str = "web-01"
) -> Agent:
    """Enrol an endpoint as `stanch agent enroll` does."""
    csr, private = new_csr()
    body = {"token": token, "csr": csr, "inventory": {"hostname": hostname}}
    async with session.post(url + ENROL_PATH, json=body, ssl=tls) as answer:
        enrolled = await answer.json()
        assert answer.status == 201, enrolled
    own = trusting(enrolled["ca"])
    load_identity(own, enrolled["certificate"] + private)
    keys = {one["kid"]: OKPKey.import_key(one) for one in enrolled["signing_keys"]}
    return Agent(url, enrolled["endpoint"], own, session, keys, hostname)


def trusting(ca_pem: str) -> ssl.SSLContext:
    """TLS of somebody who pinned the CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=ca_pem)
    return context


def load_identity(tls: ssl.SSLContext, pem: str) -> None:
    """Present this certificate with this key; the ssl module reads them from files only."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pem)
        file.flush()
        tls.load_cert_chain(file.name)


@asynccontextmanager
async def live_server(folder: Path, **options: Any) -> AsyncIterator[Live]:
    """A server in this process, on free ports."""
    password = folder.with_name("password")
    password.write_text(PASSWORD + "\n")
    settings = Settings(
        data=folder, api_listen="127.0.0.1:0", gateway_listen="127.0.0.1:0", admin_password_file=password
    )
    said: list[str] = []
    before = asyncio.all_tasks()
    async with running(settings, say=said.append, **options) as server:
        tls = trusting(server.services.authority.pem)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=0)) as session:
            yield Live(server, session, tls, said, settings)
    # A client that was refused in the middle of its body is listened to for a moment more.
    await eventually(lambda: not asyncio.all_tasks() - before - {asyncio.current_task()})
