"""The door to the worker: start one, hand it bytes, read its answer, and see that it ends.

It is trusted with nothing: its answer is bounded, and the caller validates what is in it. It has no environment, and is
killed when its time is over or its caller is cancelled.
"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, ValidationError

from stanch.core.errors import ActionFailed, TimedOut, Unavailable
from stanch.core.model import LooseModel

WITHIN = timedelta(seconds=10)
"""Its processor time is bounded much more tightly; this is for a machine that is busy with other things."""
OUTPUT_LIMIT = 4 * 2**20
BLOCK = 65_536

_HINT = "It can still be downloaded, and shown as hex."


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be rendered, besides the bytes."""

    kind: str
    """One of `kinds.Kind`."""
    offset: int = 0
    """Where in the whole these bytes begin."""
    more: bool = False
    """There is more of the whole behind them."""
    first: str = ""
    """The first few bytes of the whole, hexadecimal: they tell the encoding of a text."""


class Answer(LooseModel):
    """What a worker answered. It may be anything that fits."""

    confined: Annotated[Mapping[str, Annotated[str, Field(max_length=300)]], Field(max_length=20)]
    """How it was confined: measure to `yes`, or why not."""
    shown: Mapping[str, Any] | None = None
    """What it rendered; null if it failed."""
    error: Annotated[str, Field(max_length=1000)] = ""
    """Why it failed."""


async def ask(request: Request, content: bytes, *, within: timedelta = WITHIN) -> Answer:
    """Let a new worker render these bytes.

    Raises Unavailable if none can be started, TimedOut, and ActionFailed if it fails, dies or answers nonsense.
    """
    process = await started([sys.executable, "-I", "-m", "stanch.worker"])
    try:
        async with asyncio.timeout(within.total_seconds()):
            output = await _conversation(process, json.dumps(asdict(request)).encode() + b"\n" + content)
    except TimeoutError:
        took = f"nothing after {within.total_seconds():g} s"
        raise TimedOut("The evidence could not be rendered in time", got=took, hint=_HINT) from None
    finally:
        await end(process)
    return _answer(output, process.returncode)


async def started(line: list[str], *, stdin: int = PIPE) -> Process:
    """The new process, in a group of its own, whose input is a descriptor or ours to write.

    It is not lost if its caller is cancelled meanwhile.
    """
    starting = asyncio.get_running_loop().create_task(
        asyncio.create_subprocess_exec(
            *line, stdin=stdin, stdout=PIPE, stderr=DEVNULL, env={}, cwd="/", start_new_session=True
        )
    )
    try:
        return await asyncio.shield(starting)
    except OSError as error:
        raise Unavailable("The worker cannot be started", got=error.strerror) from error
    except asyncio.CancelledError:
        await asyncio.wait({starting})
        if starting.exception() is None:
            await end(starting.result())
        raise


async def _conversation(process: Process, everything: bytes) -> bytes:
    """Its whole output, once it has ended; ActionFailed if that is too long."""
    if process.stdin is None or process.stdout is None:
        raise Unavailable("The worker has no streams")
    process.stdin.write(everything)
    process.stdin.close()  # once all of it is written
    output = bytearray()
    while piece := await process.stdout.read(BLOCK):
        output += piece
        if len(output) > OUTPUT_LIMIT:
            raise ActionFailed("The worker answered too much", expected=f"at most {OUTPUT_LIMIT} bytes", hint=_HINT)
    await process.wait()
    return bytes(output)


async def end(process: Process) -> None:
    """Kill it, with anything that it may have started, and read what is left, so that nothing stays open."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.stdout is not None:
        while await process.stdout.read(BLOCK):
            pass
    await process.wait()


def _answer(output: bytes, status: int | None) -> Answer:
    if status != 0:
        ended = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
        raise ActionFailed("The evidence could not be rendered", got=f"the worker ended by {ended}", hint=_HINT)
    try:
        answer = Answer.model_validate_json(output)
    except ValidationError as error:
        raise ActionFailed("The worker answered nonsense", got=f"{error.error_count()} errors", hint=_HINT) from None
    if answer.shown is None:
        raise ActionFailed("The evidence could not be rendered", got=answer.error or "nothing", hint=_HINT)
    return answer
