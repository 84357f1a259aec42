"""A small gateway with real TLS and a throw-away CA: what an agent meets, with faults on request."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pyrage
from aiohttp import WSMsgType, web
from backports import zstd
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc.jwk import OKPKey
from pyrage import x25519

from stanch.agent.identity import Binding, Identity
from stanch.core.errors import Conflict, Denied, NotFound, StanchError, TokenSpent
from stanch.core.frames import (
    ENCODING_HEADER,
    ENROL_PATH,
    EVIDENCE_PATH,
    LINK_PATH,
    MAX_FRAME_BYTES,
    PART_BYTES,
    PART_HASH_HEADER,
    PLAIN_HASH_HEADER,
    PROTOCOL,
    UPLOAD_PATH,
    Ack,
    Answer,
    Ask,
    Encoding,
    Enrolled,
    EnrolRequest,
    EvidenceFinish,
    EvidenceHoles,
    EvidenceProgress,
    EvidenceStart,
    FromAgent,
    FromServer,
    Hello,
    Notice,
    PartInfo,
    Report,
    Welcome,
    read_agent_frame,
)
from stanch.core.terminal_wire import TERMINAL_PATH
from stanch.core.types import EvidenceRef
from tests.fakes.terminal_person import FakePerson, ServerSocket

PEM = serialization.Encoding.PEM
ENDPOINT = "ep_test"


class Authority:
    """A CA that lives as long as the test."""

    def __init__(self, name: str = "test CA") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._make(name, self.key.public_key(), ca=True)

    @property
    def pem(self) -> str:
        """The CA's certificate."""
        return self.certificate.public_bytes(PEM).decode()

    @property
    def pin(self) -> str:
        """What an administrator would pass on."""
        return hashlib.sha256(self.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()

    def issue(self, name: str, key: ec.EllipticCurvePublicKey, *hosts: str) -> str:
        """A certificate for somebody else's key."""
        return self._make(name, key, hosts=hosts).public_bytes(PEM).decode()

    def credentials(self, name: str, *hosts: str) -> bytes:
        """A new key and its certificate, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return private + self.issue(name, key.public_key(), *hosts).encode()

    def server_tls(self, folder: Path) -> ssl.SSLContext:
        """TLS for a server on loopback that asks for client certificates of this CA."""
        file = folder / f"server-{self.pin[:8]}.pem"
        file.write_bytes(self.credentials("server", "127.0.0.1", "gateway.test"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(file)
        context.load_verify_locations(cadata=self.pem)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _make(
        self, name: str, key: ec.EllipticCurvePublicKey, *, hosts: tuple[str, ...] = (), ca: bool = False
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if ca else self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_alternative, hosts))), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Cut(Exception):
    """Break the connection here."""


@dataclass
class FakeGateway:
    """What the agent sees of a server. Its attributes are the test's switches and records."""

    folder: Path
    authority: Authority = field(default_factory=Authority)
    acks: bool = True
    answers: bool = True
    refuses: int | None = None
    """HTTP status with which the link is refused."""
    tokens: set[str] = field(default_factory=set)
    protocol: int = PROTOCOL
    """What the welcome says."""
    beat: float = 0.2
    """Seconds between heartbeats, as the welcome says."""
    port: int = 0

    received: list[FromAgent] = field(default_factory=list)
    """Every frame of every link."""
    hellos: int = 0
    asked: int = 0
    enrolments: list[EnrolRequest] = field(default_factory=list)

    custody: x25519.Identity | None = None
    """Opens sealed parts. Without it, this is a server of before there was an evidence key."""
    encodings: tuple[Encoding, ...] = (Encoding.AGE, Encoding.ZSTD_AGE)
    takes_holes: bool = False
    part_bytes: int = 1000
    parts: dict[int, bytes] = field(default_factory=dict)
    """What they hold, whatever way they came."""
    bodies: dict[int, tuple[Encoding, bytes]] = field(default_factory=dict)
    """The same as they came."""
    holes: EvidenceHoles | None = None
    begun: list[EvidenceStart] = field(default_factory=list)
    puts: list[int] = field(default_factory=list)
    """Numbers of the parts whose bytes arrived, in order."""
    on_put: Callable[[int, str], None] = lambda _n, _moment: None
    """Called with the part and `before` or `after` its commit; may raise Cut."""
    finished: EvidenceFinish | None = None
    unwell: int = 0
    """So many of the next evidence requests get status 503."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    cut_uploads: int = 0
    """So many of the next answers with an upload are cut in the middle."""
    person: FakePerson | None = None
    """Who waits at every terminal."""
    terminal_status: int | None = None
    """HTTP status with which terminals are refused."""

    def __post_init__(self) -> None:
        self.news = asyncio.Condition()
        self.signing_key = OKPKey.generate_key("Ed25519", {"kid": "k1"})
        self._sockets: set[web.WebSocketResponse] = set()
        self._requests: dict[web.WebSocketResponse, web.Request] = {}
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    def identity(self, state: Path) -> Identity:
        """An identity that this gateway would have given out, saved in `state`."""
        identity = Identity(
            endpoint=ENDPOINT,
            urls=(self.url,),
            ca=self.authority.pem,
            signing_keys=(self.public_key(),),
            binding=Binding.here("boot-1"),
        )
        state.mkdir(mode=0o700, exist_ok=True)
        identity.save(state, self.authority.credentials(ENDPOINT))
        return identity

    def public_key(self) -> dict[str, str]:
        """The signing key as enrolment tells it."""
        return {str(k): str(v) for k, v in self.signing_key.as_dict(private=False).items() if isinstance(v, str)}

    async def start(self) -> None:
        """Listen, on the port of the last time if there was one."""
        app = web.Application(client_max_size=2 * PART_BYTES, middlewares=[_errors])
        app.add_routes(
            [
                web.get("/v1/ca", self._ca),
                web.post(ENROL_PATH, self._enrol),
                web.get(LINK_PATH, self._link),
                web.post(EVIDENCE_PATH, self._start),
                web.put(EVIDENCE_PATH + "/{id}/parts/{n}", self._put),
                web.post(EVIDENCE_PATH + "/{id}/holes", self._holes),
                web.post(EVIDENCE_PATH + "/{id}/finish", self._finish),
                web.get(UPLOAD_PATH + "/{id}", self._upload),
                web.get(TERMINAL_PATH + "/{task}", self._terminal),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        tls = self.authority.server_tls(self.folder)
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening, and cut whoever is connected."""
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def cut(self) -> None:
        """Break every link without a goodbye."""
        for request in self._requests.values():
            if request.transport is not None:
                request.transport.abort()

    async def close(self, code: int) -> None:
        """Close every link with a code."""
        for socket in list(self._sockets):
            await socket.close(code=code)

    async def say(self, frame: FromServer | str | bytes) -> None:
        """Send to every link."""
        for socket in list(self._sockets):
            match frame:
                case bytes():
                    await socket.send_bytes(frame)
                case str():
                    await socket.send_str(frame)
                case _:
                    await socket.send_str(frame.model_dump_json())

    async def until(self, true: Callable[[], bool], *, within: float = 20.0) -> None:
        """Wait until something is true of what was received."""
        async with asyncio.timeout(within), self.news:
            await self.news.wait_for(true)

    def of(self, kind: type[FromAgent]) -> list[FromAgent]:
        """The received frames of a kind."""
        return [frame for frame in self.received if isinstance(frame, kind)]

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()

    # --- handlers -----------------------------------------------------------------------------------------------------

    async def _ca(self, _request: web.Request) -> web.Response:
        return web.Response(text=self.authority.pem)

    async def _enrol(self, request: web.Request) -> web.Response:
        asked = EnrolRequest.model_validate_json(await request.read())
        self.enrolments.append(asked)
        if asked.token not in self.tokens:
            raise TokenSpent("This enrolment token is not valid any more")
        self.tokens.remove(asked.token)
        csr = x509.load_pem_x509_csr(asked.csr.encode())
        assert csr.is_signature_valid
        key = csr.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        enrolled = Enrolled(
            endpoint=ENDPOINT,
            certificate=self.authority.issue(ENDPOINT, key),
            ca=self.authority.pem,
            signing_keys=(self.public_key(),),
            urls=(self.url,),
        )
        return web.Response(text=enrolled.model_dump_json())

    async def _link(self, request: web.Request) -> web.StreamResponse:
        if self.refuses is not None:
            return web.Response(status=self.refuses)
        _who(request)
        socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_FRAME_BYTES)
        await socket.prepare(request)
        self._requests[socket] = request
        try:
            async for message in socket:
                assert message.type is WSMsgType.TEXT
                await self._take(socket, read_agent_frame(message.data))
        finally:
            self._sockets.discard(socket)
            del self._requests[socket]
            await self._tell()
        return socket

    async def _take(self, socket: web.WebSocketResponse, frame: FromAgent) -> None:
        self.received.append(frame)
        match frame:
            case Hello():
                self.hellos += 1
                self._sockets.add(socket)
                await socket.send_str(Welcome(protocol=self.protocol, heartbeat_seconds=self.beat).model_dump_json())
            case Ask(nonce=nonce):
                self.asked += 1
                if self.answers:
                    await socket.send_str(Answer(nonce=nonce).model_dump_json())
            case Report(seq=seq) | Notice(seq=seq) if self.acks:
                await socket.send_str(Ack(seqs=(seq,)).model_dump_json())
            case _:
                pass
        await self._tell()

    async def _start(self, request: web.Request) -> web.Response:
        _who(request)
        self.begun.append(EvidenceStart.model_validate_json(await request.read()))
        self._refuse_if_unwell()
        parts = tuple(
            PartInfo(n=n, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for n, data in self.parts.items()
        )
        progress = EvidenceProgress(evidence="ev_1", parts=parts)
        if self.custody is not None:
            progress = progress.model_copy(update={"encodings": self.encodings})
        progress = progress.model_copy(update={"holes": self.takes_holes})
        return web.Response(text=progress.model_dump_json())

    async def _holes(self, request: web.Request) -> web.Response:
        _who(request)
        self.holes = EvidenceHoles.model_validate_json(await request.read())
        if any(any(self.parts.get(n, b"")) for run in self.holes.runs for n in range(run.first, run.end)):
            raise Conflict("A part is there, with data", got="no data", expected="the same")
        return web.Response(text=self.holes.model_dump_json())

    async def _put(self, request: web.Request) -> web.Response:
        _who(request)
        n, data = int(request.match_info["n"]), await request.read()
        self._refuse_if_unwell()
        assert hashlib.sha256(data).hexdigest() == request.headers[PART_HASH_HEADER]
        encoding = Encoding(request.headers.get(ENCODING_HEADER, Encoding.PLAIN))
        self.bodies[n] = encoding, data
        if encoding is not Encoding.PLAIN:
            assert self.custody is not None
            data = pyrage.decrypt(data, [self.custody])
            data = zstd.decompress(data) if encoding is Encoding.ZSTD_AGE else data
            assert hashlib.sha256(data).hexdigest() == request.headers[PLAIN_HASH_HEADER]
        self.puts.append(n)
        try:
            self.on_put(n, "before")
            if self.parts.get(n, data) != data:
                raise Conflict("This part is there with another hash", got="another", expected="the same")
            self.parts[n] = data
            self.on_put(n, "after")
        except Cut:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="{}")

    async def _finish(self, request: web.Request) -> web.Response:
        _who(request)
        self.finished = EvidenceFinish.model_validate_json(await request.read())
        there = dict(self.parts)
        for run in self.holes.runs if self.holes else ():
            for n in range(run.first, run.end):
                there[n] = bytes(min(self.part_bytes, self.begun[-1].size - n * self.part_bytes))
        whole = b"".join(data for _, data in sorted(there.items()))
        if hashlib.sha256(whole).hexdigest() != self.finished.sha256 or len(whole) != self.finished.size:
            raise Conflict("The whole is not what was announced")
        ref = EvidenceRef(id="ev_1", name="/tmp/x", size=len(whole), sha256=self.finished.sha256)
        return web.Response(text=ref.model_dump_json())

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        _who(request)
        number, wanted = request.match_info["id"], request.http_range
        if number not in self.uploads:
            raise NotFound("This task has no such upload", got=number)
        data = self.uploads[number][wanted]
        answer = web.StreamResponse(status=206, headers={"Content-Length": str(len(data))})
        await answer.prepare(request)
        if self.cut_uploads > 0:
            self.cut_uploads -= 1
            await answer.write(data[: len(data) // 2])
            assert request.transport is not None
            request.transport.abort()
            return answer
        await answer.write(data)
        return answer

    async def _terminal(self, request: web.Request) -> web.StreamResponse:
        _who(request)
        if self.terminal_status is not None or self.person is None:
            return web.Response(status=self.terminal_status or 404)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await self.person.serve(ServerSocket(socket, request))
        return socket

    def _refuse_if_unwell(self) -> None:
        if self.unwell > 0:
            self.unwell -= 1
            raise web.HTTPServiceUnavailable


def _who(request: web.Request) -> None:
    assert request.transport is not None
    certificate = request.transport.get_extra_info("peercert")
    names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    if names != [ENDPOINT]:
        raise Denied("A client certificate is needed", got=names)


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except StanchError as error:
        found = error
    except web.HTTPNotFound:
        found = NotFound("There is nothing here")
    return web.Response(status=found.http_status, text=f'{{"error": {found.body().model_dump_json()}}}')


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[FakeGateway]:
    """A gateway that listens until the end of the block."""
    one = FakeGateway(folder)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()
