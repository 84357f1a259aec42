"""Terminals, where people join them: a real server, a real TLS connection, an agent that speaks the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import pytest_asyncio

from stanch.client.terminal import Terminal
from stanch.core.errors import Conflict, Denied, NotAuthenticated, NotFound, StanchError, Unavailable
from stanch.core.terminal import Closed
from stanch.core.terminal import Why as Reason
from stanch.core.terminal_wire import (
    TERMINAL_PATH,
    HangUp,
    Have,
    Incoming,
    Joined,
    Outgoing,
    Over,
    Resize,
    Word,
    read_word,
)
from stanch.server.api import terminals as module
from tests.fakes.waiting import eventually
from tests.server.live import SOON, Agent, Live, Person, Wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOSED = Closed(why=Reason.EXIT, code=7, pid=4711, sent=3, received=3)


class Screen:
    """A person who types what the test says."""

    def __init__(self) -> None:
        self.shown = b""
        self.told: list[str] = []
        self.keys: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

    def show(self, data: bytes) -> None:
        self.shown += data

    def tell(self, text: str) -> None:
        self.told.append(text)

    async def typed(self) -> bytes | None:
        return await self.keys.get()

    async def resized(self) -> tuple[int, int]:
        return await self.sizes.get()


class ShellEnd:
    """The agent's end of a terminal."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.outgoing, self.incoming = Outgoing(), Incoming()
        self.typed = b""
        self.words: list[Word] = []

    async def join(self) -> None:
        joined = read_word(await self.socket.receive_str(timeout=SOON))
        assert isinstance(joined, Joined)
        self.outgoing.joined(joined.have)
        await self.socket.send_str(Joined(have=self.incoming.have).model_dump_json())

    async def show(self, data: bytes) -> None:
        self.outgoing.put(data)
        while (message := self.outgoing.take()) is not None:
            await self.socket.send_bytes(message)

    async def hear(self) -> None:
        """One message, of either kind."""
        message = await self.socket.receive(timeout=SOON)
        if message.type is aiohttp.WSMsgType.BINARY:
            self.typed += self.incoming.take(message.data)
            await self.socket.send_str(Have(have=self.incoming.have).model_dump_json())
        else:
            assert message.type is aiohttp.WSMsgType.TEXT, message
            word = read_word(message.data)
            if isinstance(word, Have):
                self.outgoing.acknowledge(word.have)
            else:
                self.words.append(word)

    async def say(self, word: Word) -> None:
        await self.socket.send_str(word.model_dump_json())


@pytest_asyncio.fixture(loop_scope="module")
async def agent(live: Live) -> Agent:
    return await live.enrol()


@pytest_asyncio.fixture(loop_scope="module")
async def wire(agent: Agent) -> AsyncIterator[Wire]:
    async with agent.linked(actions={"shell": 1}) as one:
        yield one


async def ordered(live: Live, wire: Wire, *, by: Person | None = None) -> str:
    """A terminal that was ordered, and whose order has reached the endpoint."""
    person = by or await live.admin()
    answer = await person.order("shell", endpoints=[wire.agent.endpoint])
    assert answer.status == 201, answer.body
    await wire.hear_order()
    return str(answer.json["tasks"][0]["id"])


@asynccontextmanager
async def shell_end(agent: Agent, task: str) -> AsyncIterator[ShellEnd]:
    """The agent, joined to the terminal."""
    async with agent.session.ws_connect(f"{agent.url}{TERMINAL_PATH}/{task}", ssl=agent.tls) as socket:
        end = ShellEnd(socket)
        await end.join()
        yield end


async def seat(live: Live, task: str, *, token: str | None = None) -> Terminal:
    """The administrator's own end."""
    token = token or (await live.admin()).token or ""
    return Terminal(live.server.api_url, token=token, tls=live.tls, task=task, patience=SOON)


