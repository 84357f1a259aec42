"""Tests of stanch.core.scan_report: from the scanner's events to an answer."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from stanch.actions import load
from stanch.core import scan_report
from stanch.core.content import ContentKind
from stanch.core.errors import ActionFailed
from stanch.core.scan_report import IN_DETECTION, Report, Scanned
from stanch.core.scanning import Advance, Event, Line, Loaded, Scan, Skip, SkipReason, Tally
from tests.fakes.host import FakeEndpoint
from tests.fakes.scanner import FakeScanner, finding


async def reported(endpoint: FakeEndpoint) -> Report:
    """A scan that is over."""
    report = Report(host=endpoint.host, detection="yara-found")
    await report.run(Scan())
    return report


async def test_the_answer_has_what_the_scanner_counted() -> None:
    """Files, bytes, processes, items and engines come from the tally."""
    endpoint = FakeEndpoint()
    endpoint.scanner.tally = Tally(files=9, remembered=4, bytes=7, processes=2, items={"PortItem": 3}, seconds=1.5)
    result = Scanned(**(await reported(endpoint)).told())
    assert (result.files, result.remembered, result.bytes, result.processes, result.seconds) == (9, 4, 7, 2, 1.5)
    assert [(one.document, one.count) for one in result.items] == [("PortItem", 3)]
    assert result.complete


async def test_what_could_not_be_confined_is_told() -> None:
    """A measure that is missing on this machine is in the answer; those in force are not."""
    endpoint = FakeEndpoint()
    endpoint.scanner.tally = Tally(confined={"landlock": "yes", "seccomp": "no filter"}, limited={"io": "not v2"})
    result = Scanned(**(await reported(endpoint)).told())
    assert result.unusual == ("seccomp: no filter", "io: not v2")


async def test_rows_that_nobody_can_keep_make_it_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond all bounds rows are counted, and the scan does not say that it is complete."""
    monkeypatch.setattr(scan_report, "MAX_PIECES", 1)
    endpoint = FakeEndpoint()
    endpoint.scanner.skips = [Skip(name="/x", reason=SkipReason.GONE)]
    result = Scanned(**(await reported(endpoint)).told())
    assert not result.complete
    assert "1 rows were too many" in result.why_incomplete
    assert [one.name for one in result.skips] == ["/x"]


async def test_large_rows_are_not_all_held() -> None:
    """Finds of many kilobytes: no more of them stay in memory than the answer can tell, and all are evidence."""
    endpoint = FakeEndpoint()
    large = finding("/tmp/x").model_copy(update={"title": "t" * 4000, "why": (Line(text="w" * 4000),) * 20})
    endpoint.scanner.finds = [large] * 300
    report = await reported(endpoint)
    result = Scanned(**report.told())
    assert len(result.findings) <= len(report.findings) < 20 + len(result.findings)
    assert (result.found, len(result.findings_evidence)) == (300, 3)


async def test_skips_are_counted_even_without_a_tally() -> None:
    """If the scanner ends without its numbers, what was seen of them counts."""
    endpoint = FakeEndpoint()
    endpoint.scanner.skips = [Skip(name="/x", reason=SkipReason.GONE)]
    endpoint.scanner.tally = Tally(complete=False, why_incomplete="died")
    result = Scanned(**(await reported(endpoint)).told())
    assert [(one.reason, one.count) for one in result.skipped] == [("gone", 1)]


