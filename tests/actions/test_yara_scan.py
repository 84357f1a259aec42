"""Tests of stanch.actions.yara_scan."""

import asyncio
import hashlib
from typing import Any

import pytest

from stanch.actions.yara_scan import yara_scan
from stanch.core.autoruns import Place
from stanch.core.content import ContentKind
from stanch.core.errors import Invalid
from stanch.core.scan_report import Scanned
from stanch.core.scanning import Area, Engine
from stanch.core.types import EndpointPath, Upload, seconds
from tests.fakes.host import FakeEndpoint
from tests.fakes.scanner import finding
from tests.fakes.waiting import eventually

RULES = b'import "elf"\nrule miner { strings: $a = "stratum+tcp" condition: $a }\n'


def rules(endpoint: FakeEndpoint) -> dict[str, Any]:
    """Rules that came with the order."""
    sha256 = hashlib.sha256(RULES).hexdigest()
    upload = Upload(id="upl_1", name="miner.yar", size=len(RULES), sha256=sha256)
    endpoint.uploads.content[upload.id] = RULES
    return upload.model_dump(mode="json")


async def scanned(endpoint: FakeEndpoint, **params: Any) -> Scanned:
    """The answer of a scan."""
    return await yara_scan(endpoint.host, yara_scan.parse({"rules": [rules(endpoint)], **params}))


async def test_it_looks_at_all_files_unless_told_otherwise() -> None:
    """Rules alone mean all local files, and no memory."""
    endpoint = FakeEndpoint()
    endpoint.scanner.finds = [finding()]
    result = await scanned(endpoint)
    [scan] = endpoint.scanner.ordered
    assert scan.files is not None
    assert (scan.files.area, scan.memory, scan.engines) == (Area.ALL, False, {Engine.YARA})
    assert endpoint.scanner.read == {"miner.yar": RULES}
    assert endpoint.detections.told[0][0] == "yara-found"
    assert result.found == 1


async def test_every_limit_reaches_the_scanner() -> None:
    """Fast mode, tags, most rules, most findings, and time and size of each object are the scanner's."""
    endpoint = FakeEndpoint()
    await scanned(
        endpoint,
        fast=True,
        tag=["linux"],
        max_rules=3,
        max_findings=5,
        per_object="7s",
        max_file_size="1MiB",
        gentle=False,
        cache=False,
    )
    [scan] = endpoint.scanner.ordered
    assert (scan.fast, scan.tags, scan.cache) == (True, {"linux"}, False)
    assert (scan.limits.rules, scan.limits.findings, scan.limits.gentle) == (3, 5, False)
    assert scan.limits.per_object == seconds(7)
    assert scan.files is not None
    assert scan.files.max_size == 2**20


@pytest.mark.parametrize("params", [{"memory": True}, {"pid": [7]}, {"process": ["sshd"]}])
async def test_memory_alone_walks_no_files(params: dict[str, Any]) -> None:
    """Who asks for memory, or for processes, and names no place waits for no walk over the disks."""
    endpoint = FakeEndpoint()
    await scanned(endpoint, **params)
    [scan] = endpoint.scanner.ordered
    assert scan.files is None
    assert scan.memory
    assert endpoint.progress.told[0][2] == "processes"


async def test_memory_and_files_can_be_asked_for_together() -> None:
    """With a place beside it, both are looked at."""
    endpoint = FakeEndpoint()
    await scanned(endpoint, memory=True, path=["/tmp"])
    [scan] = endpoint.scanner.ordered
    assert scan.memory
    assert scan.files is not None


async def test_autoruns_are_their_files_and_programs() -> None:
    """What starts by itself means the file that says so and what it starts, each once."""
    endpoint = FakeEndpoint()
    cron = {"place": Place.CRON, "program": EndpointPath("/opt/x")}
    endpoint.autoruns.add("job", "/etc/cron.d/job", line=1, command="a", **cron)
    endpoint.autoruns.add("job", "/etc/cron.d/job", line=2, command="b", **cron)
    await scanned(endpoint, autoruns=True, path=["/srv"])
    [scan] = endpoint.scanner.ordered
    assert scan.files is not None
    assert scan.files.paths == ("/srv", "/etc/cron.d/job", "/opt/x")


async def test_autoruns_are_no_part_of_another_area() -> None:
    """An area beside them would be looked at or not: nobody could tell."""
    with pytest.raises(Invalid, match="area of its own"):
        await scanned(FakeEndpoint(), autoruns=True, area="system")


async def test_it_needs_rules() -> None:
    """Without any, there is nothing to scan with; indicators are no rules."""
    endpoint = FakeEndpoint()
    with pytest.raises(Invalid, match="nothing to scan with"):
        await yara_scan(endpoint.host, yara_scan.parse({}))
    endpoint.content.add("hashes", ContentKind.HASHES)
    with pytest.raises(Invalid, match="nothing that this scan can use"):
        await yara_scan(endpoint.host, yara_scan.parse({"content": ["hashes"]}))


async def test_a_dry_run_says_what_it_would_look_at() -> None:
    """A plan names rules, places and processes, and scans nothing."""
    endpoint = FakeEndpoint()
    assert yara_scan.plan is not None
    params = yara_scan.parse({"rules": [rules(endpoint)], "pid": [7], "process": ["sshd"], "path": ["/tmp"]})
    endpoint.uploads.content.clear()  # nothing is uploaded for a dry run
    plan = await yara_scan.plan(endpoint.host, params)
    told = [f"{one.what} {one.target}" for one in plan.steps]
    assert told == [
        f"Use the uploaded file, once it is checked miner.yar ({len(RULES)} bytes)",
        "Look at files /tmp",
        "Look at memory of process 7",
        "Look at memory of sshd",
    ]
    assert not endpoint.scanner.ordered


async def test_a_scan_that_is_cancelled_ends_at_once() -> None:
    """Leaving the order leaves the scanner, which ends its process then."""
    endpoint = FakeEndpoint()
    endpoint.scanner.hangs = True
    running = asyncio.get_running_loop().create_task(scanned(endpoint))
    await eventually(lambda: endpoint.progress.told)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert endpoint.scanner.ended_early
    assert not endpoint.detections.told
