"""Tests of stanch.agent.telling."""

from pathlib import Path

from stanch.agent.telling import SpoolDetections
from tests.fakes.agent import Machine, Script, scripted


async def test_a_detection_is_in_the_spool_with_its_task(tmp_path: Path) -> None:
    """What an action tells waits on the disk for the server, with the task and order that it came from."""
    async with Machine(tmp_path, scripted(Script())).agent() as agent:
        detections = SpoolDetections(task="tsk_1", order="ord_1", spool=agent.spool)
        await detections.tell("yara-found", {"found": 1})
        [notice] = await agent.notices()
    assert notice.kind == "yara-found"
    assert notice.detail == {"found": 1, "task": "tsk_1", "order": "ord_1"}
