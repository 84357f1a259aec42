"""The floor of the link: a bare WebSocket echo over the same mutual TLS, with frames of the same size.

Serves and connects in two processes like the real thing: `serve` sends a frame to every connection and waits until
each has answered; `connect` answers every frame with one of a fixed size. No parsing, no signature, no database.
"""

import asyncio
import datetime as dt
import ipaddress
import json
import resource
import ssl
import sys
import time
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.simulated import AT_ONCE, say


def make_certificate(at: Path) -> Path:
    """One self-signed certificate for both ends, as a PEM file with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "echo")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = at / "echo.pem"
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(pem)
    return path


def context(pem: str, *, server: bool) -> ssl.SSLContext:
    """TLS 1.3, both ends with the certificate, both asking for it."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_cert_chain(pem)
    made.load_verify_locations(pem)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


async def serve(pem: str) -> None:
    """Answer each line `BYTES` on standard input with one round to every connection."""
    sockets: list[web.WebSocketResponse] = []
    answered, last = 0, 0.0
    complete = asyncio.Event()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        nonlocal answered, last
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        sockets.append(socket)
        async for _ in socket:
            answered += 1
            if answered == len(sockets):
                last = time.monotonic()
                complete.set()
        return socket

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context(pem, server=True), backlog=4096)
    await site.start()
    say(port=runner.addresses[0][1])
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        answered = 0
        complete.clear()
        frame = "x" * json.loads(line)["bytes"]
        started = time.monotonic()
        await asyncio.gather(*(one.send_str(frame) for one in sockets))
        await complete.wait()
        say(seconds=last - started, sockets=len(sockets))


async def connect(pem: str, port: int, count: int, size: int) -> None:
    """Keep `count` connections, and answer each frame with `size` bytes."""
    gate, answer = asyncio.Semaphore(AT_ONCE), "y" * size
    up = [asyncio.Event() for _ in range(count)]

    async def one(ready: asyncio.Event) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context(pem, server=False))) as session:
            async with gate:
                socket = await session.ws_connect(f"https://127.0.0.1:{port}/", compress=0)
                ready.set()
            async for _ in socket:
                await socket.send_str(answer)

    lives = [asyncio.get_running_loop().create_task(one(ready)) for ready in up]
    await asyncio.gather(*(ready.wait() for ready in up))
    say(connected=count)
    await asyncio.gather(*lives)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1] == "serve":
        uvloop.run(serve(sys.argv[2]))
    else:
        uvloop.run(connect(sys.argv[2], *map(int, sys.argv[3:])))
