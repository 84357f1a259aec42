"""Tell the server of what an action has noticed: a notice in the spool, with its task and order."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from stanch.agent.spool import Spool
from stanch.core.errors import Unavailable
from stanch.core.host import Record

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two tries, while the disk takes nothing."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolDetections:
    """The detections of one task (`core.host.Detections`)."""

    task: str
    order: str
    spool: Spool
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def tell(self, kind: str, detail: Record) -> None:
        """Put it on the disk, to be sent when the server can be reached.

        A full disk is waited out: what a scan of hours has found must not be lost to it. The time limit of the task,
        or a cancel, is what ends that.
        """
        notice, wait = self.spool.notice(kind, {**detail, "task": self.task, "order": self.order}), FIRST_WAIT
        while True:
            try:
                return await self.spool.put(notice)
            except Unavailable as error:
                log.warning("a detection cannot be written down", kind=kind, error=str(error), next_try=wait)
            await self.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
