"""The act of isolation holds what it sees against what must be."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from stanch.demo import act_isolated as module
from stanch.demo import scene as scenes
from stanch.demo.act_isolated import FOR_MINUTES, REASON, RENEWED_MINUTES, Isolated
from stanch.demo.report import NotSeen
from stanch.demo.scene import CLIENT, Reference
from tests.demo.acting import Witness, endpoint, heard, ordered, scene_of


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there soon does not come, and a moment is silence enough."""
    for one in (scenes, module):
        monkeypatch.setattr(one, "WAIT_SECONDS", 1.0)
        monkeypatch.setattr(one, "QUIET_SECONDS", 0.3)


def act(
    witness: Witness,
    *,
    until: timedelta = timedelta(minutes=RENEWED_MINUTES),
    why: str = REASON,
    reached: tuple[str, ...] = (),
    during: Callable[[], None] = lambda: None,
) -> Isolated:
    """The act on an endpoint that is told isolated so, reaches these addresses, and does this meanwhile."""
    now = datetime.now(UTC)
    told: dict[str, Any] = {"state": "isolated", "since": now.isoformat(), "until": (now + until).isoformat()}
    answers = {
        "isolate": [ordered("isolate", {"changed": True, "sockets_destroyed": 2})],
        "endpoint": [endpoint(isolation=told | {"by": "admin", "why": why, "allow": ["out tcp 192.0.2.1"]})],
    }

    def dialled(_port: int, *_addresses: str) -> tuple[str, ...]:
        during()
        return reached

    scene = scene_of(witness, answers=answers, reached=dialled, lab=SimpleNamespace())
    scene.plot.who = "admin"
    scene.plot.isolated = Reference(time.monotonic() - 5, time.monotonic() - 4)
    return Isolated(scene)


def asking() -> Witness:
    """An outside that hears the client, now and for a while."""
    witness = Witness()
    for kind in (*CLIENT, "shop"):
        heard(witness, kind, [time.monotonic() + number / 20 for number in range(1, 20)])
    return witness


def test_an_isolation_is_told_whole():
    """State, since, until, by whom and why are all in the evidence."""
    said = act(Witness(), until=timedelta(minutes=FOR_MINUTES)).isolate()
    assert f"by admin: {REASON}" in said
    assert "isolated since" in said


def test_an_isolation_without_its_reason_is_not_told_whole():
    """The server tells everything, or the chapter fails."""
    with pytest.raises(NotSeen, match="since, until, by and why"):
        act(Witness(), why="").isolate()


def test_an_exclusion_lets_the_client_through():
    """It is heard again, and nothing else is."""
    assert "0 beacons" in act(asking()).exclusion()


def test_an_exclusion_that_opens_nothing_is_none():
    """The client must be heard."""
    with pytest.raises(NotSeen, match="does not get through"):
        act(Witness()).exclusion()


@pytest.mark.parametrize("kind", ["tcp4", "udp6", "ping4", "other"])
def test_an_exclusion_that_lets_others_out_is_a_leak(kind: str):
    """One frame of anything else is too much."""
    witness = asking()
    with pytest.raises(NotSeen, match=kind):
        act(witness, during=lambda: heard(witness, kind, [time.monotonic()])).exclusion()


def test_an_exclusion_opens_one_port():
    """Another port of the same host must stay shut."""
    with pytest.raises(NotSeen, match="Another port"):
        act(asking(), reached=("203.0.113.80",)).exclusion()


def test_a_renewal_has_its_own_deadline():
    """That of the first order is over."""
    with pytest.raises(NotSeen, match="another deadline"):
        act(asking(), until=timedelta(minutes=FOR_MINUTES)).exclusion()


def test_without_the_exclusion_the_client_is_shut_out():
    """Once it is shut, its questions are a leak like any other."""
    assert "0 foreign frames" in act(Witness()).exclusion_ends()
    with pytest.raises(NotSeen, match="client4"):
        act(asking()).exclusion_ends()
