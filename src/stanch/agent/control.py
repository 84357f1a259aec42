"""The agent's root-only socket, for `stanch local` on this machine: one line of JSON in, one line out.

A question is `{"do": "status"}`; the answer is `{"ok": true, "value": {...}}` or `{"ok": false, "error": {...}}`. The
socket's own permissions keep others out; the kernel's word on who connected does so again, since a permission may be
changed by mistake.
"""

import asyncio
import errno
import json
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from stanch.agent.identity import make_private
from stanch.core.errors import Conflict, Denied, Invalid, StanchError, TooLarge

MAX_LINE_BYTES = 4096
MAX_CLIENTS = 8
IDLE_SECONDS = 30.0

Values = Mapping[str, Any]
Answer = Callable[[], Awaitable[Values]]
"""What is done for one word of `do`; raises a StanchError if it cannot be."""

WhoIs = Callable[[socket.socket], int]
"""The account at the other end of a unix socket."""

_UCRED = struct.Struct("3i")

log = structlog.get_logger()


def peer_uid(client: socket.socket) -> int:
    """The effective user id of whoever connected, as the kernel saw it then."""
    _pid, uid, _gid = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


class Control:
    """Serves the socket."""

    def __init__(self, path: Path, answers: Mapping[str, Answer], *, who_is: WhoIs = peer_uid) -> None:
        self._path = path
        self._answers = answers
        self._who_is = who_is
        self._clients = asyncio.Semaphore(MAX_CLIENTS)

    async def run(self) -> None:
        """Answer until cancelled. Without its socket the agent goes on: the server is still there."""
        try:
            async with self._listening() as listener, asyncio.TaskGroup() as group:
                while True:
                    await self._clients.acquire()
                    client, _ = await asyncio.get_running_loop().sock_accept(listener)
                    group.create_task(self._serve(client))
        except (StanchError, OSError) as error:
            log.warning("no-local-control", path=str(self._path), error=str(error))

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[socket.socket]:
        make_private(self._path.parent)
        _remove_stale(self._path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # Before bind: Linux gives the name the mode of the socket, so there is no moment at which others may enter.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(os.fspath(self._path))
            listener.listen(MAX_CLIENTS)
            listener.setblocking(False)
            try:
                yield listener
            finally:
                self._path.unlink(missing_ok=True)

    async def _serve(self, client: socket.socket) -> None:
        """One client, whatever it does: its end is no news."""
        try:
            with client:
                client.setblocking(False)
                reader, writer = await asyncio.open_unix_connection(sock=client, limit=MAX_LINE_BYTES)
                with _closing(writer):
                    await self._talk(reader, writer, self._who_is(client))
        except OSError as error:
            log.info("local-client-gone", error=str(error))
        finally:
            self._clients.release()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uid: int) -> None:
        more = True
        while more:
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    line = await reader.readuntil(b"\n")
            except (asyncio.IncompleteReadError, TimeoutError):
                return
            except asyncio.LimitOverrunError:
                line, more = b" " * MAX_LINE_BYTES, False
            writer.write(json.dumps(await self._answer(line, uid)).encode() + b"\n")
            await writer.drain()

    async def _answer(self, line: bytes, uid: int) -> Values:
        try:
            value = await self._ask(line, uid)
        except StanchError as error:
            return {"ok": False, "error": error.body().model_dump()}
        except Exception:
            log.exception("local-request-failed")
            body = StanchError("The agent met an error of its own", hint="Its log says more.").body()
            return {"ok": False, "error": body.model_dump()}
        return {"ok": True, "value": value}

    async def _ask(self, line: bytes, uid: int) -> Values:
        if uid not in {0, os.geteuid()}:
            raise Denied("Only root may ask the agent", got=f"uid {uid}", expected="uid 0")
        do = read_question(line)
        answer = self._answers.get(do)
        if answer is None:
            raise Invalid("The agent does not know this", got=do[:100], expected=", ".join(self._answers))
        log.info("local-request", do=do, uid=uid)
        return await answer()


def read_question(line: bytes) -> str:
    """The word of `do`; Invalid or TooLarge otherwise."""
    if len(line) >= MAX_LINE_BYTES:
        raise TooLarge("The line is too long", expected=f"under {MAX_LINE_BYTES} bytes")
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Invalid("The line is no JSON", got=error) from None
    if not isinstance(asked, dict) or not isinstance(asked.get("do"), str):
        raise Invalid("The line asks for nothing", got=line[:100].decode(errors="replace"), expected='{"do": "status"}')
    return str(asked["do"])


@contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()


def _remove_stale(path: Path) -> None:
    """Take away the socket of an agent that is no more; Conflict if one answers, or if it is something else."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict("Something else is where the agent's socket should be", got=path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(os.fspath(path)) not in {errno.ECONNREFUSED, errno.ENOENT}:
                raise Conflict("Another agent listens here", got=path)
        path.unlink(missing_ok=True)
