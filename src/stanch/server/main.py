"""`stanch server`: start everything, say what was done and where it listens, and stop in order.

Standard output is for people: the first start tells the pin, the URLs and, once, the administrator's password. The line
that begins with `ready` means that both ports answer. Logs go to standard error.
"""

import asyncio
import gc
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import uvloop

from stanch.core.errors import Unavailable
from stanch.core.policy import Role
from stanch.server import log as logs
from stanch.server.accounts import ADMINISTRATOR, made_up_password, password_in
from stanch.server.api.app import create_api
from stanch.server.authority import Authority, ServerTls
from stanch.server.clock import Clock, utc_now
from stanch.server.data import held, open_database
from stanch.server.evidence_files import remove_unfinished
from stanch.server.evidence_key import note_key
from stanch.server.gateway.app import create_gateway
from stanch.server.gateway.links import HEARTBEAT_SECONDS, AgentLinks
from stanch.server.listening import ApiServer, bind, port_of, serving_api, serving_gateway
from stanch.server.services import Services
from stanch.server.settings import Listen, Settings, url_of
from stanch.server.wire import wire

FLUSH_SECONDS = 30.0
RETRY_SECONDS = 1.0
GARBAGE_AFTER = 100_000
"""Objects made before the youngest are looked through."""

MANY_FILES = 2**20
"""Open files, if the system allows: each link is one."""

Say = Callable[[str], None]
Job = Callable[[], Awaitable[None]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server whose two ports answer."""

    services: Services
    api_url: str
    gateway_url: str


def serve(settings: Settings) -> None:
    """Run a server until SIGTERM or SIGINT. An error of `core.errors` says why it does not start."""
    logs.configure()
    _allow_many_links()
    _collect_seldom()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_signal(settings))


async def _serve_until_signal(settings: Settings) -> None:
    stop = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)
    async with running(settings, say=_to_stdout):
        await stop.wait()
        log.info("server stops")


@asynccontextmanager
async def running(
    settings: Settings, *, say: Say, now: Clock = utc_now, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> AsyncIterator[Running]:
    """A server that answers while this lasts; `say` gets the lines that people should read."""
    with (
        held(settings.data),
        closing(bind(settings.api)) as api_socket,
        closing(bind(settings.gateway)) as gateway_socket,
        _opened(settings, now, port_of(gateway_socket)) as services,
    ):
        await _note_evidence_key(services, say)
        await services.addresses.refresh()
        await asyncio.to_thread(remove_unfinished, settings.data / "evidence")
        await services.evidence.recover()
        await services.uploads.recover()
        await services.content.recover()
        await services.terminals.recover()
        server = Running(
            services=services,
            api_url=_url(settings, settings.api, port_of(api_socket)),
            gateway_url=services.addresses.urls[0],
        )
        await _first_start(server, settings, say)
        tls = services.authority.tls(services.addresses.certified)
        gateway = create_gateway(services, monotonic=time.monotonic, heartbeat_seconds=heartbeat_seconds)
        background = (
            services.dispatcher.run,
            services.dispatcher.sweep,
            *(one.run for one in services.standing.kinds),
            services.keeping.run,
            services.uploads.run,
            services.terminals.run,
            gateway.inbox.run,
            gateway.links.close_silent,
            lambda: _flush(services),
            lambda: services.addresses.follow(partial(_moved, services, tls, gateway.links)),
        )
        async with (
            _in_background(background),
            serving_gateway(gateway.app, gateway_socket, tls.gateway),
            serving_api(ApiServer(create_api(services), tls.api), api_socket),
        ):
            say(f"ready api={server.api_url} gateway={server.gateway_url}")
            try:
                yield server
            finally:
                await services.terminals.close()
                services.bus.close()  # event streams end by themselves, so that nothing has to be cut off
        await services.fleet.flush()


@contextmanager
def _opened(settings: Settings, now: Clock, port: int) -> Iterator[Services]:
    """The services over the keys and the database, which is closed in the end."""
    with open_database(
        settings.data
    ) as database:  # first: it knows whether keys are missing that must not be made anew
        authority = Authority.open(settings.data, clock=now)
        services = wire(settings, database=database, authority=authority, port=port, now=now)
        try:
            yield services
        finally:
            services.accounts.close()
            services.codes.close()


async def _note_evidence_key(services: Services, say: Say) -> None:
    """Say it where everybody sees it if evidence cannot be read any more."""
    before = await note_key(services.database, services.evidence.recipient, services.now)
    if before is not None:
        say(
            "WARNING: evidence.key is another key than at the last start. Evidence that was encrypted to the one before"
        )
        say(f"  ({before})")
        say("  cannot be read. If that was not meant, stop this server and bring the old file back from a backup.")


# --- the first start -------------------------------------------------------------------------------------------------


async def _first_start(server: Running, settings: Settings, say: Say) -> None:
    """Where there is no account yet, make the administrator, and say everything that one needs to begin."""
    accounts = server.services.accounts
    if await accounts.any():
        return
    given = None if settings.admin_password_file is None else _read_password(settings.admin_password_file)
    password = given or made_up_password()
    await accounts.create(ADMINISTRATOR, password, [Role.ADMINISTRATOR])
    for line in _introduction(server, settings, shown=None if given else password):
        say(line)


def _introduction(server: Running, settings: Settings, *, shown: str | None) -> Iterator[str]:
    pin = server.services.authority.pin
    yield f"First start: made a certificate authority, a signing key and a database in {settings.data}"
    yield f"CA pin: {pin}"
    yield f"Administrator: {ADMINISTRATOR}"
    yield "Password: as in the file that you named" if shown is None else f"Password (shown only now): {shown}"
    yield "Next:"
    yield f"  stanch login {server.api_url} --ca-pin {pin}"
    if settings.api.local:
        yield "    (from this machine only: --api-listen 0.0.0.0:8443 lets others in)"
    yield "  stanch token create"
    yield f"  stanch agent enroll --server {server.gateway_url} --token TOKEN --ca-pin {pin}"


def _read_password(path: Path) -> str:
    try:
        return password_in(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"Cannot read the administrator's password from {path}", got=error) from None


# --- beside the ports ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _in_background(jobs: tuple[Job, ...]) -> AsyncIterator[None]:
    """These go on while this lasts."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_keep_going(job)) for job in jobs]
        try:
            yield
        finally:
            for one in tasks:
                one.cancel()


async def _keep_going(job: Job) -> None:
    """A full disk, say, must not end the server: log it, and begin again."""
    while True:
        try:
            await job()
        except Exception:
            log.exception("background work failed; it begins again", seconds=RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)


async def _flush(services: Services) -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        await services.fleet.flush()


async def _moved(services: Services, tls: ServerTls, links: AgentLinks) -> None:
    """Let our certificate carry what was announced, then tell every agent."""
    services.authority.certify(tls, services.addresses.certified)  # not in a thread: no handshake may be half-way
    await links.tell_addresses()


def _url(settings: Settings, listen: Listen, port: int) -> str:
    return url_of(settings.advertised[0] if listen.anywhere else listen.host, port)


def _collect_seldom() -> None:
    """Look for garbage cycles after many allocations only: each full look walks every object of thousands of links.

    Measured with 3000 links: a fifth of the CPU of an order to all of them (1.30 s without this, 0.96 with it).
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER, 20, 100)


def _allow_many_links() -> None:
    """Each link is an open file: take as many as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
