"""Speaks with Docker and Podman through their sockets, which hold the same interface (that of Docker).

The socket is opened first and asked whom it belongs to, and the request goes to exactly the one that was opened. What
answers is not trusted with memory or time: bodies, fields and waiting are bounded, and nothing of it becomes a path.
"""

import asyncio
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from itertools import islice
from pathlib import Path

import aiohttp

from stanch.core.errors import ActionFailed, StanchError, TargetGone, TimedOut, Unavailable
from stanch.core.types import seconds

FOLDERS = (Path("/run"), Path("/var/run"))
ROOT_USER = 0
MAX_USERS = 200
"""Folders of users that are looked into."""

MAX_BODY, MAX_USERS_BODY = 8 * 1_048_576, 512 * 1024
"""Bytes of an answer, of the machine's runtime and of a user's; a container takes two to four kilobytes."""

MAX_CONTAINERS = 4000
"""Of one runtime."""

READ_WITHIN = seconds(5)
CHANGE_WITHIN = seconds(30)

_NAMES = {"podman": "podman/podman.sock", "docker": "docker.sock"}
"""Podman first: its package for users of Docker makes docker.sock a link to its own."""

_NAME_LENGTH = 200
_ID = re.compile(r"[0-9a-f]{64}")
_UID = re.compile(r"0|[1-9][0-9]{0,8}")
_MAX_HEADER = 8190


@dataclass(frozen=True, slots=True)
class Socket:
    """Where a runtime listens."""

    runtime: str
    path: Path
    user: int | None = None
    """Whose own runtime it is; None for the machine's."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a runtime tells of one container."""

    id: str
    name: str
    image: str
    state: str
    """As the runtime calls it: running, paused, exited, created, dead, restarting, removing."""
    unit: str
    """The unit of systemd that keeps it, where Podman was told so."""
    pod: str


@dataclass(frozen=True, slots=True)
class Ending:
    """What a runtime does when a container ends."""

    restart: str
    """Its restart policy: always, unless-stopped, on-failure; empty for none."""
    removes: bool
    """Is it removed, with the files that it wrote?"""


def sockets(folders: Sequence[Path] = FOLDERS) -> list[Socket]:
    """Those of the machine, whether or not they are there, and those of users that are."""
    found = [Socket(name, folders[0] / path) for name, path in _NAMES.items()]
    found += [Socket(one.runtime, path) for one in found for path in _elsewhere(one, folders)]
    return found + list(islice(_of_users(folders[0] / "user"), 2 * MAX_USERS))


def _elsewhere(one: Socket, folders: Sequence[Path]) -> Iterator[Path]:
    """The same socket in another folder, if that is not another name of the first folder."""
    for folder in folders[1:]:
        path = folder / _NAMES[one.runtime]
        if path.exists() and not (one.path.exists() and path.samefile(one.path)):
            yield path


def _of_users(folder: Path) -> Iterator[Socket]:
    try:
        with os.scandir(folder) as entries:
            users = sorted(int(one.name) for one in islice(entries, MAX_USERS) if _UID.fullmatch(one.name))
    except OSError:
        return
    for user in users:
        for name, path in _NAMES.items():
            if os.path.lexists(folder / str(user) / path):
                yield Socket(name, folder / str(user) / path, user or None)  # root's own is one of the machine's


