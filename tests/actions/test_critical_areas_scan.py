"""Tests of stanch.actions.critical_areas_scan."""

import hashlib

import pytest

from stanch.actions.critical_areas_scan import critical_areas_scan
from stanch.core.action import Verdict
from stanch.core.scanning import Area
from tests.fakes.host import FakeEndpoint
from tests.fakes.scanner import finding


@pytest.fixture
def endpoint() -> FakeEndpoint:
    """Something to look with, and something to find."""
    endpoint = FakeEndpoint()
    endpoint.content.add("implants")
    endpoint.files.content["/etc/cron.d/miner"] = b"@reboot root /tmp/x"
    sha256 = hashlib.sha256(b"@reboot root /tmp/x").hexdigest()
    endpoint.scanner.finds = [finding("/etc/cron.d/miner", sha256=sha256)]
    return endpoint


async def test_it_looks_at_critical_areas_and_memory(endpoint: FakeEndpoint) -> None:
    """No place has to be named: it knows where malware must be to matter."""
    await critical_areas_scan(endpoint.host, critical_areas_scan.parse({"exclude": ["/opt/**"]}))
    [scan] = endpoint.scanner.ordered
    assert scan.files is not None
    assert (scan.files.area, scan.files.exclude, scan.memory) == (Area.CRITICAL, ("/opt/**",), True)


async def test_memory_can_be_left_out(endpoint: FakeEndpoint) -> None:
    """Looking into the memory of processes is a part that can be switched off."""
    await critical_areas_scan(endpoint.host, critical_areas_scan.parse({"memory": False}))
    assert not endpoint.scanner.ordered[0].memory


async def test_finds_can_be_taken_and_come_back(endpoint: FakeEndpoint) -> None:
    """What it puts into the vault is there, verified, and comes back by the order."""
    params = critical_areas_scan.parse({"quarantine": True})
    result = await critical_areas_scan(endpoint.host, params)
    assert "/etc/cron.d/miner" not in endpoint.files.content
    assert critical_areas_scan.verify is not None
    assert (await critical_areas_scan.verify(endpoint.host, params, result)).verdict is Verdict.IN_PLACE
    assert critical_areas_scan.undo_params(params, result) is not None


async def test_a_dry_run_says_so(endpoint: FakeEndpoint) -> None:
    """A plan names the area and the memory."""
    assert critical_areas_scan.plan is not None
    plan = await critical_areas_scan.plan(endpoint.host, critical_areas_scan.parse({}))
    assert [one.target for one in plan.steps][-2:] == [
        "area critical: what starts by itself, what runs and its libraries, kernel modules, boot files",
        "memory of processes",
    ]
    assert not plan.changes
