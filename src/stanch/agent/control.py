"""The agent's sockets, for `stanch local` on this machine: one line of JSON in, one line out.

A question is `{"do": "status"}`; the answer is `{"ok": true, "value": {...}}` or `{"ok": false, "error": {...}}`. One
socket is root's: its own permissions keep others out, and so does the kernel's word on who connected, since a
permission may be changed by mistake. The other is for everybody, who is hostile: short lines, few connections of one
account, one question each, and no waiting.
"""

import asyncio
import errno
import json
import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from stanch.core.errors import Conflict, Denied, Invalid, StanchError, TooLarge, VerificationFailed

MAX_LINE_BYTES = 1_048_576
"""Of root: what a person orders at the machine may name many files."""

MAX_CLIENTS = 8
IDLE_SECONDS = 30.0
RETRY_SECONDS = 1.0

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who asks, and all that was said."""

    uid: int
    said: Values


Answer = Callable[[Question], Awaitable[Values]]
"""What is done for one word of `do`; raises a StanchError if it cannot be."""

WhoIs = Callable[[socket.socket], int]
"""The account at the other end of a unix socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """Who may come to a socket, and how much of anything they get."""

    everybody: bool = False
    line_bytes: int = MAX_LINE_BYTES
    clients: int = MAX_CLIENTS
    clients_of_one: int = MAX_CLIENTS
    """Of one account at a time: the others' turn must come."""
    idle_seconds: float = IDLE_SECONDS
    """For a line to come, and for an answer to be taken."""
    questions: int | None = None
    """Of one connection."""

    @property
    def mode(self) -> int:
        """Of the socket."""
        return 0o666 if self.everybody else 0o600


ROOTS = Manners()
EVERYBODYS = Manners(everybody=True, line_bytes=1024, clients_of_one=2, idle_seconds=5.0, questions=1)

FOLDER_MODE = 0o711
"""Everybody may enter, and nobody may look around."""

_UCRED = struct.Struct("3i")

log = structlog.get_logger()


def peer_uid(client: socket.socket) -> int:
    """The effective user id of whoever connected, as the kernel saw it then."""
    _pid, uid, _gid = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


class Control:
    """Serves one socket."""

    def __init__(
        self, path: Path, answers: Mapping[str, Answer], *, manners: Manners = ROOTS, who_is: WhoIs = peer_uid
    ) -> None:
        self._path = path
        self._answers = answers
        self._manners = manners
        self._who_is = who_is
        self._clients = asyncio.Semaphore(manners.clients)
        self._accounts: Counter[int] = Counter()

    async def run(self) -> None:
        """Answer until cancelled. Without its socket the agent goes on: the server is still there."""
        try:
            async with self._listening() as listener, asyncio.TaskGroup() as group:
                while True:
                    await self._clients.acquire()
                    client = await self._accepted(listener)
                    group.create_task(self._serve(client))
        except (StanchError, OSError) as error:
            log.warning("no-local-control", path=str(self._path), error=str(error))

    async def _accepted(self, listener: socket.socket) -> socket.socket:
        """The next client; where descriptors are short, say, the agent goes on and tries again."""
        while True:
            try:
                return (await asyncio.get_running_loop().sock_accept(listener))[0]
            except OSError as error:
                log.warning("no-local-client", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[socket.socket]:
        _make_folder(self._path.parent, everybody=self._manners.everybody)
        _remove_stale(self._path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            # Before bind: Linux gives the name the mode of the socket, so there is no moment at which others may enter.
            os.fchmod(listener.fileno(), self._manners.mode)
            listener.bind(os.fspath(self._path))
            if self._manners.everybody:
                self._path.chmod(self._manners.mode)  # the umask has taken something away
            listener.listen(self._manners.clients)
            listener.setblocking(False)
            try:
                yield listener
            finally:
                self._path.unlink(missing_ok=True)

    async def _serve(self, client: socket.socket) -> None:
        """One client, whatever it does: its end is no news."""
        try:
            with client, self._counted(self._who_is(client)) as uid:
                client.setblocking(False)
                reader, writer = await asyncio.open_unix_connection(sock=client, limit=self._manners.line_bytes)
                with _closing(writer):
                    await self._talk(reader, writer, uid)
        except (OSError, Denied) as error:
            if not self._manners.everybody:  # whoever likes could fill the log
                log.info("local-client-gone", error=str(error))
        finally:
            self._clients.release()

    @contextmanager
    def _counted(self, uid: int) -> Iterator[int]:
        """Hold one of the places of this account; Denied if it has them all."""
        if self._accounts[uid] >= self._manners.clients_of_one:
            raise Denied("This account has too many connections", got=uid)
        self._accounts[uid] += 1
        try:
            yield uid
        finally:
            self._accounts[uid] -= 1
            if not self._accounts[uid]:
                del self._accounts[uid]

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uid: int) -> None:
        left = self._manners.questions
        while left is None or left > 0:
            left = None if left is None else left - 1
            try:
                async with asyncio.timeout(self._manners.idle_seconds):
                    line = await reader.readuntil(b"\n")
            except (asyncio.IncompleteReadError, TimeoutError):
                return
            except asyncio.LimitOverrunError:
                line, left = b" " * self._manners.line_bytes, 0
            writer.write(json.dumps(await self._answer(line, uid)).encode() + b"\n")
            try:
                async with asyncio.timeout(self._manners.idle_seconds):
                    await writer.drain()
            except TimeoutError:
                return

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
        if not self._manners.everybody and uid not in {0, os.geteuid()}:
            raise Denied("Only root may ask the agent", got=f"uid {uid}", expected="uid 0")
        said = read_question(line, limit=self._manners.line_bytes)
        do = str(said["do"])
        answer = self._answers.get(do)
        if answer is None:
            raise Invalid("The agent does not know this", got=do[:100], expected=", ".join(self._answers))
        if not self._manners.everybody:
            log.info("local-request", do=do, uid=uid)
        return await answer(Question(uid=uid, said=said))


def alone(answer: Callable[[], Awaitable[Values]]) -> Answer:
    """An answer that depends on nothing but its word."""

    async def told(_question: Question) -> Values:
        return await answer()

    return told


def read_question(line: bytes, *, limit: int = MAX_LINE_BYTES) -> Values:
    """What was said: `do` is a word of it. Invalid or TooLarge otherwise."""
    if len(line) >= limit:
        raise TooLarge("The line is too long", expected=f"under {limit} bytes")
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Invalid("The line is no JSON", got=error) from None
    if not isinstance(asked, dict) or not isinstance(asked.get("do"), str):
        raise Invalid("The line asks for nothing", got=line[:100].decode(errors="replace"), expected='{"do": "status"}')
    return asked


@contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.close()


def _make_folder(folder: Path, *, everybody: bool) -> None:
    """Make a folder in which only this account may put things, or check the one that is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(FOLDER_MODE)  # the umask may have taken something away
    found = folder.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or mode & 0o022:
        raise VerificationFailed(
            f"Others could put their own socket into {folder}",
            got=f"mode {mode:04o}, owner {found.st_uid}",
            expected=f"a folder of mode {FOLDER_MODE:04o}, owner {os.geteuid()}",
        )
    if everybody and not mode & 0o001:
        log.warning("others-cannot-enter", folder=str(folder), hint=f"chmod {FOLDER_MODE:o} {folder}")


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
