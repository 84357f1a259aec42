"""Tests of stanch.agent.telling."""

from pathlib import Path

from stanch.agent.spool import Spooled
from stanch.agent.telling import SpoolDetections
from stanch.core.errors import Unavailable
from tests.fakes.agent import Machine, Script, scripted


async def test_a_detection_is_in_the_spool_with_its_task(tmp_path: Path) -> None:
    """What an action tells waits on the disk for the server, with the task and order that it came from."""
    async with Machine(tmp_path, scripted(Script())).agent() as agent:
        detections = SpoolDetections(task="tsk_1", order="ord_1", spool=agent.spool)
        await detections.tell("yara-found", {"found": 1})
        [notice] = await agent.notices()
    assert notice.kind == "yara-found"
    assert notice.detail == {"found": 1, "task": "tsk_1", "order": "ord_1"}


async def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    """What was found is not lost if the disk takes nothing: it is tried again, ever more rarely, and told once."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with Machine(tmp_path, scripted(Script())).agent() as agent:
        put, refusals = agent.spool.put, [Unavailable("The disk is full")] * 7

        async def refusing(frame: Spooled) -> None:
            if refusals:
                raise refusals.pop()
            await put(frame)

        agent.spool.put = refusing  # type: ignore[method-assign]
        await SpoolDetections(task="tsk_1", order="ord_1", spool=agent.spool, sleep=sleep).tell("yara-found", {})
        assert len(await agent.notices()) == 1
    assert waits == [1, 2, 4, 8, 16, 30, 30]