@contextmanager
def _opened(one: Socket, owner: int) -> Iterator[str]:
    """A name for exactly the socket that was checked, as long as it is held; Unavailable, with the reason."""
    # The folders of the machine are root's: a link there is root's, too. A user may link to what is not theirs.
    follow = 0 if one.user is None else os.O_NOFOLLOW
    try:
        held = os.open(one.path, os.O_PATH | os.O_CLOEXEC | follow)
    except FileNotFoundError:
        raise Unavailable("it is not there") from None
    except OSError as error:
        raise Unavailable(f"it cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(held)
        if not stat.S_ISSOCK(status.st_mode):
            raise Unavailable("it is no socket")
        if status.st_uid != owner:
            raise Unavailable(f"it belongs to user {status.st_uid}, not to user {owner}")
        yield f"/proc/self/fd/{held}"
    finally:
        os.close(held)


class RuntimeSocket:
    """A runtime behind its socket."""

    def __init__(self, socket: Socket, *, root: int = ROOT_USER, within: timedelta = READ_WITHIN) -> None:
        self.socket = socket
        self._owner = root if socket.user is None else socket.user
        self._most = MAX_BODY if socket.user is None else MAX_USERS_BODY
        self._within = within

    async def containers(self) -> list[Told]:
        """All containers, up to MAX_CONTAINERS; Unavailable or ActionFailed, with the reason as message."""
        answer = await self._ask("GET", "/containers/json?all=1", within=self._within)
        if not isinstance(answer, list):
            raise ActionFailed("it answers with something else than a list")
        rows = (_told(one) for one in islice(answer, MAX_CONTAINERS))
        return [one for one in rows if one is not None]

    async def ending(self, container: str) -> Ending:
        """What it does when the container ends; Unavailable, TargetGone or ActionFailed if it does not say."""
        answer = await self._ask("GET", f"/containers/{_checked(container)}/json", within=self._within)
        settings = _part(answer, "HostConfig")
        policy = _text(_part(settings, "RestartPolicy"), "Name")
        return Ending(policy if policy != "no" else "", _part(settings, "AutoRemove") is True)

    async def pause(self, container: str) -> None:
        """Hold it still; nothing if it is."""
        await self._change(container, "pause", "paused")

    async def resume(self, container: str) -> None:
        """Let it go on; nothing if it does."""
        await self._change(container, "unpause", "running")

    async def kill(self, container: str) -> None:
        """End it with SIGKILL; nothing if it has ended."""
        try:
            await self._ask("POST", f"/containers/{_checked(container)}/kill?signal=SIGKILL", within=CHANGE_WITHIN)
        except TargetGone:
            return
        except ActionFailed:
            if await self._state(container) in {"running", "paused", "restarting"}:
                raise

    async def _change(self, container: str, verb: str, wanted: str) -> None:
        try:
            await self._ask("POST", f"/containers/{_checked(container)}/{verb}", within=CHANGE_WITHIN)
        except ActionFailed:
            # Docker and Podman answer that it is so already with different errors.
            if await self._state(container) != wanted:
                raise

    async def _state(self, container: str) -> str:
        answer = await self._ask("GET", f"/containers/{_checked(container)}/json", within=self._within)
        return _text(_part(answer, "State"), "Status")

    async def _ask(self, method: str, target: str, *, within: timedelta) -> object:
        with _opened(self.socket, self._owner) as path:
            try:
                return await _exchange(path, method, target, within, self._most)
            except TimeoutError:
                raise TimedOut(f"it is silent for {within.total_seconds():g} seconds") from None
            except (aiohttp.ClientError, OSError) as error:
                raise Unavailable(f"it refuses: {_brief(error)}") from error
            except ValueError as error:  # also of aiohttp, for an absurd answer
                raise ActionFailed(f"it answers nonsense: {_brief(error)}") from error


async def _exchange(path: str, method: str, target: str, within: timedelta, most: int) -> object:
    """One request on a connection of its own; what was answered, from JSON, or None for no content."""
    # Without a version in front, the newest that the runtime has answers: what is read here is in all of them.
    async with (
        asyncio.timeout(within.total_seconds()),
        aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=path, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=_MAX_HEADER,
            auto_decompress=False,
        ) as session,
        session.request(method, f"http://localhost{target}", allow_redirects=False) as answer,
    ):
        body = await _body(answer, most)
        if answer.status == HTTPStatus.NOT_FOUND:
            raise TargetGone("it knows no such container", got=_said(body))
        if answer.status not in {HTTPStatus.OK, HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            raise ActionFailed(f"it answers with status {answer.status}", got=_said(body))
        # In a thread: megabytes of it may come.
        return await asyncio.to_thread(_from_json, body) if body and method == "GET" else None


async def _body(answer: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    async for part in answer.content.iter_chunked(65_536):
        body += part
        if len(body) > most:
            raise ActionFailed(f"it answers with more than {most} bytes")
    return bytes(body)


def _from_json(body: bytes) -> object:
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _said(body: bytes) -> str:
    """The message of an error."""
    try:
        return _text(_from_json(body), "message")[:500] or "no reason"
    except ValueError:
        return body[:200].decode("utf-8", "replace")


def why(error: StanchError) -> str:
    """What stands between us and a runtime, in words."""
    return error.message if error.got is None else f"{error.message} ({error.got})"


def _brief(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:200]


def _checked(container: str) -> str:
    """The id, if it is one of these runtimes: nothing else goes into an address."""
    if not _ID.fullmatch(container):
        raise TargetGone("it has no container with such an id", got=container[:100])
    return container


def _told(row: object) -> Told | None:
    """One row of the list; None if it is none."""
    number = _text(row, "Id")
    if not _ID.fullmatch(number):
        return None
    names = _part(row, "Names")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    labels = _part(row, "Labels")
    return Told(
        id=number,
        name=_clean(name.removeprefix("/")),
        image=_text(row, "Image"),
        state=_text(row, "State").lower(),
        unit=_text(labels, "PODMAN_SYSTEMD_UNIT"),
        pod=_text(labels, "io.kubernetes.pod.uid"),
    )


def _part(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else None


def _text(value: object, key: str) -> str:
    found = _part(value, key)
    return _clean(found) if isinstance(found, str) else ""


def _clean(text: str) -> str:
    """Bounded, and without the lone surrogates that JSON can write."""
    return text[:_NAME_LENGTH].encode("utf-8", "replace").decode()
