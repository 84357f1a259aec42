"""Tests of stanch.actions.ioc_scan."""

import hashlib
import json
from typing import Any

import pytest

from stanch.actions.ioc_scan import Document, IocScan, ioc_scan
from stanch.core.content import ContentKind
from stanch.core.errors import Invalid, NotFound
from stanch.core.scan_report import INLINE_FINDINGS, Scanned
from stanch.core.scanning import Area, Engine, Skip, SkipReason, Tally
from stanch.core.types import Upload
from tests.fakes.host import FakeEndpoint
from tests.fakes.scanner import finding

IOC = b'<?xml version="1.0"?><OpenIOC xmlns="http://openioc.org/schemas/OpenIOC_1.1" id="a"/>'
HASHES = b"d41d8cd98f00b204e9800998ecf8427e empty\n"


def uploaded(endpoint: FakeEndpoint, data: bytes = IOC, name: str = "apt.ioc") -> dict[str, Any]:
    """A file that came with the order."""
    upload = Upload(id=f"upl_{name[:3]}", name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    endpoint.uploads.content[upload.id] = data
    return upload.model_dump(mode="json")


async def scanned(endpoint: FakeEndpoint, **params: Any) -> Scanned:
    """The answer of a scan."""
    return await ioc_scan(endpoint.host, ioc_scan.parse(params))


async def test_it_scans_with_what_came_with_the_order_and_what_is_published() -> None:
    """Each file goes to the scanner with its kind, told by its content, and its bytes."""
    endpoint = FakeEndpoint()
    endpoint.content.add("known", ContentKind.HASHES, **{"list.txt": HASHES})
    result = await scanned(endpoint, file=[uploaded(endpoint)], content=["known"])
    [scan] = endpoint.scanner.ordered
    assert [(one.kind, one.name) for one in scan.materials] == [("openioc", "apt.ioc"), ("hashes", "known/list.txt")]
    assert endpoint.scanner.read == {"apt.ioc": IOC, "known/list.txt": HASHES}
    assert scan.engines == {Engine.IOC, Engine.HASHES}
    assert [one.count for one in result.materials] == [1, 1]
    assert result.complete


async def test_findings_come_in_the_answer_and_as_one_detection() -> None:
    """What is found is told to the server once, with the objects and without the long branch."""
    endpoint = FakeEndpoint()
    endpoint.scanner.finds = [finding("/tmp/a"), finding("/tmp/b")]
    result = await scanned(endpoint, file=[uploaded(endpoint)])
    assert [one.objects[0].path for one in result.findings] == ["/tmp/a", "/tmp/b"]
    [(kind, detail)] = endpoint.detections.told
    assert (kind, detail["found"]) == ("ioc-found", 2)
    assert detail["findings"][0]["objects"][0]["path"] == "/tmp/a"


async def test_a_detection_is_not_told_again_after_a_crash() -> None:
    """The same task that runs again after the agent was killed keeps silent about what it has told."""
    endpoint = FakeEndpoint()
    endpoint.scanner.finds = [finding()]
    await scanned(endpoint, file=[uploaded(endpoint)])
    endpoint.journal.restart()
    await scanned(endpoint, file=[uploaded(endpoint)])
    assert len(endpoint.detections.told) == 1


async def test_too_many_findings_come_as_evidence() -> None:
    """No finding is lost: what does not fit into the answer is in the lines of the evidence, with all the others."""
    endpoint = FakeEndpoint()
    endpoint.evidence.part = 2**20
    endpoint.scanner.finds = [finding(f"/tmp/{n}") for n in range(INLINE_FINDINGS + 5)]
    result = await scanned(endpoint, file=[uploaded(endpoint)])
    assert (result.found, len(result.findings)) == (INLINE_FINDINGS + 5, INLINE_FINDINGS)
    [piece] = result.findings_evidence
    lines = [json.loads(one) for one in endpoint.evidence.kept[piece.id].splitlines()]
    assert [one["objects"][0]["path"] for one in lines] == [f"/tmp/{n}" for n in range(INLINE_FINDINGS + 5)]


async def test_what_was_skipped_is_counted_and_listed() -> None:
    """Nobody has to guess what a scan has not seen."""
    endpoint = FakeEndpoint()
    endpoint.scanner.skips = [Skip(name="/tmp/x", reason=SkipReason.TOO_LARGE, detail="3 GiB")]
    endpoint.scanner.tally = Tally(files=1, skipped={SkipReason.TOO_LARGE: 1, SkipReason.NETWORK: 7})
    result = await scanned(endpoint, file=[uploaded(endpoint)])
    assert {one.reason: one.count for one in result.skipped} == {"too-large": 1, "network": 7}
    assert result.skips == (Skip(name="/tmp/x", reason=SkipReason.TOO_LARGE, detail="3 GiB"),)


async def test_a_scanner_without_an_end_is_incomplete() -> None:
    """If the scanner never tells how it ended, nobody may read "nothing found" as "clean"."""
    endpoint = FakeEndpoint()
    endpoint.scanner.tally = Tally(complete=False, why_incomplete="the worker died five times")
    result = await scanned(endpoint, file=[uploaded(endpoint)])
    assert not result.complete
    assert "died" in result.why_incomplete


@pytest.mark.parametrize(
    ("params", "off"),
    [
        ({}, set()),
        ({"without": ["PortItem"]}, {"PortItem"}),
        ({"only": ["PortItem", "FileItem"]}, set(Document) - {Document.PORTS, Document.FILES}),
        ({"only": ["PortItem"], "without": ["PortItem"]}, set(Document)),
    ],
)
async def test_documents_can_be_switched_off(params: dict[str, Any], off: set[str]) -> None:
    """Each document has its switch, and no files are walked when theirs is off."""
    endpoint = FakeEndpoint()
    await scanned(endpoint, file=[uploaded(endpoint)], **params)
    [scan] = endpoint.scanner.ordered
    assert {one for one, on in scan.documents.items() if not on} == off
    assert (scan.files is None) == ("FileItem" in off)


async def test_paths_make_the_area_custom() -> None:
    """Whoever names paths means these paths."""
    endpoint = FakeEndpoint()
    await scanned(endpoint, file=[uploaded(endpoint)], path=["/srv"], exclude=["/srv/x/**"])
    [scan] = endpoint.scanner.ordered
    assert scan.files is not None
    assert (scan.files.area, scan.files.paths, scan.files.exclude) == (Area.CUSTOM, ("/srv",), ("/srv/x/**",))


@pytest.mark.parametrize("params", [{"area": "custom"}, {"area": "all", "path": ["/srv"]}])
async def test_area_and_paths_must_fit(params: dict[str, Any]) -> None:
    """A custom area without paths, or another one with paths, is a mistake that is told."""
    endpoint = FakeEndpoint()
    with pytest.raises(Invalid, match="area"):
        await scanned(endpoint, file=[uploaded(endpoint)], **params)


async def test_it_needs_indicators() -> None:
    """Without any, there is nothing to scan with."""
    with pytest.raises(Invalid, match="nothing to scan with"):
        await scanned(FakeEndpoint())


@pytest.mark.parametrize("data", [b"rule a { condition: true }", b"hello", b"\x7fELF"])
async def test_it_refuses_files_of_another_kind(data: bytes) -> None:
    """YARA rules are for another action, and anything else for none: told before anything is looked at."""
    endpoint = FakeEndpoint()
    with pytest.raises(Invalid, match="nothing that this scan can use"):
        await scanned(endpoint, file=[uploaded(endpoint, data)])
    assert not endpoint.scanner.ordered


async def test_content_that_is_not_there_is_named() -> None:
    """A name that is misspelt comes back with what there is."""
    endpoint = FakeEndpoint()
    endpoint.content.add("known", ContentKind.HASHES)
    with pytest.raises(NotFound) as caught:
        await scanned(endpoint, content=["knwon"])
    assert caught.value.expected == "known"


async def test_a_dry_run_says_where_it_would_look() -> None:
    """A plan names the material, the area and the documents, and scans nothing."""
    endpoint = FakeEndpoint()
    assert ioc_scan.plan is not None
    params = IocScan.model_validate({"file": [uploaded(endpoint)], "without": ["UserItem"]})
    endpoint.uploads.content.clear()  # nothing is uploaded for a dry run
    plan = await ioc_scan.plan(endpoint.host, params)
    told = [f"{one.what} {one.target}" for one in plan.steps]
    assert any(one.startswith("Use the uploaded file, once it is checked apt.ioc (") for one in told)
    assert "Look at files area all: every local file system" in told
    assert not [one for one in told if "UserItem" in one]
    assert not endpoint.scanner.ordered
    assert not plan.changes


async def test_progress_says_what_was_found_so_far() -> None:
    """People who wait see files, bytes and finds."""
    endpoint = FakeEndpoint()
    endpoint.scanner.finds = [finding()]
    await scanned(endpoint, file=[uploaded(endpoint)])
    done, total, unit, _text = endpoint.progress.told[0]
    assert (done, total, unit) == (1, 2, "files")
    assert endpoint.progress.told[-1][3].startswith("1 found")


async def test_places_of_files_that_are_not_looked_at_are_refused() -> None:
    """A path that would be ignored is no silent no."""
    endpoint = FakeEndpoint()
    params = {"file": [uploaded(endpoint)], "without": ["FileItem"], "path": ["/tmp"]}
    with pytest.raises(Invalid, match="No files are looked at") as caught:
        await ioc_scan(endpoint.host, IocScan.model_validate(params))
    assert caught.value.got == "--path /tmp without FileItem"