async def test_a_person_works_at_a_shell(live: Live, wire: Wire) -> None:
    """Typed bytes and sizes go there, shown bytes come back, and the end says how it ended."""
    task, screen = await ordered(live, wire), Screen()
    person = await seat(live, task)
    async with shell_end(wire.agent, task) as shell, asyncio.TaskGroup() as group:
        running = group.create_task(person.run(screen))
        screen.sizes.put_nowait((120, 40))
        screen.keys.put_nowait(b"id\r")
        while shell.typed != b"id\r" or not shell.words:
            await shell.hear()
        assert shell.words == [Resize(columns=120, rows=40)]
        await shell.show(b"uid=0\r\n")
        await shell.say(Over(closed=CLOSED))
        assert await running == CLOSED
    assert screen.shown == b"uid=0\r\n"
    assert screen.told == []


async def test_the_recording_is_evidence_of_the_task(live: Live, wire: Wire) -> None:
    """Soon after the end it can be fetched like any evidence, with both directions in it."""
    task, screen, admin = await ordered(live, wire), Screen(), await live.admin()
    person = await seat(live, task)
    async with shell_end(wire.agent, task) as shell, asyncio.TaskGroup() as group:
        group.create_task(person.run(screen))
        screen.keys.put_nowait(b"whoami\r")
        while shell.typed != b"whoami\r":
            await shell.hear()
        await shell.show(b"root\r\n")
        await shell.say(Over(closed=CLOSED))
    found = await kept(live, task)
    content = await admin.ask("GET", f"/evidence/{found}/content")
    assert b'"i","whoami\\r"' in content.body
    assert b'"o","root\\r\\n"' in content.body
    assert b'"m","admin joined"' in content.body


async def kept(live: Live, task: str) -> str:
    """The recording's id, once it is kept."""
    found: list[str] = []

    async def look() -> None:
        views, _ = await live.services.evidence.list(task=task)
        found.extend(view.id for view in views if view.complete)

    async with asyncio.timeout(SOON):
        while not found:
            await look()
            await asyncio.sleep(0.02)
    return found[0]


async def test_hanging_up_is_passed_on(live: Live, wire: Wire) -> None:
    """`~.` reaches the endpoint as a word, and the person stays until it is closed there."""
    task, screen = await ordered(live, wire), Screen()
    person = await seat(live, task)
    async with shell_end(wire.agent, task) as shell, asyncio.TaskGroup() as group:
        running = group.create_task(person.run(screen))
        screen.keys.put_nowait(None)
        while HangUp() not in shell.words:
            await shell.hear()
        await shell.say(Over(closed=CLOSED.model_copy(update={"why": Reason.LEFT})))
        assert (await running).why is Reason.LEFT


async def test_a_new_program_joins_again(live: Live, wire: Wire) -> None:
    """Somebody whose program died goes on where the terminal is."""
    task, first, second = await ordered(live, wire), Screen(), Screen()
    before, after = await seat(live, task), await seat(live, task)
    async with shell_end(wire.agent, task) as shell:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(before.run(first))
            first.keys.put_nowait(b"ls\r")
            await shell.show(b"$ ")
            while shell.typed != b"ls\r":
                await shell.hear()
            await eventually(lambda: first.shown == b"$ ")
            running.cancel()
        async with asyncio.TaskGroup() as group:
            again = group.create_task(after.run(second))
            second.keys.put_nowait(b"pwd\r")
            while shell.typed != b"ls\rpwd\r":
                await shell.hear()
            await shell.show(b"/root\r\n")
            await shell.say(Over(closed=CLOSED))
            assert await again == CLOSED
    assert second.shown.endswith(b"/root\r\n")


async def refused(live: Live, task: str, token: str) -> StanchError:
    """How a person is refused."""
    person = await seat(live, task, token=token)
    with pytest.raises(StanchError) as error:
        await person.run(Screen())
    return error.value


async def test_without_a_session_nobody_joins(live: Live, wire: Wire) -> None:
    """A token that is none is refused, as everywhere."""
    assert isinstance(await refused(live, await ordered(live, wire), "nonsense"), NotAuthenticated)


