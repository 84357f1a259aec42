"""A terminal of an endpoint, on the terminal of a person: raw, resized with it, and left by `~.` as one leaves ssh.

Where standard input is no terminal, what it holds is typed, and its end is typed as the end of a file, so that
`echo id | stanch shell web-01` does what one means by it.
"""

import asyncio
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from stanch.cli.command import Command
from stanch.cli.connect import connected
from stanch.cli.plain import plain
from stanch.core.errors import Cancelled, Conflict, StanchError
from stanch.core.rest import OrderView
from stanch.core.task import State

if TYPE_CHECKING:
    from stanch.client.api import Client
    from stanch.core.terminal import Closed

KEYS, DISPLAY = 0, 1
CHUNK = 4096
END_OF_FILE = b"\x04"
SIGNALLED = 128
"""Beside the signal's own number, as shells say it."""

LOST_EXIT = 255


@click.command(cls=Command, examples=("terminal tsk_01HZX8",))
@click.argument("task")
def terminal(task: str) -> int:
    """Join a terminal again that you have ordered: after the connection, or this program, was lost.

    A terminal is kept for five minutes without you. Leave it for good with `~.` at the beginning of a line.
    """
    with connected() as client:
        return sit(client, task)


def take_seat(client: "Client", order: OrderView) -> int:
    """Join the terminal that was just ordered; the exit code of its shell."""
    (task,) = order.tasks
    click.echo(f"Terminal {plain(task.id)}; everything is recorded. ~. at the beginning of a line hangs up.", err=True)
    _wait_for(client, order)
    try:
        return sit(client, task.id)
    except Conflict:
        # The endpoint was faster than we: it says better why there is no terminal.
        (told,) = client.order(order.id).tasks
        if told.error is None:
            raise
        raise StanchError.from_body(told.error) from None


def _wait_for(client: "Client", order: OrderView) -> None:
    """Until the endpoint has begun, or said why not. Who goes away before that wants no terminal later, either."""
    try:
        with ended_by_signals():
            for event in client.watch(order.id):
                if event.state is State.QUEUED:
                    click.echo("The endpoint is not connected; waiting for it. Ctrl-C cancels the order.", err=True)
                elif event.state is State.RUNNING:
                    return
    except (KeyboardInterrupt, StanchError):
        with suppress(StanchError):
            client.cancel(order.id)
        raise


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """What asks a program to end ends it as Ctrl-C does: so that what was begun is put back."""

    def end(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def sit(client: "Client", task: str) -> int:
    """Stay at a terminal until it is closed; the exit code of its shell."""
    with raw() as is_terminal:
        closed = asyncio.run(_run(client, task, is_terminal=is_terminal))
    click.echo(f"Closed: {_how(closed)}. The recording becomes evidence of task {plain(task)}.", err=True)
    if closed.code is not None:
        return closed.code
    number = getattr(signal, closed.signal or "", None)
    return SIGNALLED + number if isinstance(number, signal.Signals) else LOST_EXIT


async def _run(client: "Client", task: str, *, is_terminal: bool) -> "Closed":
    """Sit there; whoever is asked to end leaves, and the terminal is put back."""
    loop, sitting = asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: sitting.cancel() if sitting else None)
    try:
        return await client.terminal(task).run(PersonsScreen(is_terminal=is_terminal))
    except asyncio.CancelledError:
        raise Cancelled("You left the terminal", hint=f"It is kept for five minutes: stanch terminal {task}") from None


def _how(closed: "Closed") -> str:
    ended = f"signal {plain(closed.signal)}" if closed.signal else f"exit code {closed.code}"
    reasons = {
        "exit": ended,
        "idle": "nothing was typed for too long",
        "time": "its time was over",
        "left": "hung up",
        "link": "the endpoint could not reach the server",
        "cancelled": "its task was cancelled",
    }
    return reasons.get(closed.why, closed.why)


class PersonsScreen:
    """Standard input and output."""

    def __init__(self, *, is_terminal: bool, keys: int = KEYS, display: int = DISPLAY) -> None:
        self._is_terminal = is_terminal
        self._keys, self._display = keys, display
        self._typed: asyncio.Queue[bytes] = asyncio.Queue(64)
        self._sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self._escape = Escape()
        self._reading = self._following = False
        self._at_start = True

    def show(self, data: bytes) -> None:
        """Bytes of the terminal."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._display, view) :]

    def tell(self, text: str) -> None:
        """A line about the connection."""
        sys.stderr.write(f"\r\n[{plain(text)}]\r\n" if self._is_terminal else f"{plain(text)}\n")
        sys.stderr.flush()

    async def typed(self) -> bytes | None:
        """What was typed next; None for `~.`, and at the end of a terminal."""
        if not self._reading:
            self._reading = True
            loop = asyncio.get_running_loop()
            # A thread of its own that dies with the program: a file, unlike a terminal, cannot be waited for.
            threading.Thread(target=self._read, args=(loop,), daemon=True).start()
        data = await self._typed.get()
        if self._is_terminal:
            return self._escape.pass_on(data) if data else None
        # The end of a file counts at the beginning of a line only.
        start, self._at_start = self._at_start, not data or data.endswith(b"\n")
        return data or (END_OF_FILE if start else b"\n" + END_OF_FILE)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        data = b"begin"
        while data:
            try:
                data = os.read(self._keys, CHUNK)
            except OSError:  # a folder, or a terminal that is gone
                data = b""
            try:
                asyncio.run_coroutine_threadsafe(self._put(data), loop).result()
            except (RuntimeError, CancelledError):
                return  # the terminal is closed, and the loop with it

    async def _put(self, data: bytes) -> None:
        await self._typed.put(data)

    async def resized(self) -> tuple[int, int]:
        """The next size; at once the first time. Where nobody looks at it, it keeps the one that was ordered."""
        if not self._following and self._is_terminal:
            self._following = True
            asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, self._note_size)
            self._note_size()
        return await self._sizes.get()

    def _note_size(self) -> None:
        try:
            columns, rows = os.get_terminal_size(self._display)
        except OSError:
            return
        self._sizes.put_nowait((min(max(columns, 1), 1000), min(max(rows, 1), 1000)))


class Escape:
    """`~.` at the beginning of a line hangs up; `~~` there is one tilde."""

    def __init__(self) -> None:
        self._at_start = True
        self._tilde = False

    def pass_on(self, data: bytes) -> bytes | None:
        """What of it goes on; None to hang up."""
        out = bytearray()
        for byte in data:
            character = bytes((byte,))
            if self._tilde:
                self._tilde = False
                if character == b".":
                    return None
                if character != b"~":
                    out += b"~"
            elif self._at_start and character == b"~":
                self._tilde = True
                continue
            out += character
            self._at_start = character in b"\r\n"
        return bytes(out)


@contextmanager
def raw() -> Iterator[bool]:
    """Put the terminal, if standard input is one, into raw mode, and back in the end."""
    if not os.isatty(KEYS):
        yield False
        return
    before = termios.tcgetattr(KEYS)
    try:
        tty.setraw(KEYS)
        yield True
    finally:
        termios.tcsetattr(KEYS, termios.TCSADRAIN, before)
