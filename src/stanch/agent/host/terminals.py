"""Terminals on this machine: `core.terminal` by pseudo terminals, each joined to its person by a line to the server.

    person ─ server ─ line.typed ─▶ pty ─▶ shell ─▶ pty ─▶ line.outgoing ─ server ─ person

Nothing is read from the terminal while the line has no room, so a shell that floods waits; what was typed waits in the
line, bounded, while the shell does not read. A terminal costs the agent these two buffers, and its keeper's process.
"""

import asyncio
import os
import pwd
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from stanch.agent.host.first_of import first_of
from stanch.agent.host.pty import Command, Pty
from stanch.core.errors import Invalid, Unavailable
from stanch.core.programs import TASK_VARIABLE
from stanch.core.terminal import Closed, Shell, Started, Why
from stanch.core.terminal_wire import MAX_DATA, Outgoing, Typed
from stanch.core.types import EndpointPath, seconds, show_duration

MAX_OPEN = 4
"""Terminals at a time on one machine."""

GRACE = seconds(5)
"""For what runs in a terminal to end by SIGHUP."""

HURRIED = seconds(1)
"""The same for one that is cancelled: who waits for that has no more patience."""

DRAIN = seconds(30)
"""For the last output to be taken off our hands."""

WARN_BEFORE = seconds(60)

_PIECE = 4096
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FALLBACK = "/bin/sh"
_LETS_NOBODY_IN = frozenset({"nologin", "false", "true", "sync", "halt", "shutdown"})


class Line(Protocol):
    """The way to the person, and what waits on it."""

    outgoing: Outgoing
    """What the shell wrote."""
    typed: Typed
    """What was typed."""
    room: asyncio.Event
    """Set when there is room again for what the shell writes."""
    news: asyncio.Event
    """Set when something was typed."""
    over: asyncio.Future[Why]
    """The person has left, or cannot be reached any more."""
    resized: Callable[[int, int], None]
    """To be called with the columns and rows of the person's window."""

    def wake(self) -> None:
        """There is something to be sent, or to be told as passed on."""
        ...

    async def finish(self, closed: Closed, *, hurried: bool) -> None:
        """Send what is left, and then that it is closed."""
        ...


