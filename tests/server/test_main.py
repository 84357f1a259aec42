"""The server as a program: what it says, what it refuses, how it stops, and what a kill costs."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
from sqlalchemy import select

from stanch.core.errors import Conflict, Unavailable
from stanch.core.task import State
from stanch.server import main
from stanch.server.settings import Settings
from stanch.server.store.database import Database
from stanch.server.store.tables import tasks
from tests.server.live import PASSWORD, PROCESSES, SOON, Live, Person, Wire, cheap_hasher, enrol, live_server, trusting


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """A server with a data folder of this test's own."""
    monkeypatch.setattr("stanch.server.accounts.PasswordHasher", cheap_hasher)
    async with live_server(tmp_path / "data") as server:
        yield server


PROGRAM = """
import os, signal, sys
from pathlib import Path
from stanch.core.errors import StanchError
from stanch.server.gateway import inbox
from stanch.server.main import serve
from stanch.server.settings import Settings

async def die(link, ones):
    if any(one.frame.state == "done" for one in ones):
        os.kill(os.getpid(), signal.SIGKILL)
    await acknowledge(link, ones)

acknowledge = inbox.acknowledge
if "die-before-ack" in sys.argv:
    inbox.acknowledge = die
data = Path(sys.argv[1])
try:
    serve(Settings(
        data=data, api_listen=sys.argv[2], gateway_listen=sys.argv[3], admin_password_file=data.with_name("password")
    ))
except StanchError as error:
    sys.exit(f"{error.exit_code} {error}")
"""


class Program:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, said: Sequence[str]) -> None:
        self.process = process
        self.said = said
        ready = re.fullmatch(r"ready api=(https://\S+) gateway=(https://\S+)", said[-1]) if said else None
        self.api, self.gateway = ready.groups() if ready else ("", "")


@asynccontextmanager
async def program(
    folder: Path, *more: str, api: str = "127.0.0.1:0", gateway: str = "127.0.0.1:0"
) -> AsyncIterator[Program]:
    """Start it, wait for its last word, and leave nothing behind."""
    folder.with_name("password").write_text(PASSWORD)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(folder), api, gateway, *more,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Program(process, await lines_until_ready(process))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def lines_until_ready(process: asyncio.subprocess.Process) -> list[str]:
    said: list[str] = []
    assert process.stdout is not None
    async with asyncio.timeout(6 * SOON):
        async for line in process.stdout:
            said.append(line.decode().rstrip("\n"))
            if said[-1].startswith("ready "):
                break
    return said


def own(url: str) -> str:
    """The listening address of a URL, to start again at the same place."""
    return url.removeprefix("https://")


def session(ca: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting(ca.read_text())))


async def test_the_first_start_says_what_it_did(tmp_path: Path) -> None:
    """Pin, URLs, next commands; and the password only if it was made up, and only once."""
    settings = Settings(data=tmp_path / "data", api_listen="127.0.0.1:0", gateway_listen="127.0.0.1:0")
    said: list[str] = []
    async with main.running(settings, say=said.append) as server:
        pin, text = server.services.authority.pin, "\n".join(said)
        password = re.search(r"shown only now\): (\S+)", text)
        assert password
        assert f"stanch login {server.api_url} --ca-pin {pin}" in text
        assert f"stanch agent enroll --server {server.gateway_url} --token TOKEN --ca-pin {pin}" in text
        assert "--api-listen" in text
        assert said[-1] == f"ready api={server.api_url} gateway={server.gateway_url}"
        async with session(tmp_path / "data" / "ca.pem") as asking:
            assert (await Person(server.api_url, asking).sign_in(password=password[1])).status == 200
    said.clear()
    async with main.running(settings, say=said.append):
        assert len(said) == 1


async def test_a_given_password_is_not_printed(tmp_path: Path) -> None:
    """Nor needed again at the second start."""
    async with live_server(tmp_path / "data") as live:
        assert PASSWORD not in "\n".join(live.said)
        assert (await live.admin()).token
    (tmp_path / "password").unlink()
    settings = Settings(
        data=tmp_path / "data",
        api_listen="127.0.0.1:0",
        gateway_listen="127.0.0.1:0",
        admin_password_file=tmp_path / "password",
    )
    async with main.running(settings, say=lambda _: None):
        pass


async def test_a_password_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """Before anything is promised."""
    settings = Settings(
        data=tmp_path / "data",
        api_listen="127.0.0.1:0",
        gateway_listen="127.0.0.1:0",
        admin_password_file=tmp_path / "nowhere",
    )
    with pytest.raises(Unavailable, match="nowhere"):
        async with main.running(settings, say=lambda _: None):
            pass


