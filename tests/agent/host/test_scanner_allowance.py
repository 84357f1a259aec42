"""How much a worker may say: an honest one is never stopped, one that talks for ever is."""

import json

import pytest

from stanch.agent.host.scanner_allowance import A_SECOND, AT_FIRST, SLACK, Allowance
from stanch.agent.host.scanner_hearing import LooksAt, Message, Wanted
from stanch.core.errors import ActionFailed
from stanch.core.scanning import Advance, Engine, Finding, Limits, Loaded, Object, Skip, SkipReason
from stanch.worker.scan.telling import EVERY, MAX_SKIPS
from tests.agent.host.scanner_bench import BEGIN, Bench, a_scan, finding, run

FOUND = Finding(engine=Engine.YARA, rule="evil", objects=(Object(document="FileItem", name="/x"),))
SKIPPED = Skip(name="/x", reason=SkipReason.GONE)


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def test_an_honest_worker_is_heard_to_its_end():
    """All skips and finds that are allowed, and for a day twice as many words as one at work says."""
    clock = Clock()
    allowance = Allowance(10_000, now=clock)
    for _ in range(100):
        allowance.take([FOUND] * 100)
    for _ in range(MAX_SKIPS // 100):
        allowance.take([SKIPPED] * 100)
    for _ in range(20_000):
        allowance.take([Loaded(name="r", kind="yara", count=1)])
    for _ in range(86_400):
        clock.at += 1
        allowance.take([Advance()] * round(2 / EVERY))


@pytest.mark.parametrize(
    "message", [[Advance()], [Advance()] * 100, LooksAt(("/x",)), Wanted({}, files=True)], ids=lambda one: str(one)[:20]
)
def test_one_that_only_talks_is_stopped(message: Message):
    """Messages and events that are neither finds nor skips are bounded by the time that it has had."""
    clock = Clock()
    allowance = Allowance(10, now=clock)
    clock.at = 10.0
    each = len(message) if isinstance(message, list) else 1 + len(getattr(message, "names", ()))
    for _ in range(round(AT_FIRST + 10 * A_SECOND) // each):
        allowance.take(message)
    with pytest.raises(ActionFailed, match="nonsense"):
        allowance.take(message)


def test_finds_and_skips_are_bounded_for_each_worker():
    """Those that an earlier worker has told already count, too: they cost the same."""
    for one, most in ((FOUND, 10 + SLACK), (SKIPPED, MAX_SKIPS + SLACK)):
        allowance = Allowance(10, now=Clock())
        allowance.take([one] * most)
        with pytest.raises(ActionFailed, match="nonsense"):
            allowance.take([one])


@pytest.mark.parametrize("event", [["advance", {"files": 1}], ["skip", {"name": "/x", "reason": "gone"}], finding()])
async def test_a_worker_that_floods_is_ended_and_told(tmp_path, event):
    """The scan ends with an error that says so, soon, and whoever floods is gone."""
    bench = Bench(tmp_path)
    line = json.dumps({"type": "events", "events": [event] * 100})
    scanner = bench.scanner([*BEGIN, ["all", None], ["flood", line]])
    with pytest.raises(ActionFailed) as error:
        await run(scanner, a_scan(limits=Limits(findings=100)))
    assert error.value.got in {
        "more words than there is to tell",
        "more skips than it tells",
        "more findings than it may have",
    }
    assert scanner.running() == ()
