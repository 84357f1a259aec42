"""Tests of stanch.actions.pause_scan: scans wait, and go on."""

import pytest

from stanch.actions.pause_scan import pause_scan, resume_scan
from stanch.core.action import AnyAction
from stanch.core.errors import TargetGone
from tests.fakes.host import FakeEndpoint


@pytest.fixture
def endpoint() -> FakeEndpoint:
    """Two scans, one of which waits."""
    endpoint = FakeEndpoint()
    endpoint.scanner.scans = {"tsk_7": False, "tsk_8": True}
    return endpoint


async def test_all_scans_wait(endpoint: FakeEndpoint) -> None:
    """Without a task all are meant, and those that did otherwise before are told."""
    result = await pause_scan(endpoint.host, pause_scan.parse({}))
    assert (result.scans, result.changed) == (("tsk_7", "tsk_8"), ("tsk_7",))
    assert endpoint.scanner.scans == {"tsk_7": True, "tsk_8": True}


async def test_one_scan_goes_on(endpoint: FakeEndpoint) -> None:
    """A task names the scan that is meant."""
    result = await resume_scan(endpoint.host, resume_scan.parse({"task": "tsk_8"}))
    assert (result.scans, result.changed) == (("tsk_8",), ("tsk_8",))
    assert endpoint.scanner.scans == {"tsk_7": False, "tsk_8": False}


async def test_again_changes_nothing(endpoint: FakeEndpoint) -> None:
    """Saying it twice is no error."""
    assert (await pause_scan(endpoint.host, pause_scan.parse({"task": "tsk_8"}))).changed == ()


async def test_a_scan_that_does_not_run_is_told(endpoint: FakeEndpoint) -> None:
    """Somebody else's task, or one that is over, is named with those that run."""
    with pytest.raises(TargetGone) as caught:
        await pause_scan(endpoint.host, pause_scan.parse({"task": "tsk_9"}))
    assert caught.value.expected == "tsk_7, tsk_8"


@pytest.mark.parametrize("one", [pause_scan, resume_scan], ids=lambda one: one.name)
async def test_a_dry_run_names_the_scans(endpoint: FakeEndpoint, one: AnyAction) -> None:
    """A plan says which scans are meant, and leaves them."""
    assert one.plan is not None
    plan = await one.plan(endpoint.host, one.parse({}))
    assert [step.target for step in plan.steps] == ["tsk_7", "tsk_8"]
    assert endpoint.scanner.scans == {"tsk_7": False, "tsk_8": True}
