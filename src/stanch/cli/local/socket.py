"""Ask the agent on this machine, through one of its sockets: one JSON line there, one back."""

import json
import os
import socket
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from stanch.core.errors import Denied, ErrorBody, StanchError, Unavailable

MAX_ANSWER: Final = 8 * 1_048_576
SECONDS: Final = 90.0
"""An isolation that waits for its confirmation, a minute at most, ends before it is lifted."""


def ask(path: Path, do: str, *, patience: float | None = SECONDS, **said: Any) -> dict[str, Any] | None:
    """The value of the answer; None if no agent listens. Denied without the right, or the agent's own error.

    `patience` is in seconds; None waits as long as it takes.
    """
    try:
        answer = _exchange(path, json.dumps({"do": do, **said}).encode() + b"\n", patience)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except PermissionError:
        raise Denied("Only root may speak with the agent", hint="Try again with sudo.") from None
    except OSError as error:
        raise Unavailable("The agent does not answer", got=error, hint="Its log tells why.") from None
    return _value(answer)


def _exchange(path: Path, line: bytes, patience: float | None) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        connection.connect(os.fspath(path))
        connection.sendall(line)
        answer = bytearray()
        while not answer.endswith(b"\n") and len(answer) <= MAX_ANSWER:
            piece = connection.recv(65_536)
            if not piece:
                break
            answer += piece
        return bytes(answer)


def _value(answer: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(answer)
        error = None if parsed["ok"] else ErrorBody.model_validate(parsed["error"])
        value = parsed["value"] if error is None else {}
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
        raise Unavailable("The agent's answer cannot be understood", got=f"{len(answer)} bytes") from None
    if error is not None:
        raise StanchError.from_body(error)
    return value if isinstance(value, dict) else {"value": value}
