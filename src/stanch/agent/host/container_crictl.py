"""Asks what runs below Kubernetes through `crictl`, where that is installed: it knows the runtime's socket."""

import json
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice

from stanch.agent.host.container_sockets import MAX_BODY, MAX_CONTAINERS, Told
from stanch.agent.host.run import run
from stanch.core.errors import ActionFailed
from stanch.core.types import seconds

Ask = Callable[[], Awaitable[bytes]]

_COMMAND = ("crictl", "ps", "--all", "--output", "json")
_WITHIN = seconds(10)
_LENGTH = 200
_STATES = {"CONTAINER_RUNNING": "running", "CONTAINER_EXITED": "exited", "CONTAINER_CREATED": "created"}


async def ask_crictl() -> bytes:
    """What `crictl ps` writes; Unsupported if it is not installed, ActionFailed if it fails, TimedOut if it hangs."""
    ended = await run(_COMMAND, within=_WITHIN, output_limit=MAX_BODY)
    if ended.returncode != 0:
        said = ended.stderr[-500:].decode("utf-8", "replace").strip()
        raise ActionFailed(f"it ends with status {ended.returncode}", got=said)
    return ended.stdout


def told_by(output: bytes) -> list[Told]:
    """The containers of its output, up to MAX_CONTAINERS; ActionFailed if it is none."""
    try:
        rows = _part(json.loads(output), "containers")
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        raise ActionFailed("it writes something else than a list of containers")
    return [one for row in islice(rows, MAX_CONTAINERS) if (one := _told(row)) is not None]


def _told(row: object) -> Told | None:
    number, labels = _text(row, "id"), _part(row, "labels")
    if not (number.isascii() and number.isalnum()):
        return None
    pod, container = _text(labels, "io.kubernetes.pod.name"), _text(_part(row, "metadata"), "name")
    return Told(
        id=number,
        name=f"{pod}/{container}" if pod else container,
        image=_text(_part(row, "image"), "image"),
        state=_STATES.get(_text(row, "state"), "unknown"),
        unit="",
        pod=_text(labels, "io.kubernetes.pod.uid"),
    )


def _part(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else None


def _text(value: object, key: str) -> str:
    found = _part(value, key)
    return found[:_LENGTH].encode("utf-8", "replace").decode() if isinstance(found, str) else ""