async def test_somebody_else_does_not_join(live: Live, wire: Wire) -> None:
    """Only who ordered it may."""
    other = live.person()
    await other.sign_in("a-incident-lead")
    assert isinstance(await refused(live, await ordered(live, wire), other.token or ""), Denied)


async def test_there_is_no_such_terminal(live: Live) -> None:
    """A task that does not exist has none."""
    admin = await live.admin()
    assert isinstance(await refused(live, "tsk_none", admin.token or ""), NotFound)


async def test_the_endpoint_refuses(live: Live, wire: Wire) -> None:
    """Whoever waits at a terminal that is not opened is told why soon."""
    task, admin = await ordered(live, wire), await live.admin()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(refused(live, task, admin.token or ""))
        await wire.report(1, task, "refused", error={"code": "forbidden-here", "message": "no"})
        error = await waiting
    assert isinstance(error, Conflict)


async def test_a_server_that_is_gone(live: Live) -> None:
    """A person is told after the patience is over, and how to come back."""
    admin, screen = await live.admin(), Screen()
    person = Terminal("https://127.0.0.1:1", token=admin.token or "", tls=live.tls, task="tsk_1", patience=0.0)
    with pytest.raises(Unavailable):
        await person.run(screen)
    assert "lost" in screen.told[0]


async def test_it_is_for_one_endpoint(live: Live, wire: Wire) -> None:
    """A terminal on several endpoints is refused before anything is opened."""
    other = await live.enrol("web-02")
    answer = await (await live.admin()).order("shell", endpoints=[wire.agent.endpoint, other.endpoint])
    assert (answer.status, answer.code) == (422, "invalid")


async def test_who_is_signed_out_is_sent_away(live: Live, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that ends, ends the seat at a root shell, too, and not only the next request."""
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)
    person = live.person()
    await person.sign_in()
    task, screen = await ordered(live, wire, by=person), Screen()
    end = await seat(live, task, token=person.token)
    async with shell_end(wire.agent, task) as shell, asyncio.TaskGroup() as group:
        running = group.create_task(refusal(end, screen))
        await shell.show(b"$ ")
        await eventually(lambda: screen.shown == b"$ ")
        assert (await person.ask("POST", "/logout")).status < 300
        assert isinstance(await running, NotAuthenticated)


async def refusal(end: Terminal, screen: Screen) -> StanchError:
    """Why one is sent away."""
    with pytest.raises(StanchError) as error:
        await end.run(screen)
    return error.value


async def test_a_right_that_is_taken_away_hangs_up(live: Live, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person is told, and the endpoint ends the shell."""
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.05)
    task, screen, refused_now = await ordered(live, wire), Screen(), Denied("no more")

    async def no_more(*_: object) -> None:
        raise refused_now

    end = await seat(live, task)
    async with shell_end(wire.agent, task) as shell, asyncio.TaskGroup() as group:
        running = group.create_task(refusal(end, screen))
        await shell.show(b"$ ")
        await eventually(lambda: screen.shown == b"$ ")
        monkeypatch.setattr(live.services.terminals, "for_person", no_more)
        assert isinstance(await running, Denied)
        while HangUp() not in shell.words:
            await shell.hear()


async def test_revoking_the_endpoint_ends_its_terminal(live: Live, wire: Wire) -> None:
    """An endpoint that is not trusted any more has no person at it, and no connection."""
    task, screen = await ordered(live, wire), Screen()
    end = await seat(live, task)
    async with shell_end(wire.agent, task) as shell, asyncio.TaskGroup() as group:
        running = group.create_task(refusal(end, screen))
        await shell.show(b"$ ")
        await eventually(lambda: screen.shown == b"$ ")
        await (await live.admin()).ask("POST", f"/endpoints/{wire.agent.endpoint}/revoke")
        error = await running
        assert isinstance(error, Conflict)
        assert "revoked" in error.message
        while not any(one.type == "refused" for one in shell.words):
            await shell.hear()
