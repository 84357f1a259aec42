"""The observer must see a leak that is really there, and no other."""

import ast
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stanch.demo.program import wait_until
from tests.torture import lab as places
from tests.torture.lab import Lab
from tests.torture.world import Asked, plan_of_traffic

HERE = Path(__file__).parent
SHUT = """
table netdev shut {
    chain leaving { type filter hook egress device eth0 priority 0; policy drop; }
}
"""
KINDS = ("udp", "tcp", "icmp")


@pytest.fixture
def watched() -> Iterator[tuple[Lab, Asked]]:
    """A lab without any agent, in which everybody talks, and its observer."""
    with ExitStack() as stack:
        lab = Lab.made(stack)
        observer = Asked(lab.outside.fd, "observer")
        stack.callback(observer.close)
        plan, kept = plan_of_traffic(lab)
        traffic = Asked(lab.outside.fd, "traffic", json.dumps(plan), keep=kept)
        stack.callback(traffic.close)
        yield lab, observer


def streams() -> list[str]:
    """Everybody who talks to where nobody may."""
    sources = (places.HOST, places.CONTAINER, places.MACVLAN)
    ends = [(one[family], places.EVIL[family]) for one in sources for family in (0, 1)]
    return [*(f"{one} {kind} {evil}" for one, evil in ends for kind in KINDS), "raw 0x88b5"]


def all_seen(observer: Asked, since: float) -> bool:
    """Was something seen of everybody?"""
    found = observer.ask(ask="seen", since=since)["streams"]
    return all(found.get(one) for one in streams())


def leaks(observer: Asked, since: float, until: float) -> list[str]:
    """What the observer says if all of it was forbidden then."""
    found = observer.ask(ask="judge", spans=[{"since": since, "until": until}], windows=[])
    assert found["lost"] == 0
    return [one["frame"] for one in found["leaks"]]


@pytest.mark.root
def test_it_sees_everybody_who_gets_out_and_nobody_who_does_not(watched: tuple[Lab, Asked]):
    """Open, shut by hand, and opened again behind everybody's back: leaks are found exactly while it is open."""
    lab, observer = watched
    begin = time.monotonic()
    assert wait_until(lambda: all_seen(observer, begin), within=20)
    assert leaks(observer, begin, time.monotonic())
    lab.endpoint.command("nft -f -", stdin=SHUT)
    shut = time.monotonic()
    time.sleep(0.5)  # sleep: that nothing is seen takes a while to tell
    opened = time.monotonic()
    lab.endpoint.command("nft delete table netdev shut")
    hole = time.monotonic()
    assert wait_until(lambda: all_seen(observer, hole), within=20)
    assert leaks(observer, shut, opened) == []
    assert leaks(observer, hole, time.monotonic())


def test_it_shares_no_code_with_what_it_judges():
    """Observer, verdict, frames and traffic import nothing of Stanch, nor anything that does."""
    for name in ("observer", "verdict", "frame", "traffic"):
        tree = ast.parse((HERE / f"{name}.py").read_text())
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported += [one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names]
        foreign = [one for one in imported if one.startswith("stanch")]
        ours = [one for one in imported if one.startswith("tests") and one.split(".")[-1] not in {"verdict", "frame"}]
        assert (foreign, ours) == ([], []), name
