"""The door to the worker that looks through a pack: hand it an open file, and read its one bounded answer."""

import asyncio
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import Field, ValidationError

from stanch.core.content import MAX_PACK_FILES
from stanch.core.errors import ActionFailed, TimedOut, Unavailable
from stanch.core.model import LooseModel
from stanch.core.rest_content import MAX_PROBLEMS, MAX_UNKNOWN, ContentProblem, Count
from stanch.core.types import Text
from stanch.worker.ask import BLOCK, end, started

WITHIN = timedelta(minutes=5)
"""Its processor time is bounded more tightly; this is for a machine that is busy with other things."""
OUTPUT_LIMIT = 8 * 2**20


class Looked(LooseModel):
    """What the worker answered. It has met hostile bytes: nothing here is believed further than its bounds."""

    confined: Annotated[Mapping[Annotated[str, Field(max_length=64)], Text], Field(max_length=30)]
    """How it was confined: measure to `yes`, or why not."""
    files: Annotated[tuple[tuple[Count, Count], ...], Field(max_length=MAX_PACK_FILES)]
    """Of each file that was looked at, in their order: how many rules count, and how many things do not."""
    problems: Annotated[tuple[ContentProblem, ...], Field(max_length=MAX_PROBLEMS)]
    """The first of what does not count."""
    unknown: Annotated[tuple[tuple[Text, Count], ...], Field(max_length=MAX_UNKNOWN)]
    """Terms that cannot be known on Linux, and how often they are asked."""
    why_incomplete: Text
    """Why it has not looked at all of them; empty if it has."""


async def ask_lint(pack: int, *, within: timedelta = WITHIN) -> Looked:
    """Let a new worker look through the pack behind this descriptor, from where that stands.

    Raises Unavailable if none can be started, TimedOut, and ActionFailed if it fails, dies or answers nonsense.
    """
    process = await started([sys.executable, "-I", "-m", "stanch.worker.lint"], stdin=pack)
    try:
        async with asyncio.timeout(within.total_seconds()):
            output = await _output(process)
    except TimeoutError:
        raise TimedOut("The content could not be looked through in time", got=f"nothing after {within}") from None
    finally:
        await end(process)
    return _looked(output, process.returncode)


async def _output(process: asyncio.subprocess.Process) -> bytes:
    """All of it, once the process has ended."""
    if process.stdout is None:
        raise Unavailable("The worker has no streams")
    output = bytearray()
    while piece := await process.stdout.read(BLOCK):
        output += piece
        if len(output) > OUTPUT_LIMIT:
            raise ActionFailed("The worker answered too much", expected=f"at most {OUTPUT_LIMIT} bytes")
    await process.wait()
    return bytes(output)


def _looked(output: bytes, status: int | None) -> Looked:
    if status != 0:
        ended = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
        raise ActionFailed(
            "The content could not be looked through",
            got=f"the worker ended by {ended}",
            hint="A file in it makes the reader of rules fail: import it in parts to find which.",
        )
    try:
        return Looked.model_validate_json(output)
    except ValidationError as error:
        raise ActionFailed("The worker answered nonsense", got=f"{error.error_count()} errors") from None