@pytest.mark.parametrize(
    ("tally", "everywhere"),
    [
        (Tally(), True),
        (Tally(skipped={SkipReason.EXCLUDED: 2, SkipReason.TOO_LARGE: 1}), True),
        (Tally(skipped={SkipReason.UNREADABLE: 1}), False),
        (Tally(complete=False), False),
    ],
)
async def test_an_order_says_by_the_rule_of_a_scan_by_hand_whether_all_was_looked_at(
    tally: Tally,
    everywhere: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A boot sector that cannot be read does not pass for one that is clean."""
    endpoint = FakeEndpoint()
    endpoint.scanner.tally = tally
    result = Scanned(**(await reported(endpoint)).told())
    assert (result.looked_everywhere, result.complete) == (everywhere, tally.complete)


async def test_material_says_what_counts() -> None:
    """Each file of rules comes back with what was read of it."""
    endpoint = FakeEndpoint()
    report = await reported(endpoint)
    report.materials.append(Loaded(name="a.yar", kind=ContentKind.YARA, count=3))
    assert [one.count for one in Scanned(**report.told()).materials] == [3]


async def test_a_detection_is_bounded() -> None:
    """A rule that matches everywhere fills no detection: the first finds, without their strings, and the number."""
    endpoint = FakeEndpoint()
    endpoint.evidence.part = 2**20
    why = tuple(Line(text="x" * 4000) for _ in range(200))
    endpoint.scanner.finds = [finding(f"/{n}", rule="y" * 4000).model_copy(update={"why": why}) for n in range(50)]
    await reported(endpoint)
    [(_kind, detail)] = endpoint.detections.told
    assert detail["found"] == 50
    assert 0 < len(detail["findings"]) <= IN_DETECTION
    assert len(str(detail)) < 2 * scan_report.DETECTION_BYTES
    assert not [one for one in detail["findings"] if "why" in one]


async def test_nothing_found_tells_nothing() -> None:
    """No detection is made of a clean endpoint."""
    endpoint = FakeEndpoint()
    await reported(endpoint)
    assert not endpoint.detections.told


async def test_people_are_told_when_it_waits() -> None:
    """A scan that backs off says so, instead of standing still."""
    endpoint = FakeEndpoint()
    endpoint.scanner.advance = Advance(files=3, bytes=2**20, paused=True, why="on order", at="/x")
    await reported(endpoint)
    assert endpoint.progress.told == [(3, None, "files", "1MiB, paused at /x")]
    assert endpoint.progress.paused == "on order"


async def test_a_scan_that_is_cut_short_tells_its_finds() -> None:
    """Cancelled after hours, it has no answer: what it had found is told as a detection that says so."""
    endpoint = FakeEndpoint()
    report = Report(host=endpoint.host, detection="yara-found")

    async def breaks(_scan: Scan) -> AsyncGenerator[Sequence[Event], None]:
        yield [finding("/tmp/a")]
        raise asyncio.CancelledError

    endpoint.scanner.scan = breaks  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        await report.run(Scan())
    [(kind, detail)] = endpoint.detections.told
    assert (kind, detail["found"], detail["incomplete"]) == ("yara-found", 1, True)


async def test_finds_are_told_again_only_if_they_are_more() -> None:
    """A scan that goes on after the agent's end does not repeat itself, and does not keep back what is new."""
    endpoint = FakeEndpoint()
    endpoint.scanner.finds = [finding("/tmp/a")]
    await reported(endpoint)
    endpoint.journal.restart()
    await reported(endpoint)
    assert [detail["found"] for _, detail in endpoint.detections.told] == [1]
    endpoint.scanner.finds = [finding("/tmp/a"), finding("/tmp/b")]
    await reported(endpoint)
    assert [detail["found"] for _, detail in endpoint.detections.told] == [1, 2]


async def test_a_named_place_that_is_not_there_makes_it_incomplete() -> None:
    """A path with a typing error in it does not read as: all is well there."""
    endpoint = FakeEndpoint()
    endpoint.scanner.skips = [Skip(name="/var/wwww", reason=SkipReason.GONE), Skip(name="/x", reason=SkipReason.GONE)]
    report = Report(host=endpoint.host, detection="yara-found", named={"/var/wwww"})
    await report.run(Scan())
    result = Scanned(**report.told())
    assert not result.complete
    assert result.why_incomplete == "Not looked at: /var/wwww (gone)"


async def test_a_named_place_is_known_however_it_is_written() -> None:
    """The scanner tells a missing place by where its links lead: the order's own words are recognised all the same."""
    endpoint = FakeEndpoint()
    endpoint.files.content["/srv/there"] = b""
    endpoint.scanner.skips = [Skip(name="/data/www/x", reason=SkipReason.GONE)]
    report = Report(host=endpoint.host, detection="yara-found", named=("/srv/www/x/", "/srv/there"))
    await report.run(Scan())
    assert Scanned(**report.told()).why_incomplete == "Not looked at: /srv/www/x/ (gone)"


async def test_a_named_process_that_does_not_run_makes_it_incomplete() -> None:
    """The same of a process that is named, and of which there is none."""
    endpoint = FakeEndpoint()
    report = Report(host=endpoint.host, detection="yara-found")
    await report.run(Scan(memory=True, names=("sshdd",)))
    assert Scanned(**report.told()).why_incomplete == "Not looked at: no process is called sshdd"


@pytest.mark.parametrize("error", [ActionFailed("it died"), asyncio.CancelledError()])
async def test_a_scan_that_is_cut_short_keeps_what_it_found(error: BaseException) -> None:
    """Whatever ends it: its finds are told as the result of the task, which says that it is not complete."""
    endpoint = FakeEndpoint()

    class Dies(FakeScanner):
        async def scan(self, scan: Scan) -> AsyncGenerator[Sequence[Event], None]:
            yield [Advance(files=7, bytes=70)]
            yield [finding("/evil")]
            raise error

    endpoint.scanner = Dies()
    with pytest.raises(type(error)):
        await reported(endpoint)
    kept = endpoint.journal.partial
    assert isinstance(kept, Scanned)
    assert (kept.found, kept.files, kept.bytes, kept.complete) == (1, 7, 70, False)
    assert "did not come to its end" in kept.why_incomplete


def test_what_is_new_inside_a_row_is_left_out() -> None:
    """Of closed models too, which a result holds."""
    raw = {"found": 0, "complete": True, "skipped": [{"reason": "gone", "count": 1, "newer": 2}], "newer": []}
    parsed = load().find("yara_scan").parse_result(raw)
    assert [(one.reason, one.count) for one in parsed.skipped] == [("gone", 1)]
