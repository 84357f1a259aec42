"""The order of the chapters."""

from collections.abc import Callable

from stanch.demo.report import Report
from stanch.demo.story import Story
from tests.demo.acting import Witness, scene_of


def chapters() -> dict[str, Callable[[], str]]:
    """Name to chapter, in order; no name twice."""
    told = list(Story(scene_of(Witness()).stage, Report(as_json=True)).chapters())
    assert len(dict(told)) == len(told)
    return dict(told)


def test_every_chapter_says_what_it_shows():
    """Each has its one sentence."""
    assert [name for name, do in chapters().items() if not (do.__doc__ or "").rstrip().endswith(".")] == []


def test_the_attack_lives_while_the_isolation_is_tried():
    """Silence means something only while the attack runs: exclusions and tampering come before its end."""
    order = list(chapters())
    ends = order.index("kill-tree")
    tried = [order.index(one) for one in ("exclusion", "exclusion-ends", "tamper-running-agent", "tamper-killed-agent")]
    assert tried == sorted(tried)
    assert order.index("isolate") < min(tried)
    assert max(tried) < ends < order.index("release") < order.index("release-code") < order.index("server-outage")
    assert order[-1] == "orders-tell-all"