async def test_a_folder_in_use_is_refused(live: Live) -> None:
    """Two servers on one database would both be wrong."""
    with pytest.raises(Conflict, match="Another server"):
        async with main.running(live.settings, say=lambda _: None):
            pass


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    """Sessions, endpoints and orders are where they were."""
    async with live_server(tmp_path / "data") as live:
        agent = await live.enrol()
        token = (await live.admin()).token
        pin = live.services.authority.pin
    async with live_server(tmp_path / "data") as live:
        person = Person(live.server.api_url, live.session, token)
        assert live.services.authority.pin == pin
        assert (await person.ask("GET", "/endpoints/web-01")).json["id"] == agent.endpoint
        agent.url, agent.session = live.server.gateway_url, live.session
        async with agent.linked():
            pass


async def test_background_work_that_fails_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, say, must not end the server."""
    monkeypatch.setattr(main, "RETRY_SECONDS", 0)
    tries: list[int] = []
    enough = asyncio.Event()

    async def failing() -> None:
        tries.append(1)
        if len(tries) == 3:
            enough.set()
            await asyncio.Event().wait()
        raise OSError("disk full")

    async with main._in_background((failing,)):
        await enough.wait()
    assert len(tries) == 3


def test_open_files_are_as_many_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than the hard limit."""
    asked: list[object] = []
    fake = SimpleNamespace(
        RLIMIT_NOFILE=7, RLIM_INFINITY=-1, getrlimit=lambda _: (1024, 4096), setrlimit=lambda *how: asked.append(how)
    )
    monkeypatch.setattr(main, "resource", fake)
    main._allow_many_links()
    fake.getrlimit = lambda _: (1024, -1)
    main._allow_many_links()
    assert asked == [(7, (4096, 4096)), (7, (main.MANY_FILES, -1))]


async def test_sigterm_ends_it_in_order(tmp_path: Path) -> None:
    """Exit status 0, open event streams and links included; nothing is said to people, and no error is logged."""
    async with program(tmp_path / "data") as server, session(tmp_path / "data" / "ca.pem") as asking:
        person = Person(server.api, asking)
        await person.sign_in()
        agent = await enrol(server.gateway, asking, trusting_of(tmp_path), token=await person.new_token())
        headers = {"Authorization": f"Bearer {person.token}"}
        async with agent.linked() as wire, asking.get(f"{server.api}/api/v1/events", headers=headers) as events:
            await events.content.readline()
            server.process.send_signal(signal.SIGTERM)
            await wire.hear_end()
        async with asyncio.timeout(2 * SOON):
            out, log = await server.process.communicate()
        assert (server.process.returncode, out) == (0, b"")
        assert [line for line in map(json.loads, log.splitlines()) if line["level"] not in {"info", "debug"}] == []


def trusting_of(folder: Path):
    return trusting((folder / "data" / "ca.pem").read_text())


@pytest.mark.parametrize("which", ["api", "gateway"])
async def test_a_port_in_use_is_one_line(live: Live, tmp_path: Path, which: str) -> None:
    """And an exit status of its own."""
    taken = own(live.server.api_url if which == "api" else live.server.gateway_url)
    async with program(tmp_path / "second", **{which: taken}) as server:
        _, err = await server.process.communicate()
        assert err.decode().startswith(f"11 Cannot listen on {taken}")
        assert server.process.returncode == 1
        assert len(err.decode().splitlines()) == 1


async def test_a_kill_between_commit_and_acknowledgement_costs_nothing(tmp_path: Path) -> None:
    """The agent says it again to the next server, which takes it once."""
    async with program(tmp_path / "data", "die-before-ack") as server, session(tmp_path / "data" / "ca.pem") as asking:
        person = Person(server.api, asking)
        await person.sign_in()
        agent = await enrol(server.gateway, asking, trusting_of(tmp_path), token=await person.new_token())
        async with agent.linked() as wire:
            order = (await person.order("list_processes", endpoints=[agent.endpoint])).json
            task = order["tasks"][0]["id"]
            await wire.hear_order()
            await say_done(wire, task, acknowledged=False)
        await server.process.wait()
        assert server.process.returncode == -signal.SIGKILL
    assert await state_on_disk(tmp_path, task) is State.DONE
    async with program(tmp_path / "data") as server, session(tmp_path / "data" / "ca.pem") as asking:
        agent.url, agent.session = server.gateway, asking
        async with agent.linked() as wire:
            await say_done(wire, task, acknowledged=True)
        person = Person(server.api, asking)
        await person.sign_in()
        view = (await person.ask("GET", f"/orders/{order['id']}")).json
        assert view["states"] == {"done": 1}
        assert view["tasks"][0]["result"] == PROCESSES


async def say_done(wire: Wire, task: str, *, acknowledged: bool) -> None:
    """Report the result; the connection ends before, or after, the acknowledgement."""
    if acknowledged:
        await wire.report(1, task, "done", result=PROCESSES)
        return
    with pytest.raises((TypeError, aiohttp.ClientError, ConnectionError, aiohttp.WSMessageTypeError)):
        await wire.report(1, task, "done", result=PROCESSES)


async def state_on_disk(folder: Path, task: str) -> State:
    with Database.in_file(folder / "data" / "stanch.db") as database:
        query = select(tasks.c.state).where(tasks.c.id == task)
        return State(await database.read(lambda connection: connection.execute(query).scalar_one()))
