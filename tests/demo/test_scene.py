"""How the acts look at the outside and at the server."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.core.errors import Unavailable
from stanch.core.network import IsolationState
from stanch.demo import scene as module
from stanch.demo.report import NotSeen
from stanch.demo.scene import BEACONS, FORBIDDEN, SHOP, enough, in_words, ms, offset
from tests.demo.acting import Witness, detection, endpoint, heard, scene_of


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there now does not come."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)


@given(st.sampled_from(FORBIDDEN), st.floats(1, 100), st.floats(1, 100), st.floats(1, 100))
def test_silence_is_broken_by_each_forbidden_kind(kind: str, at: float, since: float, until: float):
    """Exactly when something of it was heard in the span, and it is not excluded."""
    witness = Witness()
    heard(witness, kind, [at])
    scene = scene_of(witness)
    scene.expect_silence(since, until=until, but=(kind,))
    if since <= at < until:
        with pytest.raises(NotSeen, match=kind):
            scene.expect_silence(since, until=until)
    else:
        scene.expect_silence(since, until=until)


def test_what_everybody_may_send_breaks_no_silence():
    """ARP and the server's frames are no leak; the shop's are, unless they are excluded."""
    witness = Witness()
    for kind in ("link", "server", *SHOP):
        heard(witness, kind, [5.0])
    scene_of(witness).expect_silence(1.0, but=SHOP)
    with pytest.raises(NotSeen):
        scene_of(witness).expect_silence(1.0)


def test_the_last_thing_heard_begins_the_silence(monkeypatch: pytest.MonkeyPatch):
    """It is the last of all kinds; with nothing heard it is the beginning; while something comes there is none."""
    witness = Witness()
    assert scene_of(witness).falls_silent(3.0) == 3.0
    heard(witness, "udp4", [4.0, 5.0])
    heard(witness, "ping6", [6.0])
    assert scene_of(witness).falls_silent(3.0) == 6.0
    monkeypatch.setattr(module, "QUIET_SECONDS", 1e9)
    with pytest.raises(NotSeen, match="fall silent"):
        scene_of(witness).falls_silent(3.0)


def test_a_flow_needs_every_kind():
    """One kind that stays away is not made up for by the others."""
    witness = Witness()
    for kind in BEACONS[1:]:
        heard(witness, kind, [1.0, 2.0, 3.0, 4.0])
    assert not scene_of(witness).flows(BEACONS, 0.0)
    assert scene_of(witness).flows(BEACONS[1:], 0.0)
    assert not enough(witness.seen(), BEACONS[1:], 5)


def test_the_state_is_what_the_server_tells():
    """The state that was asked for is returned; another one, or one without the repair that was asked for, is not."""
    told = {"state": "isolated", "by": "admin"}
    scene = scene_of(Witness(), answers={"endpoint": [endpoint(isolation=told)]})
    assert scene.told(IsolationState.ISOLATED).by == "admin"
    with pytest.raises(Unavailable):
        scene.told(IsolationState.RELEASED)
    with pytest.raises(Unavailable, match="after a repair"):
        scene.told(IsolationState.ISOLATED, repaired=True)
    tampered = {"at": "2026-11-24T12:00:00Z", "what": "gone", "who": "unknown", "repaired": True}
    repaired = endpoint(isolation={**told, "tampered": tampered})
    scene = scene_of(Witness(), answers={"endpoint": [repaired]})
    assert scene.told(IsolationState.ISOLATED, repaired=True).tampered is not None


def test_the_newest_detection_of_each_kind_is_found():
    """Of two the newer one; none that the server heard of earlier; and all kinds must be there."""
    listed = [detection("a", number=3), detection("b", number=2), detection("a", number=1)]
    scene = scene_of(Witness(), answers={"detections": [listed]})
    before = datetime.now(UTC) - timedelta(minutes=1)
    assert {kind: one.id for kind, one in scene.detected("a", "b", since=before).items()} == {"a": 3, "b": 2}
    with pytest.raises(NotSeen, match="not detected"):
        scene.detected("a", "c", since=before)
    with pytest.raises(NotSeen):
        scene.detected("a", since=datetime.now(UTC) + timedelta(minutes=1))


@pytest.mark.parametrize("online", [True, False])
def test_the_server_decides_whether_the_agent_is_online(*, online: bool):
    """What the agent's log says only sets the pace."""
    agent = type("Log", (), {"said": lambda _self: "link-up"})()
    scene = scene_of(
        Witness(), answers={"endpoint": [endpoint(online=online)]}, links=2 - online, program=lambda _name: agent
    )
    if online:
        assert scene.online(links=1, within=0.0).online
    else:
        with pytest.raises(Unavailable):
            scene.online(links=1, within=0.0)


def test_times_are_told_in_words():
    """Milliseconds, from something, before or after it; and lists as people say them."""
    assert (ms(1.0, 1.25), ms(1.0, None)) == ("250 ms", "never")
    assert (offset(2.0, 1.5), offset(2.0, 2.5)) == ("500 ms before it", "500 ms after it")
    assert (offset(2.0, None), in_words(["a"]), in_words([1, 2, 3])) == ("never", "a", "1, 2 and 3")