class Seats:
    """How many terminals may be open at once, whoever ordered them."""

    def __init__(self, most: int = MAX_OPEN) -> None:
        self._most = most
        self._taken = 0

    @property
    def full(self) -> Unavailable | None:
        """Why there is no room for another one; None if there is."""
        if self._taken < self._most:
            return None
        return Unavailable(
            "Too many terminals are open on this machine",
            got=self._taken,
            expected=f"at most {self._most}",
            hint="Close one, or cancel its task.",
        )

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One of them; Unavailable if there is none."""
        full = self.full
        if full is not None:
            raise full
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class LinuxTerminals:
    """The terminals of one task; each has a control group below `groups`, if there is that."""

    def __init__(
        self,
        *,
        task: str,
        line: Callable[[], AbstractAsyncContextManager[Line]],
        seats: Seats,
        groups: Path | None = None,
        grace: timedelta = GRACE,
        drain: timedelta = DRAIN,
    ) -> None:
        self._task = task
        self._line = line
        self._seats = seats
        self._groups = groups
        self._grace = grace
        self._drain = drain

    async def open(self, shell: Shell, *, started: Started) -> Closed:
        """Join the server, start the shell, and stay until it is closed; all its processes are ended then."""
        command = await asyncio.to_thread(command_of, shell, self._task)
        with self._seats.taken():
            async with self._line() as line:
                pty = await Pty.start(command, columns=shell.columns, rows=shell.rows, groups=self._groups)
                try:
                    await started(pty.id)
                    await pty.run()
                    return await _Sitting(pty, line, shell, grace=self._grace, drain=self._drain).whole()
                finally:
                    await asyncio.shield(_end(pty))

    async def why_not(self, shell: Shell) -> str | None:
        """Why it could not be opened; None if it could."""
        full = self._seats.full
        return str(full) if full is not None else await asyncio.to_thread(_why_not, shell, self._task)


async def _end(pty: Pty) -> None:
    if not pty.gone.is_set():
        pty.hang_up(HURRIED)
        await _within(HURRIED * 2, pty.gone)
    await pty.end()


class _Sitting:
    """One shell and one person, from the first byte to the last."""

    def __init__(self, pty: Pty, line: Line, shell: Shell, *, grace: timedelta, drain: timedelta) -> None:
        self._pty = pty
        self._line = line
        self._shell = shell
        self._grace = grace
        self._drain = drain
        self._now = asyncio.get_running_loop().time
        self._typed_at = self._now()
        self._sent = 0
        self._received = 0

    async def whole(self) -> Closed:
        """Until it is closed, all of it has ended, and the person has the last byte."""
        self._line.resized = self._pty.resize
        loop = asyncio.get_running_loop()
        showing, typing = loop.create_task(self._show()), loop.create_task(self._type())
        try:
            why = await self._why(showing, typing)
            await self._close(why, showing)
            closed = self._closed(why)
            if why is not Why.LINK:
                await self._line.finish(closed, hurried=why is Why.CANCELLED)
            return closed
        finally:
            for one in (showing, typing):
                one.cancel()
            await asyncio.gather(showing, typing, return_exceptions=True)

    def _closed(self, why: Why) -> Closed:
        status = self._pty.exited.result() if self._pty.exited.done() else None
        return Closed(
            why=why,
            code=status if status is not None and status >= 0 else None,
            signal=_signal_name(-status) if status is not None and status < 0 else None,
            pid=self._pty.id.pid,
            sent=self._sent,
            received=self._received,
        )

    async def _close(self, why: Why, showing: asyncio.Task[None]) -> None:
        """End what still runs, and take what it wrote last."""
        hurried = why is Why.CANCELLED
        if why is not Why.EXIT:
            self._pty.hang_up(min(self._grace, HURRIED) if hurried else self._grace)
        await _within(self._grace + DRAIN, self._pty.gone)
        if self._pty.exited.done() and self._pty.exited.result() is None:
            await self._pty.sweep()  # the keeper was killed, and could not end the others
        # With everybody gone who could write, the terminal is read to its end. But it may be that nobody takes it.
        waits: set[asyncio.Future[None] | asyncio.Future[Why]] = {showing}
        if not self._line.over.done():
            waits.add(self._line.over)
        limit = self._drain if why in {Why.EXIT, Why.IDLE, Why.TIME} else HURRIED
        await asyncio.wait(waits, timeout=limit.total_seconds(), return_when=asyncio.FIRST_COMPLETED)

    # --- bytes -------------------------------------------------------------------------------------------------------

    async def _show(self) -> None:
        """From the shell to the person, until nobody can write any more."""
        outgoing = self._line.outgoing
        while True:
            while not outgoing.room:
                self._line.room.clear()
                await self._line.room.wait()
            data = await self._pty.read(min(outgoing.room, MAX_DATA))
            if not data:
                return
            outgoing.put(data)
            self._sent += len(data)
            self._line.wake()

    async def _type(self) -> None:
        """From the person to the shell."""
        typed = self._line.typed
        while True:
            while not typed.waiting:
                self._line.news.clear()
                await self._line.news.wait()
            self._typed_at = self._now()
            piece = typed.first(_PIECE)
            # What nobody can read any more is thrown away, as a terminal does.
            count = await self._pty.write(piece) or len(piece)
            typed.pass_on(count)
            self._received += count
            self._line.wake()

    def _note(self, text: str) -> None:
        """A line from us in the terminal; none where the person is so far behind that it would be in the way."""
        line, outgoing = f"\r\n[stanch: {text}]\r\n".encode(), self._line.outgoing
        if outgoing.room >= len(line) + MAX_DATA:
            outgoing.put(line)
            self._line.wake()

    # --- why it is closed --------------------------------------------------------------------------------------------

    async def _why(self, *pumps: asyncio.Task[None]) -> Why:
        try:
            return await first_of(self._exit(), self._over(*pumps), self._idle(), self._time())
        except asyncio.CancelledError:
            # What was typed until now has been done: how it was closed is a truer end than that there was none.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            return Why.CANCELLED

    async def _exit(self) -> Why:
        await asyncio.shield(self._pty.exited)
        return Why.EXIT

    async def _over(self, *pumps: asyncio.Task[None]) -> Why:
        """The person left; or the bytes cannot be carried any more, which raises why."""
        waits: set[asyncio.Future[None] | asyncio.Future[Why]] = {self._line.over, *pumps}
        while not self._line.over.done():
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            waits -= done
        return self._line.over.result()

    async def _idle(self) -> Why:
        whole = self._shell.idle.total_seconds()
        first = whole - min(WARN_BEFORE.total_seconds(), whole / 2)
        warned_of = -1.0
        while (quiet := self._now() - self._typed_at) < whole:
            if quiet >= first and warned_of != self._typed_at:
                warned_of = self._typed_at
                self._note(f"nothing was typed for {_show(quiet)}; closed in {_show(whole - quiet)}")
            await asyncio.sleep((whole if quiet >= first else first) - quiet)
        return Why.IDLE

    async def _time(self) -> Why:
        whole = self._shell.lasts.total_seconds()
        last = min(WARN_BEFORE.total_seconds(), whole / 2)
        await asyncio.sleep(whole - last)
        self._note(f"its time is over; closed in {_show(last)}")
        await asyncio.sleep(last)
        return Why.TIME


def _show(amount: float) -> str:
    return show_duration(seconds(amount))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def _within(limit: timedelta, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(limit.total_seconds()):
            await event.wait()
    except TimeoutError:
        return


# --- whom, and what --------------------------------------------------------------------------------------------------


def command_of(shell: Shell, task: str) -> Command:
    """What is to be run for it; Invalid if there is no such user. Asks the machine's name service, and may wait."""
    account = _account(shell.user or "root")
    home = account.pw_dir if account.pw_dir.startswith("/") else "/"
    return Command(
        task=task,
        programs=_programs(shell.program, account.pw_shell),
        arguments=shell.arguments,
        environment={
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "PATH": _PATH,
            "HOME": home,
            "USER": account.pw_name,
            "LOGNAME": account.pw_name,
            "SHELL": account.pw_shell or _FALLBACK,
            TASK_VARIABLE: task,
        },
        uid=account.pw_uid,
        gid=account.pw_gid,
        groups=os.getgrouplist(account.pw_name, account.pw_gid),
        folder=home if shell.folder is None else os.fsdecode(shell.folder.raw),
        folder_must=shell.folder is not None,
    )


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise Invalid("There is no such user on this machine", got=user[:100], expected="an account name") from None


def _programs(asked: EndpointPath | None, login: str) -> Sequence[tuple[str, str]]:
    """The program that was asked for; or the login shell, and another one where that lets nobody in."""
    if asked is not None:
        path = os.fsdecode(asked.raw)
        return [(path, path)]
    usable = login.startswith("/") and Path(login).name not in _LETS_NOBODY_IN
    shells = [*([login] if usable else []), _FALLBACK]
    return [(path, f"-{Path(path).name}") for path in dict.fromkeys(shells)]


def _why_not(shell: Shell, task: str) -> str | None:
    try:
        command = command_of(shell, task)
    except Invalid as error:
        return str(error)
    if not any(Path(path).is_file() and os.access(path, os.X_OK) for path, _name in command.programs):
        return f"There is no program {command.programs[0][0]}"
    if command.folder_must and not Path(command.folder).is_dir():
        return f"There is no folder {command.folder}"
    if os.geteuid() not in {0, command.uid}:
        return f"The agent runs as user id {os.geteuid()}, and only root may act as {shell.user or 'root'}"
    return None
