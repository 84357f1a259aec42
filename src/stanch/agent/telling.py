"""Tell the server of what an action has noticed: a notice in the spool, with its task and order."""

from dataclasses import dataclass

from stanch.agent.spool import Spool
from stanch.core.host import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolDetections:
    """The detections of one task (`core.host.Detections`)."""

    task: str
    order: str
    spool: Spool

    async def tell(self, kind: str, detail: Record) -> None:
        """Put it on the disk, to be sent when the server can be reached."""
        await self.spool.put(self.spool.notice(kind, {**detail, "task": self.task, "order": self.order}))
